"""Winograd's minimal filtering: F(m, r) makes m outputs of r taps with m + r - 1 products instead of m · r.

    y = Aᵀ [ sum over c of (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A

on tiles of the input that overlap by r - 1 (A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural
Networks, 2016, §4); 3×3 taps on 4×4 outputs need 36 products instead of 144.  The sum over channels is a
matrix product per frequency.  It wins for 3×3 kernels with some 32 and more channels on both sides, and for 5×5 to
11×11 of stride 2 to 4 also from few channels to many; where planes are small and channels many, transformed weights no
longer fit the caches.

The larger the tile, the fewer products and the larger the error.  An engine has one error bound, so there are
three of them, by the most products that a tile has along a dimension: ``winograd4`` with F(2, 3), hardly less exact
than the direct sum; ``winograd`` with F(4, 3), also beside F(2, 3), and F(2, 5); ``winograd8`` with F(6, 3), F(4, 5)
and F(2, 7).  Each takes its tile with the least predicted time, and `rtol` decides which of them may be chosen.

A strided convolution is computed as one of stride 1 and smaller kernels, with its phases as channels
(`jit.winograd_strides`), a dilated one as a batch of undilated ones (`phases`), and a volume whose kernel sees a slice
at a time as a batch of slices.
"""

from __future__ import annotations

import itertools
import math
import platform
from dataclasses import replace
from functools import lru_cache

import numpy as np

from convbench import forks
from convbench.engine import UNROUNDED_GUARD, Engine, unit_roundoff
from convbench.machine import CACHED_BYTES, Machine, this_machine, usable_cores
from convbench.settings import get_num_threads
from convbench.spec import ConvSpec

from .direct import PROCESSORS
from .jit.target import cache_bytes
from .jit.winograd_matrices import growth
from .jit.winograd_strides import axes, down_across, phases, spans
from .jit.winograd_tiling import SHARED_BYTES, choose, gather_cycles, halving, piece_of, way_of
from .phases import PhasedPlan, copies_bytes, copies_seconds, is_dilated, undilated

DTYPES = ("float32", "float64")
MOST_TAPS = 7
MOST_STRIDE = 4  # a run of tiles is stride · m vectors of a row
TABLE_LIMIT_BYTES = 64 << 20
RUN, RECORD_BYTES = 16, 80  # tiles of a row that one record is about
#: Outputs of a tile per dimension that are considered: odd numbers leave more of even-sized planes over.
OUTPUTS = (2, 4, 6)
#: What rounding sums of C products adds, in parts of `growth` and √C: of data of both signs nothing (0.15 in all from
#: C = 8 on), of one sign 1/6 with F(2, 3), 1/20 with F(4, 3); a single product 0.8 in all at most (28×28, 2026-11).
SUM_GROWTH = 1 / 8

# Cycles of a core, fitted to 3×3 layers of 64 to 512 channels (Cascade Lake, 2026-11) where no other is named.
# A vector of a channel's tiles at one frequency, per product along both dimensions, transformed back through the
# second-level cache (2 -> 77 channels at 19×19, Zen 5; there: `winograd_tiling.GATHER_CYCLES`) ...
SCATTER_CYCLES = 1.4
# ... and there and back through the last-level cache, whatever the tile (294 -> 9 channels at 23×23, 4×4, Zen 5).
SHARED_GATHER_CYCLES, SHARED_SCATTER_CYCLES = 30, 19
#: A vector of sums loaded from the second-level cache and stored: counted, not measured.
SUM_CYCLES = 2
#: What bytes that no cache holds cost besides: 2 -> 225 channels, 29,581 pixels, batch 4, 8.2 ms for 107 MB (Zen 5).
FAR_TRAFFIC = 3
ROUND_CYCLES = 4000  # the start of a round of tasks, and waiting for its last one
REGISTERS = {64: 32}  # by bytes of a vector; others have
FEWER_REGISTERS = 16


