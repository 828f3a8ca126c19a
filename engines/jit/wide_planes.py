"""Depthwise convolution of small planes: vectors along channels, after a transpose in the cache.

Planes of 7 x 7 or 14 x 14 leave half of a vector along the width empty, and most taps of a kernel that is
larger than the plane meet only padding.  With one channel per lane nothing is empty, and the taps that meet
padding are known when the code is written:

    sum[ox] += weight[ky, kx] * plane[iy, ix],   for every pair (ox, kx)
                                                 with ix = stride * ox + dilation * kx - padding inside.

A block of channels is transposed into scratch, computed row by row there, and transposed back.
"""

import math

import numpy as np

from .compile import address
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .target import cache_bytes
from .transpose import transposed
from .vector import Code

#: Words of a frame behind its head.
FRAME = (
    "tasks",
    "blocks",
    "block_table",
    "rows",
    "row_table",
    "in_size",
    "out_size",
    "in_bytes",
    "out_bytes",
    "transpose",
    "weights",
    "bias",
    "line_step",
    "weight_step",
    "out_scratch",
    "scratch",
    "scratch_bytes",
)
#: Words of the block table: offsets of one image's block of channels.
BLOCK = ("source", "out", "weights", "bias")
#: Words of the row table: the first input row that an output row meets, its weights, and how many kernel rows follow.
ROW = ("line", "weights", "count")
#: Columns at most: the code of a row holds a multiply-add for every pair of columns that meet.
MAX_WIDTH = 32
#: Part of the second-level cache for a block's transposed inputs and outputs.
SCRATCH_SHARE = 0.75
#: Registers besides sums: the input and the tap being multiplied, and one in flight.
SPARE_REGISTERS = 3
#: So few taps along a row may keep their inputs in registers, where the compiler finds room: 19 x 19, k = 3: 12 % more.
FEW_TAPS = 3
#: Cycles of a multiply-add here, with what it loads, and to transpose one element; what costs more where a row's sums
#: come in pieces; and of a multiply-add in the other kernels, and of a row of inputs or outputs there, without and with
#: strides. Fitted to 80 shapes of 7 x 7 to 32 x 32 with kernels of 3 to 13: the choices lose 0.7 % in geometric mean,
#: 22 % at most (28 x 28, k = 5, stride 2; Zen 4, 2026-11).
JOINED_CYCLES, TRANSPOSE_CYCLES, PIECES_CYCLES = 0.57, 0.45, 1.3
OTHER_CYCLES, ROW_CYCLES, STRIDED_ROW_CYCLES = 0.64, 4, 8


def _pairs(size, out, kernel, stride, dilation, low):
    """For each tap the pairs (output, input) that it joins."""
    places = [[(o, stride * o + dilation * k - low) for o in range(out)] for k in range(kernel)]
    return [[(o, i) for o, i in some if 0 <= i < size] for some in places]


def _axis(geometry, axis):
    return [
        values[axis]
        for values in (geometry.size, geometry.out, geometry.kernel, geometry.stride, geometry.dilation, geometry.low)
    ]


