"""A problem before the choice: who may compute it, in which ways, how fast each is, and how that is found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from convbench import logs, planning, records, settings
from convbench.candidates import Candidate, Selection
from convbench.data import sample
from convbench.engine import Engine
from convbench.outputs import empty
from convbench.spec import ConvSpec
from convbench.timing import Timing, fastest, within_limit

NEAR = 3.0  # candidates within this many times the best prediction, and all their variants, have their turn first
LEAN_NEAR = 1.25  # candidates within this many times the best prediction are about as fast ...
LEAN_BYTES = 2 << 20  # ... and lean with so many bytes of workspace less, and half of it at most
LEAN_MEASURED = 1.25  # the same of those that were timed
VARIANT_FASTER = 1.01  # another variant of an engine is taken for faster than its model's from here on
UNTRIED_FASTER = 1.25  # who was not timed is taken for faster if it is by more than this, by prediction
HOPELESS = 20.0  # a candidate predicted this many times slower than the best is not timed ...
CHEAP_SECONDS = 0.02  # ... unless one call is predicted to take less than this

Way = tuple[str, str]
"""An engine's name, and one of its variants."""


@dataclass
class Case:
    """What is known of a problem while its engine is chosen.

    Attributes
    ----------
    spec : ConvSpec
    weight : ndarray or None
        The caller's, where it is known.
    candidates : dict of str to Candidate
        Every engine, the refused ones too.
    ways : dict of str to tuple of Engine
        The variants of each engine that takes part.
    record : Record or None
    cheap_seconds : float
        Who is predicted to take less than this is worth a try however bad the prediction beside the others'.
    """

    spec: ConvSpec
    weight: np.ndarray | None
    candidates: dict[str, Candidate]
    ways: dict[str, tuple[Engine, ...]]
    record: records.Record | None
    cheap_seconds: float = CHEAP_SECONDS

    @property
    def measured(self) -> dict[str, Timing]:
        """What is known of those who take part and have been timed."""
        return {name: self.candidates[name].measured for name in self.ways if self.candidates[name].measured}

    def is_near(self, name: str) -> bool:
        """Whether an engine is predicted to take at most `NEAR` times as long as the best."""
        return self.candidates[name].predicted <= NEAR * min(self.candidates[name].predicted for name in self.ways)

    def untimed(self) -> list[Engine]:
        """The variants that are worth a try and that no record has, the most promising first.

        What its engine's model picks goes before any engine's other variants, and both before engines that are far
        behind by prediction, which may use up the time: 1024 -> 40 channels at 112x112, 1x1, the plan of `fft`,
        predicted to take 12 times as long, left none for a variant of `direct` that takes 0.7 of the time.  Beside a
        pinned record nothing is worth a try.

        Of those that are predicted to be about as fast the leanest goes first, for large workspaces take long:
        512 -> 1024 channels at 19x19, 3x3, dilation 6, the plan of `winograd` takes 0.7 s, and left none for `direct`.
        """
        if self.measured and self.record and self.record.pinned:
            return []
        known = self.record.timings if self.record else {}
        best = min(self.candidates[name].predicted for name in self.ways)
        limit = max(HOPELESS * best, self.cheap_seconds)
        found = [
            (name, rank, way)
            for name, ways in self.ways.items()
            for rank, way in enumerate(ways)
            if (timing := known.get(records.name_of(name, way.variant))) is None or timing.version != way.version
            if self.candidates[name].predicted <= limit
        ]

        def turn(item):
            name, rank, _ = item
            candidate = self.candidates[name]
            close = candidate.predicted <= LEAN_NEAR * best
            order = candidate.workspace_bytes if close else candidate.predicted
            return not self.is_near(name), rank > 0, not close, order

        return [way for *_, way in sorted(found, key=turn)]

    def add(self, timings: Mapping[Way, Timing], lacking=()) -> None:
        """Take new timings in, record them, and refuse engines of which all that was tried ran out of memory."""
        self.candidates = with_fastest(self.candidates, timings, self.ways)
        for name, variant in lacking:
            if self.candidates[name].measured is None:
                reason = f"{records.name_of(name, variant)} ran out of memory while it was timed"
                self.candidates[name] = replace(self.candidates[name], refused=reason)
        versions = {(name, way.variant): way.version for name, ways in self.ways.items() for way in ways}
        entries = {
            records.name_of(*way): _entry(timing, self.candidates[way[0]], versions[way])
            for way, timing in timings.items()
        }
        for name, entry in entries.items():
            logs.debug("%s: %s takes %.3g s (%d samples)", self.spec, name, entry.median, entry.samples)
        if entries:
            records.save(self.spec, entries)

    def fastest_measured(self, *, anew: bool) -> Selection:
        """The choice among those that were timed, just now or not; by prediction where none could be.

        Raises
        ------
        MemoryError
            All of them ran out of memory.
        """
        measured = self.measured
        self.ways = {name: ways for name, ways in self.ways.items() if self.candidates[name].refused is None}
        if self.ways and not measured:  # who was worth a try ran out of memory, and others were not tried
            return self.predicted_fastest()
        if not measured:
            raise MemoryError(f"every engine ran out of memory on {self.spec}")
        if anew:
            incumbent = min(measured, key=lambda name: self.candidates[name].predicted)
            return self.selection(self._fastest(measured, incumbent), "measurement")
        best = self._fastest(measured)
        shipped = records.name_of(best, self.candidates[best].variant) in self.record.shipped
        return self.selection(best, "shipped record" if shipped else "record")

    def _fastest(self, measured, incumbent=None):
        """The fastest, or, of those about as fast that have much less to bring from memory, the fastest.

        Calls are timed in a row, so caches hold what, in a program, other layers drive out of them.  32 -> 96 channels
        at 28x28, 5x5: `fft` with 13.4 MB of workspace 102 us in a row and 420 in turn with other libraries' calls,
        `winograd8` with 4.3 MB 94 and 190 (Zen 5, 2026-11); 1 -> 64 channels at 128x128, 9x9: `fft` with 4.4 MB 0.94 ms
        and 1.64, `direct` with 2.0 MB 0.89 and 1.00; another day 0.63 and 1.2, 0.77 and 1.0 (Zen 4).
        """
        first = fastest(measured, incumbent)
        much, limit = self.candidates[first].workspace_bytes, LEAN_MEASURED * measured[first].median
        most = min(much / 2, much - LEAN_BYTES)
        near = {name: timing for name, timing in measured.items() if timing.median <= limit}
        lean = {name: timing for name, timing in near.items() if self.candidates[name].workspace_bytes <= most}
        return fastest(lean) if lean else first

    def predicted_fastest(self, source: str = "model") -> Selection:
        """The choice by prediction."""
        return self.selection(min(self.ways, key=lambda name: self.candidates[name].predicted), source)

    def expected_fastest(self) -> Selection:
        """The choice by what is recorded, and by prediction of those that no record has."""
        return self.selection(min(self.ways, key=lambda name: self.candidates[name].expected), "model")

    @property
    def is_outrun(self) -> bool:
        """Whether the record lacks an engine that is predicted to be faster than those that it has.

        As a record does that was made with other versions of the engines, or with some of them only.
        """
        measured = self.measured
        least = min(timing.median for timing in measured.values())
        rest = [self.candidates[name].predicted for name in self.ways if name not in measured]
        return not self.record.pinned and any(predicted * UNTRIED_FASTER < least for predicted in rest)

    def selection(self, engine: str, source: str, variant: str | None = None) -> Selection:
        """The printable answer: that engine, in that variant if one is given."""
        candidates = dict(self.candidates)
        if variant is not None:
            candidates[engine] = replace(candidates[engine], variant=variant)

        def order(candidate):
            return (candidate.refused is not None, candidate.expected is None, candidate.expected or 0.0)

        return Selection(self.spec, engine, source, tuple(sorted(candidates.values(), key=order)))


