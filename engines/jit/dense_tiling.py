"""Which register tile: no lane wasted on widths such as 7, 13, 14, 17, 27, 28 or 56.

A width is cut into near-equal parts (75 = 13 + 13 + 13 + 12 + 12 + 12), and so are the rows and the vectors
of output channels; so at most two sizes of each occur, and no tile is a leftover.  Rows that see fewer taps than
their neighbours may be cut off first.  Among all cuts whose accumulators fit the registers, the model below picks the
fastest.
"""

import dataclasses
import functools
import itertools
import math

#: Registers that are neither sums nor weights: the input being multiplied and, where there are few anyway, one in
#: flight (AVX2, tiles of 4 x 3 and 12 x 1, 1x1, 71 and 59 us; without fused multiply-adds up to 1.5 times as long).
#: With 32, 2 x 14 x 1 and 28 x 1 with runs of three taps fit so: 15 layers that take others than before, with rows cut
#: where they see fewer taps, too, 0.96 of the time hot, 0.97 cold (Zen 5, November 2026).
SPARE_REGISTERS, SPARE_OF_FEW, FEW_REGISTERS = 1, 2, 16
#: The model of one round, in cycles: loads per cycle of current processors, the latency of a chain of
#: multiply-adds, and instructions per cycle. Cores begin 4 to 6, but half of that when another thread runs
#: on the same core: on a Cascade Lake VM whose neighbours were busy 1.8 per cycle of 2 multiply-adds, so that
#: 64 -> 64 channels at 56x56, 3x3 fell from 0.8 to 0.5 of the peak with tiles of single taps.  With 2 instead of 2.4
#: one layer in sixteen takes another tile: 64 -> 64 at 224x224, 3x3, 8.2 and 8.0 ms, 512 -> 1024 at 19x19, 3x3,
#: dilation 6, 4.9 and 4.6, the others 0.99 to 1.06 (Zen 5, November 2026).
LOADS_PER_CYCLE = 2
MULTIPLY_LATENCY = 4
INSTRUCTIONS_PER_CYCLE = 2.4
#: Instructions of a round besides: the offset, the counter, the branch, pointers, a prefetch for each row.
ROUND_INSTRUCTIONS = 5
#: Cycles of a round for each row of pixels: another line of the first-level cache, often not there.  This, the two
#: below and what a split store costs are fitted to the times of 3000 tiles of 280 layers (Zen 5, 2026-11): the choice
#: is 1.010 times as slow as the fastest tile in the geometric mean.
ROW_CYCLES = 0.6
#: What bringing a pixel from the second-level cache costs each round, and vectors of weights, which do not stay in the
#: first: the more of them come in a cycle, the more each waits. 512 -> 2048 channels at 7x7, 1x1, tiles of 9 x 3
#: against 13 x 2: 466 against 497 GFLOP/s; 256 -> 64 at 56x56, 1x1, 28 x 1 against 14 x 2: 201 against 217 (Zen 4).
PIXEL_CYCLES = 0.06
WEIGHT_CYCLES = 4.4
#: The latter where two multiply-adds begin per cycle beside a first-level cache of 32 KiB: twelve layers of 3x3, 5x5
#: and 7x7 take 1.014 times as long as with the fastest of 40 to 77 tiles each, with 4.4 1.057.  Tiles of 28 x 1 and
#: 10 x 2, stride 2, 4 groups of 32 channels at 56x56, 601 and 501 us, 32 -> 64 281 and 240; but 32 groups 4.65 and 5.06
#: ms (Cascade Lake, November 2026).
NEAR_WEIGHT_CYCLES = 3.0
#: Cycles to begin and end a tile.
TILE_CYCLES = 40
#: A store of less than a whole cache line, or across two: 64 -> 256 channels at 56x56, 1x1, one thread,
#: tiles of 14 x 1 against 16 x 1: 96 against 100 GFLOP/s (Zen 4, November 2026); 8 -> 512 at 64x64, 3x3, 11 x 2 against
#: 16 x 1: 390 against 461 (Zen 5).
SPLIT_STORE_CYCLES = 8
#: How much slower (by the model) a choice may be that needs one kernel fewer: compiling one takes as long
#: as some calls.
KERNEL_WORTH = 0.01
#: Tasks per thread that even out delays, if a task then still has `TASK_CYCLES`. Of two threads that take neighbouring
#: blocks of channels, both copy the band: 512 -> 2048 channels at 7x7, batch 8: 8 tasks per thread 428, 4 477 GFLOP/s
#: (Zen 5, November 2026).
TASKS_PER_THREAD = 4
#: Parts of rows, which see the same taps, that are cut apart: the borders of a 3x3 or 5x5 kernel.
MOST_ROW_PARTS = 5
#: More rows per tile than this only cost base registers.
MAX_ROWS = 8
#: Pixels that share one base register where the step between pixels is not a constant.
PIXELS_PER_BASE = 4
#: Taps of one round at most: their weights are held in registers.  64 channels at 56x56, one thread, copied, tiles of
#: 14 x 2 with single taps against the best of all: 3x3 104 against 116 GFLOP/s (Cascade Lake, November 2026, neighbours
#: quiet; with busy ones 15 % more).  Runs as long as a row are read in place; microseconds, two threads, copied and in
#: place: 16 -> 64 channels at 64x64, 9x9, 2988 and 2901, 11x11 4461 and 4218 (Zen 4).
NEIGHBOURS_RUN = 11
#: The same with strides: 64 -> 64 at 56x56, 5x5, stride 2, 758 and 722, 3 -> 64 at 224x224, 7x7, stride 2, 1126 and
#: 1124, cold 1228 and 1178; but 3 -> 96 at 227x227, 11x11, stride 4, 1058 and 1113 (Zen 4).
STRIDED_RUN = 7
#: Channels-last, where addresses take registers, only of neighbours: 64 -> 128 channels at 56x56, 3x3, stride 2, runs
#: of three taps 1.7 times as long as single ones; 64 -> 64, 7x7, runs of seven 1.09 (Zen 4).
LAST_RUN = 5


