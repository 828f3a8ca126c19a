"""Depthwise convolution of channels-last arrays: vectors along the channels, pixels read where they lie.

    out[n, p, c] = bias[c] + sum over tap of x[n, stride * p + dilation * tap - pad, c] * w[tap, c]

Channels lie together, so a vector of them is one load for any pixel and tap, and no lane is empty but where the
channels end.  Nothing is copied: each output row has its own range of rows of taps, each tile of a row its own
columns of taps, the ones that meet more than padding.  So a row is cut where these change: a few pixels beside
the border, and in between tiles that see all.

It wins over `wide` for channels-last arrays, which `wide` would have to transpose.
"""

import math

import numpy as np

from convbench import settings

from . import depthwise_kernel as kernels
from .compile import address
from .dense_tiling import Run, parts
from .frames import FramePlan
from .target import target
from .vector import Code
from .wide_steps import Geometry

DTYPES = ("float32", "float64")
#: Multiply-adds below which the calling thread computes alone: as for `wide`, whose tasks take about as long.
SMALL = 150_000
#: Tasks per thread: few enough to cost nothing, enough to even out a disturbed core.
TASKS_PER_THREAD = 8
#: Pixels of a tile at most. Two multiply-adds begin per cycle and take four, so eight sums keep them busy; more share
#: the loads of weights: (pixels + 2 * taps - 1) loads for pixels * taps products where neighbours share inputs.
MOST_PIXELS = 14
#: Columns of taps that are unrolled at most, by the registers that are left for their weights.
REGISTERS_PER_TAP = 4
#: Registers that are neither sums nor weights: the input, and one in flight.
SPARE_REGISTERS = 2


def why_unsupported(spec):
    """Why `DepthwisePlan` does not compute `spec`; None if it does."""
    if spec.dtype not in DTYPES:
        return f"vectors along depthwise channels are written for {' and '.join(DTYPES)}, not {spec.dtype}"
    if spec.memory_format != "channels_last":
        return f"vectors along depthwise channels need them in one piece, not memory format {spec.memory_format}"
    if not spec.groups == spec.in_channels == spec.out_channels:
        return (
            f"one input and one output channel per group are computed, not {spec.in_channels} input and "
            f"{spec.out_channels} output channels in {spec.groups} groups"
        )
    return None


class DepthwisePlan(FramePlan):
    """One channels-last depthwise convolution, ready to run.

    Parameters
    ----------
    spec : ConvSpec
        `why_unsupported` must be None for it.
    weight : ndarray [channels, 1, *kernel]
        Packed here as [*kernel, channels], not referenced later.
    bias : ndarray [channels], optional
    isa : str, optional
        Instruction set level, as `target` takes it.

    Attributes
    ----------
    nbytes : int
        Bytes of packed weights and tables.

    Notes
    -----
    Sums run in the same order whatever the number of threads, so results do not depend on it, to the bit.
    Concurrent calls are safe.
    """

    def __init__(self, spec, weight, bias=None, *, isa=None):
        machine, g = target(isa), Geometry.of(spec)
        weight = np.asarray(weight, spec.dtype).reshape(g.groups, -1)
        bias = np.zeros(g.groups, spec.dtype) if bias is None else np.array(bias, spec.dtype)
        arrays = {
            "weights": np.ascontiguousarray(weight.T),
            "bias": bias,
            "row_table": _row_table(g),
            "tile_table": _tile_table(g, machine),
        }
        rows, tiles = g.batch * len(arrays["row_table"]), len(arrays["tile_table"])
        work = g.batch * math.prod(g.out) * weight.size
        threads = 1 if work < SMALL else settings.get_num_threads()
        tasks = min(rows * tiles, threads * TASKS_PER_THREAD) if threads > 1 else 1
        words = {"rows": rows, "image_rows": len(arrays["row_table"]), "tiles": tiles, **_distances(g)}
        task = address("task", ("depthwise",), machine, lambda module: _write_task(module, machine))
        super().__init__(task, kernels.FRAME, words, arrays, tasks, 0)


