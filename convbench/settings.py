"""What a program sets once: threads, and the engine that ``engine="auto"`` means."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from convbench import registry
from convbench.machine import usable_cores
from convbench.spec import per_dimension

AUTO = "auto"

_threads: int | None = None
_changes = 0
_default_engine = AUTO
_scoped_engine: ContextVar[str | None] = ContextVar("convbench_engine", default=None)


def get_num_threads() -> int:
    """Threads an engine may use.

    What `set_num_threads` set, else ``CONVBENCH_NUM_THREADS``, else ``OMP_NUM_THREADS`` (which
    joblib and Dask set in their workers), else every usable core.
    """
    return _threads if _threads is not None else _threads_from_environment()


@cache
def _threads_from_environment():
    given = os.environ.get("CONVBENCH_NUM_THREADS", "")
    if given and not (given.isdigit() and int(given)):
        raise ValueError(f"CONVBENCH_NUM_THREADS is {given!r}; a whole number of at least 1 is accepted")
    shared = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if given:
        return int(given)
    return max(1, int(shared)) if shared.isdigit() else usable_cores()


def set_num_threads(threads: int) -> None:
    """Set how many threads engines use from now on, in plans made from now on.

    Parameters
    ----------
    threads : int
        At least 1.  NumPy's BLAS, which `im2col` uses, has its own setting
        (``OPENBLAS_NUM_THREADS``, or threadpoolctl).
    """
    global _threads, _changes
    _threads = per_dimension("threads", threads, 1, 1)[0]
    _changes += 1


def epoch() -> int:
    """A number that changes whenever plans and choices made before no longer hold.

    Another number of threads, another set of engines, or a forked child, whose locks and threads
    are not its parent's.
    """
    return _changes + registry.generation()


def _after_fork():
    global _changes
    _changes += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_engine() -> str:
    """The engine that ``engine="auto"`` stands for here: a name, or "auto" for the judge's choice."""
    return _scoped_engine.get() or _default_engine


def set_default_engine(name: str) -> None:
    """Make every ``engine="auto"`` of this process mean `name`; "auto" gives the choice back to the judge."""
    global _default_engine
    _check(name)
    _default_engine = name


@contextmanager
def use_engine(name: str):
    """Within the block, in this thread or task, ``engine="auto"`` means `name`.

    Examples
    --------
    >>> with convbench.use_engine("fft"):
    ...     y = convbench.conv2d(x, w)
    """
    _check(name)
    token = _scoped_engine.set(name)
    try:
        yield
    finally:
        _scoped_engine.reset(token)


def _check(name):
    if name != AUTO:
        registry.get(name)
