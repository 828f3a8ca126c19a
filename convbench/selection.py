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
from dataclasses import replace
from functools import partial

import numpy as np

from convbench import planning, records, registry, settings
from convbench.candidates import Candidate, Selection
from convbench.data import sample
from convbench.engine import Engine
from convbench.machine import this_machine
from convbench.outputs import empty
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
        able = [name]
    if not able:
        reasons = "; ".join(f"{other}: {candidate.refused}" for other, candidate in candidates.items())
        raise ValueError(f"no engine is left for {spec}: {reasons}")
    ways = {
        other: planning.variants(engines[other], spec) for other in engines if candidates[other].predicted is not None
    }
    record = records.load(spec)
    candidates = _with_record(candidates, record, engines, ways)
    ways = {other: ways[other] for other in able}
    if name != settings.AUTO:
        if tuning == "measure" and len(ways[name]) > 1:
            candidates, _ = _timed(spec, candidates, ways, record, weight)
        return _selection(spec, name, "pinned", candidates)
    measured = {other: candidates[other].measured for other in able if candidates[other].measured}
    if tuning == "measure" and not (measured and record.pinned):
        return _measured(spec, candidates, ways, record, weight)
    if measured:
        return _recorded(spec, measured, record, candidates)
    if tuning == "replay":
        raise NoRecordError(
            f"nothing is recorded for {spec} in {records.directory()}; run 'convbench bench --problem \"{spec}\"' "
            "first, or use tuning='measure'"
        )
    best = min(able, key=lambda other: candidates[other].predicted)
    return _selection(spec, best, "model", candidates)


def _recorded(spec, measured, record, candidates) -> Selection:
    best = fastest(measured)
    shipped = records.name_of(best, candidates[best].variant) in record.shipped
    return _selection(spec, best, "shipped record" if shipped else "record", candidates)


def _filtered(spec, engine: Engine, *, rtol, max_workspace, pinned) -> Candidate:
    """One engine's candidate, refused or not."""
    inner = planning.engine_spec(engine, spec)
    reason = engine.why_unsupported(inner)
    if reason is not None:
        return Candidate(engine.name, refused=reason)
    known = Candidate(
        engine.name,
        variant=engine.variant,
        predicted=float(engine.predict_seconds(inner, this_machine(settings.get_num_threads()))),
        workspace_bytes=planning.workspace_bytes(engine, spec),
        error_bound=float(engine.error_bound(inner)),
    )
    return replace(known, refused=_why_unfit(engine, spec, known, rtol, max_workspace, pinned))


def _why_unfit(engine, spec, known, rtol, max_workspace, pinned):
    if inexact := planning.why_inexact(engine, spec):
        return inexact
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


def _with_record(candidates, record, engines, ways):
    """The candidates with the timings that a record holds for this version of each engine, of its fastest variant."""
    known = record.timings if record else {}
    timings = {
        (name, way.variant): timing
        for name in ways
        for way in {engines[name], *ways[name]}
        if (timing := known.get(records.name_of(name, way.variant))) and timing.version == way.version
    }
    return _with_fastest(candidates, timings)


def _with_fastest(candidates, timings):
    """The candidates with the least of their own and of `timings` by (name, variant)."""
    joined = dict(candidates)
    for (name, variant), found in sorted(timings.items(), key=lambda item: item[1].median, reverse=True):
        measured = Timing(found.median, found.q1, found.q3, found.samples)
        before = joined[name].measured
        if before is None or measured.median <= before.median:
            error = getattr(found, "error", joined[name].error)
            joined[name] = replace(joined[name], measured=measured, variant=variant, error=error)
    return joined


def _measured(spec, candidates, ways, record, weight) -> Selection:
    """Time what no record has, record it, choose."""
    candidates, timed = _timed(spec, candidates, ways, record, weight)
    measured = {name: candidates[name].measured for name in ways if candidates[name].measured}
    if not measured:
        raise MemoryError(f"every engine ran out of memory on {spec}")
    if not timed:
        return _recorded(spec, measured, record, candidates)
    incumbent = min(measured, key=lambda name: candidates[name].predicted)
    return _selection(spec, fastest(measured, incumbent), "measurement", candidates)


def _timed(spec, candidates, ways, record, weight):
    """Time the variants that no record has, and record them: the candidates with them, and whether there were any."""
    known = record.timings if record else {}
    best = min(candidates[name].predicted for name in ways)
    limit = max(HOPELESS * best, CHEAP_SECONDS)
    worth = [
        way
        for name in ways
        for way in ways[name]
        if (timing := known.get(records.name_of(name, way.variant))) is None or timing.version != way.version
        if candidates[name].predicted <= limit
    ]
    if not worth:
        return candidates, False
    timings, lacking = time_engines(spec, worth, MEASURE_SECONDS, weight)
    candidates = _with_fastest(candidates, timings)
    for name, variant in lacking:
        if candidates[name].measured is None:
            reason = f"{records.name_of(name, variant)} ran out of memory while it was timed"
            candidates[name] = replace(candidates[name], refused=reason)
    versions = {(way.name, way.variant): way.version for way in worth}
    entries = {
        records.name_of(*way): _entry(timing, candidates[way[0]], versions[way]) for way, timing in timings.items()
    }
    if entries:
        records.save(spec, entries)
    return candidates, bool(entries)


def time_engines(
    spec: ConvSpec, engines, seconds: float, weight=None
) -> tuple[dict[tuple[str, str], Timing], list[tuple[str, str]]]:
    """Time engines on sample data, or a given weight, interleaved.

    Returns
    -------
    dict of (name, variant) to Timing
    list of (name, variant)
        Those that ran out of memory.
    """
    x, drawn = sample(spec)
    weight = drawn if weight is None else weight
    calls: dict[tuple[str, str], Callable] = {}
    lacking = []
    for engine in engines:
        way = engine.name, engine.variant
        try:
            plan = planning.make_plan(engine, spec, weight)
            out = empty(spec.output_shape, spec.dtype)
            plan(x, out)
        except MemoryError:
            lacking.append(way)
            continue
        calls[way] = partial(plan, x, out)
    return interleaved(calls, seconds) if calls else {}, lacking


def _entry(timing: Timing, candidate: Candidate, version: str) -> records.EngineTiming:
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
