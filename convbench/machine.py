"""The machine, as far as predictions and records need it: read from the system, never timed."""

from __future__ import annotations

import os
import platform
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

ASSUMED_HERTZ = 3.5e9  # where the system tells no clock rate; only ratios between engines matter
FMA_PIPES = 2  # vector multiply-adds started per cycle and core, on every mainstream core since 2013 ...
HALVED = ("AuthenticAMD", 25, 64)  # ... but Zen 4 (family 25) works on 64-byte vectors in two halves
BYTES_PER_SECOND_PER_CORE = 12e9  # a copy's read + write on a 2-core Zen 5 VM was 24 GB/s (2026-11)
CALL_SECONDS = 2e-6  # one planned call from Python, any engine
SCALAR_FLOPS = 1e9  # compiled loops that no one vectorised

_VECTOR_BYTES = (("AVX512F", 64), ("AVX2", 32), ("SVE", 32), ("NEON", 16), ("SSE2", 16))


#: Bytes that the caches hold from one call to the next, and how much faster they are than the memory (2-core Zen 5 VM
#: with 32 MiB of third-level cache, 2026-11: fitted to the times of 501 spectral convolutions).
CACHED_BYTES, CACHED_SPEED = 16 << 20, 3


@dataclass(frozen=True)
class Machine:
    """What `Engine.predict_seconds` may ask about the machine.

    Attributes
    ----------
    model : str
        The processor's name.
    isa : tuple of str
        Vector instruction sets that NumPy found usable.
    cores : int
        Cores this process may use, by affinity and container limits.
    threads : int
        Threads that engines are asked to use.
    vector_bytes : int
        Bytes of a vector register.
    fma_pipes : int
        Multiply-adds of such vectors started per cycle and core.
    hertz : float
        Clock rate that the peak comes from.
    bandwidth : float
        Bytes per second to and from memory, of all threads together.
    call_seconds, scalar_flops : float
        Seconds of an empty planned call, FLOP/s of plain loops.
    """

    model: str
    isa: tuple[str, ...]
    cores: int
    threads: int
    vector_bytes: int
    fma_pipes: int = FMA_PIPES
    hertz: float = ASSUMED_HERTZ
    bandwidth: float = BYTES_PER_SECOND_PER_CORE
    call_seconds: float = CALL_SECONDS
    scalar_flops: float = SCALAR_FLOPS

    def peak_flops(self, dtype: str, widest: int = 64) -> float:
        """FLOP/s of multiply-adds on all threads, by code that uses vectors of at most `widest` bytes."""
        pipes = self.fma_pipes if widest >= self.vector_bytes else FMA_PIPES
        lanes = max(min(self.vector_bytes, widest) // np.dtype(dtype).itemsize, 1)
        return 2 * pipes * lanes * self.hertz * self.threads

    def traffic_seconds(self, moved: float, held: float) -> float:
        """Seconds to move so many bytes, of a computation that holds so many: caches are faster than the memory."""
        return moved / self.bandwidth / (CACHED_SPEED if held <= CACHED_BYTES else 1)


#: The machine that predictions are made for where they must not depend on the one at hand: four cores with AVX2.
DEFAULT_PROFILE = Machine("default profile", ("AVX2",), 4, 4, 32)

_assumed: ContextVar[Machine | None] = ContextVar("convbench_assumed_machine", default=None)


@contextmanager
def assumed(machine: Machine):
    """Within the block a prediction is for `machine`: nothing may be asked of the one at hand."""
    token = _assumed.set(machine)
    try:
        yield
    finally:
        _assumed.reset(token)


def is_assumed() -> bool:
    """Whether a prediction is being made for another machine than the one at hand."""
    return _assumed.get() is not None


@cache
def this_machine(threads: int) -> Machine:
    """The machine that this process runs on, with `threads` to use."""
    isa = instruction_sets()
    width = next((width for name, width in _VECTOR_BYTES if name in isa), 16)
    vendor, family = _cpuinfo("vendor_id"), _cpuinfo("cpu family")
    pipes = 1 if (vendor, family, width) == (HALVED[0], str(HALVED[1]), HALVED[2]) else FMA_PIPES
    bandwidth = BYTES_PER_SECOND_PER_CORE * threads
    return Machine(processor_name(), isa, usable_cores(), threads, width, pipes, bandwidth=bandwidth)


@cache
def processor_name() -> str:
    """The processor's name as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field):
    """The first processor's `field` where the system lists it, else an empty text."""
    try:
        found = re.search(rf"^{field}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


@cache
def instruction_sets() -> tuple[str, ...]:
    """Names of the vector instruction sets that NumPy detected, sorted."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__ as features
    except ImportError:
        features = {}
    return tuple(sorted(name for name, present in features.items() if present))


@cache
def usable_cores() -> int:
    """Cores this process may use: its affinity mask, and the container's share where one is set."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _container_cores(cores)))


def _container_cores(otherwise: int) -> int:
    """Whole cores in the cgroup's CPU quota, rounded up (version 2, then version 1)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            base = Path("/sys/fs/cgroup/cpu")
            quota = (base / "cpu.cfs_quota_us").read_text().strip()
            period = (base / "cpu.cfs_period_us").read_text()
        except OSError:
            return otherwise
    if not quota.isdigit():
        return otherwise
    return -(-int(quota) // int(period))
