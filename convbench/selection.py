"""The judge: filter, predict, measure, remember.

In every mode, before anything is timed, an engine is refused that cannot compute the problem,
would round integers, has an error bound over `rtol`, needs a workspace over the cap, or does not
keep the promises of ``engine="auto"`` (determinism, NaN and Inf only where they belong).  Among
the rest the choice comes from, in this order: the engine named by the caller, this process'
memory, the user's record, a shipped record, the prediction.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from convbench import display, planning, records, registry, settings
from convbench.data import empty, sample
from convbench.engine import Engine
from convbench.machine import this_machine
from convbench.spec import ConvSpec
from convbench.timing import Timing, fastest, interleaved

TUNINGS = ("estimate", "measure", "replay")
MEASURE_SECONDS = 1.0  # what the first call in mode "measure" may take, all candidates together
HOPELESS = 20.0  # a candidate predicted this many times slower than the best is not timed ...
CHEAP_SECONDS = 0.02  # ... unless one call is predicted to take less than this
REMEMBERED = 4096  # choices kept in the process before the oldest go

_chosen: dict[tuple, Selection] = {}


class NoRecordError(LookupError):
    """Mode "replay" found no record to replay."""


@dataclass(frozen=True)
class Candidate:
    """One engine's part in a selection.

    Attributes
    ----------
    engine : str
    refused : str or None
        Why it takes no part, as a sentence.
    predicted : float or None
        Seconds by its model; None where it can't compute the problem.
    measured : Timing or None
    workspace_bytes : int or None
    error_bound : float or None
        A priori, in the engine's `error_measure`.
    error : float or None
        Measured against the reference, in the same measure, where a record has it.
    """

    engine: str
    refused: str | None = None
    predicted: float | None = None
    measured: Timing | None = None
    workspace_bytes: int | None = None
    error_bound: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Selection:
    """The judge's answer: ``print(selection)`` shows every engine and the reasons.

    Attributes
    ----------
    spec : ConvSpec
    engine : str
        The chosen engine.
    source : str
        "pinned", "record", "shipped record", "measurement", "model", or "nothing to compute".
    candidates : tuple of Candidate
        Every engine of the registry, the fastest first, the refused last.
    """

    spec: ConvSpec
    engine: str
    source: str
    candidates: tuple[Candidate, ...]

    @property
    def regret(self) -> float | None:
        """Time of the chosen engine / time of the best, as measured; None where it was not."""
        measured = {c.engine: c.measured.median for c in self.candidates if c.measured and c.refused is None}
        return measured[self.engine] / min(measured.values()) if self.engine in measured else None

    def __str__(self):
        rows = [_row(candidate, candidate.engine == self.engine) for candidate in self.candidates]
        header = ("engine", "predicted", "measured", "workspace", "error", "")
        regret = "" if self.regret is None else f", regret {self.regret:.2f}"
        threads = settings.get_num_threads()
        return f"{self.spec}: {self.engine} ({self.source}{regret}; threads {threads})\n{display.table(header, rows)}"


def _row(candidate, chosen):
    known = candidate.predicted is not None
    error = "-"
    if candidate.error is not None:
        error = f"{candidate.error:.1e}"
    elif candidate.error_bound is not None:
        error = f"≤ {candidate.error_bound:.1e}"
    return (
        candidate.engine,
        display.seconds(candidate.predicted) if known else "-",
        display.seconds(candidate.measured.median) if candidate.measured else "-",
        display.size(candidate.workspace_bytes) if known else "-",
        error,
        candidate.refused or ("<- chosen" if chosen else ""),
    )


def select(
    spec: ConvSpec,
    tuning: str = "estimate",
    *,
    engine: str = settings.AUTO,
    rtol: float | None = None,
    max_workspace: int | None = None,
    weight: np.ndarray | None = None,
) -> Selection:
    """Choose the engine for a problem.

    Parameters
    ----------
    spec : ConvSpec
    tuning : {"estimate", "measure", "replay"}
        ``estimate`` takes a record where there is one, else the prediction, and never times
        anything.  ``measure`` times what no record has, once, for about a second, and records
        it.  ``replay`` takes records only.
    engine : str, default "auto"
        A name pins the engine; it still has to pass the filter.
    rtol : float, optional
        The largest a-priori error bound accepted, relative to ``|x| ∗ |w|`` (see
        `Engine.error_measure`).
    max_workspace : int, optional
        The most bytes a plan may need beside input, weight and output.
    weight : ndarray, optional
        Of ``spec.weight_shape``: lets engines say what they do with this very weight (`Engine.for_weight`).

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        A bad argument, or no engine is left; the message says why each was refused.
    NoRecordError
        ``tuning="replay"`` and nothing is recorded for an engine that passes the filter.
    """
    check_limits(tuning, rtol, max_workspace)
    if not isinstance(spec, ConvSpec):
        raise TypeError(f"spec is a {type(spec).__name__}; a ConvSpec is accepted (ConvSpec.parse reads a text)")
    if not isinstance(engine, str):
        registry.get(engine)  # refuses it with the names there are
    name = settings.default_engine() if engine == settings.AUTO else engine
    engines = registry.engines()
    if weight is not None:
        engines = {other: planning.for_weight(known, spec, weight, rtol) for other, known in engines.items()}
    special = tuple((e.variant, e.error_bound(spec)) for e in engines.values() if e.variant)
    key = (spec, tuning, name, rtol, max_workspace, special, settings.epoch())
    found = _chosen.get(key)
    if found is None:
        found = _select(spec, tuning, name, rtol, max_workspace, engines, weight)
        if len(_chosen) >= REMEMBERED:
            _chosen.pop(next(iter(_chosen)), None)
        _chosen[key] = found
    return found


def forget() -> None:
    """Forget this process' choices, so that records made meanwhile by others count."""
    _chosen.clear()


