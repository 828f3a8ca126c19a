"""Tuning by the caller's own calls: each computes its result with one candidate, and is timed.

No call is wasted, and none waits for a measurement; only the planning of a candidate falls into the call that first
uses it.  Round after round every candidate takes one call.  The first round is not counted: caches are cold, and
threads of the planning may still spin.  After the first counted round who takes more than three times the best is
out; after `COUNTED_CALLS` rounds the fastest stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from convbench.engine import Engine, Plan
from convbench.timing import summarise

COUNTED_CALLS = 3  # calls of each candidate that its timing comes from
DROP_BEYOND = 3.0  # times the best that a candidate may take to stay


class IncrementalPlan:
    """A plan that tries candidates until it knows the fastest, and then gives way to that one's.

    Like every plan it is called by one thread at a time.

    Parameters
    ----------
    trial : convbench.selection.Trial
        The candidates, the most promising first, and who takes their timings.
    make_plan : callable
        Plans an engine.
    settled : callable
        Called once, with the `Selection` and the plan of its engine, or None where that was no candidate; returns
        the plan that computes from now on.
    clock : callable
        Seconds, rising; tests pass their own.
    """

    def __init__(
        self,
        trial,
        make_plan: Callable[[Engine], Plan],
        settled: Callable,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._trial, self._make_plan, self._settled, self._clock = trial, make_plan, settled, clock
        self._engines = {(engine.name, engine.variant): engine for engine in trial.ways}
        self._plans: dict[tuple[str, str], Plan] = {}
        self._samples: dict[tuple[str, str], list[float]] = {way: [] for way in self._engines}
        self._lacking: list[tuple[str, str]] = []
        self._live = list(self._engines)
        self._turn, self._round = 0, 0

    @property
    def nbytes(self) -> int:
        """Bytes of every candidate's plan."""
        return sum(getattr(plan, "nbytes", 0) for plan in list(self._plans.values()))

    def __call__(self, x, out):
        while self._live:
            way = self._live[self._turn]
            try:
                seconds = self._computed(way, x, out)
            except MemoryError:
                self._drop(way)
                continue
            if self._round:
                self._samples[way].append(seconds)
            self._turn += 1
            if self._turn == len(self._live):
                self._end_round()
            return
        self._settle()(x, out)  # all of them ran out of memory, but a record may know another

    def _computed(self, way, x, out):
        """Seconds of one call of a candidate, which is planned before its first."""
        if way not in self._plans:
            self._plans[way] = self._make_plan(self._engines[way])
        begin = self._clock()
        self._plans[way](x, out)
        return self._clock() - begin

    def _drop(self, way):
        """It ran out of memory: the next one computes."""
        self._plans.pop(way, None)
        self._samples.pop(way)
        self._lacking.append(way)
        self._live.remove(way)
        if self._turn >= len(self._live):
            self._turn = 0

    def _end_round(self):
        self._turn, self._round = 0, self._round + 1
        if self._round == 2:
            medians = {way: summarise(self._samples[way]).median for way in self._live}
            limit = DROP_BEYOND * min(medians.values())
            self._live = [way for way in self._live if medians[way] <= limit]
        if self._round > COUNTED_CALLS:
            self._settle()

    def _settle(self):
        timings = {way: summarise(values) for way, values in self._samples.items() if values}
        chosen = self._trial.settle(timings, self._lacking)
        return self._settled(chosen, self._plans.get((chosen.engine, chosen.variant)))
