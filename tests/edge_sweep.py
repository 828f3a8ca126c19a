"""Random problems for generated code whose arrays all end, or begin, at a page that must not be touched.

``python tests/edge_sweep.py FAMILY LEVEL [COUNT]`` prints every problem before it runs, so that the
last line before a segmentation fault names the problem.  Not only input, weight, bias and output
stand at such pages: so does every array that a plan makes (packed weights, tables, scratch).
With COUNT the problems are new ones; without, the same few each time.
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import math
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from edge_problems import (
    cell_specs,
    dense_specs,
    depthwise_specs,
    dilated_specs,
    line_specs,
    plane_specs,
    product_specs,
    rolling_specs,
    row_specs,
    separable_specs,
    sweep_specs,
    tile_specs,
    winograd_specs,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from convbench import registry
from convbench.engines import fft_tiles
from convbench.engines.fft import uncovered
from convbench.engines.jit import (
    dense,
    dense_layout,
    dense_tasks,
    dense_tiling,
    depthwise,
    patches,
    patches_layout,
    product,
    product_runs,
    product_tiling,
    residence,
    separable,
    spectral,
    tile_tables,
    wide,
    wide_planes,
    wide_rolling,
    wide_sweep,
    winograd,
    winograd_cells,
)
from convbench.engines.jit.target import target
from convbench.engines.jit.winograd_matrices import MOST_PRODUCTS, growth
from convbench.engines.lowrank import factorise
from convbench.engines.winograd_lanes import planes, taps
from convbench.verify import expected, measured_error

EXAMPLES = 40
MOST_MACS = 300_000
SMALL_BLOCK = 4_000  # bytes: patches of any size come in several blocks
SMALL_CACHE = 3_000  # bytes: weights of any size come in blocks of k
SMALL_GROUP = 100_000  # bytes: spectra of a few tiles at once
SMALL_ROUND = 100_000  # bytes: several rounds
SMALL_PIECE = 6  # channels: several pieces
SMALL_SHARE = 1e-3  # of the cache: several blocks of tiles
WINOGRAD_GROWTH = max(growth(9 - r, r, (r,)) for r in range(2, 8)) ** 2  # of the least exact tiles
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


def separable_plan(spec, weight, bias, isa):
    """A plan of all the terms of `weight`."""
    return separable.plan(spec, factorise(weight, 0.0).axes, bias, isa=isa)


def winograd_plan(way):
    """Plans with tiles of any size that fits, the same ones for the same problem."""

    def make(spec, weight, bias, isa):
        images, slices = planes(spec), spec.spatial[0] if spec.ndim > 2 else 1
        outputs = tuple(1 if r == 1 else _some_outputs(spec, r) for r in taps(images))
        weight = weight.reshape(images.weight_shape)
        return winograd.WinogradPlan(images, weight, bias, outputs=outputs, way=way, slices=slices, isa=isa)

    return make


def cell_plan(spec, weight, bias, isa):
    """A plan whose lanes are channels, with tiles and parts of the kernel of any size that fits."""
    parts = [min(chain, 1 + (spec.macs + number) % 5) for number, chain in enumerate(taps(spec))]
    if spec.ndim > 2:
        parts[0] = 1
    outputs = tuple(1 if r == 1 else _some_outputs(spec, r) for r in parts)
    return winograd_cells.CellPlan(spec, weight, bias, outputs=outputs, taps=tuple(parts), isa=isa)


def _some_outputs(spec, taps):
    return 2 + spec.macs % max(1, MOST_PRODUCTS - taps)


def spectral_plan(spec, weight, bias, isa):
    """A plan of some tiling of `spec`; the bias is added as the interface does."""
    os.environ["CONVBENCH_ISA"] = isa
    tilings = list(fft_tiles.tilings(spec, target().lanes(spec.dtype)))
    plan = spectral.SpectralPlan(spec, weight, tilings[spec.macs % len(tilings)])

    def call(x, out):
        plan(x, out)
        out += 0 if bias is None else bias.reshape(-1, *(1,) * spec.ndim)

    return call


def stand(values, memory_format, at_end):
    """`values` (N, C, *spatial) at a guard page, in that memory format; and the rest of its pages."""
    if memory_format == "channels_last":
        array, rest = stand(np.moveaxis(values, 1, -1), "channels_first", at_end)
        return np.moveaxis(array, -1, 1), rest
    array, rest = guarded(values.shape, values.dtype, at_end)
    array[...] = values
    return array, rest


def patches_plan(spec, weight, bias, *, wide, isa):
    """A patch plan, which leaves the bias to others."""
    plan = patches.PatchPlan(spec, weight, wide=wide, isa=isa)

    def call(x, out):
        plan(x, out)
        out += 0 if bias is None else bias.reshape(-1, *(1,) * spec.ndim)

    return call


def by_engine(name, spec):
    """The measure of errors of an engine, and its bound."""
    engine = registry.get(name)
    return engine.error_measure, engine.error_bound(spec)


@dataclass(frozen=True)
class Family:
    """What is swept: how its problems are drawn, planned and judged.

    Attributes
    ----------
    problems : callable
        Makes the strategy.
    plan : callable
        ``plan(spec, weight, bias, isa=level)``.
    prepare : callable
        Called once, to make small problems take all ways.
    rule : callable
        The measure of errors and the bound of a problem.
    most_macs : int
    takes : callable
        Whether a problem is one.
    """

    problems: Callable
    plan: Callable
    prepare: Callable = lambda: None
    rule: Callable = lambda spec: by_engine("direct", spec)
    most_macs: int = MOST_MACS
    takes: Callable = lambda spec: True


def small_blocks():
    """Several blocks of k, of the dense and of the product kernels."""
    dense.cache_bytes = dense_layout.cache_bytes = dense_tasks.cache_bytes = product_tiling.cache_bytes = (
        lambda level=2: SMALL_CACHE
    )
    for name in ("ONE_MULTIPLY", "TWO_MULTIPLIES"):  # from panels, unless one tile has all channels
        costs = dataclasses.replace(getattr(product_tiling, name), place=1e9, same_sets=1e9)
        setattr(product_tiling, name, costs)


def copies():
    """Copies of all that has padding beside a kernel's row, which in place only runs as long as that row leave out."""
    small_blocks()
    dense_tiling.longest_run = lambda *_: 1


