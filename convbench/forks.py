"""Forks wait for what they must not interrupt: modules that are being imported, and code that is being compiled.

A forked child has one thread and every lock as it was: one that another thread held, a module's own or LLVM's, is
never released there.  So a statement that imports when something is first needed stands ``with forks.held_off:``, and
a fork in another thread takes place before or after it.

Whoever holds the lock must not wait for other threads of this package, which may need it.
"""

from __future__ import annotations

import os
import threading

#: Held while no fork may take place; the thread that holds it may fork.
held_off = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=held_off.acquire, after_in_parent=held_off.release, after_in_child=held_off.release)