def _distances(g):
    """The words of a frame that are distances, in bytes."""
    pixel = g.groups * g.itemsize
    return {
        "channels": g.groups,
        "image_bytes": math.prod(g.size) * pixel,
        "row_bytes": g.out[2] * pixel,
        "pixel_bytes": pixel,
        "tap_bytes": g.dilation[2] * pixel,
        "line_bytes": g.dilation[1] * g.size[2] * pixel,
        "slice_bytes": g.dilation[0] * g.size[1] * g.size[2] * pixel,
        "weight_bytes": pixel,
        "weight_line": g.kernel[2] * pixel,
        "weight_slice": g.kernel[1] * g.kernel[2] * pixel,
    }


def _seen(g, axis):
    """For every output along `axis`: the first tap that is not padding, the input it meets, and how many follow.

    Where all taps meet padding, none does, and tap and input are zero.
    """
    first = np.arange(g.out[axis]) * g.stride[axis] - g.low[axis]
    begin = np.maximum(0, -(first // g.dilation[axis]))
    end = np.clip(-((first - g.size[axis]) // g.dilation[axis]), 0, g.kernel[axis])
    count = np.maximum(0, end - begin)
    none = count == 0
    return np.where(none, 0, begin), np.where(none, 0, first + begin * g.dilation[axis]), count


def _row_table(g):
    """`depthwise_kernel.ROW` of every output row of an image."""
    (tap_z, z, slices), (tap_y, y, lines) = _seen(g, 0), _seen(g, 1)
    pixel = g.groups * g.itemsize
    columns = (
        (z[:, None] * g.size[1] + y) * (g.size[2] * pixel),
        (tap_z[:, None] * g.kernel[1] + tap_y) * (g.kernel[2] * pixel),
        np.broadcast_to(slices[:, None], (g.out[0], g.out[1])),
        np.broadcast_to(lines, (g.out[0], g.out[1])),
    )
    return np.ascontiguousarray(np.stack(columns, axis=-1).reshape(-1, len(kernels.ROW)))


def _tile_table(g, machine):
    """`depthwise_kernel.TILE` of every tile of a row."""
    tap, x, taps = _seen(g, 2)
    pixel = g.groups * g.itemsize
    unroll = g.kernel[2] <= machine.registers // REGISTERS_PER_TAP
    firsts, functions = [], []
    for first, end in _segments(tap, taps):
        run = Run(g.kernel[2], g.stride[2], g.dilation[2]) if unroll and taps[first] == g.kernel[2] else None
        most = min(MOST_PIXELS, machine.registers - SPARE_REGISTERS - (g.kernel[2] if run else 1))
        whole = taps[first] == g.kernel[2]
        sizes = parts(end - first, -(-(end - first) // most)) if whole else _powers(end - first, most)
        firsts.append(first + np.cumsum([0, *sizes[:-1]]))
        functions += [_tile(machine, g, size, run) for size in sizes]
    first = np.concatenate(firsts)
    columns = x[first] * pixel, first * pixel, tap[first] * pixel, taps[first], np.array(functions, np.int64)
    return np.ascontiguousarray(np.stack(columns, axis=-1))


def _segments(tap, taps):
    """Ranges of neighbouring columns that see the same taps."""
    changes = (np.flatnonzero(np.diff(tap) | np.diff(taps)) + 1).tolist()
    return list(zip([0, *changes], [*changes, len(tap)], strict=True))


def _powers(total, most):
    """`total` cut into powers of two of at most `most`: borders of any width share a few functions."""
    sizes, size = [], 1 << most.bit_length() - 1
    while size:
        sizes += [size] * (total // size)
        total, size = total % size, size // 2
    return sizes


def _tile(machine, g, pixels, run):
    """Address of the function that computes `pixels` neighbours."""
    stride = None if run else g.stride[2]
    key = g.dtype, pixels, run, stride, g.groups < machine.lanes(g.dtype)
    return address("tile", ("depthwise", *key), machine, lambda module: _write_tile(module, machine, key))


def _write_tile(module, machine, key):
    kernels.write_tile(Code(module, "tile", machine, kernels.TILE_ARGUMENTS), *key)


def _write_task(module, machine):
    kernels.write_task(Code(module, "task", machine, "pii"))
