"""Depthwise kernels rolled down the rows: every input row is read once and added to all outputs that it touches.

    sums[m] += w[ky, kx] * x[row, s x + d kx - p],    for the output rows m = 0, 1, ... below that meet the input row

A *strip* is a few vectors of columns.  Its sums stay in registers while it rolls down: those of the uppermost row are
complete after each step and stored, the others move up by one.  A row of a strip is loaded once, in whole vectors from
the strip's own column on, sorted by phase if columns have a stride, and shifted in registers for every tap.  Rows above
and below the image are read from a row of zeros; of a row what lies beside the image is known when the code is written.
"""

import math

import numpy as np

from .compile import address
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .transpose import deinterleaved
from .vector import Code, Kind, Value

#: Words of a frame behind its head.
FRAME = (
    "tasks",
    "blocks",
    "block_table",
    "planes",
    "depth",
    "outputs",
    "filters",
    "plane_bytes",
    "out_plane_bytes",
    "weights",
    "weight_bytes",
    "bias",
    "itemsize",
    "zeros",
    "height",
    "row_bytes",
    "step",
    "out_step",
    "scratch",
    "scratch_bytes",
)
#: Words of the block table, one entry for each strip of a band of output rows: its code, where its first column lies in
#: the input's rows, where its first output lies, the input row that its first step begins with, the numbers of the
#: outputs, counted from the band's first, that steps begin and end with, how many rows of outputs there are, and how many
#: columns of inputs and outputs follow the strip's first one.
BLOCK = ("function", "column", "out", "top", "begin", "end", "rows", "width", "out_width")
#: Arguments of a strip: source, out, weights, bias, zeros, and numbers.
STRIP_ARGUMENTS = "ppppp" + "i" * 10
#: Column strides that are sorted out in registers, and the part of the registers that sums may take.
MAX_STRIDE, SUMS_SHARE = 2, 0.65
#: Registers that hold neither sums, nor weights, nor the inputs of a tap.
SPARE_REGISTERS = 3
#: Taps at most, for the code holds several multiply-adds for each, and with how many registers; with fewer there is no
#: room for the rows of inputs of larger kernels (16 registers: 5 x 5 1.1 to 1.3, 7 x 7 up to 1.7 of `wide_kernel`'s time).
MOST_TAPS, MANY_REGISTERS, FEW_TAPS = 49, 32, 9
#: Bytes from one row of inputs to the next, for each column of its stride, beyond which it is faster to go along rows than
#: down: far apart they are on pages of their own, and fall on the same sets of the cache.  16 channels at 256 x 256, 320,
#: 400, 416, 512, k = 3: 0.85, 0.77, 0.97, 1.09, 1.63 of the time of `wide_sweep`; with stride 2, 416, 512, 640: 0.81, 0.97,
#: 1.05 (Zen 4, 2026-11).
LONGEST_ROW = 1280
#: Vectors of a strip at most, and how often a weight is used, in vectors and rows, before the next one is loaded.
MOST_VECTORS, TIMES_USED = 8, 4
#: Blocks that a problem should have so that threads can share it, and rows that a band then has at least.
BLOCKS_WANTED, LEAST_ROWS = 16, 16


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
        How many vectors of inputs, counted from the strip's first column, are whole, and whether one more exists in part.
    """

    def __init__(self, dtype, kernel, stride, places, rows, vectors, left, whole, part):
        self.dtype, self.kernel, self.stride, self.places = dtype, kernel, stride, places
        self.rows, self.vectors, self.left, self.whole, self.part = rows, vectors, left, whole, part

    @property
    def open_rows(self):
        """Output rows that are summed at the same time."""
        return self.rows + _waiting(self.kernel, self.stride)

    def inputs(self, phase):
        """The rows of inputs of a step that meet the same rows of the kernel as row `phase` does."""
        return range(phase, self.stride[0] * self.rows, self.stride[0])

    def met(self, ky):
        """Where rows of inputs and of sums, as a step numbers them, meet in row `ky` of the kernel: pairs of numbers."""
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


def suits(geometry, target):
    """Whether this is the faster way for `geometry`."""
    g, lanes = geometry, target.lanes(geometry.dtype)
    if not _flat(g) or g.channels > 1 or g.stride[2] > MAX_STRIDE or min(g.stride[1], g.dilation[1]) > 1:
        return False
    near = all(-lanes <= shift <= lanes for _, shift in _places(g))
    near = near and (g.out[2] - 1) // lanes * lanes * g.stride[2] <= g.size[2]  # strips begin in the image
    short = g.size[2] * g.itemsize * g.dilation[1] <= LONGEST_ROW * g.stride[2]
    most = MOST_TAPS if target.registers >= MANY_REGISTERS else FEW_TAPS
    small = 1 < g.kernel[1] and math.prod(g.kernel) <= most and 2 * g.out[2] >= lanes
    return near and short and small and _most_vectors(g, target) > 0


def _most_vectors(g, target):
    return min(MOST_VECTORS, int(SUMS_SHARE * target.registers) // (1 + _waiting(g.kernel[1:], g.stride[1:])))


def write_strip(code, strip):
    """Body of ``strip(source, out, weights, bias, zeros, height, row_bytes, step, out_step, *block)``.

    `source` is the strip's first column of row 0, and the block's words are those from "top" on.  The rows that follow
    each other in a step are `step` apart; `out_step` is in bytes.
    """
    kind = code.vector(strip.dtype)
    source, out, weights, bias, zeros, height, row_bytes, step, out_step, *block = code.arguments
    top, begin, end, rows, width, out_width = block
    first, count = bias.broadcast(kind), strip.vectors
    zeros = zeros + strip.stride[1] * kind.bytes if strip.left else zeros
    edge = code.mask(width - strip.whole * kind.lanes, kind) if strip.part else None
    last = code.mask(out_width - (count - 1) * kind.lanes, kind)
    taps = _Taps(strip, weights, kind, code.target)
    nowhere = code.stack(count * kind.bytes)  # takes what is not an output: a branch would draw the code apart

    def store(at, sums):
        for v, total in enumerate(sums):
            (at + v * kind.bytes).store(total, last if v == count - 1 else None)

    def roll(y, row, line, *sums):
        sums, inputs = _rows_of(sums, count), []
        for _ in range(strip.stride[0] * strip.rows):
            inside = row.compare(">=", 0) & row.compare("<", height)
            inputs.append(_Row(code, strip, inside.choose(line, zeros), kind, edge))
            row, line = row + step, line + step * row_bytes
        for phase in range(strip.stride[0]):  # rows that meet the same rows of the kernel
            for kx, place in enumerate(strip.places):
                code.reload()  # what was loaded is not kept in registers
                shifted = {i: [inputs[i].shifted(place, v) for v in range(count)] for i in strip.inputs(phase)}
                for ky in reversed(range(strip.kernel[0])):
                    met = [(i, m) for i, m in strip.met(ky) if i in shifted]
                    weight = taps.at(ky, kx) if met else None
                    for i, m in met:
                        sums[m] = [total.fma(some, weight) for total, some in zip(sums[m], shifted[i], strict=True)]
        for m in range(strip.rows):
            there = (y + m).compare(">=", 0) & (y + m).compare("<", rows)
            store(there.choose(out + out_step * (y + m), nowhere), sums[m])
        return row, line, *[total for some in [*sums[strip.rows :], *[[first] * count] * strip.rows] for total in some]

    carried = top, source + top * row_bytes, *[first] * (count * strip.open_rows)
    _, _, *sums = code.loop(end, roll, carried, start=begin, step=strip.rows)
    for m, complete in enumerate(_rows_of(sums, count)[: -strip.rows]):
        with code.when((end + m).compare("<", rows)):
            store(out + out_step * (end + m), complete)
    code.finish()


def _rows_of(sums, count):
    return [list(sums[first : first + count]) for first in range(0, len(sums), count)]


class _Taps:
    """Weights in every lane: held in registers if they fit beside the sums, else loaded each time."""

    def __init__(self, strip, weights, kind, target):
        self.weights, self.kind, self.columns = weights, kind, strip.kernel[1]
        count = math.prod(strip.kernel)
        fits = count + strip.vectors * (strip.open_rows + strip.rows) + SPARE_REGISTERS <= target.registers
        self.held = [self._load(n) for n in range(count)] if fits else None

    def _load(self, n):
        return (self.weights + n * self.kind.itemsize).broadcast(self.kind)

    def at(self, ky, kx):
        n = ky * self.columns + kx
        return self.held[n] if self.held else self._load(n)


class _Row:
    """A row of a strip's inputs, each vector loaded when it is first needed.

    They are moved as integers, for which the compiler has better instructions (two vectors shifted as one: `valignd`).
    """

    def __init__(self, code, strip, line, kind, edge):
        self.code, self.strip, self.line, self.kind, self.edge = code, strip, line, kind, edge
        self.moved = Kind(f"int{8 * kind.itemsize}", kind.lanes)
        self.phases = {}

    def shifted(self, place, v):
        """The inputs of vector `v` of the outputs under a tap at `place`."""
        phase, shift = place
        group, rest = divmod(shift, self.kind.lanes)
        found = self._sorted(v + group)[phase]
        if rest:
            found = found.shuffle(self._sorted(v + group + 1)[phase], range(rest, rest + self.kind.lanes))
        return Value(self.code, self.code.builder.bitcast(found.ir, self.kind.ir))

    def _sorted(self, group):
        if group not in self.phases:
            columns = self.strip.stride[1]
            vectors = [self._vector(group * columns + v) for v in range(columns)]
            self.phases[group] = deinterleaved(vectors, self.kind.lanes)
        return self.phases[group]

    def _vector(self, number):
        strip, at = self.strip, self.line + number * self.kind.bytes
        if strip.left if number < 0 else number < strip.whole:
            return at.load(self.moved)
        if number == strip.whole and strip.part:
            return at.load(self.moved, self.edge)
        return self.code.zero(self.moved)


def _pointer(code, address):
    return Value(code, code.builder.inttoptr(address.ir, code.arguments[0].ir.type))


def write_task(code):
    """Body of ``task(frame, index, worker)``: an even share of the blocks of all output planes."""
    frame, index, _ = code.arguments
    shared = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}
    blocks, total = shared["blocks"], shared["blocks"] * shared["planes"]

    def item(n):
        plane, at = n // blocks, _pointer(code, shared["block_table"]) + n % blocks * (8 * len(BLOCK))
        block = {name: (at + 8 * i).load() for i, name in enumerate(BLOCK)}
        channel, z = plane // shared["depth"], plane % shared["depth"]
        source = channel // shared["outputs"] * shared["depth"] + z
        channel = channel % shared["filters"]
        arguments = [
            (frame + FRAME_INPUT).load_pointer() + source * shared["plane_bytes"] + block["column"],
            (frame + FRAME_OUTPUT).load_pointer() + plane * shared["out_plane_bytes"] + block["out"],
            _pointer(code, shared["weights"]) + channel * shared["weight_bytes"],
            _pointer(code, shared["bias"]) + channel * shared["itemsize"],
            _pointer(code, shared["zeros"]),
            *(shared[name] for name in ("height", "row_bytes", "step", "out_step")),
            *(block[name] for name in BLOCK[3:]),
        ]
        code.call(_pointer(code, block["function"]), arguments)

    code.loop((index + 1) * total // shared["tasks"], item, start=index * total // shared["tasks"])
    code.finish()


def _strips(g, target):
    """The strips of a row: for each its first column of outputs, how many it has, and what its code depends on."""
    lanes, vectors = target.lanes(g.dtype), -(-g.out[2] // target.lanes(g.dtype))
    pieces = -(-vectors // _most_vectors(g, target))
    ends = [vectors * (n + 1) // pieces for n in range(pieces)]
    found = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        width = max(0, g.size[2] - first * lanes * g.stride[2])
        most = g.stride[2] * (end - first + 1)  # vectors of inputs that the strip may read to the right
        whole = min(most, width // lanes)
        rows = 1 if end - first >= TIMES_USED else 2
        kind = g.dtype, g.kernel[1:], g.stride[1:], _places(g), rows, end - first
        strip = Strip(*kind, first > 0, whole, whole < most and width > whole * lanes)
        found.append((first * lanes, min(end * lanes, g.out[2]) - first * lanes, strip))
    return found


def _function(strip, target):
    def write(module):
        write_strip(Code(module, "strip", target, STRIP_ARGUMENTS), strip)

    return address("strip", ("rolling", *vars(strip).values()), target, write)


def _block_table(g, target):
    """Every strip of every band of rows; with dilation, bands hold every few rows."""
    step, strips = g.row_unit // g.stride[1], _strips(g, target)
    images = g.batch * g.groups * g.outputs * g.out[0] * step * len(strips)
    most = -(-g.out[1] // step)
    rows = min(most, max(LEAST_ROWS, -(-most * images // BLOCKS_WANTED)))
    table = []
    for first in range(0, g.out[1], rows * step):
        for y in range(first, min(first + step, g.out[1])):
            count = min(rows, -(-(g.out[1] - y) // step))
            for x, columns, strip in strips:
                column, out = x * g.stride[2], (y * g.out[2] + x) * g.itemsize
                entry = _function(strip, target), column * g.itemsize, out, *_steps(g, y, count, strip.rows)
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


def prepare(geometry, target, weight, bias):
    """Everything that a frame needs: (task function's address, words, blocks, scratch bytes, arrays to keep)."""
    g, lanes, size = geometry, target.lanes(geometry.dtype), geometry.itemsize
    arrays = {
        "block_table": _block_table(g, target),
        "bias": bias,
        "weights": np.array(weight),
        "zeros": np.zeros(g.stride[2] * (MOST_VECTORS + 2) * lanes, g.dtype),
    }
    blocks = len(arrays["block_table"])
    words = {
        "blocks": blocks,
        "planes": g.batch * g.groups * g.outputs * g.out[0],
        "depth": g.out[0],
        "outputs": g.outputs,
        "filters": g.groups * g.outputs,
        "plane_bytes": math.prod(g.size[1:]) * size,
        "out_plane_bytes": math.prod(g.out[1:]) * size,
        "weight_bytes": math.prod(g.kernel) * size,
        "itemsize": size,
        "height": g.size[1],
        "row_bytes": g.size[2] * size,
        "step": g.dilation[1],
        "out_step": g.row_unit // g.stride[1] * g.out[2] * size,
    }
    task = address(
        "task", ("rolling",), target, lambda module: write_task(Code(module, "task", target, "pii"))
    )
    return task, FRAME, words, blocks * words["planes"], 0, arrays
