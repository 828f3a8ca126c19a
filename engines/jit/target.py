"""What the processor offers to generated code: vector length, registers, instruction set.

A kernel generator asks a `Target` for lanes and registers and never for a processor's name, so the same
generator writes AVX-512, AVX2, SSE and NEON code.  A level may be forced, by argument or by the environment
variable ``CONVBENCH_ISA``, to test one instruction set on a machine that has more.
"""

import dataclasses
import functools
import os

import numpy as np

from convbench.machine import is_assumed

#: level -> (LLVM processor, LLVM features, vector bytes, vector registers, fused multiply-add, what the host must have)
X86_LEVELS = {
    "avx512": ("x86-64-v4", "", 64, 32, True, ("avx512f", "avx512vl", "avx512dq", "avx512bw", "fma")),
    "avx2": ("x86-64-v3", "", 32, 16, True, ("avx2", "fma")),
    "baseline": ("x86-64", "", 16, 16, False, ()),
}
#: Every 64-bit Arm has 32 registers of 16 bytes and a fused multiply-add.
ARM_LEVELS = {"baseline": ("generic", "+neon", 16, 32, True, ())}

#: Processors (LLVM's names) that work on 64-byte vectors in two halves.
HALVED_VECTORS = {"znver4"}
#: What current server and desktop cores have at least, where the system does not say.
DEFAULT_CACHE_BYTES = {1: 32 * 1024, 2: 512 * 1024}
#: Linux lists a core's caches as the first level's of data and of instructions, then the others.
LINUX_INDEX = {1: 0, 2: 2}


@dataclasses.dataclass(frozen=True)
class Target:
    """A processor as code generators see it.

    Attributes
    ----------
    level : str
        ``"avx512"``, ``"avx2"`` or ``"baseline"``.
    vector_bytes, registers : int
        Length of one vector register, and how many there are.
    fma : bool
        Whether ``a * b + c`` is one instruction.
    cpu, features : str
        For LLVM's code generator.
    pause : str
        The instruction that tells the processor that this thread is spinning.
    multiplies : int
        Full vectors that it multiplies and adds per cycle.
    """

    level: str
    vector_bytes: int
    registers: int
    fma: bool
    cpu: str
    features: str
    pause: str
    multiplies: int

    def lanes(self, dtype):
        """Elements of `dtype` in one vector."""
        return self.vector_bytes // np.dtype(dtype).itemsize


def _host_levels(triple, has):
    """The levels of the host's architecture that it can run, best first."""
    table = ARM_LEVELS if triple.startswith(("aarch64", "arm64")) else X86_LEVELS if triple.startswith("x86_64") else {}
    return {level: row for level, row in table.items() if all(has.get(name) for name in row[5])}


@functools.cache
def _resolve(level):
    import llvmlite.binding as llvm

    triple, has = llvm.get_default_triple(), llvm.get_host_cpu_features()
    levels = _host_levels(triple, has)
    if not levels:
        raise NotImplementedError(f"no code generation for {triple}")
    best = next(iter(levels))
    if level is not None and level not in levels:
        raise ValueError(f"this machine runs {', '.join(levels)}; {level!r} was asked for")
    cpu, features, vector_bytes, registers, fma, _ = levels[level or best]
    if level in (None, best):  # the best level is tuned for the very processor
        cpu, features = llvm.get_host_cpu_name(), has.flatten()
    pause = "pause" if triple.startswith("x86_64") else "yield"
    multiplies = 1 if vector_bytes == 64 and llvm.get_host_cpu_name() in HALVED_VECTORS else 2
    return Target(level or best, vector_bytes, registers, fma, cpu, features, pause, multiplies)


def target(level=None):
    """The machine to generate code for.

    Parameters
    ----------
    level : {"avx512", "avx2", "baseline"} or None
        None takes ``CONVBENCH_ISA`` if set, otherwise the best that the machine has.

    Returns
    -------
    Target

    Raises
    ------
    ValueError
        If this machine does not run that level.
    NotImplementedError
        If the architecture is not one that the generators were checked on.
    """
    return _resolve(level or os.environ.get("CONVBENCH_ISA") or None)


def levels():
    """Names of the levels that this machine runs, best first."""
    import llvmlite.binding as llvm

    return tuple(_host_levels(llvm.get_default_triple(), llvm.get_host_cpu_features()))


def cache_bytes(level=2):
    """Bytes of a core's cache of data on that level (1 or 2), which the blocks of a computation should fit."""
    return DEFAULT_CACHE_BYTES[level] if is_assumed() else _host_cache_bytes(level)


@functools.cache
def _host_cache_bytes(level):
    try:
        with open(f"/sys/devices/system/cpu/cpu0/cache/index{LINUX_INDEX[level]}/size") as file:
            return int(file.read().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return DEFAULT_CACHE_BYTES[level]
