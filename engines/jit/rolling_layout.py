"""Where everything lies in a plan of `wide_rolling`: strips and bands, and the table that says so.

A *strip* is a few vectors of columns of the outputs, a *band* some of their rows.  Rows of inputs follow each other in
*steps*, each of which completes the sums of one or two rows of outputs.
"""

import dataclasses
import math

import numpy as np

#: Words of the block table, one entry for each strip of a band of output rows: its code, where its first column lies in
#: the input's rows, where its first output lies, the input row that its first step begins with, the numbers of the
#: outputs, counted from the band's first, that steps begin and end with, how many rows of outputs there are, and how
#: many columns of inputs and outputs follow the strip's first one.
BLOCK = ("function", "column", "out", "top", "begin", "end", "rows", "width", "out_width")
#: Column strides that are sorted in registers, and the part of the registers that sums may take.
MAX_STRIDE, SUMS_SHARE = 2, 0.65
#: Taps at most, for the code holds several multiply-adds for each, and with how many registers; with fewer there is no
#: room for the inputs of larger kernels (16 registers: 5 x 5 1.1 to 1.3, 7 x 7 up to 1.7 of `wide_kernel`'s time).
MOST_TAPS, MANY_REGISTERS, FEW_TAPS = 49, 32, 9
#: Output rows that a row of inputs meets at most: 9 x 5 taps 0.99, 8 x 6 1.09, 16 x 3 1.34 of `wide_kernel`'s time, but
#: 3 x 15 0.87 (64 channels at 56 x 56; Zen 4, 2026-11).
MOST_MET = 7
#: Bytes from one row of inputs to the next, for each column of its stride, beyond which it is faster to go along rows
#: than down: far apart they are on pages of their own, and fall on the same sets of the cache.  16 and 32 channels at
#: 256 x 256, 320, 400, 416, 512, k = 3: 0.89, 0.77, 0.97, 1.09, 1.63 of the time of `wide_sweep`; with stride 2, 416,
#: 512, 640: 0.81, 0.97, 1.05 (Zen 4, 2026-11).
LONGEST_ROW = 1280
#: Vectors of a strip at most, and from how many on a step completes one row: narrower ones two, so that a weight that
#: is loaded is used for both (32 x 32, k = 5, one thread: 88 and 110 GFLOP/s; 14 x 14, four rows: 1.4 times as long).
MOST_VECTORS, ONE_ROW = 8, 4
#: Blocks that a problem should have so that threads can share it, and rows that a band then has at least.
BLOCKS_WANTED, LEAST_ROWS = 16, 16


@dataclasses.dataclass(frozen=True)
class Strip:
    """What the code of a strip depends on.

    Attributes
    ----------
    dtype : str
    kernel : (int, int)
        Rows and columns of taps.
    stride : (int, int)
        Input rows and columns from one output to the next.
    places : tuple of (int, int)
        For each column of taps which phase of the columns it reads, and how many vector elements further right.
    rows, vectors : int
        Rows of outputs that are complete after a step, and vectors of each.
    left : bool
        Whether there are inputs to the left of the strip.
    whole, part : int, bool
        How many vectors of inputs, from the strip's first column on, are whole, and whether one more exists in part.
    """

    dtype: str
    kernel: tuple
    stride: tuple
    places: tuple
    rows: int
    vectors: int
    left: bool
    whole: int
    part: bool

    @property
    def open_rows(self):
        """Output rows that are summed at the same time."""
        return self.rows + _waiting(self.kernel, self.stride)

    def inputs(self, phase):
        """The rows of inputs of a step that meet the same rows of the kernel as row `phase` does."""
        return range(phase, self.stride[0] * self.rows, self.stride[0])

    def met(self, ky):
        """Where rows of inputs and sums, as a step numbers them, meet in row `ky` of the kernel: pairs of numbers."""
        stride, last = self.stride[0], self.kernel[0] - self.stride[0]
        pairs = [(i, divmod(last + i - ky, stride)) for i in range(stride * self.rows)]
        return [(i, m) for i, (m, rest) in pairs if not rest and 0 <= m < self.open_rows]


