"""Direct convolution with vectors along the output width: images, depthwise and few channels per group.

    out[n, o, z, y, x] = bias[o] + sum over c, kz, ky, kx of
        w[o, c, kz, ky, kx] * x[n, c, s z + d kz - p, s y + d ky - p, s x + d kx - p]

A tile of vectors stands over several output rows, so that each input vector is loaded once for all the rows
that it touches (`wide_kernel`); inputs are read where they lie, and what needs padding or has a column
stride is first laid into a small patch in the cache.  It wins wherever vectors along the output channels
would stay empty.
"""

import math

import numpy as np

from convbench import settings

from . import residence, wide_kernel, wide_layout, wide_planes, wide_rectangles, wide_rolling, wide_stage, wide_sweep
from .compile import address
from .frames import FramePlan
from .target import cache_bytes, target
from .vector import Code
from .wide_rectangles import EDGE, STAGED, whole_spans
from .wide_steps import Geometry

DTYPES = ("float32", "float64")
#: Multiply-adds below which the calling thread computes alone (128 x 128, k = 3: 5.0 us alone, 4.4 shared
#: with a watching worker, 12.6 if the worker sleeps; Zen 4, 2026-11).
SMALL = 150_000
#: Tasks per thread: few enough to cost nothing, enough to even out a disturbed core.
TASKS_PER_THREAD = 8


def why_unsupported(spec):
    """Why the wide family does not compute `spec`; None if it does."""
    if spec.dtype not in DTYPES:
        return f"vectors along the width are written for {' and '.join(DTYPES)}, not {spec.dtype}"
    if spec.memory_format != "channels_first":
        return f"vectors along the width need rows in one piece, not memory format {spec.memory_format}"
    return None


class WidePlan(FramePlan):
    """One convolution, ready to run.

    Parameters
    ----------
    spec : ConvSpec
        `why_unsupported` must be None for it.
    weight : ndarray [out_channels, in_channels / groups, *kernel]
        Packed here, not referenced later.
    bias : ndarray [out_channels], optional
    isa : str, optional
        Instruction set level, as `target` takes it.

    Attributes
    ----------
    nbytes : int
        Bytes of packed weights, tables and scratch.

    Notes
    -----
    Sums run in the same order whatever the number of threads, so results do not depend on it, to the bit.
    Concurrent calls are safe; each takes scratch of its own.
    """

    def __init__(self, spec, weight, bias=None, *, isa=None):
        machine, geometry = target(isa), Geometry.of(spec)
        weight = np.asarray(weight, spec.dtype).reshape(-1, geometry.channels, *geometry.kernel)
        bias = np.zeros(len(weight), spec.dtype) if bias is None else np.array(bias, spec.dtype)
        work = geometry.batch * math.prod(geometry.out) * weight.size
        threads = 1 if work < SMALL else settings.get_num_threads()
        prepare = _way(geometry, machine)
        task, names, words, blocks, scratch_bytes, arrays = prepare(geometry, machine, weight, bias)
        tasks = min(blocks, threads * TASKS_PER_THREAD) if threads > 1 else 1
        super().__init__(task, names, words, arrays, tasks, scratch_bytes)


def _way(geometry, machine):
    """The fastest of the four algorithms for `geometry`."""
    for way in (wide_planes, wide_rolling, wide_sweep):
        if way.suits(geometry, machine):
            return way.prepare
    return _prepare_rows


def _prepare_rows(geometry, machine, weight, bias):
    """Everything that a frame needs: (task function's address, words, blocks, scratch bytes, arrays to keep)."""
    g, size = geometry, geometry.itemsize
    layout, steps = wide_layout.design(g, machine)
    rectangles = wide_rectangles.rectangles(layout, steps)
    written = g.batch * g.groups * g.outputs * math.prod(g.out) * size
    streams = residence.pays(machine, written, weight[0].size)
    functions = _tiles(layout, steps, machine, rectangles, streams)
    arrays = {
        "weights": steps.pack(weight),
        "bias": bias,
        "block_table": wide_layout.block_table(layout, steps, rectangles, functions),
        **wide_layout.offset_tables(layout, steps),
    }
    blocks = len(arrays["block_table"])
    outputs = _outputs_of_task(g, blocks, weight.size, steps.filters)
    images = arrays["image_table"] = wide_layout.image_table(layout, steps, outputs)
    pitch, staged_pitch, out_pitch = layout.pitches
    words = {
        "blocks": blocks,
        "images": len(images),
        "outputs": outputs // steps.filters,
        "filters": steps.filters,
        "out_step": math.prod(g.out) * size,
        "itemsize": size,
        "far_cycles": residence.far_cycles(machine) if streams else 0,
        "stage": _stage(machine, g.dtype, g.stride[2]) if any(r.reads == STAGED for r in rectangles) else 0,
        "channels": g.channels,
        "channel_step": math.prod(g.size) * size,
        "depth_step": g.dilation[0] * g.size[1] * g.size[2] * size,
        "staged_rows": layout.staged_rows,
        "source_pitch": g.dilation[1] * g.size[2] * size,
        "stage_pitch": layout.stage_pitch * size,
        "stage_plane": layout.stage_plane * size,
        "phase_pitch": layout.phase_pitch * size,
        "weights_step": arrays["weights"].strides[0],  # of `filters` output channels
        "pitch": pitch * size,
        "staged_pitch": staged_pitch * size,
        "out_pitch": out_pitch * size,
    }
    return _task(machine), wide_kernel.FRAME, words, blocks * len(images), layout.stage_size * size, arrays


def _outputs_of_task(g, blocks, weights, filters):
    """Output channels of a group that share one staged patch: all, or a part of them that leaves enough to share.

    A part has tiles of `filters` channels.
    """
    wanted = 1 if g.batch * math.prod(g.out) * weights < SMALL else wide_layout.BLOCKS_WANTED
    others = g.batch * g.groups * blocks
    tiles = g.outputs // filters
    shares = (count for count in range(1, tiles + 1) if tiles % count == 0 and others * count >= wanted)
    return g.outputs // next(shares, tiles)


def _tiles(layout, steps, machine, rectangles, streams):
    """The addresses of the code of the tiles of each rectangle."""
    asks = layout.asks(settings.get_num_threads() * cache_bytes())
    key = machine, layout.geometry.dtype, steps.filters, layout.rows, steps.heights, layout.fold
    kinds = {(rectangle.reads == EDGE, rectangle.spans) for rectangle in rectangles}
    tiles = {
        (edge, spans): _tile(*key, asks=asks and not edge, edge=edge, spans=spans, streams=streams)
        for edge, spans in kinds
    }
    return [tiles[rectangle.reads == EDGE, rectangle.spans] for rectangle in rectangles]


def _tile(machine, dtype, filters, rows, heights, fold, *, asks=False, edge=False, spans=None, streams=False):
    key = dtype, filters, rows, heights, fold, asks, edge, spans or whole_spans(rows, heights), streams

    def write(module):
        types = "p" * 3 + "pip" * 2 + "i" * 6 + "ppii"
        wide_kernel.write_tile(Code(module, "tile", machine, types), *key)

    return address("tile", key, machine, write)


def _stage(machine, dtype, stride):
    def write(module):
        wide_stage.write_stage(Code(module, "stage", machine, "pp" + "i" * 9), dtype, stride)

    return address("stage", (dtype, stride), machine, write)


def _task(machine):
    return address(
        "task", ("wide",), machine, lambda module: wide_kernel.write_task(Code(module, "task", machine, "pii"))
    )
