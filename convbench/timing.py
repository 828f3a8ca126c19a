"""Timing rivals fairly: interleaved rounds, medians and quartiles, hopeless ones dropped early."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_ROUNDS = 3
SETTLE_SECONDS = 0.09  # NumPy's OpenBLAS threads spin for 80 ms after a product (measured by process time, 2026-11)
QUIET_SECONDS = 5e-3  # how long the process must be idle before rivals count as settled ...
QUIET_SHARE = 0.2  # ... where idle is less than this share of one processor
TURN_SECONDS = 0.01
SAMPLES_PER_TURN = 20
SURE_SAMPLES, SURE_SECONDS = 3, 0.1  # a turn of slow calls goes on for so many, if not for longer than this
#: Of the time within which calls are made and timed, less promising ones are begun in so much only: what is left gives
#: those near the best turns at other times, for a neighbour may take half of the machine for some of them.  (16 -> 96
#: channels at 128x128: the plan of `toeplitz` took 0.6 s of one, and the others had one turn of 10 ms; Zen 4, 2026-11.)
MAKING_SHARE = 0.6
MIN_SAMPLE_SECONDS = 50e-6  # shorter calls are repeated within one sample: the clock resolves ~50 ns
KEPT_SAMPLES = 20  # of one timing in a report: enough for a test and an interval of the median
CLEARLY_FASTER = 1.05  # a rival replaces the incumbent only past this, and with separated quartiles


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quartiles of `samples` samples."""

    median: float
    q1: float
    q3: float
    samples: int

    def clearly_faster_than(self, other: Timing, factor: float = CLEARLY_FASTER) -> bool:
        """Faster by more than `factor`, with separated quartiles."""
        return self.median * factor < other.median and self.q3 < other.q1


def summarise(seconds: list[float]) -> Timing:
    """Median and quartiles of samples."""
    q1, median, q3 = np.percentile(seconds, (25, 50, 75)).tolist()
    return Timing(median, q1, q3, len(seconds))


def thinned(seconds: Sequence[float], most: int = KEPT_SAMPLES) -> list[float]:
    """At most so many of the samples, evenly spread over the time in which they were taken; four digits of each."""
    wanted = range(min(most, len(seconds)))
    return [float(f"{seconds[(2 * at + 1) * len(seconds) // (2 * len(wanted))]:.4g}") for at in wanted]


def interleaved(calls: Mapping[str, Callable[[], object]], seconds: float, **options) -> dict[str, Timing]:
    """`interleaved_samples`, summarised."""
    return {name: summarise(values) for name, values in interleaved_samples(calls, seconds, **options).items()}


