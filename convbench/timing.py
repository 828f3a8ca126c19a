"""Timing rivals fairly: interleaved rounds, medians and quartiles, hopeless ones dropped early."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

MIN_SAMPLES = 3  # the fewest that have quartiles
MAX_SAMPLES = 200
MIN_SAMPLE_SECONDS = 50e-6  # shorter calls are repeated within one sample: the clock resolves ~50 ns
CLEARLY_FASTER = 1.05  # a rival replaces the incumbent only past this, and with separated quartiles


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quartiles of `samples` samples."""

    median: float
    q1: float
    q3: float
    samples: int

    def clearly_faster_than(self, other: Timing) -> bool:
        """More than 5 % faster, with separated quartiles."""
        return self.median * CLEARLY_FASTER < other.median and self.q3 < other.q1


def summarise(seconds: list[float]) -> Timing:
    """Median and quartiles of samples."""
    q1, median, q3 = np.percentile(seconds, (25, 50, 75)).tolist()
    return Timing(median, q1, q3, len(seconds))


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    drop_beyond: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every call in turn, round after round, for about `seconds` in all.

    The first call of each is a warm-up.  After the first round a call that takes more than
    `drop_beyond` times the best is timed no more: what it has is its result.  The others get at
    least `MIN_SAMPLES` samples, even when that takes longer.

    Parameters
    ----------
    calls : mapping of name to callable
    seconds : float
        The time limit, warm-up included.
    drop_beyond : float
        How many times the best a call may take to stay.
    clock : callable
        Seconds, rising; tests pass their own.

    Returns
    -------
    dict of name to Timing
        In the order of `calls`.
    """
    end = clock() + seconds
    repeats, samples = {}, {}
    for name, call in calls.items():
        call()
        begin = clock()
        call()
        once = clock() - begin
        repeats[name] = max(1, round(MIN_SAMPLE_SECONDS / once)) if once > 0 else 1
        samples[name] = [once if repeats[name] == 1 else _sample(call, repeats[name], clock)]
    best = min(values[0] for values in samples.values())
    live = [name for name in calls if samples[name][0] <= drop_beyond * best]
    rounds = 1
    while rounds < MAX_SAMPLES and (clock() < end or rounds < MIN_SAMPLES):
        for name in live:
            samples[name].append(_sample(calls[name], repeats[name], clock))
        rounds += 1
    return {name: summarise(values) for name, values in samples.items()}


def _sample(call, repeats, clock):
    begin = clock()
    for _ in range(repeats):
        call()
    return (clock() - begin) / repeats


def fastest(timings: Mapping[str, Timing], incumbent: str | None = None) -> str:
    """The name with the least median; the incumbent stays unless a rival is clearly faster."""
    best = min(timings, key=lambda name: timings[name].median)
    if incumbent in timings and not timings[best].clearly_faster_than(timings[incumbent]):
        return incumbent
    return best