def measure(case: Case) -> bool:
    """Time what no record has, on sample data and within the time limit; whether there was anything to time."""
    untimed = case.untimed()
    if not untimed:
        return False
    near = sum(case.is_near(way.name) for way in untimed)
    timings, lacking = time_engines(case.spec, untimed, settings.get_tuning_seconds(), case.weight, early=near)
    case.add(timings, lacking)
    return bool(timings)


def time_engines(
    spec: ConvSpec, engines, seconds: float, weight=None, **options
) -> tuple[dict[Way, Timing], list[Way]]:
    """Time engines on sample data, or a given weight, interleaved, within a time limit, as `within_limit` does.

    Returns
    -------
    dict of (name, variant) to Timing
        Of those that got their turn; those named first get it first.
    list of (name, variant)
        Those that ran out of memory.
    """
    data = cache(partial(sample, spec))  # drawn by the first who needs it: that takes its time, too

    def call_of(engine):
        x, drawn = data()
        plan = planning.make_plan(engine, spec, drawn if weight is None else weight)
        return partial(plan, x, empty(spec.output_shape, spec.dtype))

    makers = {(engine.name, engine.variant): partial(call_of, engine) for engine in engines}
    return within_limit(makers, seconds, **options)


def with_record(candidates, record, engines, ways):
    """The candidates with the timings that a record holds for this version of each engine, of its fastest variant."""
    known = record.timings if record else {}
    timings = {
        (name, way.variant): timing
        for name in ways
        for way in {engines[name], *ways[name]}
        if (timing := known.get(records.name_of(name, way.variant))) and timing.version == way.version
    }
    return with_fastest(candidates, timings, ways)


def with_fastest(candidates, timings, ways):
    """The candidates with the fastest of their own and of `timings` by (name, variant).

    What the engine's model picks, the first of its ways, stays unless another variant is clearly faster.
    """
    joined = dict(candidates)
    for name in {name for name, _ in timings}:
        candidate = joined[name]
        known = {candidate.variant: candidate.measured} if candidate.measured else {}
        for (engine, variant), found in timings.items():
            if engine == name:
                known[variant] = Timing(found.median, found.q1, found.q3, found.samples)
        variant = fastest(known, ways[name][0].variant, VARIANT_FASTER)
        error = getattr(timings.get((name, variant)), "error", candidate.error)
        joined[name] = replace(candidate, measured=known[variant], variant=variant, error=error)
    return joined


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
