"""Which register tile: no lane wasted on widths such as 7, 13, 14, 17, 27, 28 or 56.

A width is cut into near-equal parts (75 = 13 + 13 + 13 + 12 + 12 + 12), and so are the rows and the vectors
of output channels; so at most two sizes of each occur, and no tile is a leftover.  Among all cuts whose
accumulators fit the registers, the model below picks the fastest.
"""

import dataclasses
import functools
import math

#: Registers that are not accumulators: two vectors of weights and the pixel being multiplied, and one in flight.
SPARE_REGISTERS = 4
#: The model of one round of k, in cycles: loads per cycle of current processors, and the latency of a chain
#: of multiply-adds.
LOADS_PER_CYCLE = 2
MULTIPLY_LATENCY = 4
#: Cycles of a round that do not shrink with the tile: the offset, the counter, what the scheduler loses.
ROUND_CYCLES = 0.5
#: What bringing a vector of weights, and a pixel, from the second-level cache costs each round, for they do
#: not stay in the first: 256 -> 64 channels at 56x56, 1x1, tiles of 28 x 1 against 14 x 2: 201 against 217
#: GFLOP/s (Zen 4, November 2026).
WEIGHT_CYCLES = 0.5
PIXEL_CYCLES = 0.06
#: The same for weights that the cache cannot hold: 512 -> 512 at 7x7, 3x3, tiles of 7 x 4 against 2 x 7 x
#: 2: 200 against 224 GFLOP/s.
FAR_WEIGHT_CYCLES = 1.5
#: Cycles to begin and end a tile.
TILE_CYCLES = 40
#: A store of less than a whole cache line, or across two: 64 -> 256 channels at 56x56, 1x1, one thread,
#: tiles of 14 x 1 against 16 x 1: 96 against 100 GFLOP/s (Zen 4, November 2026).
SPLIT_STORE_CYCLES = 2.5
#: How much slower (by the model) a choice may be that needs one kernel fewer: compiling one takes as long
#: as some calls.
KERNEL_WORTH = 0.01
#: More rows per tile than this only cost base registers.
MAX_ROWS = 8
#: Pixels that share one base register where the step between pixels is not a constant.
PIXELS_PER_BASE = 4


def parts(total, count):
    """`total` cut into `count` near-equal parts, the larger ones first.

    >>> parts(75, 6)
    [13, 13, 13, 12, 12, 12]
    """
    small, extra = divmod(total, count)
    return [small + 1] * extra + [small] * (count - extra)


def cuts(total, largest):
    """Every way to cut `total` into near-equal parts of at most `largest`, coarsest first, until parts of one."""
    seen = set()
    for count in range(math.ceil(total / largest), total + 1):
        biggest = math.ceil(total / count)
        if biggest not in seen:
            seen.add(biggest)
            yield parts(total, count)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the model knows.

    Attributes
    ----------
    registers, multiplies : int
        Vector registers, and multiply-adds of full ones per cycle.
    lanes : int
        Of the blocks that a store transposes; 1 where none is.
    weights : int
        Vectors of weights that stay in the cache.
    bases : int
        Base registers for pixels.
    """

    registers: int
    multiplies: int
    lanes: int
    weights: int
    bases: int


def tile_cycles(rows, columns, vectors, k_count, machine, width):
    """Modelled cycles of one tile of an output plane `width` wide."""
    pixels = rows * columns
    sums = pixels * vectors
    busy = max(sums / machine.multiplies, (pixels + vectors + 1) / LOADS_PER_CYCLE, MULTIPLY_LATENCY)
    weight = WEIGHT_CYCLES if k_count * vectors <= machine.weights else FAR_WEIGHT_CYCLES
    runs, length = (1, pixels) if columns == width else (rows, columns)
    stores = runs * math.ceil(length / machine.lanes) * vectors * machine.lanes
    per_store = machine.lanes.bit_length() + (
        SPLIT_STORE_CYCLES if length % machine.lanes or width % machine.lanes else 0
    )
    return k_count * (busy + ROUND_CYCLES + weight * vectors + PIXEL_CYCLES * pixels) + TILE_CYCLES + stores * per_store


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How rows, columns and vectors of output channels are cut.

    Attributes
    ----------
    rows, columns, vectors : tuple of int
        Sizes of the parts.
    cycles : float
        Of all tiles together, modelled.
    """

    rows: tuple
    columns: tuple
    vectors: tuple
    cycles: float


def _count(sizes):
    return {size: sizes.count(size) for size in sorted(set(sizes), reverse=True)}


@functools.lru_cache(maxsize=4096)
def choose(height, width, vectors, k_count, machine, half):
    """The best `Tiling` of an output plane of `height` x `width` and of `vectors` vectors of channels.

    If `half`, the last vector is only half used and stands by itself.  (A tile of whole and half vectors
    broadcasts each pixel twice, which spills: 3 -> 24 channels at 300x300, 7x7, stride 2: 14 x 1.5 vectors
    76, tiles of 16 x 1 and 16 x 0.5: 195 GFLOP/s; Zen 4, November 2026.)
    """
    room = machine.registers - SPARE_REGISTERS
    best, best_score = None, math.inf
    alone = [1] if half and vectors > 1 else []
    for channel_cut in (cut + alone for cut in cuts(vectors - len(alone), min(vectors, room))):
        for column_cut in cuts(width, max(1, room // channel_cut[0])):
            most_rows = min(
                MAX_ROWS,
                height,
                room // (channel_cut[0] * column_cut[0]),
                machine.bases // math.ceil(column_cut[0] / PIXELS_PER_BASE),
            )
            for row_cut in cuts(height, max(1, most_rows)):
                cycles = sum(
                    n_rows * n_columns * n_vectors * tile_cycles(rows, columns, group, k_count, machine, width)
                    for rows, n_rows in _count(row_cut).items()
                    for columns, n_columns in _count(column_cut).items()
                    for group, n_vectors in _count(channel_cut).items()
                )
                kernels = len(set(row_cut)) * len(set(column_cut)) * len(set(channel_cut))
                score = cycles * (1 + KERNEL_WORTH * kernels)
                if score < best_score:
                    best, best_score = Tiling(tuple(row_cut), tuple(column_cut), tuple(channel_cut), cycles), score
    return best
