"""Random problems for generated code whose arrays all end, or begin, at a page that must not be touched.

``python tests/edge_sweep.py FAMILY LEVEL [COUNT]`` prints every problem before it runs, so that the
last line before a segmentation fault names the problem.  Not only input, weight, bias and output
stand at such pages: so does every array that a plan makes (packed weights, tables, scratch).
With COUNT the problems are new ones; without, the same few each time.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import mmap
import os
import sys

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from convbench import ConvSpec, registry
from convbench.engines import fft_tiles
from convbench.engines.fft import uncovered
from convbench.engines.jit import (
    dense,
    dense_frame,
    spectral,
    tile_jobs,
    tile_tables,
    transform,
    wide,
    wide_layout,
    wide_planes,
    wide_steps,
    wide_sweep,
)
from convbench.engines.jit.target import target
from convbench.verify import expected, measured_error

DIRECT = ("dense", "dense in blocks of k", "wide rows", "wide planes", "wide sweeps", "wide sweeps past the caches")
SPECTRAL = ("spectral planes", "spectral channels")
FAMILIES = DIRECT + SPECTRAL
EXAMPLES = 60
MOST_MACS = 300_000
SMALL_CACHE = 3_000  # bytes: weights of any size come in blocks of k
SMALL_GROUP = 100_000  # bytes: spectra of a few tiles at once
FILL = 0xA5

_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def guarded(shape, dtype, at_end=True):
    """An array of `FILL` bytes, and the rest of its pages; the pages before and behind have no access.

    The array ends where the page behind begins, or begins where the page before ends.
    """
    dtype = np.dtype(dtype)
    size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
    pages = np.frombuffer(memory, np.uint8)
    for page in (0, room + mmap.PAGESIZE):
        assert not _protect(pages.ctypes.data + page, mmap.PAGESIZE, 0), os.strerror(ctypes.get_errno())
    inside = pages[mmap.PAGESIZE : mmap.PAGESIZE + room]
    inside[:] = FILL
    cut = room - size if at_end else size
    array, rest = (inside[cut:], inside[:cut]) if at_end else (inside[:cut], inside[cut:])
    return array.view(dtype).reshape(shape), rest


class GuardedNumPy:
    """NumPy whose new arrays end at a page without access: what the plans' modules see instead of NumPy."""

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype=float):
        return guarded(shape, dtype)[0]

    def zeros(self, shape, dtype=float):
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def array(self, values, dtype=None, **keywords):
        made = np.array(values, dtype, **keywords)
        array = self.empty(made.shape, made.dtype)
        array[...] = made
        return array

    ascontiguousarray = array


def _axes(draw, ndim, kernels, outputs, strides, most_padding):
    """Size, kernel, stride, dilation and padding of every axis, made so that there are outputs."""
    for _ in range(ndim):
        kernel, stride = draw(st.integers(1, kernels[ndim])), draw(st.sampled_from(strides))
        dilation = draw(st.sampled_from((1, 1, 1, 2, 3, 4)))
        low, high = draw(st.integers(0, most_padding)), draw(st.integers(0, most_padding))
        spare = draw(st.integers(0, stride - 1))
        covered = (draw(st.integers(1, outputs[ndim])) - 1) * stride + dilation * (kernel - 1) + 1
        yield max(1, covered + spare - low - high), kernel, stride, dilation, (low, high)


@st.composite
def dense_specs(draw):
    """Several output channels, both memory formats."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 3)))
    axes = _axes(draw, ndim, {1: 9, 2: 5, 3: 3}, {1: 120, 2: 20, 3: 7}, (1, 1, 2, 3), draw(st.sampled_from((0, 3))))
    if draw(st.booleans()) and draw(st.booleans()):
        axes = ((size, 1, 1, 1, (0, 0)) for size, *_ in axes)  # a matrix product
    filters = draw(st.sampled_from((1, 3, 7, 8, 13, 16, 17, 24, 32, 40, 64)))
    return _spec(draw, groups, draw(st.integers(1, 20)), filters, axes, ("channels_first", "channels_last"))


@st.composite
def row_specs(draw):
    """Few output channels: images, signals, channel multipliers."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 5)))
    sizes = {1: 600, 2: 60, 3: 12}
    axes = _axes(draw, ndim, {1: 70, 2: 12, 3: 5}, sizes, (1, 1, 1, 2, 3, 9, 11), draw(st.sampled_from((0, 2, 20))))
    return _spec(draw, groups, draw(st.integers(1, 3)), draw(st.integers(1, 3)), axes)


@st.composite
def plane_specs(draw):
    """Depthwise, in small planes."""
    axes = _axes(draw, 2, {2: 9}, {2: 20}, (1, 1, 2, 3), draw(st.sampled_from((0, 5))))
    return _spec(draw, draw(st.sampled_from((16, 17, 33, 40))), 1, 1, axes)


@st.composite
def sweep_specs(draw):
    """Kernels of a few taps over one input channel, in rows of some vectors."""
    kernel = draw(st.sampled_from(((2, 1), (3, 3), (2, 5), (4, 3), (5, 2), (2, 6))))
    axes = _axes(draw, 2, {2: 1}, {2: 80}, (1, 1, 2), draw(st.sampled_from((0, 3, 9))))
    axes = [
        (size + dilation * k, k, stride, dilation, pads)
        for k, (size, _, stride, dilation, pads) in zip(kernel, axes, strict=True)
    ]
    return _spec(draw, draw(st.integers(1, 4)), 1, draw(st.integers(1, 2)), axes)