@dataclasses.dataclass(frozen=True)
class Run:
    """Taps along the width that one round of k multiplies.

    Attributes
    ----------
    taps : int
    stride, dilation : int
        Inputs from one pixel, and from one tap, to the next.
    """

    taps: int
    stride: int
    dilation: int

    def inputs(self, columns, low=0, high=0):
        """The inputs that neighbouring pixels see, but for some at both ends: place along the width -> (column, tap)s.

        Those left out, `low` and `high` of them, are padding.
        """
        end = (columns - 1) * self.stride + (self.taps - 1) * self.dilation + 1 - high
        found = {}
        for column in range(columns):
            for tap in range(self.taps):
                place = column * self.stride + tap * self.dilation
                if low <= place < end:
                    found.setdefault(place, []).append((column, tap))
        return dict(sorted(found.items()))

    def beyond(self, columns, width, padding):
        """How many of the inputs of each of `columns` lie in the padding: (low, high) for each.

        `width` inputs have `padding` in front of them.
        """
        first, found = -padding, []
        for count in columns:
            end = first + (count - 1) * self.stride + (self.taps - 1) * self.dilation + 1
            found.append((max(0, -first), max(0, end - width)))
            first += count * self.stride
        return found


@functools.lru_cache(maxsize=4096)
def _counts(run, columns, beyond):
    """Inputs of a row of pixels, its products, and taps of which there are any."""
    inputs = run.inputs(columns, *beyond)
    products = [product for each in inputs.values() for product in each]
    return len(inputs), len(products), len({tap for _, tap in products})


def longest_run(stride, last):
    """Taps of a run at most, with that stride, channels last or not."""
    if last:
        return LAST_RUN if stride == 1 else 1
    return NEIGHBOURS_RUN if stride == 1 else STRIDED_RUN


def runs(taps, stride, dilation, last):
    """The runs that a kernel of `taps` along the width can be cut into, all of one length; with strides, one or all."""
    sizes = {size for size in range(1, taps + 1) if taps % size == 0} if stride == 1 else {1, taps}
    most = longest_run(stride, last)
    return [Run(size, stride, dilation if size > 1 else 1) for size in sorted(sizes) if size <= most]