class Winograd(Engine):
    """F(m, r) with m + r - 1 = 5 or 6 along at least one dimension, by code generated for the tile."""

    name = "winograd"
    version = "6"
    summary = "minimal filtering, tiles of 5 or 6 products along a dimension"
    products = (5, 6)
    error_measure = "l2"
    fuses_bias = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """One and two dimensions and slices of volumes, strides to `MOST_STRIDE`, 2 to 7 taps of a phase along one."""
        if spec.dtype not in DTYPES:
            return f"{self.name} computes {' and '.join(DTYPES)}, not {spec.dtype}"
        if spec.ndim > 2 and not _by_slices(spec):
            return (
                f"{self.name} computes one and two dimensions, and undilated kernels of one slice with stride 1 and no "
                f"padding along the depth, not kernel {spec.kernel}, stride {spec.stride}, padding {spec.padding}, "
                f"dilation {spec.dilation}"
            )
        spec = planes(spec)
        if max(spec.stride) > MOST_STRIDE:
            return f"{self.name} computes strides to {MOST_STRIDE}, not {spec.stride}"
        if set(spec.stride) != {1} and is_dilated(spec):
            return f"{self.name} computes stride 1 of dilated kernels, not {spec.stride} of dilation {spec.dilation}"
        taps, strided = _taps(spec), "" if set(spec.stride) == {1} else f" of stride {spec.stride}"
        if not 2 <= max(taps) <= MOST_TAPS:
            return f"{self.name} computes kernels of 2 to {MOST_TAPS} taps per phase, not {spec.kernel}{strided}"
        if not _options(taps, self.products):
            least, most = self.products
            return (
                f"{self.name} has tiles of {least} to {most} products along a dimension, none fits taps "
                f"{spec.kernel}{strided}"
            )
        tables = _table_bytes(undilated(spec), self._outputs(spec))
        if tables > TABLE_LIMIT_BYTES:
            return f"{self.name} would make tables of {tables:,} bytes; at most {TABLE_LIMIT_BYTES:,} are accepted"
        if platform.machine().lower() not in PROCESSORS:
            return f"{self.name} generates code for {', '.join(PROCESSORS)}, not {platform.machine()}"
        return None

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Transformed and plain weights, phases, transformed tiles: a cache of them per thread, or rounds of them."""
        spec = planes(spec)
        outputs, copies = self._outputs(spec), copies_bytes(spec)
        spec = undilated(spec)
        products, both = _products(spec, outputs), phases(axes(spec))
        weights = math.prod(spec.weight_shape[:2]) * (both * products + math.prod(spec.kernel)) * spec.itemsize
        tiles = _tiles(spec, outputs) * products * (both * spec.in_channels + spec.out_channels) * spec.itemsize
        tiles = min(2 * tiles, SHARED_BYTES + get_num_threads() * cache_bytes())
        return weights + _table_bytes(spec, outputs) + tiles + copies

    def error_bound(self, spec: ConvSpec) -> float:
        """u · growth · (1 + √C / 8) and two roundings, in the relative L2 norm, for data of even magnitude.

        C counts every phase of a channel.
        """
        spec = planes(spec)
        grown = math.prod(itertools.starmap(growth, zip(self._outputs(spec), axes(spec), strict=True)))
        summed = 1 + math.sqrt(spec.weight_shape[1] * phases(axes(spec))) * SUM_GROWTH
        return unit_roundoff(spec.dtype) * (grown * summed + UNROUNDED_GUARD)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Products in registers and both transforms, or weights and arrays through memory; copies of phases."""
        spec = planes(spec)
        inner = undilated(spec)
        outputs = _fastest(inner, self.products, replace(machine, threads=machine.cores))
        seconds = _seconds(inner, outputs, machine)
        return machine.call_seconds + seconds + copies_seconds(spec, machine)

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Transform the weight and generate what kernels are not there yet."""
        return _Plan(spec, weight, bias, self._outputs(planes(spec)))

    def _outputs(self, spec):
        """The tile, whatever the number of threads that are used: results do not depend on it."""
        return _fastest(undilated(spec), self.products, this_machine(usable_cores()))


class Winograd4(Winograd):
    """At most four products: F(2, 3), F(2, 2)."""

    name = "winograd4"
    summary = "minimal filtering, tiles of at most 4 products along a dimension: the most exact ones"
    products = (3, 4)


class Winograd8(Winograd):
    """Seven or eight products along at least one dimension: F(6, 3), F(4, 5), F(2, 7)."""

    name = "winograd8"
    summary = "minimal filtering, tiles of 7 or 8 products along a dimension: the least exact ones"
    products = (7, 8)


def _by_slices(spec):
    """Whether each slice of the output is a convolution of one slice of the input."""
    return spec.kernel[0] == spec.stride[0] == 1 and not any(spec.padding[0]) and not is_dilated(spec)


def planes(spec):
    """The batch of slices that a volume is; problems of fewer dimensions as they are."""
    if spec.ndim < 3:
        return spec
    per_axis = ("spatial", "kernel", "stride", "padding", "dilation")
    return spec.replace(batch=spec.batch * spec.spatial[0], **{name: getattr(spec, name)[1:] for name in per_axis})


@lru_cache
def _options(taps, products):
    """m of F(m, r) per dimension, of tiles that have at most so many products along each and at least along one."""
    least, most = products
    sizes = [(1,) if r == 1 else [m for m in OUTPUTS if m + r - 1 <= most] for r in taps]
    return tuple(
        outputs
        for outputs in itertools.product(*sizes)
        if max(m + r - 1 for m, r in zip(outputs, taps, strict=True)) >= least
    )


def _taps(spec):
    """r of F(m, r) per dimension."""
    return tuple(axis.reduced for axis in axes(spec))


def _products(spec, outputs):
    return math.prod(m + r - 1 for m, r in zip(outputs, _taps(spec), strict=True))


def _table_bytes(spec, outputs):
    """About what the records of rows take: two per row that is read and sixteen tiles."""
    rows, width = spec.batch * math.prod(spec.output_spatial[:-1]), spec.output_spatial[-1]
    rows *= math.prod(spec.stride[:-1])
    return rows * -(-width // (RUN * outputs[-1])) * 2 * (RECORD_BYTES + 8 * outputs[-1] * (spec.stride[-1] - 1))


def _tiles(spec, outputs):
    return spec.batch * math.prod(-(-size // m) for size, m in zip(spec.output_spatial, outputs, strict=True))


@lru_cache(maxsize=1024)
def _fastest(spec: ConvSpec, products: tuple[int, int], machine: Machine) -> tuple[int, ...]:
    """m of F(m, r) per dimension with the least predicted time."""
    return min(_options(_taps(spec), products), key=lambda outputs: _seconds(spec, outputs, machine))


def _seconds(spec, outputs, machine):
    """Modelled time of a tile size, calls aside."""
    products, lanes = _products(spec, outputs), max(1, machine.vector_bytes // spec.itemsize)
    vectors = max(1, -(-_tiles(spec, outputs) // lanes))
    channels, filters = spec.weight_shape[1] * phases(axes(spec)), max(1, spec.out_channels // spec.groups)
    way, fits = way_of(products, channels, filters, vectors, machine.vector_bytes, cache_bytes())
    registers = REGISTERS.get(machine.vector_bytes, FEWER_REGISTERS)
    fits, threads = (vectors, 1) if way == "shared" else (fits, machine.threads)
    along = [m + r - 1 for m, r in zip(outputs, _taps(spec), strict=True)]
    gather = gather_cycles(along, spec.stride[-1], machine.fma_pipes)
    scatter = halving(machine.fma_pipes) * SCATTER_CYCLES * sum(along)
    if way == "pieces":
        piece = piece_of(products, filters, fits, machine.vector_bytes, cache_bytes())
        scatter += SUM_CYCLES * math.ceil(channels / piece)
    if way == "shared":
        gather, scatter = 0, SHARED_SCATTER_CYCLES + SHARED_GATHER_CYCLES * channels / filters
    machinery = registers, machine.fma_pipes, threads, gather
    cycles = choose(vectors, filters, fits, *machinery)[-1] * threads
    cycles *= spec.weight_shape[1] * _phases_multiplied(spec, outputs)
    cycles += vectors * scatter * filters * products
    cycles = cycles * spec.groups / machine.threads + ROUND_CYCLES * (3 if way == "shared" else 1)
    weights = math.prod(spec.weight_shape[:2]) * phases(axes(spec)) * products * spec.itemsize
    moved = weights + spec.data_bytes * (FAR_TRAFFIC if spec.data_bytes > CACHED_BYTES else 1)
    return max(cycles / machine.hertz, moved / machine.bandwidth)


def _phases_multiplied(spec, outputs):
    """Products of a channel, all frequencies: those with zeros are left out."""
    return int(spans(*down_across(spec), (*(1,) * (2 - spec.ndim), *outputs))[:, 1].sum())


class _Plan:
    """Winograd's plan, and the direct one for calls whose results are not all finite.

    A NaN or Inf spreads over its tile, and numbers near the largest overflow in a transform though the sum would not.
    """

    def __init__(self, spec, weight, bias, outputs):
        with forks.held_off:
            from .jit.winograd import WinogradPlan

        images, slices = planes(spec), spec.spatial[0] if spec.ndim > 2 else 1
        filters = weight.reshape(images.weight_shape)
        self._fast = WinogradPlan(undilated(images), filters, bias, outputs=outputs, slices=slices)
        if is_dilated(spec):
            self._fast = PhasedPlan(spec, self._fast)
        self._given = spec, np.array(weight), None if bias is None else np.array(bias)
        self._direct = None
        self.nbytes = self._fast.nbytes + weight.nbytes
        self.summon = getattr(self._fast, "summon", None)

    def __call__(self, x, out):
        if not self._fast(x, out):
            from .direct import Direct

            if self._direct is None:
                self._direct = Direct().plan(*self._given)
            self._direct(x, out)