def small_patches():
    """Several blocks of patches."""
    patches_layout.PATCH_BYTES, patches_layout.ROOM_BYTES = SMALL_BLOCK, 2 * SMALL_BLOCK
    patches_layout.PIXELS, patches_layout.FEWEST_PIXELS, patches_layout.TASK_PRODUCTS = 10, 5, 100


def small_rounds():
    """Several rounds of a shared product, and pieces of a few channels."""
    winograd.SHARED_BYTES = SMALL_ROUND
    winograd.piece_of = lambda *_: SMALL_PIECE
    winograd_cells.SHARED_BYTES, winograd_cells.FREQUENCY_SHARE = SMALL_ROUND, SMALL_SHARE


def least_exact(spec):
    """The rule of tiles of any size."""
    return "l2", 4 * WINOGRAD_GROWTH * 2.0 ** (-24 if spec.dtype == "float32" else -53)


def small_groups():
    """Spectra of a few tiles at once, in arrays that end at a page: whole cache lines, so they are aligned."""
    tile_tables.aligned = spectral.aligned = GuardedNumPy().zeros
    fft_tiles.MAX_GROUP_BYTES = SMALL_GROUP


def covered(spec):
    """Whether windows cover the input: the engine clears the rest before a spectral plan sees it."""
    return not any(map(len, uncovered(spec)))


def row_pieces():
    """Sweeps of pieces of rows."""
    wide_sweep.LEAST_COLUMNS = 1


def stream():
    """Sweeps that write past the caches, pieces of rows."""
    row_pieces()
    wide_sweep.STREAMED_BYTES = wide_sweep.ALIGNED_WIDTH = 0


def in_runs():
    """Runs of any tiles, of few channels, too, whatever the processor."""
    choose = product_runs.choose
    for limit in ("CACHE_SHARE", "MOST_WASTE", "MOST_OUTPUTS", "SMALL_CACHE"):
        setattr(product_runs, limit, math.inf)
    product_runs.choose = lambda *arguments: choose(*arguments[:-2], 2, math.inf)
    product.ProductPlan._streams = product.ProductPlan._is_crowded = lambda _: False
    for name in ("ONE_MULTIPLY", "TWO_MULTIPLIES"):
        setattr(product_tiling, name, dataclasses.replace(getattr(product_tiling, name), place=1e9, same_sets=1e9))


def past_caches():
    """Outputs past the caches, several tasks of products."""
    product.TASK_CYCLES = 100
    residence.pays, residence.far_cycles = lambda *_: True, lambda _: 1
    winograd.WinogradPlan._streams = lambda _: True


def small_rounds_past_caches():
    """Several rounds of shared products, with outputs past the caches."""
    small_rounds()
    past_caches()