def parts(total, count):
    """`total` cut into `count` near-equal parts, the larger ones first.

    >>> parts(75, 6)
    [13, 13, 13, 12, 12, 12]
    """
    small, extra = divmod(total, count)
    return [small + 1] * extra + [small] * (count - extra)


def in_halves(sizes):
    """Sizes of tasks, the larger ones first, so that they are first in both halves, which threads do at once.

    >>> in_halves([3, 3, 2, 2, 2])
    [3, 2, 2, 3, 2]
    """
    return sizes[::2] + sizes[1::2]


def cuts(total, largest):
    """Every way to cut `total` into near-equal parts of at most `largest`, coarsest first, until parts of one."""
    last = None
    for biggest in range(min(largest, total), 0, -1):
        count = math.ceil(total / biggest)
        if count != last:
            yield parts(total, count)
        last = count


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the model knows.

    Attributes
    ----------
    registers, multiplies : int
        Vector registers, and multiply-adds of full ones per cycle.
    lanes : int
        Of the blocks that a store transposes; 1 where none is.
    bases : int
        Base registers for pixels.
    threads : int
    weight_cycles : float
        `WEIGHT_CYCLES` or `NEAR_WEIGHT_CYCLES`.
    """

    registers: int
    multiplies: int
    lanes: int
    bases: int
    threads: int
    weight_cycles: float

    @property
    def for_tiles(self):
        """Registers for sums and weights."""
        return self.registers - (SPARE_OF_FEW if self.registers <= FEW_REGISTERS else SPARE_REGISTERS)


def tile_cycles(rows, columns, vectors, run, k_count, machine, width, beyond=(0, 0)):
    """Modelled cycles of one tile of an output plane `width` wide, of whose inputs some are `beyond` a row's ends."""
    pixels = rows * columns
    inputs, products, taps = _counts(run, columns, beyond)
    inputs, products, weights = rows * inputs, rows * products * vectors, vectors * taps
    busy = max(
        products / machine.multiplies,
        (inputs + weights + 1 + rows) / LOADS_PER_CYCLE,
        (products + inputs + weights + ROUND_INSTRUCTIONS + 2 * rows) / INSTRUCTIONS_PER_CYCLE,
        MULTIPLY_LATENCY * taps,
    )
    waits = machine.weight_cycles * weights * weights / busy + PIXEL_CYCLES * inputs + ROW_CYCLES * rows
    rounds = k_count / run.taps * (busy + waits)
    runs, length = (1, pixels) if columns == width else (rows, columns)
    stores = runs * math.ceil(length / machine.lanes) * vectors * machine.lanes
    per_store = machine.lanes.bit_length() + (
        SPLIT_STORE_CYCLES if length % machine.lanes or width % machine.lanes else 0
    )
    return rounds + TILE_CYCLES + stores * per_store


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of inputs.

    Attributes
    ----------
    width, padding : int
        Inputs, and how much padding is in front of them.
    taps : int
        Of a kernel's row.
    """

    width: int
    padding: int
    taps: int


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How rows, columns, vectors of output channels and taps along the width are cut.

    Attributes
    ----------
    rows, columns, vectors : tuple of int
        Sizes of the parts.
    run : Run
    exact : bool
        Whether kernels can leave out what lies in the padding: all rows of a tile see the same taps, and a run takes
        all taps of a row.
    cycles : float
        Of all tiles together, modelled.
    """

    rows: tuple
    columns: tuple
    vectors: tuple
    run: Run
    exact: bool
    cycles: float

    @property
    def order(self):
        """What decides in which order a pixel's products are added."""
        return self.run, self.columns, self.exact


def _count(sizes):
    return {size: sizes.count(size) for size in sorted(set(sizes), reverse=True)}


