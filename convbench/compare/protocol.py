"""How rivals with thread pools of their own are timed in one process.

After a call of PyTorch, ONNX Runtime or OpenVINO the library's idle threads go on spinning for some
milliseconds and take part of the cores from whoever is called next, and a pool that has slept takes
a few calls to be at speed.  Calls in strict alternation measure these encounters as well as the
convolution.  So, by default, the contenders get blocks: in every round, in an order that rotates,
each one pauses until the others' threads sleep, warms up uncounted, and is then timed call after
call.  A sample is the median of a block; the result is the median of the samples.  Where the contest
is close and its rounds say different things there are more of them, whoever is ahead.

A round counts only if the machine was steady around it (`convbench.compare.gauge`).

``strict`` alternates call by call without pauses instead: what a program meets that mixes libraries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from convbench.compare.gauge import Gauge
from convbench.timing import Timing, repeats_for, seconds_per_call, summarise

PAUSE_SECONDS = (
    45e-3  # ONNX Runtime 1.32 spins for 32 ms, libgomp and OpenVINO for 10 at most (2-core Zen 5 VM, 2026-11)
)
WARM_SECONDS = 4e-3
BLOCK_SECONDS = 15e-3
ROUNDS, QUICK_ROUNDS = 4, 3
MOST_ROUNDS = 12  # where those say little: a neighbour may have the machine for some of them
NEAR = 1.5  # who takes that many times the best may be the best ...
SURE = 0.02  # ... unless the ratio of the two is known to that
HOPELESS = 8.0  # who takes that many times the best in a first look keeps that figure
STRICT_SECONDS, STRICT_ROUNDS = 0.15, (5, 3000)  # per contender; the fewest and the most rounds

Calls = Mapping[str, Callable[[], object]]
Clock = Callable[[], float]


def blocks(
    calls: Calls,
    rounds: int = ROUNDS,
    gauge: Gauge | None = None,
    *,
    most: int = 0,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Time each call in blocks of its own, after a pause and a warm-up, for some rounds in rotated order.

    Parameters
    ----------
    calls : mapping of name to callable
    rounds : int
        Those that count.
    gauge : Gauge or None
        Says which rounds count; None: all.
    most : int
        Further rounds, until there are so many, while the near rivals' ratios are not known to `SURE`.
    clock, sleep : callable
        Tests pass their own.

    Returns
    -------
    dict of name to Timing
        Median and quartiles of the blocks' medians, in the order of `calls`.
    """
    samples = block_samples(calls, rounds, gauge, most=most, clock=clock, sleep=sleep)
    return {name: summarise(values) for name, values in samples.items()}


def block_samples(
    calls: Calls,
    rounds: int,
    gauge: Gauge | None = None,
    *,
    most: int = 0,
    hopeless: float = HOPELESS,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """What `blocks` sums up: by name the medians of the blocks, a round each, in the order of the rounds.

    Who takes more than `hopeless` times the best in a first look has that look as its only sample.
    """
    gauge = gauge or Gauge(None)
    gauge.settle()
    samples, live = _probed(calls, clock, sleep, hopeless)
    number = 0
    while number < rounds or (number < most and not _sure([samples[name] for name in live])):
        medians = {}
        for name in _rotated(live, number):
            sleep(PAUSE_SECONDS)
            medians[name] = _block(calls[name], clock)
        sleep(PAUSE_SECONDS)
        if gauge.keep():
            number += 1
            for name, median in medians.items():
                samples[name].append(median)
    return samples


def _sure(samples):
    """Whether each near rival's ratio to the best is known: its median's standard error, from the quartiles."""
    values = np.array(samples)
    medians = np.median(values, axis=1)
    ratios = values[medians <= NEAR * medians.min()] / values[medians.argmin()]
    q1, q3 = np.percentile(ratios, (25, 75), axis=1)
    errors = 1.253 / 1.349 * (q3 - q1) / np.median(ratios, axis=1) / np.sqrt(values.shape[1])  # as of normal samples
    return bool(np.all(errors <= SURE))


def strict(calls: Calls, seconds: float = STRICT_SECONDS, *, clock: Clock = time.perf_counter) -> dict[str, Timing]:
    """Time one call of each in turn, in rotated order, without pauses, for about `seconds` per contender."""
    samples, live = _probed(calls, clock, lambda seconds: None)
    end, number = clock() + seconds * len(live), 0
    fewest, most = STRICT_ROUNDS
    while number < fewest or (clock() < end and number < most):
        for name in _rotated(live, number):
            samples[name].append(seconds_per_call(calls[name], 1, clock))
        number += 1
    return {name: summarise(values) for name, values in samples.items()}


def _probed(calls, clock, sleep, hopeless=HOPELESS):
    """A probe's time for the hopeless, empty lists for the others, and the others' names."""
    probes = {}
    for name, call in calls.items():
        sleep(PAUSE_SECONDS)
        call()
        probes[name] = seconds_per_call(call, 1, clock)
        if probes[name] < BLOCK_SECONDS:  # a short call may have been disturbed
            probes[name] = min(probes[name], seconds_per_call(call, 1, clock))
    best = min(probes.values())
    live = [name for name, seconds in probes.items() if seconds <= hopeless * best]
    return {name: [] if name in live else [seconds] for name, seconds in probes.items()}, live


def _rotated(names, number):
    start = number % len(names)
    return names[start:] + names[:start]


def _block(call, clock):
    """The median of the samples that fit a block; the first calls are not counted."""
    begin = clock()
    end = begin + WARM_SECONDS
    calls = 0
    while calls == 0 or clock() < end:
        call()
        calls += 1
    repeats = repeats_for((clock() - begin) / calls)
    values, end = [], clock() + BLOCK_SECONDS
    while not values or clock() < end:
        values.append(seconds_per_call(call, repeats, clock))
    return float(np.median(values))
