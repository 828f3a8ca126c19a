"""What Winograd's engines may do with a problem: tiles of which size, and what the lanes of vectors are.

With tiles as lanes (`jit.winograd`) neighbouring outputs of a row share a load, and blocks of some vectors stay in the
cache through all steps.  With channels (`jit.winograd_cells`) a tile may be made of any outputs, so strides, dilation
and any number of taps are all one, and no lane is lost where tiles are few.  `options` are all that fit a problem,
`fastest` the one with the least predicted time.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from convbench import forks
from convbench.machine import CACHED_BYTES, Machine
from convbench.spec import ConvSpec

from .jit.target import cache_bytes
from .jit.winograd_cells_layout import axes as cell_axes
from .jit.winograd_cells_tiling import blocks
from .jit.winograd_strides import axes, down_across, spans
from .jit.winograd_tiling import SHARED_BYTES, choose, gather_cycles, halving, piece_of, way_of

MOST_TAPS = 7
#: Parts of a kernel, each with weights of its own.
MOST_PARTS = 64
RUN, RECORD_BYTES = 16, 80  # tiles of a row that one record is about
#: Outputs of a tile per dimension that are considered, where lanes are tiles: odd numbers leave more of even-sized
#: planes over.
OUTPUTS = (2, 4, 6)
#: And where they are channels: the phases of dilated planes are small, of odd sizes as often as not.
CELL_OUTPUTS = (2, 3, 4, 6)
#: Chains of so many taps stay whole; of longer ones equal parts of so many and more are considered, too.
WHOLE_TAPS, LEAST_PART = 4, 3

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
#: A cell of a frequency, there or back, one thread (Cascade Lake, 2026-11): per product along both dimensions while V
#: and M fit the threads' second-level caches (64 channels of 25 tiles of 25 products: 9 to 10), at least so much where
#: they do not (256 to 1024 channels: 21 to 26), or not the last-level cache (64 channels at 112×112: 38).
CELL_CYCLES, FAR_CELL_CYCLES, FARTHEST_CELL_CYCLES = 0.95, 24, 38
#: A cell of a plane, transposed: of a plane whose cells fit half the second-level cache, and of others (3 -> 64
#: channels at 224×224).
TRANSPOSE_CYCLES, FAR_TRANSPOSE_CYCLES = 6, 40
#: What products take beyond the model, which was fitted to those whose lanes are tiles (0.81 to 0.85 of the peak).
CELL_PRODUCT = 1.1
#: Bytes of a cell, at most, and elements of a channel whose cells are made at once.
CELL_BYTES, MOST_ELEMENTS = 64, 1 << 20


@dataclass(frozen=True)
class Tiling:
    """F(m, r) per spatial dimension of a problem.

    Attributes
    ----------
    spec : ConvSpec
    outputs, taps : tuple of int
        m and r.
    """

    spec: ConvSpec
    outputs: tuple[int, ...]
    taps: tuple[int, ...]

    @property
    def products(self) -> tuple[int, ...]:
        """m + r - 1 per dimension."""
        return tuple(m + r - 1 for m, r in zip(self.outputs, self.taps, strict=True))

    @property
    def frequencies(self) -> int:
        """Products of a tile."""
        return math.prod(self.products)

    @property
    def kinds(self) -> int:
        """Kinds of products that are summed: parts of the kernel."""
        return math.prod(map(len, self.parts))

    def _weight_bytes(self):
        return math.prod(self.spec.weight_shape[:2]) * self.kinds * self.frequencies * self.spec.itemsize

    def _traffic_seconds(self, machine):
        """Transformed weights, input and output through memory."""
        spec = self.spec
        data = (math.prod(spec.input_shape) + math.prod(spec.output_shape)) * spec.itemsize
        return (self._weight_bytes() + data * (FAR_TRAFFIC if data > CACHED_BYTES else 1)) / machine.bandwidth


class TileLanes(Tiling):
    """Lanes are tiles."""

    @classmethod
    def options(cls, spec: ConvSpec) -> list[TileLanes]:
        """Those of undilated kernels of one slice and few taps."""
        if spec.memory_format != "channels_first" or is_dilated(spec) or not (spec.ndim < 3 or _by_slices(spec)):
            return []
        chains = taps(spec)
        if max(chains) > MOST_TAPS:
            return []
        sizes = ((1,) if r == 1 else OUTPUTS for r in chains)
        return [cls(spec, outputs, chains) for outputs in itertools.product(*sizes)]

    @property
    def parts(self) -> list[list[int]]:
        """The taps of each part of the kernel, per dimension: its phases."""
        return [[axis.taps_of(phase) for phase in range(axis.phases)] for axis in axes(self.spec)]

    @property
    def _planes(self):
        """The problem in planes, and m of its dimensions."""
        spec = planes(self.spec)
        return spec, self.outputs[-spec.ndim :]

    def table_bytes(self) -> int:
        """About what the records of rows take: two per row that is read and sixteen tiles."""
        spec, outputs = self._planes
        rows, width = spec.batch * math.prod(spec.output_spatial[:-1]), spec.output_spatial[-1]
        rows *= math.prod(spec.stride[:-1])
        return rows * -(-width // (RUN * outputs[-1])) * 2 * (RECORD_BYTES + 8 * outputs[-1] * (spec.stride[-1] - 1))

    def workspace_bytes(self, threads: int) -> int:
        """Weights, tables, and transformed tiles: a cache of them per thread, or rounds of them."""
        spec = self.spec
        tiles = self._tiles() * self.frequencies * (self.kinds * spec.in_channels + spec.out_channels) * spec.itemsize
        return self._weight_bytes() + self.table_bytes() + min(2 * tiles, SHARED_BYTES + threads * cache_bytes())

    def _tiles(self):
        spec, outputs = self._planes
        return spec.batch * math.prod(-(-size // m) for size, m in zip(spec.output_spatial, outputs, strict=True))

    def seconds(self, machine: Machine) -> float:
        """Products in registers and both transforms, or weights and arrays through memory."""
        (spec, outputs), products, width = self._planes, self.frequencies, machine.vector_bytes
        vectors = max(1, -(-self._tiles() // max(1, width // spec.itemsize)))
        channels, filters = spec.weight_shape[1] * self.kinds, max(1, spec.out_channels // spec.groups)
        way, fits = way_of(products, channels, filters, vectors, width, cache_bytes())
        fits, threads = (vectors, 1) if way == "shared" else (fits, machine.threads)
        along = self.products[-spec.ndim :]
        gather = gather_cycles(along, spec.stride[-1], machine.fma_pipes)
        scatter = halving(machine.fma_pipes) * SCATTER_CYCLES * sum(along)
        if way == "pieces":
            scatter += SUM_CYCLES * math.ceil(channels / piece_of(products, filters, fits, width, cache_bytes()))
        if way == "shared":
            gather, scatter = 0, SHARED_SCATTER_CYCLES + SHARED_GATHER_CYCLES * channels / filters
        machinery = REGISTERS.get(width, FEWER_REGISTERS), machine.fma_pipes, threads, gather
        cycles = choose(vectors, filters, fits, *machinery)[-1] * threads
        # Products with zeros are left out.
        cycles *= spec.weight_shape[1] * int(spans(*down_across(spec), (*(1,) * (2 - spec.ndim), *outputs))[:, 1].sum())
        cycles += vectors * scatter * filters * products
        cycles = cycles * spec.groups / machine.threads + ROUND_CYCLES * (3 if way == "shared" else 1)
        return max(cycles / machine.hertz, self._traffic_seconds(machine))

    def plan(self, weight, bias):
        """The plan, which says of each call whether all results are finite."""
        with forks.held_off:
            from .jit.winograd import WinogradPlan

        spec, outputs = self._planes
        slices = self.spec.spatial[0] if self.spec.ndim > 2 else 1
        return WinogradPlan(spec, weight.reshape(spec.weight_shape), bias, outputs=outputs, slices=slices)


class ChannelLanes(Tiling):
    """Lanes are channels."""

    @classmethod
    def options(cls, spec: ConvSpec) -> list[ChannelLanes]:
        """Those of any stride, dilation and number of taps; in volumes tiles are planar."""
        if max(math.prod(spec.spatial), math.prod(spec.output_spatial)) > MOST_ELEMENTS:
            return []
        sizes = [
            [(m, r) for r in _part_sizes(chain) for m in (CELL_OUTPUTS if r > 1 else (1,))] for chain in taps(spec)
        ]
        if spec.ndim > 2:
            sizes[0] = [(1, 1)]
        found = [cls(spec, *zip(*pairs, strict=True)) for pairs in itertools.product(*sizes)]
        return [option for option in found if option.kinds <= MOST_PARTS]

    @property
    def _axes(self):
        return cell_axes(self.spec, self.outputs, self.taps)

    @property
    def parts(self) -> list[list[int]]:
        """The taps of each part of the kernel, per dimension."""
        return [[len(part) for part in axis.parts] for axis in self._axes[3 - self.spec.ndim :]]

    def _count(self, name):
        return math.prod(getattr(axis, name) for axis in self._axes)

    def table_bytes(self) -> int:
        """What the places of a tile's elements take."""
        return 4 * self._count("copies") * self._count("grid") * self.frequencies

    def workspace_bytes(self, threads: int) -> int:
        """Weights, tables, V and M of some images, and a plane's cells for every thread."""
        spec = self.spec
        cells = threads * CELL_BYTES * max(math.prod(spec.spatial), math.prod(spec.output_spatial))
        return self._weight_bytes() + self.table_bytes() + self._round_bytes(CELL_BYTES) + cells

    def _vectors(self, width):
        """Vectors of so many bytes of a group's input channels, and of its filters."""
        lanes = max(1, width // self.spec.itemsize)
        filters = max(1, self.spec.out_channels // self.spec.groups)
        return math.ceil(self.spec.weight_shape[1] / lanes), math.ceil(filters / lanes)

    def _round_bytes(self, width):
        """Bytes of V and M, of as many images of a group as are computed in a round."""
        cells, filters = self._vectors(width)
        image = self.frequencies * (self._count("copies") * cells + filters) * self._count("grid") * width
        return max(image, min(SHARED_BYTES, image * self.spec.batch * self.spec.groups))

    def seconds(self, machine: Machine) -> float:
        """Products in registers and both transforms, or weights and arrays through memory."""
        spec, width = self.spec, machine.vector_bytes
        (cells, filters), tiles = self._vectors(width), max(1, spec.batch * self._count("grid"))
        registers = REGISTERS.get(width, FEWER_REGISTERS)
        products = CELL_PRODUCT * blocks(filters, tiles, registers, machine.fma_pipes)[-1] * spec.weight_shape[1]
        cycles = self.frequencies * self.kinds * products * spec.groups / machine.threads + 3 * ROUND_CYCLES
        each = self.frequencies * self._count("grid") * self._cell_cycles(machine)
        there = cells, self._count("copies"), math.prod(spec.spatial)
        for vectors, copies, elements in (there, (filters, 1, math.prod(spec.output_spatial))):
            near = elements * width <= cache_bytes() / 2
            transposed = halving(machine.fma_pipes) * (TRANSPOSE_CYCLES if near else FAR_TRANSPOSE_CYCLES)
            tasks = math.ceil(spec.batch * spec.groups * vectors / machine.threads)
            cycles += tasks * (copies * each + elements * transposed)
        return max(cycles / machine.hertz, self._traffic_seconds(machine))

    def _cell_cycles(self, machine):
        """Of a cell at one frequency, there or back."""
        near = halving(machine.fma_pipes) * CELL_CYCLES * sum(self.products)
        held = self._round_bytes(machine.vector_bytes)
        if held <= cache_bytes() * machine.threads:
            return near
        return max(near, FAR_CELL_CYCLES if held <= SHARED_BYTES else FARTHEST_CELL_CYCLES)

    def plan(self, weight, bias):
        """The plan, which says of each call whether all results are finite."""
        with forks.held_off:
            from .jit.winograd_cells import CellPlan

        return CellPlan(self.spec, weight, bias, outputs=self.outputs, taps=self.taps)


def _part_sizes(chain):
    """The sizes of parts that a chain of taps may be cut into."""
    sizes = {chain} | ({math.ceil(chain / count) for count in range(2, chain)} if chain > WHOLE_TAPS else set())
    return sorted(size for size in sizes if min(chain, LEAST_PART) <= size <= MOST_TAPS)


def is_dilated(spec: ConvSpec) -> bool:
    """Whether taps lie apart along any axis; a single tap has no distance."""
    return any(d > 1 for k, d in zip(spec.kernel, spec.dilation, strict=True) if k > 1)


def _by_slices(spec):
    """Whether each slice of a volume's output is a convolution of one slice of the input."""
    return spec.kernel[0] == spec.stride[0] == 1 and not any(spec.padding[0])


def planes(spec: ConvSpec) -> ConvSpec:
    """The batch of slices that a volume is; problems of fewer dimensions as they are."""
    if spec.ndim < 3:
        return spec
    per_axis = ("spatial", "kernel", "stride", "padding", "dilation")
    return spec.replace(batch=spec.batch * spec.spatial[0], **{name: getattr(spec, name)[1:] for name in per_axis})


def taps(spec: ConvSpec) -> tuple[int, ...]:
    """The most taps that see inputs a stride apart, per dimension."""
    return tuple(axis.reduced for axis in axes(spec))


@lru_cache(maxsize=1024)
def options(spec: ConvSpec, products: tuple[int, int]) -> tuple[Tiling, ...]:
    """All whose tiles have at most so many products along every dimension, and at least so many along one."""
    least, most = products
    every = (*TileLanes.options(spec), *ChannelLanes.options(spec))
    return tuple(option for option in every if least <= max(option.products) <= most)


@lru_cache(maxsize=1024)
def fastest(spec: ConvSpec, products: tuple[int, int], machine: Machine) -> Tiling:
    """The option with the least predicted time."""
    return min(options(spec, products), key=lambda option: option.seconds(machine))