@functools.lru_cache(maxsize=4096)
def choose(heights, widths, vectors, runs, machine, half, copies, row, copy_cycles):
    """The best `Tiling` of an output plane and of `vectors` vectors of channels, which come `copies` times.

    `heights` are pairs: so many rows see so many k; a tile in several of them sees those of most.  No tile reaches over
    from one of the `widths` of columns into the next.  If `half`, the last vector is only
    half used and stands by itself.  Where a `Tiling` is `exact` a row of inputs is read as it lies, and
    ``row`` says of how many inputs it is, behind how much padding, and how many taps a run that leaves out padding has;
    otherwise a copy takes `copy_cycles`.  The number of threads decides only what leaves a sum's order alone.  (A
    tile of whole and half vectors broadcasts each pixel twice, which spills: 3 -> 24 channels at 300x300, 7x7, stride
    2: 14 x 1.5 vectors 76, tiles of 16 x 1 and 16 x 0.5: 195 GFLOP/s; Zen 4, November 2026.)
    """
    found = {}
    width = sum(widths)
    alone = [1] if half and vectors > 1 else []
    for run in runs:
        most_vectors = machine.for_tiles // (run.taps + 1)
        for channel_cut in (cut + alone for cut in cuts(vectors - len(alone), min(vectors, most_vectors))):
            waiting = _waiting(len(channel_cut) * copies, machine.threads)
            for rows, columns, alike in _plane_cuts(heights, widths, channel_cut[0], run, machine):
                exact = alike and run.taps == row.taps
                if len(widths) > 1 and run.taps > 1 and not exact:
                    continue
                beyond = run.beyond(columns, row.width, row.padding) if exact else [(0, 0)] * len(columns)
                edged = _count(list(zip(columns, beyond, strict=True)))
                cycles = sum(
                    n_rows * n_columns * n_vectors * tile_cycles(height, column, group, run, k, machine, width, edges)
                    for (height, k), n_rows in _count(rows).items()
                    for (column, edges), n_columns in edged.items()
                    for group, n_vectors in _count(channel_cut).items()
                )
                sizes = tuple(height for height, _ in rows)
                kernels = len(set(sizes)) * len(edged) * len(set(channel_cut))
                single, score = (
                    (cycles * factor + (0 if exact else copy_cycles)) * (1 + KERNEL_WORTH * kernels)
                    for factor in (1, waiting)
                )
                tiling = Tiling(sizes, tuple(columns), tuple(channel_cut), run, exact, cycles)
                least, best_score, best_tiling = found.get(tiling.order, (math.inf, math.inf, None))
                if score < best_score:
                    best_score, best_tiling = score, tiling
                found[tiling.order] = min(least, single), best_score, best_tiling
    return min(found.values(), key=lambda each: each[0])[-1]


def _waiting(blocks, threads):
    """How much longer all threads take than their share of the work, where blocks are enough to make every task.

    512 -> 512 channels at 7x7, 3x3, two threads: 11 blocks 545, 16 blocks 573 GFLOP/s (Zen 5, November 2026).
    """
    enough = blocks >= TASKS_PER_THREAD * threads
    return math.ceil(blocks / threads) * threads / blocks if enough else 1.0


def _plane_cuts(heights, widths, vectors, run, machine):
    """Cuts of rows, with how many k each sees, and of columns whose sums and weights fit the registers."""
    height = sum(size for size, _ in heights)
    room = machine.for_tiles // vectors - run.taps
    for largest, *_ in cuts(max(widths), max(1, room)):
        column_cut = [size for width in widths for size in parts(width, math.ceil(width / largest))]
        most_rows = min(MAX_ROWS, height, room // largest, machine.bases // math.ceil(largest / PIXELS_PER_BASE))
        for row_cut in cuts(height, max(1, most_rows)):
            yield _seen(row_cut, heights), column_cut, row_cut[0] == 1 or len(heights) == 1
            if 1 < len(heights) <= MOST_ROW_PARTS and row_cut[0] > 1:
                yield [(s, k) for size, k in heights for s in parts(size, -(-size // row_cut[0]))], column_cut, True


def _seen(sizes, heights):
    """Each size of consecutive rows with how many k they see: all, where not each of them sees the same."""
    most = max(k for _, k in heights)
    each = iter([k for size, k in heights for _ in range(size)])
    found = [set(itertools.islice(each, size)) for size in sizes]
    return [(size, k.pop() if len(k) == 1 else most) for size, k in zip(sizes, found, strict=True)]
