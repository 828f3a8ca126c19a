"""Weights that come from afar are asked for ahead of their use."""

from .target import cache_bytes

#: So many bytes ahead, two pages: a page's address takes as long to find as its first line.
WEIGHTS_AHEAD = 8192
#: Weights that take more than this part of the L2 cache are far: another layer drives them out.  Caches cold, us
#: without and with: 2048 -> 512 channels at 7x7, 1x1, 363 and 295 (as a plain product 551 and 414), 256 -> 256 at
#: 14x14, 3x3, 552 and 504, 512 -> 512 at 7x7 595 and 559; hot the same.  One cache full gains less, 1024 -> 256 at
#: 14x14, 1x1, 0 to 5 %; where weights are few it takes 1 to 2 % (Zen 5, 1 MiB of L2, 2026-11).
FAR_SHARE = 0.5
LINE_BYTES = 64


def are_far(nbytes):
    """Whether weights of so many bytes are asked for."""
    return nbytes > FAR_SHARE * cache_bytes()


def ask(code, weights, nbytes):
    """Write what asks for the next round's weights: `nbytes` is what a round takes from the pointer `weights` on."""
    for line in range(0, nbytes, LINE_BYTES):
        code.prefetch(weights + (WEIGHTS_AHEAD + line))
