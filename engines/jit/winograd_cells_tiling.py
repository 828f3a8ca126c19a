"""How many tiles and vectors of filters a register block of `winograd_cells` holds, and what its products cost."""

import functools
import math

from .winograd_tiling import MOST_FILTERS, MOST_VECTORS, SPARE_REGISTERS, channel_cycles


@functools.lru_cache(maxsize=4096)
def blocks(vectors, tiles, registers, multiplies):
    """How many near-equal blocks of vectors of filters and of tiles there are, and the modelled cycles per channel.

    Parameters
    ----------
    vectors, tiles : int
    registers : int
    multiplies : int
        Full vectors that are multiplied and added per cycle.

    Returns
    -------
    filter_blocks, tile_blocks : int
    cycles : float
        Of all of them, per input channel and frequency.
    """
    found = []
    for most in range(1, min(vectors, MOST_VECTORS) + 1):
        largest = min(MOST_FILTERS, (registers - SPARE_REGISTERS - most) // most)
        filter_blocks, tile_blocks = math.ceil(vectors / most), math.ceil(tiles / largest)
        cycles = channel_cycles(vectors / filter_blocks, tiles / tile_blocks, multiplies)
        found.append((cycles * filter_blocks * tile_blocks, filter_blocks, tile_blocks))
    cycles, filter_blocks, tile_blocks = min(found)
    return filter_blocks, tile_blocks, cycles
