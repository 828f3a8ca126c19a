"""What a program sets once: threads, the engine that ``engine="auto"`` means and how it is chosen, planning effort."""

from __future__ import annotations

import math
import numbers
import os
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import c_int64
from dataclasses import dataclass
from functools import cache

from convbench import registry
from convbench.machine import usable_cores
from convbench.spec import per_dimension

AUTO = "auto"
TUNING_SECONDS = 1.0  # what a first call in mode "measure" may take, all candidates together
#: How hard an engine may look for a fast plan, least first: FFTW's names for it.
EFFORTS = ("estimate", "measure", "patient")

_threads: int | None = None
#: How many changes ended what plans and choices were made for, see `epoch`; generated code reads it, too.
CHANGES = c_int64(0)
_default_engine = AUTO
_deterministic = False
_tuning_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Scope:
    """What holds within a block: None where the process' own setting does.  Equal scopes are one object."""

    engine: str | None = None
    deterministic: bool | None = None


@cache
def _scope_of(engine, deterministic):
    return Scope(engine, deterministic)


_scope: ContextVar[Scope] = ContextVar("convbench_scope", default=_scope_of(None, None))  # noqa: B039 (immutable)

#: The `Scope` that holds here, a part of every key by which plans and choices are found again.
scope = _scope.get
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
    global _threads
    _threads = per_dimension("threads", threads, 1, 1)[0]
    _begin_epoch()


def shares_threads() -> bool:
    """Whether engines may compute on PyTorch's threads, where it has some: not with ``CONVBENCH_SHARE_THREADS=0``."""
    given = os.environ.get("CONVBENCH_SHARE_THREADS", "1")
    if given not in ("0", "1"):
        raise ValueError(f"CONVBENCH_SHARE_THREADS is {given!r}; 0 or 1 is accepted")
    return given == "1"


def epoch() -> int:
    """A number that changes whenever plans and choices made before no longer hold.

    Another number of threads, another planning effort, another set of engines, another default, or a forked child,
    whose locks and threads are not its parent's.
    """
    return CHANGES.value


def _begin_epoch():
    CHANGES.value += 1


registry.when_changed(_begin_epoch)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_epoch)


def default_engine() -> str:
    """The engine that ``engine="auto"`` stands for here: a name, or "auto" for the judge's choice."""
    return scope().engine or _default_engine


def set_default_engine(name: str) -> None:
    """Make every ``engine="auto"`` of this process mean `name`; "auto" gives the choice back to the judge."""
    global _default_engine
    _check(name)
    if name != _default_engine:
        _default_engine = name
        _begin_epoch()


@contextmanager
def use_engine(name: str):
    """Within the block, in this thread or task, ``engine="auto"`` means `name`.

    Examples
    --------
    >>> with convbench.use_engine("fft"):
    ...     y = convbench.conv2d(x, w)
    """
    _check(name)
    with _within(_scope_of(name, scope().deterministic)):
        yield


def is_deterministic() -> bool:
    """Whether choices here are the same on every machine, see `deterministic`."""
    scoped = scope().deterministic
    return _deterministic if scoped is None else scoped


def set_deterministic(on: bool) -> None:
    """Make `deterministic` hold for the whole process, or no longer."""
    global _deterministic
    if _checked_switch(on) != _deterministic:
        _deterministic = on
        _begin_epoch()


@contextmanager
def deterministic(on: bool = True):
    """Within the block, in this thread or task, the same program picks the same engines on every machine.

    Whatever was measured: the choice comes from the pinned records that the application ships
    (``CONVBENCH_SHIPPED_RECORDS``), which hold on every machine, or else from the engines' predictions for one
    fixed machine that stands for all.  Nothing is timed; records of this machine count for nothing.  The modes
    "measure" and "incremental" do what "estimate" does; "replay" accepts pinned records only.

    Parameters
    ----------
    on : bool, default True
        False gives a block within the block the usual choice back.

    Notes
    -----
    Which engines can compute a problem, what workspace they need and what bound they keep is still asked of
    this machine: an engine that does not run here is not chosen.  The same engine need not give the same bits
    on another processor, nor with another number of threads.

    Examples
    --------
    >>> with convbench.deterministic():
    ...     y = convbench.conv2d(x, w)
    """
    with _within(_scope_of(scope().engine, _checked_switch(on))):
        yield


@contextmanager
def _within(inner):
    token = _scope.set(inner)
    try:
        yield
    finally:
        _scope.reset(token)


def get_tuning_seconds() -> float:
    """What a first call in mode "measure" may take.

    What `set_tuning_seconds` set, else ``CONVBENCH_TUNING_SECONDS``, else 1.
    """
    return _tuning_seconds if _tuning_seconds is not None else _tuning_seconds_from_environment()


@cache
def _tuning_seconds_from_environment():
    given = os.environ.get("CONVBENCH_TUNING_SECONDS", "")
    if not given:
        return TUNING_SECONDS
    try:
        return _checked_seconds(float(given))
    except ValueError:
        raise ValueError(f"CONVBENCH_TUNING_SECONDS is {given!r}; a finite number of at least 0 is accepted") from None


def set_tuning_seconds(seconds: float) -> None:
    """Set the time limit of mode "measure", for choices that are not made yet.

    Parameters
    ----------
    seconds : float
        Of a problem's first call, all candidates together: planning, rests and timed calls.  It is kept but
        for what has begun by then: one candidate's planning, and one run.  At least one candidate, the fastest by
        prediction, is run once even with 0.
    """
    global _tuning_seconds
    _tuning_seconds = _checked_seconds(seconds)


def _checked_seconds(seconds):
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(f"seconds {seconds!r} is a {type(seconds).__name__}; a number of at least 0 is accepted")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds {seconds!r} is not accepted; a finite number of at least 0 is")
    return float(seconds)


def _checked_switch(on):
    if not isinstance(on, bool):
        raise TypeError(f"on {on!r} is a {type(on).__name__}; True or False is accepted")
    return on


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
    global _effort
    if effort not in (AUTO, *EFFORTS):
        raise ValueError(f"planning effort {effort!r} is unknown; accepted are {', '.join((AUTO, *EFFORTS))}")
    _effort = None if effort == AUTO else effort
    _begin_epoch()


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