def check_limits(tuning, rtol, max_workspace) -> None:
    """Refuse bad judge arguments, with what would be accepted."""
    if tuning not in TUNINGS:
        raise ValueError(f"tuning {tuning!r} is unknown; accepted are {', '.join(TUNINGS)}")
    for name, value, kind in (("rtol", rtol, numbers.Real), ("max_workspace", max_workspace, numbers.Integral)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(f"{name} {value!r} is a {type(value).__name__}; a number of at least 0 or None is accepted")
        if not value >= 0 or math.isinf(value):
            raise ValueError(f"{name} {value!r} is not accepted; a finite number of at least 0, or None, is")


def _select(spec, tuning, name, rtol, max_workspace, engines, weight) -> Selection:
    if name != settings.AUTO:
        registry.get(name)
    if spec.is_empty:
        name = next(iter(engines)) if name == settings.AUTO else name
        return Selection(spec, name, "nothing to compute", ())
    judge = partial(_filtered, spec, rtol=rtol, max_workspace=max_workspace, pinned=name)
    candidates = {other: judge(engine) for other, engine in engines.items()}
    able = [other for other, candidate in candidates.items() if candidate.refused is None]
    if name != settings.AUTO:
        if name not in able:
            raise ValueError(f"engine {name!r} is refused for {spec}: {candidates[name].refused}")
        return _selection(spec, name, "pinned", _with_record(candidates, records.load(spec), engines))
    if not able:
        reasons = "; ".join(f"{other}: {candidate.refused}" for other, candidate in candidates.items())
        raise ValueError(f"no engine is left for {spec}: {reasons}")
    record = records.load(spec)
    candidates = _with_record(candidates, record, engines)
    measured = {other: candidates[other].measured for other in able if candidates[other].measured}
    if tuning == "measure":
        return _measured(spec, candidates, able, measured, record, engines, weight)
    if measured:
        return _recorded(spec, measured, record, candidates, engines)
    if tuning == "replay":
        raise NoRecordError(
            f"nothing is recorded for {spec} in {records.directory()}; run 'convbench bench --problem \"{spec}\"' "
            "first, or use tuning='measure'"
        )
    best = min(able, key=lambda other: candidates[other].predicted)
    return _selection(spec, best, "model", candidates)


def _recorded(spec, measured, record, candidates, engines) -> Selection:
    best = fastest(measured)
    shipped = _recorded_as(engines[best]) in record.shipped
    return _selection(spec, best, "shipped record" if shipped else "record", candidates)


def _recorded_as(engine: Engine) -> str:
    """An engine's name in records: timings with one weight say nothing of another, where the weight matters."""
    return f"{engine.name}, {engine.variant}" if engine.variant else engine.name


def _filtered(spec, engine: Engine, *, rtol, max_workspace, pinned) -> Candidate:
    """One engine's candidate, refused or not."""
    inner = planning.engine_spec(engine, spec)
    reason = engine.why_unsupported(inner)
    if reason is not None:
        return Candidate(engine.name, refused=reason)
    known = Candidate(
        engine.name,
        predicted=float(engine.predict_seconds(inner, this_machine(settings.get_num_threads()))),
        workspace_bytes=planning.workspace_bytes(engine, spec),
        error_bound=float(engine.error_bound(inner)),
    )
    return replace(known, refused=_why_unfit(engine, spec, known, rtol, max_workspace, pinned))


def _why_unfit(engine, spec, known, rtol, max_workspace, pinned):
    if np.dtype(spec.dtype).kind in "iu" and not engine.exact_integers:
        return f"{engine.name} rounds, and {spec.dtype} needs exact sums"
    if rtol is not None and not known.error_bound <= rtol:
        return f"its error bound {known.error_bound:.1e} is over rtol {rtol:.1e}"
    if max_workspace is not None and known.workspace_bytes > max_workspace:
        return f"its workspace of {known.workspace_bytes:,} bytes is over max_workspace {max_workspace:,}"
    if pinned == engine.name:
        return None
    if not engine.automatic:
        return f"{engine.name} computes only where it is named"
    if not engine.deterministic:
        return f"{engine.name} may give other bits each time"
    if not engine.propagates_nonfinite:
        return f"{engine.name} may spread a NaN or Inf to outputs whose window does not cover it"
    return None


def _with_record(candidates, record, engines):
    """The candidates with the timings that a record holds for this version of each engine."""
    timings = record.timings if record else {}
    joined = {}
    for name, candidate in candidates.items():
        timing = timings.get(_recorded_as(engines[name]))
        if timing and candidate.predicted is not None and timing.version == engines[name].version:
            measured = Timing(timing.median, timing.q1, timing.q3, timing.samples)
            candidate = replace(candidate, measured=measured, error=timing.error)
        joined[name] = candidate
    return joined


def _measured(spec, candidates, able, measured, record, engines, weight) -> Selection:
    """Time what no record has, record it, choose."""
    best = min(candidates[name].predicted for name in able)
    worth = [
        name
        for name in able
        if name not in measured and candidates[name].predicted <= max(HOPELESS * best, CHEAP_SECONDS)
    ]
    if not worth and measured:
        return _recorded(spec, measured, record, candidates, engines)
    timings, lacking = time_engines(spec, [engines[name] for name in worth], MEASURE_SECONDS, weight)
    for name, timing in timings.items():
        candidates[name] = replace(candidates[name], measured=timing)
    for name in lacking:
        candidates[name] = replace(candidates[name], refused=f"{name} ran out of memory while it was timed")
    measured = {**measured, **timings}
    if not measured:
        raise MemoryError(f"every engine ran out of memory on {spec}")
    if not timings:
        return _recorded(spec, measured, record, candidates, engines)
    entries = {_recorded_as(engines[name]): _entry(candidates[name], engines[name].version) for name in timings}
    records.save(spec, entries)
    incumbent = min(measured, key=lambda name: candidates[name].predicted)
    return _selection(spec, fastest(measured, incumbent), "measurement", candidates)


def time_engines(spec: ConvSpec, engines, seconds: float, weight=None) -> tuple[dict[str, Timing], list[str]]:
    """Time engines on sample data, or a given weight, interleaved; also the names of those that ran out of memory."""
    x, drawn = sample(spec)
    weight = drawn if weight is None else weight
    calls: dict[str, Callable] = {}
    lacking = []
    for engine in engines:
        try:
            plan = planning.make_plan(engine, spec, weight)
            out = empty(spec.output_shape, spec.dtype)
            plan(x, out)
        except MemoryError:
            lacking.append(engine.name)
            continue
        calls[engine.name] = partial(plan, x, out)
    return interleaved(calls, seconds) if calls else {}, lacking


def _entry(candidate: Candidate, version: str) -> records.EngineTiming:
    timing = candidate.measured
    return records.EngineTiming(
        median=timing.median,
        q1=timing.q1,
        q3=timing.q3,
        samples=timing.samples,
        workspace_bytes=candidate.workspace_bytes,
        error=candidate.error,
        version=version,
    )


def _selection(spec, engine, source, candidates: Mapping[str, Candidate]) -> Selection:
    def order(candidate):
        expected = candidate.measured.median if candidate.measured else candidate.predicted
        return (candidate.refused is not None, expected is None, expected or 0.0)

    return Selection(spec, engine, source, tuple(sorted(candidates.values(), key=order)))
