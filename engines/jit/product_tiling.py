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
#: channels at 28x28 918, 858, 842, 320 -> 320 at 64x64 8171, 7566, 7566, 2048 -> 512 at 14x14 3201, 2910, 2937; six
#: layers of stride 2, four times 0.99 of the speed of twice hot, 1.02 cold.  With four, layers of up to 682 inputs need
#: no second block, and no kernels for one (Cascade Lake, November 2026).
FAR_PANEL_SHARE = 4
#: Registers besides sums and inputs: the weight being multiplied, and one in flight.
SPARE_REGISTERS = 2
#: Instructions of a round besides, and cycles that a tile and each of its sums take beside the rounds. (1024 -> 256
#: channels at 14x14: tiles of 5 x 5 in blocks of 51 k 150, of 9 x 3 in 85 and of 14 x 2 in 128 about 185 GFLOP/s;
#: Cascade Lake, November 2026.)
ROUND_INSTRUCTIONS = 4
TILE_CYCLES, SUM_CYCLES = 60, 6
#: How much slower a choice may be that needs one kernel fewer.
KERNEL_WORTH = 0.03
#: Vectors of pixels in a tile at most.
MOST_VECTORS = 4


@dataclasses.dataclass(frozen=True)
class Costs:
    """Cycles that depend on how many multiply-adds begin in one.

    Attributes
    ----------
    channel : float
        That each channel of a tile takes: its sums go to a page of its own.
    vector : float
        That a vector of inputs takes in a round from a panel.
    pack, strided_pack : float
        To copy a vector of inputs, as they lie and from between strides.
    place, same_sets : float
        That a vector takes more from where it lies than from a panel, for each further tile of channels, and where the
        planes want the same sets of the caches.
    """

    channel: float
    vector: float
    pack: float
    strided_pack: float
    place: float
    same_sets: float


#: A fit to 46 layers, which were copied before the first tile of channels read them.  16 -> 96 channels at 128x128,
#: tiles of 24 x 1 657, 12 x 2 628, 8 x 3 562, 6 x 4 546 us, caches cold 761 to 578; in place and from panels, 320 ->
#: 320 at 64x64, 6 x 4, 4014 and 4318, 64 -> 128 at 112x112, batch 2, 4 x 4, 2445 and 2246 (Zen 4, November 2026).
ONE_MULTIPLY = Costs(channel=10, vector=0, pack=6, strided_pack=6, place=0.4, same_sets=0.4)
#: A fit to 26 layers in up to 10 ways each, the best of which are in geometric mean 4 % ahead of those it takes
#: (docs/kernels.md; Cascade Lake, November 2026).
TWO_MULTIPLIES = Costs(channel=20, vector=0.55, pack=2, strided_pack=9, place=2, same_sets=6)


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
    costs = ONE_MULTIPLY if multiplies == 1 else TWO_MULTIPLIES
    again = costs.same_sets if same_sets else costs.place
    copied = costs.strided_pack if strided else costs.pack
    best, best_score = None, math.inf
    for most_vectors in range(1, min(vectors, MOST_VECTORS) + 1):
        most = (registers - SPARE_REGISTERS) // most_vectors - 1
        across = parts(vectors, math.ceil(vectors / most_vectors))
        for count in range(math.ceil(channels / most), channels + 1):
            down = parts(channels, count)
            if down[0] * across[0] * 4 < registers and count > math.ceil(channels / most):
                break
            for in_place in (False,) if strided else (True, False):
                cycles = _cycles(down, across, k_count, multiplies, costs, in_place)
                cycles += k_count * vectors * (again * (count - 1) if in_place else copied)
                score = cycles * (1 + KERNEL_WORTH * len(set(down)) * len(set(across)))
                if score < best_score:
                    best, best_score = Cut(tuple(down), tuple(across), in_place, cycles), score
    return best


def _cycles(down, across, k_count, multiplies, costs, in_place):
    """Modelled cycles of all tiles, without those that inputs take."""
    total = 0
    for rows in set(down):
        for vectors in set(across):
            products = rows * vectors
            instructions = products + rows + vectors + ROUND_INSTRUCTIONS
            each = max(products / multiplies, instructions / INSTRUCTIONS_PER_CYCLE)
            each += 0 if in_place else costs.vector * vectors
            blocks = 1 if in_place else math.ceil(k_count / block(vectors, LINE_BYTES, multiplies))
            cycles = k_count * each + blocks * (TILE_CYCLES + costs.channel * rows + SUM_CYCLES * products)
            total += cycles * down.count(rows) * across.count(vectors)
    return total


def block(vectors, vector_bytes, multiplies):
    """Rounds of k whose panel is no larger than its share of the L1 cache."""
    share = FAR_PANEL_SHARE if multiplies > 1 and cache_bytes(1) <= SMALL_CACHE else PANEL_SHARE
    return int(share * cache_bytes(1)) // (vectors * vector_bytes)