def check(spec, level, family, at_end, with_bias, seed):
    """Plan and compute `spec`, and compare with the reference."""
    rng = np.random.default_rng(seed)
    shapes = spec.input_shape, spec.weight_shape, (spec.out_channels,)
    x, weight, bias = (rng.uniform(-1, 1, shape).astype(spec.dtype) for shape in shapes)
    bias *= with_bias
    exact, scale = expected(spec, x, weight)
    column = bias.reshape(-1, *(1,) * spec.ndim).astype(exact.dtype)
    x, _ = stand(x, spec.memory_format, at_end)
    weight, _ = stand(weight, "channels_first", at_end)
    plan = family.plan(spec, weight, stand(bias, "channels_first", at_end)[0] if with_bias else None, isa=level)
    for out_at_end in (at_end, not at_end):
        out, rest = stand(np.full(spec.output_shape, np.nan, spec.dtype), spec.memory_format, out_at_end)
        plan(x, out)
        measure, bound = family.rule(spec)
        error = measured_error(measure, out, exact + column, scale + abs(column))
        assert error <= bound, f"{spec} at {level}: error {error}"
        assert (rest == FILL).all(), f"{spec} at {level}: wrote beside the output"


first = ("channels_first",)
fft = {"rule": partial(by_engine, "fft"), "most_macs": 10 * MOST_MACS, "takes": covered}
FAMILIES = {
    "dense": Family(dense_specs, dense.DensePlan),
    "dense in blocks of k": Family(dense_specs, dense.DensePlan, small_blocks),
    "dense copied": Family(dense_specs, dense.DensePlan, copies),
    "dense dilated": Family(dilated_specs, dense.DensePlan, small_blocks),
    "dense dilated and copied": Family(dilated_specs, dense.DensePlan, copies),
    "product": Family(product_specs, product.ProductPlan),
    "product in blocks of k": Family(product_specs, product.ProductPlan, small_blocks),
    "product in runs": Family(product_specs, product.ProductPlan, in_runs),
    "product past the caches": Family(line_specs, product.ProductPlan, past_caches),
    "depthwise": Family(depthwise_specs, depthwise.DepthwisePlan),
    "wide rows": Family(row_specs, wide.WidePlan),
    "wide rows past the caches": Family(row_specs, wide.WidePlan, past_caches),
    "wide planes": Family(plane_specs, wide.WidePlan),
    "wide rolling": Family(rolling_specs, wide.WidePlan),
    "wide sweeps": Family(sweep_specs, wide.WidePlan),
    "wide sweeps in pieces": Family(sweep_specs, wide.WidePlan, row_pieces),
    "wide sweeps past the caches": Family(sweep_specs, wide.WidePlan, stream),
    "separable": Family(separable_specs, separable_plan, rule=partial(by_engine, "separable")),
    "winograd fused": Family(winograd_specs, winograd_plan("fused"), small_rounds, least_exact),
    "winograd in pieces": Family(winograd_specs, winograd_plan("pieces"), small_rounds, least_exact),
    "winograd shared": Family(winograd_specs, winograd_plan("shared"), small_rounds, least_exact),
    "winograd fused past the caches": Family(winograd_specs, winograd_plan("fused"), past_caches, least_exact),
    "winograd shared past the caches": Family(
        winograd_specs, winograd_plan("shared"), small_rounds_past_caches, least_exact
    ),
    "winograd of channels": Family(cell_specs, cell_plan, small_rounds, least_exact),
    "spectral planes": Family(partial(tile_specs, False), spectral_plan, small_groups, **fft),
    "spectral channels": Family(partial(tile_specs, True), spectral_plan, small_groups, **fft),
    "patches": Family(partial(dense_specs, first), partial(patches_plan, wide=False)),
    "patches in small blocks": Family(partial(dense_specs, first), partial(patches_plan, wide=False), small_patches),
    "patches of rows": Family(partial(dense_specs, first), partial(patches_plan, wide=True), small_patches),
}


def sweep(name, level, count=None):
    """Check `count` random problems of a family of kernels at an instruction set level."""
    family = FAMILIES[name]
    for path, module in list(sys.modules.items()):
        if path.startswith("convbench.engines.jit.") and hasattr(module, "np"):
            module.np = GuardedNumPy()
    family.prepare()
    wide_planes.OTHER_CYCLES = math.inf  # planes wherever they can
    for way, start in ((wide_planes, "wide planes"), (wide_rolling, "wide rolling"), (wide_sweep, "wide sweeps")):
        if not name.startswith(start):
            way.suits = lambda *_: False
    limits = settings(
        max_examples=count or EXAMPLES,
        derandomize=not count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @limits
    @given(family.problems(), st.booleans(), st.booleans(), st.integers(0, 99))
    def run(spec, at_end, with_bias, seed):
        assume(0 < spec.macs < family.most_macs and family.takes(spec))
        print(f"{spec} {spec.dtype} {spec.memory_format} at_end={at_end} bias={with_bias} seed={seed}", flush=True)
        check(spec, level, family, at_end, with_bias, seed)

    run()


if __name__ == "__main__":
    faulthandler.enable()
    sweep(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
