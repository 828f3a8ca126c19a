"""Depthwise kernels rolled down the rows: every input row is read once and added to all outputs that it touches.

    sums[m] += w[ky, kx] * x[row, s x + d kx - p],    for the output rows m = 0, 1, ... below that meet the input row

A *strip* is a few vectors of columns (`rolling_layout`).  Its sums stay in registers while it rolls down: those of the
uppermost row are complete after each step and stored, the others move up by one.  A row of a strip is loaded once, in
whole vectors from the strip's own column on, sorted by phase if columns have a stride, and shifted in registers for
every tap.  Rows above and below the image are read from a row of zeros; what lies beside the image is known when the
code is written.
"""

import math

import numpy as np

from . import rolling_layout
from .compile import address
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .rolling_layout import BLOCK, MOST_VECTORS
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
#: Arguments of a strip: source, out, weights, bias, zeros, and numbers.
STRIP_ARGUMENTS = "ppppp" + "i" * 10
#: Registers that hold neither sums, nor weights, nor the inputs of a tap.
SPARE_REGISTERS = 3


def suits(geometry, target):
    """Whether this is the faster way for `geometry`."""
    return rolling_layout.suits(geometry, target.lanes(geometry.dtype), target.registers)


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


def write_task(code):
    """Body of ``task(frame, index, worker)``: an even share of the blocks of all output planes."""
    frame, index, _ = code.arguments
    shared = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}
    blocks, total = shared["blocks"], shared["blocks"] * shared["planes"]

    def item(n):
        plane, at = n // blocks, code.pointer(shared["block_table"]) + n % blocks * (8 * len(BLOCK))
        block = {name: (at + 8 * i).load() for i, name in enumerate(BLOCK)}
        channel, z = plane // shared["depth"], plane % shared["depth"]
        source = channel // shared["outputs"] * shared["depth"] + z
        channel = channel % shared["filters"]
        arguments = [
            (frame + FRAME_INPUT).load_pointer() + source * shared["plane_bytes"] + block["column"],
            (frame + FRAME_OUTPUT).load_pointer() + plane * shared["out_plane_bytes"] + block["out"],
            code.pointer(shared["weights"]) + channel * shared["weight_bytes"],
            code.pointer(shared["bias"]) + channel * shared["itemsize"],
            code.pointer(shared["zeros"]),
            *(shared[name] for name in ("height", "row_bytes", "step", "out_step")),
            *(block[name] for name in BLOCK[3:]),
        ]
        code.call(code.pointer(block["function"]), arguments)

    code.loop((index + 1) * total // shared["tasks"], item, start=index * total // shared["tasks"])
    code.finish()


def prepare(geometry, target, weight, bias):
    """Everything that a frame needs: (task function's address, words, blocks, scratch bytes, arrays to keep)."""
    g, lanes, size = geometry, target.lanes(geometry.dtype), geometry.itemsize

    def function(strip):
        def write(module):
            write_strip(Code(module, "strip", target, STRIP_ARGUMENTS), strip)

        return address("strip", ("rolling", strip), target, write)

    arrays = {
        "block_table": rolling_layout.block_table(g, lanes, target.registers, function),
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
    task = address("task", ("rolling",), target, lambda module: write_task(Code(module, "task", target, "pii")))
    return task, FRAME, words, blocks * words["planes"], 0, arrays
