"""Whether memory lies in a cache, by the time that reading some of it takes.

Results whose memory is in no cache are best written past the caches: written through them, each line is read from
memory first.  Of those whose memory is in one the next operation finds its inputs there.  The same array is now the
one and now the other, for it depends on what else the program does, so generated code asks when it runs.
"""

import ctypes
import functools

import numpy as np
from llvmlite import ir

from .ahead import LINE_BYTES
from .compile import address
from .vector import INDEX, Code

#: Results of so many bytes, more than second-level caches hold for the next operation, are asked after, if a vector of
#: them takes so few cycles to compute that memory is what it waits for.  Caches cold, us through and past them, alone
#: and with a pointwise layer after it: 16 -> 96 channels at 128x128, 1x1, 623 and 444, 954 and 848, 32 -> 64 at 112x112
#: 453 and 371, 590 and 563, 40 -> 240 at 56x56 670 and 626, 903 and 853; but 64 -> 256 at 56x56 553 and 557, 686 and
#: 701, 96 -> 192 624 and 654, 726 and 760.  Hot the same.  Of 0.6 to 1.8 MB, cold: 0.97 to 1.03 (Zen 4, 32 MiB of L3,
#: November 2026).
LEAST_BYTES, MOST_CYCLES = 2 << 20, 48
#: Part of the time that a line from memory takes, from which on one is taken to come from there.  Cycles of the clock,
#: with those that reading it takes: from memory 360 to 440, from any cache 78 to 104 (Zen 4 VM, November 2026).
FAR_SHARE = 0.5
#: How far it is from a line to the one that is read before.
BESIDE_BYTES = 512
#: Lines that are read to learn that time, each in a page of its own.
PAGES, PAGE_BYTES = 64, 4096


def pays(target, nbytes, products, most_cycles=None):
    """Whether to ask after results of `nbytes`, each vector of which takes so many multiply-adds.

    Only where vectors are whole lines: of parts of them memory would be written one by one.
    """
    cycles, most = products / target.multiplies, MOST_CYCLES if most_cycles is None else most_cycles
    return target.vector_bytes == LINE_BYTES and nbytes >= LEAST_BYTES and cycles <= most


def some(first, count):
    """A few numbers of `count` from `first` on, at distances in which the processor sees no pattern to fetch ahead."""
    return [first + count * part // 8 for part in (0, 5, 2, 7)]


def is_far(code, array, places, cycles):
    """Whether reading the lines of `places`, of the array that begins at `array`, takes longer together than `cycles`.

    A line beside each is read before: the address of a page that was not met for long takes as long to find as a line.
    Never without a clock.
    """
    if not _has_clock(code.target):
        return code.value(0).compare(">", 0)
    for place in places:
        _read(place + (array.number() - place.number()).most(-BESIDE_BYTES))
    return _cycles(code, places).compare(">", cycles)


@functools.cache
def far_cycles(target):
    """What `is_far` takes as its `cycles`: of the processor's clock, measured once; 0 where it has no such clock."""
    if not _has_clock(target):
        return 0
    function = address("latency", (), target, lambda module: _write_latency(module, target))
    lines, found = np.zeros(PAGES * PAGE_BYTES, np.uint8), np.zeros(PAGES, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(function)(lines.ctypes.data, found.ctypes.data)
    return int(FAR_SHARE * np.median(found))


def _has_clock(target):
    """Whether generated code can read the processor's clock and drive lines out of its caches: on x86."""
    return target.pause == "pause"


def _write_latency(module, target):
    """Write ``void latency(lines, found)``: the cycles to read a line that no cache holds, of each page."""
    code = Code(module, "latency", target, "pp")
    lines, found = code.arguments

    def one(number):
        page = lines + number * PAGE_BYTES
        line = page + PAGE_BYTES // 2
        _read(line)
        code.intrinsic("llvm.x86.sse2.clflush", ir.VoidType(), [line], [])
        code.intrinsic("llvm.x86.sse2.mfence", ir.VoidType(), [], [])
        _read(page)
        (found + number * INDEX.itemsize).store(_cycles(code, [line]))

    code.loop(PAGES, one)
    code.finish()


def _cycles(code, places):
    """How many it takes to read from all `places`."""
    begin = _clock(code)
    for place in places:
        _read(place)
    return _clock(code) - begin


def _read(place):
    """Read a byte, which the compiler does not leave out."""
    place.code.builder.load_atomic(place.ir, "seq_cst", 1, typ=ir.IntType(8))


def _clock(code):
    """The processor's clock, when all before is done and nothing of what follows has begun."""
    code.intrinsic("llvm.x86.sse2.lfence", ir.VoidType(), [], [])
    now = code.intrinsic("llvm.readcyclecounter", INDEX.ir, [], [])
    code.intrinsic("llvm.x86.sse2.lfence", ir.VoidType(), [], [])
    return now