def suits(geometry, target):
    """Whether this is the faster way for `geometry`."""
    g, lanes = geometry, target.lanes(geometry.dtype)
    flat = g.size[0] == g.kernel[0] == g.out[0] == 1 and g.low[0] == 0
    if not flat or g.channels > 1 or g.outputs > 1 or g.groups < lanes or max(g.size[2], g.out[2]) > MAX_WIDTH:
        return False
    planes = math.prod(g.size), math.prod(g.out)
    if min(planes) < lanes or sum(planes) * target.vector_bytes > SCRATCH_SHARE * cache_bytes():
        return False
    joined = math.prod(sum(map(len, _pairs(*_axis(g, axis)))) for axis in (1, 2))
    here = JOINED_CYCLES * joined / lanes + TRANSPOSE_CYCLES * sum(planes)
    here *= PIECES_CYCLES if _pieces(g.out[2], target) > 1 else 1
    products = g.out[1] * -(-g.out[2] // lanes) * g.kernel[1] * g.kernel[2]
    row = STRIDED_ROW_CYCLES if g.stride[2] > 1 else ROW_CYCLES
    other = OTHER_CYCLES * products + row * (g.size[1] + g.out[1])
    return here < other


def _pieces(outputs, target):
    """How many pieces a row of outputs comes in, so that its sums fit the registers."""
    return -(-outputs // (target.registers - SPARE_REGISTERS))


def write_transpose(code, dtype):
    """Body of ``transpose(source, source_pitch, source_step, to, to_pitch, to_step, count)``.

    `count` columns of one vector of rows become `count` rows.
    """
    kind = code.vector(dtype)
    source, source_pitch, source_step, to, to_pitch, to_step, count = code.arguments

    def block(start):
        start = start.least(count - kind.lanes)
        rows, at = [], source + start * source_step
        for _ in range(kind.lanes):
            rows.append(at.load(kind))
            at = at + source_pitch
        at = to + start * to_step
        for column in transposed(rows):
            at.store(column)
            at = at + to_pitch

    code.loop(count, block, step=kind.lanes)
    code.finish()


def write_task(code, dtype, axis):
    """``task(frame, index, worker)`` for planes whose columns are described by `axis`, as `_pairs` takes it."""
    kind = code.vector(dtype)
    frame, index, worker = code.arguments
    shared = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}
    plane = code.pointer(shared["scratch"]) + worker * shared["scratch_bytes"]
    result = plane + shared["out_scratch"]

    def block(n):
        at = code.pointer(shared["block_table"]) + n * (8 * len(BLOCK))
        source, out, weights, bias = ((at + 8 * i).load() for i in range(len(BLOCK)))
        transpose = code.pointer(shared["transpose"])
        code.call(
            transpose,
            [
                (frame + FRAME_INPUT).load_pointer() + source,
                shared["in_bytes"],
                kind.itemsize,
                plane,
                kind.bytes,
                kind.bytes,
                shared["in_size"],
            ],
        )
        total = (code.pointer(shared["bias"]) + bias).load(kind)

        def row(y):
            at = code.pointer(shared["row_table"]) + y * (8 * len(ROW))
            line, weight, count = ((at + 8 * i).load() for i in range(len(ROW)))
            _write_row(
                code,
                kind,
                axis,
                plane + line,
                code.pointer(shared["weights"]) + weights + weight,
                count,
                total,
                result + y * (axis[1] * kind.bytes),
                shared["line_step"],
                shared["weight_step"],
            )

        code.loop(shared["rows"], row)
        code.call(
            transpose,
            [
                result,
                kind.bytes,
                kind.bytes,
                (frame + FRAME_OUTPUT).load_pointer() + out,
                shared["out_bytes"],
                kind.itemsize,
                shared["out_size"],
            ],
        )

    first, stop = (number * shared["blocks"] // shared["tasks"] for number in (index, index + 1))
    code.loop(stop, block, start=first)
    code.finish()


def _write_row(code, kind, axis, line, weight, count, bias, out, line_step, weight_step):
    """One output row, in pieces whose sums fit the registers."""
    length = -(-axis[1] // _pieces(axis[1], code.target))
    for first in range(0, axis[1], length):
        outputs = range(first, min(first + length, axis[1]))
        joined = [[(o - first, i) for o, i in pairs if o in outputs] for pairs in _pairs(*axis)]
        held = len(outputs) + len({i for mine in joined for _, i in mine})
        crowded = held > code.target.registers - SPARE_REGISTERS and len(joined) > FEW_TAPS

        def kernel_row(_, line, weight, *sums, joined=joined, crowded=crowded):
            sums = list(sums)
            for kx, mine in enumerate(joined):
                if crowded:  # 28 x 28, k = 7: 131 instead of 212 us, k = 29: 389 instead of 611 (Zen 5, 2026-11)
                    code.reload()
                if mine:
                    tap = (weight + kx * kind.bytes).load(kind)
                for o, i in mine:
                    sums[o] = sums[o].fma((line + i * kind.bytes).load(kind), tap)
            return line + line_step, weight + weight_step, *sums

        sums = code.loop(count, kernel_row, (line, weight, *[bias] * len(outputs)))[2:]
        for o, value in zip(outputs, sums, strict=True):
            (out + o * kind.bytes).store(value)


def _block_table(g, starts, lanes):
    """Blocks of `lanes` channels of every image; the last one of an image may repeat channels of the one before."""
    image, number = np.indices((g.batch, len(starts))).reshape(2, -1)
    plane = image * g.groups + starts[number]
    columns = (
        plane * math.prod(g.size),
        plane * math.prod(g.out),
        number * (math.prod(g.kernel) * lanes),
        number * lanes,
    )
    return np.ascontiguousarray(np.stack(columns, axis=1) * g.itemsize)


def _row_table(g, lanes):
    pairs = _pairs(*_axis(g, 1))
    table = np.zeros((g.out[1], len(ROW)), np.int64)
    for y in range(g.out[1]):
        met = [(ky, i) for ky, some in enumerate(pairs) for o, i in some if o == y]
        if met:
            table[y] = met[0][1] * g.size[2], met[0][0] * g.kernel[2], len(met)
    return table * np.array([lanes * g.itemsize, lanes * g.itemsize, 1])


def prepare(geometry, target, weight, bias):
    """Everything that a frame needs: (task function's address, words, blocks, scratch bytes, arrays to keep)."""
    g, lanes = geometry, target.lanes(geometry.dtype)
    starts = np.minimum(np.arange(0, g.groups, lanes), g.groups - lanes)
    channels = starts[:, None] + np.arange(lanes)
    arrays = {
        "block_table": _block_table(g, starts, lanes),
        "row_table": _row_table(g, lanes),
        "bias": np.ascontiguousarray(bias[channels]),
        "weights": np.ascontiguousarray(weight.reshape(g.groups, -1)[channels].transpose(0, 2, 1)),
    }
    vector = lanes * g.itemsize
    planes = math.prod(g.size), math.prod(g.out)
    key = g.dtype, tuple(_axis(g, 2))
    task = address(
        "task", ("planes", *key), target, lambda module: write_task(Code(module, "task", target, "pii"), *key)
    )
    transpose = address(
        "transpose",
        (g.dtype,),
        target,
        lambda module: write_transpose(Code(module, "transpose", target, "piipiii"), g.dtype),
    )
    words = {
        "blocks": len(arrays["block_table"]),
        "rows": g.out[1],
        "in_size": planes[0],
        "out_size": planes[1],
        "in_bytes": planes[0] * g.itemsize,
        "out_bytes": planes[1] * g.itemsize,
        "transpose": transpose,
        "line_step": g.dilation[1] * g.size[2] * vector,
        "weight_step": g.kernel[2] * vector,
        "out_scratch": planes[0] * vector,
    }
    return task, FRAME, words, len(arrays["block_table"]), sum(planes) * vector, arrays