def interleaved_samples(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    drop_beyond: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Time every call in turn, round after round, for about `seconds` in all.

    Rivals disturb each other after they are done: the threads of a BLAS or of OpenMP go on
    spinning for up to 80 ms, and take a core from whoever comes next.  So a turn begins with a
    rest and an untimed call, and then takes samples for `TURN_SECONDS`, or a few of slow calls.  After
    the first round a call that takes more than `drop_beyond` times the best is timed no more: what it
    has is its result.  The others get at least `MIN_ROUNDS` turns, even when that takes longer.

    Parameters
    ----------
    calls : mapping of name to callable
    seconds : float
        The time limit, warm-up included.
    drop_beyond : float
        How many times the best a call may take to stay.
    clock, rest : callable
        Seconds, rising, and a sleep; tests pass their own.

    Returns
    -------
    dict of name to list of float
        Seconds of a call, in the order of time; the names in that of `calls`.
    """
    end = clock() + seconds
    pause = SETTLE_SECONDS if len(calls) > 1 else 0.0
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    live, rounds = list(calls), 0
    while rounds < MIN_ROUNDS or clock() < end:
        for name in live:
            rest(pause)
            samples[name] += _turn(calls[name], clock)[1]
        rounds += 1
        if rounds == 1:
            live = _near_the_best(samples, drop_beyond)
    return samples


def within_limit(
    makers: Mapping[str, Callable[[], Callable[[], object]]], seconds: float, **options
) -> tuple[dict[str, Timing], list[str]]:
    """`samples_within_limit`, summarised."""
    samples, lacking = samples_within_limit(makers, seconds, **options)
    return {name: summarise(values) for name, values in samples.items()}, lacking


def samples_within_limit(
    makers: Mapping[str, Callable[[], Callable[[], object]]],
    seconds: float,
    *,
    drop_beyond: float = 3.0,
    early: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] | None = None,
) -> tuple[dict[str, list[float]], list[str]]:
    """Make calls and time them in turn, as `interleaved_samples` does, but never for longer than `seconds`.

    In the first round each call is made just before its turn.  Nothing begins after the time is over: it is
    exceeded by what has begun by then, the making of one call and one run.  Who did not get a turn has no
    timing, so the most promising come first.  The first is run once whatever the limit; where that
    run ends the time, it is the timing.

    Parameters
    ----------
    makers : mapping of name to callable
        Each returns the call to time.
    seconds : float
        The time limit: making, rests, untimed and timed calls.
    early : int, optional
        So many are promising: the others are made after those have had `MIN_ROUNDS` turns, and while it is early.
    drop_beyond, clock, rest
        As for `interleaved_samples`, but after later rounds its root counts, of the least times; by default a rest
        ends as soon as the process is idle.

    Returns
    -------
    dict of name to list of float
        Seconds of a call, in the order of time.
    list of name
        Those that ran out of memory.
    """
    rest = rest or settle
    begin = clock()
    end, made_by = begin + seconds, begin + MAKING_SHARE * seconds
    pause = SETTLE_SECONDS if len(makers) > 1 else 0.0
    calls, samples, lacking = {}, {}, []

    def more_rounds(live, most):
        while live and most > 0 and clock() + pause < end:
            for name in live:
                if clock() + pause >= end:
                    break
                rest(pause)
                samples[name] += _turn(calls[name], clock, end)[1]
            live = _not_far_behind({name: samples[name] for name in live}, drop_beyond**0.5)
            most -= 1

    for number, (name, make) in enumerate(makers.items()):
        if number == early:
            more_rounds(_near_the_best(samples, drop_beyond), MIN_ROUNDS - 1)
        if samples and (clock() + pause >= end or (number >= early and clock() >= made_by)):
            break
        try:
            call = make()
            if clock() + pause < end:
                rest(pause)
            elif samples:
                break
            once, taken = _turn(call, clock, end)
        except MemoryError:
            lacking.append(name)
            continue
        if taken or not samples:
            calls[name], samples[name] = call, taken or [once]
    more_rounds(_near_the_best(samples, drop_beyond), math.inf)
    return samples, lacking


def settle(longest: float) -> None:
    """Sleep until no thread of this process computes, at most `longest` seconds."""
    if os.name != "posix":  # elsewhere the clock of processor time is too coarse to see it
        time.sleep(longest)
        return
    end = time.perf_counter() + longest
    while (begin := time.perf_counter()) < end:
        busy = time.process_time()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - busy < QUIET_SHARE * (time.perf_counter() - begin):
            return


def _near_the_best(samples, drop_beyond):
    """Names whose median is at most `drop_beyond` times the least."""
    medians = {name: summarise(values).median for name, values in samples.items()}
    return [name for name in medians if medians[name] <= drop_beyond * min(medians.values())]


def _not_far_behind(samples, beyond):
    """Names whose least sample is at most so many times the least of all."""
    least = {name: min(values) for name, values in samples.items()}
    return [name for name in least if least[name] <= beyond * min(least.values())]


def _turn(call, clock, end=math.inf):
    """Seconds of an untimed call, and the samples of the turn after it; none begins after `end`."""
    begin = clock()
    call()
    once = clock() - begin
    samples = []
    while clock() < end and (not samples or clock() - begin < _turn_seconds(len(samples))):
        samples.append(seconds_per_call(call, repeats_for(once), clock))
    return once, samples


def _turn_seconds(count):
    """How long a turn may have taken that goes on after so many samples."""
    if count < SURE_SAMPLES:
        return SURE_SECONDS
    return TURN_SECONDS if count < SAMPLES_PER_TURN else 0.0


def repeats_for(once: float) -> int:
    """How many calls one sample takes, where one call takes `once` seconds."""
    return max(1, round(MIN_SAMPLE_SECONDS / once)) if once > 0 else 1


def seconds_per_call(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """One sample: the mean of `repeats` calls in a row."""
    begin = clock()
    for _ in range(repeats):
        call()
    return (clock() - begin) / repeats


def fastest(timings: Mapping[str, Timing], incumbent: str | None = None, factor: float = CLEARLY_FASTER) -> str:
    """The name with the least median; the incumbent stays unless a rival is clearly faster, by that factor."""
    best = min(timings, key=lambda name: timings[name].median)
    if incumbent in timings and not timings[best].clearly_faster_than(timings[incumbent], factor):
        return incumbent
    return best
