"""Forks wait for what they must not interrupt: modules that are being imported, code that is being compiled.

A forked child has one thread and every lock as it was: one that another thread held, a module's own or LLVM's, is
never released there.  So a statement that imports when something is first needed stands ``with forks.held_off:``, and
a fork in another thread takes place before or after it.

A module that registers functions to run at forks, while a fork waits here, has those run that come after it, but not
those that come before it.  Two of Python's own do so, and engines import them: they are imported here.

Whoever holds the lock must not wait for other threads of this package, which may need it.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (as said above)
import logging  # noqa: F401
import os
import threading

#: Held while no fork may take place; the thread that holds it may fork.
held_off = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=held_off.acquire, after_in_parent=held_off.release, after_in_child=held_off.release)


class cached_property:
    """An attribute that is computed when first asked for, like `functools.cached_property` of Python 3.12 on.

    Before, that holds a lock for all instances while it computes, and a forked child may wait for it forever.
    """

    def __init__(self, compute):
        self._compute, self._name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
