"""The judge: filter, predict, measure, remember.

In every mode, before anything is timed, an engine is refused that cannot compute the problem,
would round integers, is not as exact as `rtol` asks, needs a workspace over the cap, or does not
keep the promises of ``engine="auto"`` (determinism, NaN and Inf only where they belong): see
`convbench.limits`.  Among the rest the choice comes from, in this order: the engine named by the
caller, this process' memory, the user's record, a shipped record, a measured problem that is
nearly the same (where the mode would measure), the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from convbench import limits, logs, measuring, nearby, planning, profile, records, registry, settings
from convbench.candidates import Candidate, Selection
from convbench.engine import Engine
from convbench.measuring import Case, Way
from convbench.spec import ConvSpec
from convbench.timing import Timing

TUNINGS = ("estimate", "measure", "incremental", "replay")
REMEMBERED = 4096  # choices kept in the process before the oldest go
TRIAL = "trial"  # the source of a choice that successive calls are still finding out


class NoRecordError(LookupError):
    """Mode "replay" found no record to replay."""


class Request(NamedTuple):
    """What the judge is asked, as far as its answer depends on it."""

    spec: ConvSpec
    tuning: str
    engine: str
    rtol: str | float | None
    max_workspace: int | None
    fitted: tuple
    deterministic: bool
    epoch: int

    @property
    def is_pinned(self) -> bool:
        """Whether the caller, or a setting, names the engine."""
        return self.engine != settings.AUTO

    @property
    def may_measure(self) -> bool:
        """Whether anything may be timed for the answer."""
        return self.tuning in ("measure", "incremental") and not self.deterministic


_chosen: dict[Request, Selection] = {}


def select(
    spec: ConvSpec,
    tuning: str = "estimate",
    *,
    engine: str = settings.AUTO,
    rtol: str | float | None = None,
    max_workspace: int | None = None,
    weight: np.ndarray | None = None,
) -> Selection:
    """Choose the engine for a problem.

    Parameters
    ----------
    spec : ConvSpec
    tuning : {"estimate", "measure", "incremental", "replay"}
        ``estimate`` takes a record where there is one (unless that lacks an engine that is predicted to be
        clearly faster), else the prediction, and never times anything.  ``measure`` times what no record
        has, once, for about a second (`set_tuning_seconds`), and records it.  ``incremental`` leaves the
        timing to a layer's successive calls, which try the candidates on the caller's own data: until they
        are through, the source is "trial".  ``replay`` takes records only.
    engine : str, default "auto"
        A name pins the engine; it still has to pass the filter.
    rtol : {"exact", "standard", "fast"} or float, optional
        How exact the result must be: a level (`convbench.limits`; None is "standard"), or the
        largest a-priori error bound accepted, relative to ``|x| ∗ |w|`` (see `Engine.error_measure`).
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
    request, engines = _request(spec, tuning, engine, rtol, max_workspace, weight)
    found = _chosen.get(request)
    if found is None:
        found = _select(request, engines, weight)
        if found.source != TRIAL:
            _remember(request, found)
        logs.info("%s: %s (%s)", spec, found.engine, found.source)
    return found


@dataclass
class Trial:
    """A choice that a layer's calls find out: the ways to try, and what to do with their timings."""

    request: Request
    case: Case
    ways: list[Engine]

    def settle(self, timings: Mapping[Way, Timing], lacking: list[Way]) -> Selection:
        """The choice, when the calls are through; it is recorded and remembered as a measurement is."""
        self.case.add(timings, lacking)
        found = self.case.fastest_measured(anew=bool(timings))
        logs.info("%s: %s (%s, after incremental calls)", found.spec, found.engine, found.source)
        if self.request.is_pinned:
            found = replace(found, source="pinned")
        _remember(self.request, found)
        return found


def trial(spec: ConvSpec, chosen: Selection, *, weight=None, tuning, engine, rtol, max_workspace) -> Trial | None:
    """The trial that `chosen`, a selection of that spec with those arguments, waits for; None where it needs none."""
    if chosen.source != TRIAL:
        return None
    request, engines = _request(spec, tuning, engine, rtol, max_workspace, weight)
    case = _case(request, engines, weight)
    untimed = case.untimed()
    return Trial(request, case, untimed) if untimed else None


