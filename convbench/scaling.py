"""Thread scaling: the fastest engine of a few problems, timed at 1, 2, 4 … threads in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from convbench import peers, settings
from convbench.benchmarks.contest import arrays, planned
from convbench.registry import get
from convbench.report.results import Point, Row, Scaling
from convbench.spec import ConvSpec
from convbench.timing import interleaved

PER_SUITE = 2  # the problems whose fastest engine takes longest: there is something to share out
LONGEST_CALL = 0.05  # seconds; with three rounds at least, longer ones would take most of the time
SECONDS = 12.0  # all problems together


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def chosen(rows: list[Row]) -> list[tuple[Row, str]]:
    """A few rows of each suite, with the fastest engine that is no other library."""
    found = []
    for suite in dict.fromkeys(row.suite for row in rows):
        own = [(row, next((name for name in row.measured if name not in peers.NAMES), None)) for row in rows]
        own = [(row, name) for row, name in own if row.suite == suite and name]
        short = [(row, name) for row, name in own if row.engines[name].median <= LONGEST_CALL]
        short.sort(key=lambda item: -item[0].engines[item[1]].median)
        found += short[:PER_SUITE]
    return found


def measure(rows: list[Row], most: int, image: str = "", seconds: float = SECONDS) -> list[Scaling]:
    """Time the engines at every number of threads, interleaved; nothing where there is one thread only.

    Each is planned as it plans itself: with more than one variant it is the one that its model picks.

    Parameters
    ----------
    rows : list of Row
        Measured at `most` threads.
    most : int
        Threads.
    image : str
        The photograph; empty for the sample.
    seconds : float
        For all problems together.
    """
    pairs = chosen(rows) if most > 1 else []
    return [_measure_one(row, name, most, image, seconds / len(pairs)) for row, name in pairs]


def _measure_one(row, name, most, image, seconds):
    spec = ConvSpec.parse(row.text)
    x, weight = arrays(spec, image)
    calls = {}
    for threads in thread_counts(most):
        with _threads(threads):
            calls[threads] = planned(get(name), spec, x, weight)
    timings = interleaved(calls, seconds, drop_beyond=float("inf"))
    return Scaling(row.name, name, [Point(threads, **asdict(timing)) for threads, timing in timings.items()])


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = settings.get_num_threads()
    settings.set_num_threads(threads)
    try:
        yield
    finally:
        settings.set_num_threads(before)
