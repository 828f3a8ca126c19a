"""What a program sets once: threads, the engine that ``engine="auto"`` means, and how hard engines plan."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from convbench import registry
from convbench.machine import usable_cores
from convbench.spec import per_dimension

AUTO = "auto"
#: How hard an engine may look for a fast plan, least first: FFTW's names for it.
EFFORTS = ("estimate", "measure", "patient")

_threads: int | None = None
_changes = 0
_default_engine = AUTO
_scoped_engine: ContextVar[str | None] = ContextVar("convbench_engine", default=None)
_effort: str | None = None
_scoped_effort: ContextVar[str] = ContextVar("convbench_planning_effort", default="measure")


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

    Another number of threads, another planning effort, another set of engines, or a forked child,
    whose locks and threads are not its parent's.
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


def planning_effort() -> str:
    """How hard an engine may look for a fast plan now: "estimate", "measure" or "patient".

    What `set_planning_effort` set, else what the judge does for the layer that is being planned: "measure" with
    ``tuning="measure"``, "estimate" with the others, which promise no latency.  A plan that is made outside of
    a layer, to be timed or compared, gets "measure".
    """
    return _effort or _scoped_effort.get()


def set_planning_effort(effort: str) -> None:
    """Set how hard engines look for fast plans from now on; plans made before are made anew.

    Only `fft`'s transforms by FFTW have a choice (complex and extended precision, and volumes).

    Parameters
    ----------
    effort : {"auto", "estimate", "measure", "patient"}
        FFTW's ``ESTIMATE`` picks by a model, or takes what was measured before and is kept with the records;
        ``MEASURE`` times ways to compute a transform, for at most a quarter of a second each; ``PATIENT`` times
        more of them, for at most five seconds each.  "auto", which holds at first, gives the choice back to ``tuning``.

    Raises
    ------
    ValueError
        Another effort; the message has those that are accepted.
    """
    global _effort, _changes
    if effort not in (AUTO, *EFFORTS):
        raise ValueError(f"planning effort {effort!r} is unknown; accepted are {', '.join((AUTO, *EFFORTS))}")
    _effort = None if effort == AUTO else effort
    _changes += 1


@contextmanager
def planning_for(tuning: str):
    """Within the block plans are made for a layer whose judge works in mode `tuning`."""
    token = _scoped_effort.set("measure" if tuning == "measure" else "estimate")
    try:
        yield
    finally:
        _scoped_effort.reset(token)


def _check(name):
    if name != AUTO:
        registry.get(name)