def forget() -> None:
    """Forget this process' choices, so that records made meanwhile by others count."""
    _chosen.clear()
    nearby.forget()


def check_arguments(tuning, rtol, max_workspace) -> None:
    """Refuse bad judge arguments, with what would be accepted."""
    if tuning not in TUNINGS:
        raise ValueError(f"tuning {tuning!r} is unknown; accepted are {', '.join(TUNINGS)}")
    limits.check_limits(rtol, max_workspace)


def _request(spec, tuning, engine, rtol, max_workspace, weight):
    """The request, and the engines as they compute this very weight."""
    check_arguments(tuning, rtol, max_workspace)
    if not isinstance(spec, ConvSpec):
        raise TypeError(f"spec is a {type(spec).__name__}; a ConvSpec is accepted (ConvSpec.parse reads a text)")
    if not isinstance(engine, str):
        registry.get(engine)  # refuses it with the names there are
    name = settings.default_engine() if engine == settings.AUTO else engine
    engines = registry.engines()
    if weight is not None:
        loss = limits.tolerance(rtol, spec.dtype)
        engines = {other: planning.for_weight(known, spec, weight, loss) for other, known in engines.items()}
    fitted = tuple((e.variant, e.error_bound(planning.engine_spec(e, spec))) for e in engines.values() if e.variant)
    rtol = None if rtol == limits.STANDARD else rtol
    same = settings.is_deterministic()
    return Request(spec, tuning, name, rtol, max_workspace, fitted, same, settings.epoch()), engines


def _remember(request, selection):
    if len(_chosen) >= REMEMBERED:
        _chosen.pop(next(iter(_chosen)), None)
    _chosen[request] = selection


def _select(request, engines, weight) -> Selection:
    spec, name = request.spec, request.engine
    if request.is_pinned:
        registry.get(name)
    if spec.is_empty:
        return Selection(spec, name if request.is_pinned else next(iter(engines)), "nothing to compute", ())
    case = _case(request, engines, weight)
    timeable = request.may_measure and (not request.is_pinned or len(case.ways[name]) > 1)
    if timeable and case.untimed():
        found = _similar(request, case, engines) or _found_out(request, case)
        return replace(found, source="pinned") if request.is_pinned and found.source != TRIAL else found
    if request.is_pinned:
        return case.selection(name, "pinned")
    if case.measured and request.tuning == "estimate" and case.is_outrun:
        return case.expected_fastest()
    if case.measured:
        return case.fastest_measured(anew=False)
    if request.tuning == "replay":
        raise NoRecordError(_nothing_recorded(request))
    return case.predicted_fastest("fixed model" if request.deterministic else "model")


def _found_out(request, case):
    """The choice of a case in which something is worth timing: timed now, or by the calls to come."""
    if request.tuning == "measure":
        return case.fastest_measured(anew=measuring.measure(case))
    return replace(case.fastest_measured(anew=True) if case.measured else case.predicted_fastest(), source=TRIAL)


def _nothing_recorded(request):
    if request.deterministic:
        return (
            f"no pinned record is for {request.spec}; {records.SHIPPED_VARIABLE} names the directories that are "
            "looked in, and no other record counts where choices are deterministic"
        )
    return (
        f"nothing is recorded for {request.spec} in {records.directory()}; "
        f"run 'convbench bench --problem \"{request.spec}\"' first, or use tuning='measure'"
    )


def _similar(request, case, engines) -> Selection | None:
    """The engine of the nearest problem that was measured, where nothing is recorded of this very one.

    See `convbench.nearby` for what is near.  First comes what this process chose, then what the user's records tell.
    Choices that were taken over so are not passed on.
    """
    if case.measured:
        return None
    for nearest in chain(_chosen_nearby(request), _recorded_nearby(request, engines, case.weight)):
        known = next((c for c in nearest.candidates if c.engine == nearest.engine), None)
        ways = {way.variant for way in case.ways.get(nearest.engine, ())}
        if known is not None and known.measured and known.variant in ways:
            return case.selection(nearest.engine, f"record of {nearest.spec}", nearest.variant)
    return None