def _waiting(kernel, stride):
    """Rows of sums that are not complete after a step."""
    return -(-kernel[0] // stride[0]) - 1


def _flat(g):
    """Whether every depth of the output is a plane of its own, from the same depth of the input."""
    return g.kernel[0] == g.stride[0] == 1 and g.low[0] == 0 and g.out[0] == g.size[0]


def _places(g):
    offsets = [g.dilation[2] * kx - g.low[2] for kx in range(g.kernel[2])]
    return tuple((offset % g.stride[2], offset // g.stride[2]) for offset in offsets)


def suits(geometry, lanes, registers):
    """Whether this is the faster way for `geometry`, with vectors of so many elements."""
    g = geometry
    if not _flat(g) or g.channels > 1 or g.stride[2] > MAX_STRIDE or min(g.stride[1], g.dilation[1]) > 1:
        return False
    near = all(-lanes <= shift <= lanes for _, shift in _places(g))
    near = near and (g.out[2] - 1) // lanes * lanes * g.stride[2] <= g.size[2]  # strips begin in the image
    short = g.size[2] * g.itemsize * g.dilation[1] <= LONGEST_ROW * g.stride[2]
    most = MOST_TAPS if registers >= MANY_REGISTERS else FEW_TAPS
    small = math.prod(g.kernel) <= most and _waiting(g.kernel[1:], g.stride[1:]) < MOST_MET
    return near and short and small and max(g.stride[1], 2) <= g.kernel[1] and 2 * g.out[2] >= lanes


def _most_vectors(g, registers):
    return min(MOST_VECTORS, int(SUMS_SHARE * registers) // (1 + _waiting(g.kernel[1:], g.stride[1:])))


def _strips(g, lanes, registers):
    """The strips of a row: for each its first column of outputs, how many it has, and what its code depends on."""
    vectors = -(-g.out[2] // lanes)
    pieces = -(-vectors // _most_vectors(g, registers))
    ends = [vectors * (n + 1) // pieces for n in range(pieces)]
    found = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        width = max(0, g.size[2] - first * lanes * g.stride[2])
        most = g.stride[2] * (end - first + 1)  # vectors of inputs that the strip may read to the right
        whole = min(most, width // lanes)
        rows = 1 if end - first >= ONE_ROW else 2
        kind = g.dtype, g.kernel[1:], g.stride[1:], _places(g), rows, end - first
        strip = Strip(*kind, first > 0, whole, whole < most and width > whole * lanes)
        found.append((first * lanes, min(end * lanes, g.out[2]) - first * lanes, strip))
    return found


def block_table(g, lanes, registers, function):
    """Every strip of every band of rows; with dilation, bands hold every few rows.

    ``function(strip)`` is the address of its code.
    """
    step, strips = g.row_unit // g.stride[1], _strips(g, lanes, registers)
    images = g.batch * g.groups * g.outputs * g.out[0] * step * len(strips)
    most = -(-g.out[1] // step)
    rows = min(most, max(LEAST_ROWS, -(-most * images // BLOCKS_WANTED)))
    table = []
    for first in range(0, g.out[1], rows * step):
        for y in range(first, min(first + step, g.out[1])):
            count = min(rows, -(-(g.out[1] - y) // step))
            for x, columns, strip in strips:
                column, out = x * g.stride[2], (y * g.out[2] + x) * g.itemsize
                entry = function(strip), column * g.itemsize, out, *_steps(g, y, count, strip.rows)
                table.append((*entry, count, g.size[2] - column, columns))
    return np.array(table, np.int64)


def _steps(g, y, count, rows):
    """The words "top", "begin" and "end" of a block of `count` rows from output row `y` on, in steps of `rows`.

    Steps whose inputs all lie above or below the image are left out.
    """
    waiting = _waiting(g.kernel[1:], g.stride[1:])
    numbers = np.arange(-waiting, count)
    outputs = y + numbers * (g.row_unit // g.stride[1])
    lines = outputs * g.stride[1] - g.low[1] + (g.kernel[1] - g.stride[1]) * g.dilation[1]
    met = lines[:, None] + np.arange(g.stride[1]) * g.dilation[1]
    there = numbers[((met >= 0) & (met < g.size[1])).any(axis=1)]
    begin = min(there[0], 0) if len(there) else 0
    end = max(there[-1] + 1 if len(there) else 0, count - waiting, 0)
    return lines[begin + waiting], begin, begin + -(-(end - begin) // rows) * rows
