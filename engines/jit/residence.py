"""Whether memory lies in a cache, by the time that reading some of it takes.

Results whose memory is in no cache are best written past the caches: written through them, each line is read from
memory first.  Of those whose memory is in one the next operation finds its inputs there.  The same array is now the
one and now the other, for it depends on what else the program does, so generated code asks when it runs.
"""

import ctypes
import functools

import numpy as np
from llvmlite import ir

from . import atomics
from .compile import address
from .vector import INDEX, Code

#: Part of the time that a line from memory takes, from which on one is taken to come from there.  Cycles of the clock,
#: with those that reading it takes: from memory 360 to 440, from any cache 78 to 104 (Zen 4 VM, November 2026).
FAR_SHARE = 0.5
#: Lines that are read to learn that time, each in a page of its own.
PAGES, PAGE_BYTES = 64, 4096


def is_far(code, known, places, cycles):
    """Whether reading the lines of `places` together takes longer than `cycles`, those `known` beside them read first.

    For the address of a page that was not met for long takes as much time to find as a line.
    """
    for place in known:
        atomics.get(place)
    return _cycles(code, places).compare(">", cycles)


@functools.cache
def far_cycles(target):
    """What `is_far` takes as its `cycles`: of the processor's clock, measured once; 0 where it has no such clock."""
    if target.pause != "pause":  # no x86
        return 0
    function = address("latency", (), target, lambda module: _write_latency(module, target))
    lines, found = np.zeros(PAGES * PAGE_BYTES, np.uint8), np.zeros(PAGES, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(function)(lines.ctypes.data, found.ctypes.data)
    return int(FAR_SHARE * np.median(found))


def _write_latency(module, target):
    """Write ``void latency(lines, found)``: the cycles to read a line that no cache holds, of each page."""
    code = Code(module, "latency", target, "pp")
    lines, found = code.arguments

    def one(number):
        page = lines + number * PAGE_BYTES
        line = page + PAGE_BYTES // 2
        atomics.get(line)
        code.intrinsic("llvm.x86.sse2.clflush", ir.VoidType(), [line], [])
        code.intrinsic("llvm.x86.sse2.mfence", ir.VoidType(), [], [])
        atomics.get(page)
        (found + number * INDEX.itemsize).store(_cycles(code, [line]))

    code.loop(PAGES, one)
    code.finish()


def _cycles(code, places):
    """How many it takes to read from all `places`."""
    begin = _clock(code)
    for place in places:
        atomics.get(place)
    return _clock(code) - begin


def _clock(code):
    """The processor's clock, when all before is done and nothing of what follows has begun."""
    code.intrinsic("llvm.x86.sse2.lfence", ir.VoidType(), [], [])
    now = code.intrinsic("llvm.readcyclecounter", INDEX.ir, [], [])
    code.intrinsic("llvm.x86.sse2.lfence", ir.VoidType(), [], [])
    return now
