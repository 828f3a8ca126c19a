"""What comes from afar is asked for ahead of its use: weights, and the inputs of the tiles to come."""

import math

from .target import cache_bytes

#: So many bytes ahead, two pages: a page's address takes as long to find as its first line.
WEIGHTS_AHEAD = 8192
#: Weights that take more than this part of the L2 cache are far: another layer drives them out.  Caches cold, us
#: without and with: 2048 -> 512 channels at 7x7, 1x1, 363 and 295 (as a plain product 551 and 414), 256 -> 256 at
#: 14x14, 3x3, 552 and 504, 512 -> 512 at 7x7 595 and 559; hot the same.  One cache full gains less, 1024 -> 256 at
#: 14x14, 1x1, 0 to 5 %; where weights are few it takes 1 to 2 % (Zen 5, 1 MiB of L2, 2026-11).
FAR_SHARE = 0.5
LINE_BYTES = 64
#: Inputs of a next tile that lie apart, a line or two of each of many planes, come into the second-level cache where
#: the first is not larger than this ...
SMALL_CACHE = 32 * 1024
#: ... and they are more than this part of it, or sparse.  Into the first and the second, 32 KiB: 256 -> 128 channels at
#: 56x56, 1x1, stride 2, batch 8, 2332 and 1974 us, 256 -> 64 at 56x56, 16 KiB of inputs, cold 432 and 415; but 64 ->
#: 256, 8 KiB, hot 575 and 590.  Products that read in place, cold: 256 -> 16 at 56x56 304 and 202, 64 -> 16 at 128x128,
#: 8 KiB of planes that want the same sets, 442 and 283; hot 128 -> 6 at 56x56, batch 8, 402 and 256 (Zen 4, November
#: 2026).  Of 48 KiB the second took up to a tenth longer (products, Zen 5).
APART_SHARE = 0.25


def are_far(nbytes):
    """Whether weights of so many bytes are asked for."""
    return nbytes > FAR_SHARE * cache_bytes()


def inputs_level(nbytes, sparse):
    """The cache, 1 or 2, that a next tile's inputs are asked into, so many bytes of lines that lie apart.

    `sparse` if strides leave out some of each line, or if the lines want the same few sets.
    """
    many = sparse or nbytes > APART_SHARE * cache_bytes(1)
    return 2 if many and cache_bytes(1) <= SMALL_CACHE else 1


def share(count, turn, turns):
    """Which of `count` lines one of some turns asks for."""
    return range(turn * count // turns, (turn + 1) * count // turns)


def ask(code, weights, nbytes, turn=0, turns=1):
    """Write what asks for the weights of rounds to come, in one of some `turns` that share the lines.

    `nbytes` is what a round takes from the pointer `weights` on.
    """
    for line in share(math.ceil(turns * nbytes / LINE_BYTES), turn, turns):
        code.prefetch(weights + (WEIGHTS_AHEAD + line * LINE_BYTES - turn * nbytes))