@st.composite
def tile_specs(draw, channels):
    """Signals and images of one or a few tiles; with `channels`, several on one side at least."""
    ndim = draw(st.integers(1, 2))
    kernels = {1: draw(st.sampled_from((9, 300))), 2: draw(st.sampled_from((4, 30)))}
    axes = _axes(draw, ndim, kernels, {1: 900, 2: 60}, (1, 1, 1, 2, 5), draw(st.sampled_from((0, 3, 40))))
    if not channels:
        return _spec(draw, draw(st.integers(1, 3)), 1, 1, axes)
    return _spec(draw, draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(2, 9)), axes)


def spectral_plan(spec, weight, bias, isa):
    """A plan of some tiling of `spec`; the bias is added as the interface does."""
    os.environ["CONVBENCH_ISA"] = isa
    tilings = list(fft_tiles.tilings(spec, target().lanes(spec.dtype)))
    plan = spectral.SpectralPlan(spec, weight, tilings[spec.macs % len(tilings)])

    def call(x, out):
        plan(x, out)
        out += 0 if bias is None else bias.reshape(-1, *(1,) * spec.ndim)

    return call


def _spec(draw, groups, channels, filters, axes, formats=("channels_first",)):
    spatial, kernel, stride, dilation, padding = zip(*axes, strict=True)
    return ConvSpec(
        draw(st.integers(1, 3)),
        groups * channels,
        groups * filters,
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        dtype=draw(st.sampled_from(("float32", "float64"))),
        memory_format=draw(st.sampled_from(formats)),
    )


def stand(values, memory_format, at_end):
    """`values` (N, C, *spatial) at a guard page, in that memory format; and the rest of its pages."""
    if memory_format == "channels_last":
        array, rest = stand(np.moveaxis(values, 1, -1), "channels_first", at_end)
        return np.moveaxis(array, -1, 1), rest
    array, rest = guarded(values.shape, values.dtype, at_end)
    array[...] = values
    return array, rest


def check(spec, level, make, at_end, with_bias, seed):
    """Plan and compute `spec`, and compare with the reference."""
    rng = np.random.default_rng(seed)
    shapes = spec.input_shape, spec.weight_shape, (spec.out_channels,)
    x, weight, bias = (rng.uniform(-1, 1, shape).astype(spec.dtype) for shape in shapes)
    bias *= with_bias
    exact, scale = expected(spec, x, weight)
    column = bias.reshape(-1, *(1,) * spec.ndim).astype(exact.dtype)
    x, _ = stand(x, spec.memory_format, at_end)
    weight, _ = stand(weight, "channels_first", at_end)
    plan = make(spec, weight, stand(bias, "channels_first", at_end)[0] if with_bias else None, isa=level)
    for out_at_end in (at_end, not at_end):
        out, rest = stand(np.full(spec.output_shape, np.nan, spec.dtype), spec.memory_format, out_at_end)
        plan(x, out)
        engine = registry.get("fft" if make is spectral_plan else "direct")
        error = measured_error(engine.error_measure, out, exact + column, scale + abs(column))
        assert error <= engine.error_bound(spec), f"{spec} at {level}: error {error}"
        assert (rest == FILL).all(), f"{spec} at {level}: wrote beside the output"


def sweep(family, level, count=None):
    """Check `count` random problems of a family of kernels at an instruction set level."""
    modules = dense, dense_frame, spectral, tile_jobs, tile_tables, transform, wide, wide_layout, wide_planes
    for module in (*modules, wide_steps, wide_sweep):
        module.np = GuardedNumPy()
    tile_tables.aligned = spectral.aligned = GuardedNumPy().zeros  # whole cache lines that end at a page are aligned
    fft_tiles.MAX_GROUP_BYTES = SMALL_GROUP
    if family == "dense in blocks of k":
        dense.cache_bytes = lambda: SMALL_CACHE
    if family.endswith("past the caches"):
        wide_sweep.STREAMED_BYTES = wide_sweep.ALIGNED_WIDTH = 0
    wide_planes.PLANE_CYCLES = math.inf  # planes wherever they can
    for way, name in ((wide_planes, "wide planes"), (wide_sweep, "wide sweeps")):
        if not family.startswith(name):
            way.suits = lambda *_: False
    kinds = {"rows": row_specs, "planes": plane_specs, "sweeps": sweep_specs}
    if family in SPECTRAL:
        problems, make = tile_specs(family == "spectral channels"), spectral_plan
    elif family.startswith("wide"):
        problems, make = kinds[family.split()[1]](), wide.WidePlan
    else:
        problems, make = dense_specs(), dense.DensePlan
    limits = settings(
        max_examples=count or EXAMPLES,
        derandomize=not count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @limits
    @given(problems, st.booleans(), st.booleans(), st.integers(0, 99))
    def run(spec, at_end, with_bias, seed):
        assume(0 < spec.macs < MOST_MACS * (10 if family in SPECTRAL else 1))
        # The engine clears what no window covers before a spectral plan sees it.
        assume(family not in SPECTRAL or not any(map(len, uncovered(spec))))
        print(f"{spec} {spec.dtype} {spec.memory_format} at_end={at_end} bias={with_bias} seed={seed}", flush=True)
        check(spec, level, make, at_end, with_bias, seed)

    run()


if __name__ == "__main__":
    faulthandler.enable()
    sweep(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
