"""The plans of all layers and functions: the least recently used go first, bounded in bytes together.

A layer finds its plans in a `Store` of its own, a dictionary, so a call with a shape seen before meets nothing of
what is here.  `PlanCache` knows the stores and, where a new plan takes the sum over the limit, looks at the plans
in the order in which they were made: one that was called since it was last looked at goes to the end of the line, one
that was not is dropped ("second chance", A. Tanenbaum, Modern Operating Systems, §3.4).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from typing import NamedTuple

LIMIT_BYTES = 256 << 20
# What a plan counts as at least: Python objects, and generated code that no array holds.  So tiny plans are
# bounded in number, too: 4096 of them.
LEAST_BYTES = 64 << 10


class CacheInfo(NamedTuple):
    """What `cache_info` answers: calls that found a plan and that made one, plans kept, their bytes, the limit."""

    hits: int
    misses: int
    plans: int
    bytes: int
    limit: int


class Store(dict):
    """The plans of one layer by their keys: anything with `calls`, how often it computed, and `nbytes`.

    Attributes
    ----------
    ownerless : bool
        The program does not hold the layer, so that its last plan may go, too, and with it the layer.
    held : int
        Bytes beside the plans that go with the last of them.
    emptied : callable
        Called when the last plan was dropped.
    shortcut : callable or None
        Of the plan that computed last, see `convbench.engine.Plan`; none when a plan was dropped.
    """

    __slots__ = ("__weakref__", "_cache", "emptied", "held", "ownerless", "shortcut")

    def __init__(self, cache: PlanCache):
        super().__init__()
        self._cache, self.ownerless, self.held, self.emptied, self.shortcut = cache, False, 0, _nothing, None

    def __delitem__(self, key):
        self.shortcut = None
        super().__delitem__(key)

    def pop(self, key):
        """Take a plan out."""
        self.shortcut = None
        return super().pop(key)

    def clear(self):
        """Drop every plan."""
        self.shortcut = None
        super().clear()

    def __del__(self):
        self._cache.gone.append(sum(plan.calls for plan in self.values()))


class _Entry:
    """One plan in the line: where it is found, what it counts as, and its calls when it was last looked at.

    The call that made it is no use of it.
    """

    __slots__ = ("bytes", "key", "seen", "store")

    def __init__(self, store, key, size):
        self.store, self.key, self.bytes, self.seen = weakref.ref(store), key, size, 1

    def found(self):
        """The store and the plan, or two None where either is gone."""
        store = self.store()
        plan = None if store is None else store.get(self.key)
        return (None, None) if plan is None else (store, plan)


class PlanCache:
    """The line of all plans.  Everything here runs when a plan is made, never when one is called."""

    def __init__(self, limit: int = LIMIT_BYTES):
        self.limit = limit
        self.gone: deque[int] = deque()  # calls of the plans of stores that no longer exist; `__del__` takes no lock
        self._reset()

    def _reset(self):
        self._lock = threading.Lock()
        self._line: OrderedDict[int, _Entry] = OrderedDict()
        self._bytes = self._past_calls = self._misses = self._number = 0
        self.gone.clear()

    def keep(self, store: Store, key, plan) -> None:
        """Put a new plan into its store, and drop what has not been used for longest where they are too many."""
        with self._lock:
            self._misses += 1
            if key in store:  # another thread was quicker
                self._drop(store, key)
            store[key] = plan
            self._append(_Entry(store, key, self._size(store, plan)))
            emptied = self._trim(plan) if self._bytes > self.limit else []
        for tell in emptied:  # without the lock: the owner may have one of its own
            tell()

    def recount(self, store: Store, key) -> None:
        """Count a plan's bytes again, which have changed."""
        with self._lock:
            entry = self._line.get(self._place(store, key))
            if entry is not None:
                self._bytes -= entry.bytes
                entry.bytes = self._size(store, store[key])
                self._bytes += entry.bytes

    def info(self) -> CacheInfo:
        """Counts since the start or the last `clear`."""
        with self._lock:
            self._forget_gone()
            calls = self._past_calls + sum(plan.calls for _, plan in self._living())
            return CacheInfo(max(0, calls - self._misses), self._misses, len(self._line), self._bytes, self.limit)

    def clear(self) -> None:
        """Drop every plan, and begin to count anew."""
        with self._lock:
            emptied = [store.emptied for store, _ in self._living()]
            for store in [store for store, _ in self._living()]:
                store.clear()
            self._line.clear()
            self._bytes = self._past_calls = self._misses = 0
            self.gone.clear()
        for tell in emptied:
            tell()

    def after_fork(self) -> None:
        """In a child: another thread may have held the lock, and no plan of the parent's is used any more."""
        self._reset()

    def _living(self):
        found = [entry.found() for entry in self._line.values()]
        return [(store, plan) for store, plan in found if plan is not None]

    def _append(self, entry):
        self._number += 1
        self._line[self._number] = entry
        self._bytes += entry.bytes

    def _place(self, store, key):
        """The number of a plan's entry, None where it has none."""
        return next((n for n, e in self._line.items() if e.key == key and e.store() is store), None)

    def _drop(self, store, key):
        self._past_calls += store.pop(key).calls
        place = self._place(store, key)
        if place is not None:
            self._bytes -= self._line.pop(place).bytes

    def _trim(self, newest):
        """Drop plans until the rest is within the limit or may not go; what is to be told to their owners."""
        self._forget_gone()
        emptied = []
        for _ in range(2 * len(self._line)):  # once round for the second chance, once to drop
            if self._bytes <= self.limit:
                break
            entry = self._line.pop(next(iter(self._line)))
            self._bytes -= entry.bytes
            store, plan = entry.found()
            if plan is None:
                continue
            if plan is newest or plan.calls != entry.seen or (len(store) == 1 and not store.ownerless):
                entry.seen = plan.calls
                self._append(entry)
                continue
            self._past_calls += plan.calls
            del store[entry.key]
            if not store:
                emptied.append(store.emptied)
        return emptied

    def _forget_gone(self):
        while self.gone:
            self._past_calls += self.gone.popleft()
        for number, entry in list(self._line.items()):
            if entry.found()[1] is None:
                self._bytes -= self._line.pop(number).bytes

    @staticmethod
    def _size(store, plan):
        return max(LEAST_BYTES, plan.nbytes) + store.held


def _nothing() -> None:
    return None


cache = PlanCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cache.after_fork)


def cache_info() -> CacheInfo:
    """How the plans of all layers and functions fare.

    Returns
    -------
    CacheInfo
        ``hits`` and ``misses``: calls of a layer or a function whose plan was there, and those that made one;
        ``plans`` that are kept, the ``bytes`` they count as, and their ``limit``.

    Examples
    --------
    >>> convbench.cache_info()
    CacheInfo(hits=7, misses=2, plans=2, bytes=1048576, limit=268435456)
    """
    return cache.info()


def set_cache_limit(limit: int) -> None:
    """Set how many bytes the plans of all layers and functions may hold together; 256 MiB by default.

    It takes effect when the next plan is made.  The newest plan stays whatever its size, and so does the last
    one of every layer that the program holds.

    Parameters
    ----------
    limit : int
        At least 0.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit {limit!r} is a {type(limit).__name__}; a whole number of at least 0 is accepted")
    if limit < 0:
        raise ValueError(f"limit {limit} is not accepted; a whole number of at least 0 is")
    cache.limit = limit
