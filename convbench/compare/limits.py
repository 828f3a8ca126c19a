"""The machine's limits, measured in the same run: multiply-adds per second, and bytes per second of a copy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from convbench import registry
from convbench.timing import seconds_per_call

DTYPES = ("float32", "float64")
PEAK_CALLS = 40  # some 3 ms each
COPIED = (4096, 4096)  # float32: 64 MiB read and as many written, far past any cache
COPIES = 12


@dataclass(frozen=True)
class Limits:
    """What a convolution cannot pass.

    Attributes
    ----------
    peaks : dict of str to float
        FLOP/s of multiply-adds on all threads, by dtype; empty where no engine measures it.
    bandwidth : float
        Bytes per second, read and written, of a copy between arrays of 64 MiB.
    """

    peaks: dict[str, float]
    bandwidth: float

    def share(self, flops: float, dtype: str) -> float | None:
        """`flops` as a part of the peak, or None where that is not known."""
        return flops / self.peaks[dtype] if dtype in self.peaks else None


def measure(threads: int) -> Limits:
    """Measure now; takes about half a second."""
    found = {dtype: peak(dtype) for dtype in DTYPES}
    return Limits({dtype: flops for dtype, flops in found.items() if flops}, _copy_bandwidth(threads))


def peak(dtype: str, calls: int = PEAK_CALLS) -> float | None:
    """FLOP/s of multiply-adds on all threads, or None where no engine makes nothing else.

    The best of some calls: a peak is an upper limit, and every disturbance only slows a call down.
    """
    found = peak_call(dtype)
    if found is None:
        return None
    call, flops = found
    return flops / min(seconds_per_call(call, 1, time.perf_counter) for _ in range(calls))


def peak_call(dtype: str, flops: int | None = None) -> tuple[Callable[[], object], int] | None:
    """The first engine's ``peak_call(dtype, flops)``, or None where no engine has one."""
    calls = (engine.peak_call for engine in registry.engines().values() if hasattr(engine, "peak_call"))
    first = next(calls, None)
    return first(dtype, flops) if first else None


def highest(found: list[Limits]) -> Limits:
    """The highest of each: a limit is what the machine reached at its best."""
    return _extreme(max, found)


def lowest(found: list[Limits]) -> Limits:
    """The lowest of each: how unsteady the machine was."""
    return _extreme(min, found)


def _extreme(pick, found):
    peaks = {dtype: pick(limits.peaks[dtype] for limits in found) for dtype in found[0].peaks}
    return Limits(peaks, pick(limits.bandwidth for limits in found))


@contextlib.contextmanager
def copier(source: np.ndarray, target: np.ndarray, threads: int) -> Iterator[Callable[[], None]]:
    """A call that copies `source` to `target`, a part of the second-last axis on each thread."""
    axis = source.ndim - 2
    parts = list(zip(*(np.array_split(array, threads, axis) for array in (target, source)), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy():
            for done in [pool.submit(np.copyto, *part) for part in parts]:
                done.result()

        yield copy


def _copy_bandwidth(threads):
    """The best of NumPy's copy on one thread and on all of them."""
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    seconds = []
    for count in (1, threads):
        with copier(source, target, count) as copy:
            seconds += [seconds_per_call(copy, 1, time.perf_counter) for _ in range(COPIES)]
    return 2 * source.nbytes / min(seconds)
