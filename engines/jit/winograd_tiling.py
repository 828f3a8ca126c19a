"""How many vectors of tiles a block holds, how many output channels a register block, and what they cost."""

import functools
import itertools
import math

from convbench.machine import FMA_PIPES

from .dense_tiling import in_halves, parts

#: Vectors of tiles of a register block, at most.
MOST_VECTORS = 4
#: Registers beside sums and tiles: a weight, and one in flight (4 x 7 sums without it spill: 0.3 of the peak).
SPARE_REGISTERS = 2
MOST_FILTERS = 28
#: Cycles of one channel: half a multiply-add each, but no less than this for each load, and what the loop costs.
#: (Parts of the peak, Cascade Lake, 2026-11, vectors x filters: 1 x 28 0.65, 2 x 14 0.90, 3 x 9 0.89, 4 x 6 0.85.)
LOAD_CYCLES = 0.75
ROUND_CYCLES = 1.3
#: Cycles of a vector of a channel's tiles at one frequency, per product along both dimensions, transformed through the
#: second-level cache (2 -> 77 channels at 19 x 19, Zen 5, 2026-11).
GATHER_CYCLES = 1.1
#: The same where rows have a stride (5 channels of their own, 10 taps of stride 2: 10.8 us for 8.8 by prediction).
STRIDED_GATHER = 1.8
#: Part of the L2 cache for the transformed input of a block, and for its sums where they stay there, too.
BLOCK_SHARE = 0.65
#: Channels, of every phase, that are worth loading and storing the sums of a block for.
LEAST_PIECE = 32
#: Vectors of tiles of a block that must fit for the three steps to be fused (milliseconds fused and shared, F(4, 3),
#: Cascade Lake, 2026-11: 2 fit, 128 -> 256 channels at 56 x 56, 3.0 and 3.8; 1 fits, 256 -> 256, 9.8 and 6.8).
FUSED_VECTORS = 2
#: Bytes of V and M together in a shared round: they should stay in the last-level cache.
SHARED_BYTES = 12 << 20
#: Blocks per thread from which on it does not matter that they are whole.
MANY_BLOCKS = 32


def fitting(products, channels, vector_bytes, cache):
    """Vectors of tiles whose so many transformed channels fit their part of a cache of so many bytes."""
    return int(BLOCK_SHARE * cache / (products * channels * vector_bytes))


def way_of(products, channels, filters, total, vector_bytes, cache):
    """The way of computing (`winograd`) `total` vectors of tiles, and how many of them a block may have in it.

    A single vector is not taken in pieces: every thread would transform all of its input.
    """
    fits = fitting(products, channels, vector_bytes, cache)
    if fits >= FUSED_VECTORS:
        return "fused", fits
    fits = fitting(products, filters + LEAST_PIECE, vector_bytes, cache)
    return ("pieces", fits) if min(fits, total) >= FUSED_VECTORS else ("shared", 1)


def piece_of(products, filters, vectors, vector_bytes, cache):
    """Channels, of every phase, that fit beside the sums of a block of at most so many vectors."""
    vectors = min(vectors, MOST_VECTORS)
    return max(1, fitting(products, 1, vector_bytes, cache) // vectors - filters)


def channel_cycles(vectors, filters, multiplies):
    """Modelled cycles of a register block per input channel."""
    return max(vectors * filters / multiplies, LOAD_CYCLES * (vectors + filters)) + ROUND_CYCLES


def filter_parts(vectors, filters, registers):
    """Output channels of the register blocks of a group, for blocks of at most so many vectors."""
    most = min(MOST_FILTERS, (registers - SPARE_REGISTERS - vectors) // vectors)
    return parts(filters, math.ceil(filters / most))


def halving(multiplies):
    """How many times as long transforms take, where so many multiply-adds of whole vectors begin in a cycle.

    Predicted / taken without it on a Zen 4: 64 groups of 1 -> 1 channels at 112x112, 3x3, stride 2, 0.57, 57 -> 2 at
    7x7, batch 16, 0.35, 44 -> 2 at 20x20, 2x2, 0.42 (November 2026).
    """
    return FMA_PIPES / multiplies


def gather_cycles(products, stride, multiplies):
    """Modelled cycles to transform a vector of tiles with so many products down and across, per channel, frequency.

    `stride` is that along rows: they are taken apart by it, too.
    """
    return halving(multiplies) * GATHER_CYCLES * sum(products) * (STRIDED_GATHER if stride > 1 else 1)


def ranges(count, pieces):
    """`count` numbers in so many near-equal ranges."""
    ends = list(itertools.accumulate(parts(count, pieces)))
    return [range(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@functools.lru_cache(maxsize=4096)
def choose(total, filters, fits, registers, multiplies, threads, gather=0.0):
    """Vectors of each block for `total` vectors of tiles, filters of each register block, and their cycles.

    A block holds at most `fits` vectors.  `threads` share the blocks, each taking the next when it is free; 1 where
    they share something else.  The cycles are modelled, per input channel and frequency, of the thread that has most
    to do, with `gather` for each vector: where threads share a block each of them transforms it.
    """
    best, least = None, math.inf
    for most in range(1, min(fits, MOST_VECTORS, total) + 1):
        filter_sizes = filter_parts(most, filters, registers)
        cycles = [sum(channel_cycles(n, k, multiplies) for k in filter_sizes) for n in range(most + 1)]
        fewest = math.ceil(total / most)
        for count in range(fewest, min(total, fewest + threads - 1) + 1):
            busy = _busy(total, count, cycles, threads, gather)
            if busy < least:
                best, least = (count, filter_sizes), busy
    count, filter_sizes = best
    return tuple(in_halves(parts(total, count))), tuple(filter_sizes), least


def _busy(total, count, cycles, threads, gather):
    """Cycles of the thread that has most to do, where `count` near-equal blocks are taken one after the other."""
    if count < threads:  # filters are shared, too
        return sum(cycles[n] for n in parts(total, count)) / threads + gather * math.ceil(total / count)
    cycles = [cycle + gather * n for n, cycle in enumerate(cycles)]
    size, larger = divmod(total, count)
    if count > MANY_BLOCKS * threads:  # there is always something left
        return (larger * cycles[min(size + 1, len(cycles) - 1)] + (count - larger) * cycles[size]) / threads
    shares = [0.0] * threads
    for n in parts(total, count):  # the larger ones come first
        shares[shares.index(min(shares))] += cycles[n]
    return max(shares)
