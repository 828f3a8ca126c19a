"""How a product is cut into tiles of channels and pixels, and whether its inputs are read in place or from panels."""

import dataclasses
import functools
import math

from .ahead import LINE_BYTES, SMALL_CACHE
from .dense_tiling import INSTRUCTIONS_PER_CYCLE, parts
from .target import cache_bytes

#: Part of the L1 cache for the panel: of 48 KiB, 1024 -> 256 channels at 14x14, batch 8, 16 KiB 254, 24 KiB 287, 32 KiB
#: 271 GFLOP/s (Zen 5, November 2026); of 32 KiB a busy neighbour leaves no more either.
PANEL_SHARE = 0.5
#: The same of 32 KiB where two multiply-adds begin per cycle: there the processor fetches ahead what lies together, and
#: sums that stay in registers are worth more.  Half, twice and four times the L1 cache, tiles of 9 x 3, us: 512 -> 128
#: channels at 28x28 918, 858, 842, 320 -> 320 at 64x64 8171, 7566, 7566, 2048 -> 512 at 14x14 3201, 2910, 2937; with
#: strides the same, or half and four times 1.1 of the time (Cascade Lake, November 2026).
FAR_PANEL_SHARE = 2
#: What a round from a panel takes more for each vector of inputs where two multiply-adds begin per cycle.  Tiles of
#: 8 x 3, 13 x 2 and 6 x 4, ms: 256 -> 64 channels at 64x64 1.34, 1.49, 1.34, 512 -> 128 at 28x28 0.87, 0.96, 0.92,
#: 64 -> 256 at 56x56 1.35, 1.55, 1.23 (Cascade Lake, November 2026; a Zen 5 has not been asked again).
FAR_VECTOR_CYCLES = 0.55
#: Registers besides sums and inputs: the weight being multiplied, and one in flight.
SPARE_REGISTERS = 2
#: Instructions of a round besides, and cycles that a tile and each of its sums take beside the rounds. (1024 -> 256
#: channels at 14x14: tiles of 5 x 5 in blocks of 51 k 150, of 9 x 3 in 85 and of 14 x 2 in 128 about 185 GFLOP/s;
#: Cascade Lake, November 2026.)
ROUND_INSTRUCTIONS = 4
TILE_CYCLES, SUM_CYCLES = 60, 6
#: Cycles that each channel of a tile takes: its sums go to a page of its own.  16 -> 96 channels at 128x128, tiles of
#: 24 x 1 657, 12 x 2 628, 8 x 3 562, 6 x 4 546 us, caches cold 761 to 578; 64 -> 256 at 56x56, 16 x 1 526, 4 x 4 494
#: (Zen 4, November 2026).  This one, `SUM_CYCLES` and `PLACE_CYCLES` are a fit to 46 layers (docs/kernels.md).
CHANNEL_CYCLES = 10
#: Cycles to copy a vector of inputs (Zen 5, November 2026).
PACK_CYCLES = 6
#: Cycles that a vector of inputs takes more from where it lies than from a panel, for each further tile of channels.
#: In place and from panels, us: 320 -> 320 channels at 64x64, tiles of 6 x 4, 4014, 4318; 64 -> 128 at 112x112, batch
#: 2, tiles of 4 x 4, 2445, 2246 (Zen 4, November 2026).
PLACE_CYCLES = 0.4
#: Where two multiply-adds begin per cycle, a copied vector, and one that is read again where it lies: of a tile whose
#: inputs take no more than a part of the L1 cache as above, else more, and most where planes want the same sets of the
#: caches.  In place and from panels, ms: 256 -> 64 channels at 56x56 1.19 and 1.01, 128 -> 512 at 28x28 1.01 and 0.76;
#: 256 -> 64 at 64x64 2.21 and 1.41, 320 -> 320 15.3 and 7.9; but the same for 16 -> 96 at 112x112 and 144 -> 24 at
#: 56x56 (Cascade Lake, November 2026).
FAR_PACK_CYCLES, FAR_PLACE_CYCLES, SAME_SETS_CYCLES, NEAR_SHARE = 9, 3, 12, 0.125
#: How much slower a choice may be that needs one kernel fewer.
KERNEL_WORTH = 0.03
#: Vectors of pixels in a tile at most.
MOST_VECTORS = 4


@dataclasses.dataclass(frozen=True)
class Cut:
    """How channels and pixels are cut.

    Attributes
    ----------
    channels, vectors : tuple of int
        Output channels, and vectors of pixels, of the tiles.
    in_place : bool
        Whether inputs are read where they lie, not from a panel.
    cycles : float
        Of all tiles together, modelled.
    """

    channels: tuple
    vectors: tuple
    in_place: bool
    cycles: float


@functools.lru_cache(maxsize=4096)
def choose(channels, vectors, k_count, registers, multiplies, strided, same_sets):
    """The best `Cut` of `channels` output channels and `vectors` vectors of pixels.

    `same_sets` if the planes of inputs want the same sets of the caches.
    """
    best, best_score = None, math.inf
    for most_vectors in range(1, min(vectors, MOST_VECTORS) + 1):
        most = (registers - SPARE_REGISTERS) // most_vectors - 1
        across = parts(vectors, math.ceil(vectors / most_vectors))
        for count in range(math.ceil(channels / most), channels + 1):
            down = parts(channels, count)
            if down[0] * across[0] * 4 < registers and count > math.ceil(channels / most):
                break
            for in_place in (False,) if strided else (True, False):
                cycles = _cycles(down, across, k_count, multiplies, in_place, same_sets)
                score = cycles * (1 + KERNEL_WORTH * len(set(down)) * len(set(across)))
                if score < best_score:
                    best, best_score = Cut(tuple(down), tuple(across), in_place, cycles), score
    return best


def _cycles(down, across, k_count, multiplies, in_place, same_sets):
    """Modelled cycles of all tiles, and of the copies or what they would have saved."""
    inputs = k_count * sum(across)
    copied = PACK_CYCLES if multiplies == 1 else FAR_PACK_CYCLES
    again = _again_cycles(k_count * across[0] * LINE_BYTES, multiplies, same_sets)
    total = inputs * (again * (len(down) - 1) if in_place else copied)
    for rows in set(down):
        for vectors in set(across):
            products = rows * vectors
            instructions = products + rows + vectors + ROUND_INSTRUCTIONS
            each = max(products / multiplies, instructions / INSTRUCTIONS_PER_CYCLE)
            each += 0 if in_place or multiplies == 1 else FAR_VECTOR_CYCLES * vectors
            blocks = 1 if in_place else math.ceil(k_count / block(vectors, LINE_BYTES, multiplies))
            cycles = k_count * each + blocks * (TILE_CYCLES + CHANNEL_CYCLES * rows + SUM_CYCLES * products)
            total += cycles * down.count(rows) * across.count(vectors)
    return total


def _again_cycles(nbytes, multiplies, same_sets):
    """Cycles that a vector of a tile's `nbytes` of inputs takes more where it lies than in a panel, when read again."""
    if multiplies == 1 or (nbytes <= NEAR_SHARE * cache_bytes(1) and not same_sets):
        return PLACE_CYCLES
    return SAME_SETS_CYCLES if same_sets else FAR_PLACE_CYCLES


def block(vectors, vector_bytes, multiplies):
    """Rounds of k whose panel is no larger than its share of the L1 cache."""
    share = FAR_PANEL_SHARE if multiplies > 1 and cache_bytes(1) <= SMALL_CACHE else PANEL_SHARE
    return int(share * cache_bytes(1)) // (vectors * vector_bytes)