def _chosen_nearby(request):
    """Selections of near problems that this process made for the same question, the nearest first."""
    same = [(nearby.distance(request.spec, r.spec), s) for r, s in list(_chosen.items()) if r[1:] == request[1:]]
    return [found for far, found in sorted(same, key=lambda item: item[0]) if far < math.inf]


def _recorded_nearby(request, engines, weight):
    """Selections of near problems by the user's records, where those timed the engine that is predicted to be fastest.

    A time limit may have left out others; one that is new and promising has to be timed.
    """
    for spec in nearby.recorded(request.spec):
        other = request._replace(spec=spec)
        try:
            case = _case(other, engines, weight)
        except ValueError:  # there, no engine keeps within the limits
            continue
        if case.predicted_fastest().engine in case.measured:
            found = case.fastest_measured(anew=False)
            _remember(other, replace(found, source="pinned") if request.is_pinned else found)
            yield found


def _case(request, engines, weight) -> Case:
    """The problem with every engine filtered, and with what is recorded.

    Raises
    ------
    ValueError
        No engine is left, or the named one is refused.
    """
    spec, name = request.spec, request.engine
    candidates = {other: _filtered(request, engine) for other, engine in engines.items()}
    able = [other for other, candidate in candidates.items() if candidate.refused is None]
    for other, candidate in candidates.items():
        logs.debug("%s: %s: %s", spec, other, candidate.refused or f"predicted to take {candidate.predicted:.3g} s")
    if request.is_pinned:
        if name not in able:
            raise ValueError(f"engine {name!r} is refused for {spec}: {candidates[name].refused}")
        able = [name]
    if not able:
        reasons = "; ".join(f"{other}: {candidate.refused}" for other, candidate in candidates.items())
        raise ValueError(f"no engine is left for {spec}: {reasons}")
    record = records.load(spec)
    if record and request.deterministic and not record.pinned:
        record = None
    computing = [other for other, candidate in candidates.items() if candidate.predicted is not None]
    ways = {other: _ways(request, engines[other]) for other in computing}
    candidates = measuring.with_record(candidates, record, engines, ways)
    cheap = 0.0 if request.tuning == "incremental" else measuring.CHEAP_SECONDS  # no call of the caller's is cheap
    return Case(spec, weight, candidates, {other: ways[other] for other in able}, record, cheap)


def _filtered(request, engine: Engine) -> Candidate:
    """One engine's candidate, refused or not: of its fastest way by prediction among those that keep the limits."""
    reason = planning.why_unsupported(engine, request.spec)
    if reason is not None:
        return Candidate(engine.name, refused=reason)
    known = [_candidate(request, way) for way in planning.variants(engine, request.spec)]
    return min([way for way in known if way.refused is None] or known, key=lambda way: way.predicted)


def _candidate(request, way) -> Candidate:
    """One of an engine's ways, refused or not."""
    spec, inner = request.spec, planning.engine_spec(way, request.spec)
    extending = profile.copying_seconds(planning.extended_bytes(way, spec))
    known = Candidate(
        way.name,
        variant=way.variant,
        predicted=profile.predicted_seconds(way, inner) + extending,
        workspace_bytes=planning.workspace_bytes(way, spec),
        error_bound=float(way.error_bound(inner)),
    )
    kept = {"rtol": request.rtol, "max_workspace": request.max_workspace, "pinned": request.engine == way.name}
    return replace(known, refused=limits.why_unfit(way, spec, known, **kept))


def _ways(request, engine) -> tuple[Engine, ...]:
    """An engine's variants; of a circular problem and its extended form those that keep the limits, by prediction."""
    ways = planning.variants(engine, request.spec)
    if request.spec.padding_mode == "zeros":
        return ways
    known = {way: _candidate(request, way) for way in ways}
    kept = [way for way in ways if known[way].refused is None]
    return tuple(sorted(kept or ways, key=lambda way: known[way].predicted))
