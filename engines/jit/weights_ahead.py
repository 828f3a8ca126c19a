"""Weights that come from afar are asked for ahead of their use."""

from .target import cache_bytes

#: So many bytes ahead, two pages: a page's address takes as long to find as its first line.
WEIGHTS_AHEAD = 8192
#: Weights that take more than this part of the L2 cache: another layer drives them out.  Caches cold, us without and
#: with: 2048 -> 512 channels at 7x7, 1x1, 363 and 295 (as a plain product 551 and 414), 256 -> 256 at 14x14, 3x3, 552
#: and 504, 512 -> 512 at 7x7 595 and 559; hot the same.  Where weights are few it takes 1 to 2 % (Zen 5, 2026-11).
ASKED_SHARE = 0.5
LINE_BYTES = 64


def are_far(nbytes):
    """Whether weights of so many bytes are asked for."""
    return nbytes > ASKED_SHARE * cache_bytes()


def ask(code, weights, nbytes):
    """Write what asks for the next round's weights: `nbytes` is what a round takes from the pointer `weights` on."""
    for line in range(0, nbytes, LINE_BYTES):
        code.prefetch(weights + (WEIGHTS_AHEAD + line))
