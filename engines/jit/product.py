"""Pointwise convolution, channels first, as the matrix product that it is: vectors along the pixels.

    out[n, oc, p] = bias[oc] + sum over c of w[oc, c] * x[n, c, stride * p]

The dense kernels hold channels in vectors, so their sums are transposed when they are stored, and they read a
few pixels from each of many distant planes.  Here sums lie as the output does, inputs are read where they lie or from
a panel that stays in the L1 cache (`product_kernel`), and strides cost nothing but in the copy to that.

Wins on 1x1 layers in planes of some vectors; in small ones the last vector is mostly empty.
"""

import dataclasses
import functools
import math

import numpy as np

from convbench import settings

from . import parallel, residence
from . import product_kernel as kernels
from .ahead import LINE_BYTES, SMALL_CACHE, are_far, inputs_level
from .dense_layout import shared
from .dense_shape import CONFLICT_BYTES
from .dense_tiling import INSTRUCTIONS_PER_CYCLE, in_halves, parts
from .records import ALIGN, Frame, Framed, aligned, table
from .target import cache_bytes, target

#: Part of the L1 cache for the panel: of 48 KiB, 1024 -> 256 channels at 14x14, batch 8, 16 KiB 254, 24 KiB 287, 32 KiB
#: 271 GFLOP/s (Zen 5, November 2026); of 32 KiB a busy neighbour leaves no more either.
PANEL_SHARE = 0.5
#: The same of 32 KiB where two multiply-adds begin per cycle: there the processor fetches ahead what lies together, and
#: sums that stay in registers are worth more.  Half, twice and four times the L1 cache, tiles of 9 x 3, us: 512 -> 128
#: channels at 28x28 918, 858, 842, 320 -> 320 at 64x64 8171, 7566, 7566, 2048 -> 512 at 14x14 3201, 2910, 2937; with
#: strides the same, or half and four times 1.1 of the time (Cascade Lake, November 2026).
FAR_PANEL_SHARE = 2
#: What a round of such a processor takes more for each vector of inputs: 256 -> 64 channels at 64x64, tiles of 8 x 3
#: 1.34, 13 x 2 1.49, 6 x 4 1.34 ms, 512 -> 128 at 28x28 872, 958, 918 us, 64 -> 256 at 56x56 1.24, 1.55, 1.23 ms.
FAR_VECTOR_CYCLES = 0.55
#: Bytes of one block of k's weights that stream from the L2 cache, and of sums that stay there between blocks of k.
WEIGHT_BYTES = 256 * 1024
SUM_BYTES = 128 * 1024
#: Registers besides sums and inputs: the weight being multiplied, and one in flight.
SPARE_REGISTERS = 2
#: Instructions of a round besides, and cycles that a tile and each of its sums take beside the rounds. (1024 -> 256
#: channels at 14x14: tiles of 5 x 5 in blocks of 51 k 150, of 9 x 3 in 85 and of 14 x 2 in 128 about 185 GFLOP/s;
#: Cascade Lake, November 2026.)
ROUND_INSTRUCTIONS = 4
TILE_CYCLES, SUM_CYCLES = 60, 6
#: Cycles that each channel of a tile takes: its sums go to a page of its own.  16 -> 96 channels at 128x128, tiles of
#: 24 x 1 657, 12 x 2 628, 8 x 3 562, 6 x 4 546 us, caches cold 761 to 578; 64 -> 256 at 56x56, 16 x 1 526, 4 x 4 494
#: (Zen 4, November 2026).  This one, `SUM_CYCLES` and `PLACE_CYCLES` are a fit to 46 layers (docs/kernels.md).
CHANNEL_CYCLES = 10
#: Cycles to copy a vector of inputs (Zen 5, November 2026).
PACK_CYCLES = 6
#: Cycles that a vector of inputs takes more from where it lies than from a panel, for each further tile of channels.
#: In place and from panels, us: 320 -> 320 channels at 64x64, tiles of 6 x 4, 4014, 4318; 64 -> 128 at 112x112, batch
#: 2, tiles of 4 x 4, 2445, 2246 (Zen 4, November 2026).
PLACE_CYCLES = 0.4
#: Where two multiply-adds begin per cycle, a copied vector, and one that is read again where it lies: of a tile whose
#: inputs take no more than a part of the L1 cache as above, else more, and most where planes want the same sets of the
#: caches.  In place and from panels, ms: 256 -> 64 channels at 56x56 1.19 and 1.01, 128 -> 512 at 28x28 1.01 and 0.76;
#: 256 -> 64 at 64x64 2.21 and 1.41, 320 -> 320 15.3 and 7.9; but the same for 16 -> 96 at 112x112 and 144 -> 24 at
#: 56x56 (Cascade Lake, November 2026).
FAR_PACK_CYCLES, FAR_PLACE_CYCLES, SAME_SETS_CYCLES, NEAR_SHARE = 9, 3, 12, 0.125
#: Tiles of pixels whose inputs, read in place, are asked for together where one or two tiles of channels read them, for
#: memory likes long runs of a plane.  Caches cold, 256 -> 16 channels at 56x56, one tile 308, two 149, four 140 us; hot
#: 69, 73, 73, and 512 -> 12 at 64x64 113, 113, 115 (Zen 5, November 2026; more in docs/kernels.md).  More tiles of
#: channels ask for a part each, and one tile of pixels is enough: 64 -> 256 at 56x56, batch 8, 1 4236, 2 4490, 4 4702
#: us (Zen 4).
RUN_TILES, FEW_TILES = 2, 2
#: How much slower a choice may be that needs one kernel fewer.
KERNEL_WORTH = 0.03
#: Vectors of pixels in a tile at most.
MOST_VECTORS = 4
#: Tasks per thread that even out delays, if a task then still has `TASK_CYCLES`.  64 -> 128 channels at 56x56, stride
#: 2, in 2, 4, 6, 8 and 26 tasks 80, 84, 85, 82, 81 us: short ones cost nothing (Zen 4, November 2026).
TASKS_PER_THREAD, TASK_CYCLES = 8, 20_000


@dataclasses.dataclass(frozen=True)
class Cut:
    """How channels and pixels are cut.

    Attributes
    ----------
    channels, vectors : tuple of int
        Output channels, and vectors of pixels, of the tiles.
    in_place : bool
        Whether inputs are read where they lie, not from a panel.
    cycles : float
        Of all tiles together, modelled.
    """

    channels: tuple
    vectors: tuple
    in_place: bool
    cycles: float


@functools.lru_cache(maxsize=4096)
def choose(channels, vectors, k_count, registers, multiplies, strided, same_sets):
    """The best `Cut` of `channels` output channels and `vectors` vectors of pixels.

    `same_sets` if the planes of inputs want the same sets of the caches.
    """
    best, best_score = None, math.inf
    for most_vectors in range(1, min(vectors, MOST_VECTORS) + 1):
        most = (registers - SPARE_REGISTERS) // most_vectors - 1
        across = parts(vectors, math.ceil(vectors / most_vectors))
        for count in range(math.ceil(channels / most), channels + 1):
            down = parts(channels, count)
            if down[0] * across[0] * 4 < registers and count > math.ceil(channels / most):
                break
            for in_place in (False,) if strided else (True, False):
                cycles = _cycles(down, across, k_count, multiplies, in_place, same_sets)
                score = cycles * (1 + KERNEL_WORTH * len(set(down)) * len(set(across)))
                if score < best_score:
                    best, best_score = Cut(tuple(down), tuple(across), in_place, cycles), score
    return best


def _cycles(down, across, k_count, multiplies, in_place, same_sets):
    """Modelled cycles of all tiles, and of the copies or what they would have saved."""
    inputs = k_count * sum(across)
    copied = PACK_CYCLES if multiplies == 1 else FAR_PACK_CYCLES
    again = _again_cycles(k_count * across[0] * LINE_BYTES, multiplies, same_sets)
    total = inputs * (again * (len(down) - 1) if in_place else copied)
    for rows in set(down):
        for vectors in set(across):
            products = rows * vectors
            instructions = products + rows + vectors + ROUND_INSTRUCTIONS
            each = max(products / multiplies, instructions / INSTRUCTIONS_PER_CYCLE)
            rounds = block(vectors, LINE_BYTES, multiplies)
            each += 0 if in_place or multiplies == 1 else FAR_VECTOR_CYCLES * vectors
            blocks = 1 if in_place else math.ceil(k_count / rounds)
            cycles = k_count * each + blocks * (TILE_CYCLES + CHANNEL_CYCLES * rows + SUM_CYCLES * products)
            total += cycles * down.count(rows) * across.count(vectors)
    return total


def _again_cycles(nbytes, multiplies, same_sets):
    """Cycles that a vector of a tile's `nbytes` of inputs takes more where it lies than in a panel, when read again."""
    if multiplies == 1 or (nbytes <= NEAR_SHARE * cache_bytes(1) and not same_sets):
        return PLACE_CYCLES
    return SAME_SETS_CYCLES if same_sets else FAR_PLACE_CYCLES


def block(vectors, vector_bytes, multiplies):
    """Rounds of k whose panel is no larger than its share of the L1 cache."""
    share = FAR_PANEL_SHARE if multiplies > 1 and cache_bytes(1) <= SMALL_CACHE else PANEL_SHARE
    return int(share * cache_bytes(1)) // (vectors * vector_bytes)


class ProductPlan(Framed):
    """A planned pointwise convolution: ``plan(x, out)`` computes.

    Parameters
    ----------
    spec : ConvSpec
        Of float32 or float64, channels first, kernel 1 in every direction, no padding.
    weight : ndarray, shape (out_channels, in_channels // groups, 1, ...)
        Of the spec's dtype; packed here, not referenced later.
    bias : ndarray, shape (out_channels,), optional
    isa : str, optional
        Level to generate code for; see `target`.

    Attributes
    ----------
    nbytes : int
        Bytes of packed weights, tables and scratch of one caller.

    Notes
    -----
    Sums run over k in order whatever the number of threads, so results do not depend on it, to the bit.
    Concurrent calls are safe; each takes scratch of its own.
    """

    def __init__(self, spec, weight, bias=None, *, isa=None):
        self._spec, self._target = spec, target(isa)
        self._itemsize, self._lanes = np.dtype(spec.dtype).itemsize, self._target.lanes(spec.dtype)
        self._inputs, self._outputs = spec.in_channels // spec.groups, spec.out_channels // spec.groups
        self._plane, self._pixels = math.prod(spec.spatial), math.prod(spec.output_spatial)
        self._strided = any(stride > 1 for stride in spec.stride)
        vectors = math.ceil(self._pixels / self._lanes)
        self._same_sets = self._plane * self._itemsize % CONFLICT_BYTES == 0
        machine = self._target.registers, self._target.multiplies
        self._cut = choose(self._outputs, vectors, self._inputs, *machine, self._strided, self._same_sets)
        self._in_place = self._cut.in_place
        self._run_tiles = RUN_TILES if self._in_place and len(self._cut.channels) <= FEW_TILES else 1
        panel = block(max(self._cut.vectors), self._target.vector_bytes, self._target.multiplies)
        self._k_block = self._inputs if self._in_place else min(self._inputs, panel)
        self._from_zero = bias is None and self._k_block == self._inputs
        self._pack(np.asarray(weight, spec.dtype), bias)
        self._tiles = self._tile_table()
        self._rows = self._row_table()
        self._tasks = self._task_table()
        self._kernels = self._compile()
        self._call, self.summon = parallel.caller(), parallel.summoner(len(self._tasks))
        self._frames = [self._new_frame()]

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        arrays = [self._weights, self._bias, self._segments, self._runs, self._tiles, self._rows, self._tasks]
        return sum(array.nbytes for array in arrays) + self._frame_bytes

    def _pack(self, weight, bias):
        """Weights as [group][tile of channels][k][channel]; a vector of each channel's bias."""
        spec, down = self._spec, self._cut.channels
        weight = weight.reshape(spec.groups, self._outputs, self._inputs)
        self._weights = aligned(weight.size, spec.dtype)
        packed = self._weights.reshape(spec.groups, -1)
        first = 0
        for count in down:
            end = first + count
            packed[:, first * self._inputs : end * self._inputs] = (
                weight[:, first:end].swapaxes(1, 2).reshape(spec.groups, -1)
            )
            first = end
        self._bias = aligned(spec.out_channels * self._lanes, spec.dtype)
        if bias is not None:
            self._bias.reshape(-1, self._lanes)[...] = np.reshape(bias, (-1, 1))

    def _tile_table(self):
        """A record for each tile of pixels."""
        across = np.array(self._cut.vectors)
        first = (np.cumsum(across) - across) * self._lanes
        begins = self._segment_table(first)
        rows = {
            "x": 0 if self._strided else first * self._itemsize,
            "out": first * self._itemsize,
            "segments": self._segments.ctypes.data + begins[:-1] * kernels.size(kernels.SEGMENT),
            "count": np.diff(begins),
            "rest": np.minimum(self._pixels - first - (across - 1) * self._lanes, self._lanes),
            "vectors": across,
            "kind": np.searchsorted(np.unique(across), across),
            **self._asks(begins),
        }
        return table(kernels.TILE, rows)

    def _segment_table(self, first):
        """Make the table of the segments of tiles, given their first pixels; which are each tile's, from and to.

        Where inputs lie together a tile is one segment.  Behind the last one is the next image's first.
        """
        spec, item = self._spec, self._itemsize
        pixels, ends = first, np.append(first[1:], self._pixels)
        if self._strided:
            cuts = np.union1d(np.arange(0, self._pixels, spec.output_spatial[-1]), first)
            ends = np.append(cuts[1:], self._pixels)
            pieces = -(-(ends - cuts) // self._lanes)
            within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            pixels, ends = np.repeat(cuts, pieces) + within * self._lanes, np.repeat(ends, pieces)
        steps = zip(np.unravel_index(pixels, spec.output_spatial), spec.stride, strict=True)
        x = np.ravel_multi_index([at * stride for at, stride in steps], spec.spatial)
        rows = {
            "x": np.append(x, self._inputs * self._plane) * item,
            "panel": np.append(pixels - first[np.searchsorted(first, pixels, "right") - 1], 0) * item,
            "count": np.append(np.minimum(ends - pixels, self._lanes), 0),
        }
        self._segments = table(kernels.SEGMENT, rows)
        return np.append(np.searchsorted(pixels, first), len(pixels))

    def _asks(self, begins):
        """Where the runs of inputs are that each tile asks for, and how many.

        The next tile's segments, the last one for the next image's first.  Where tiles read their inputs in place, some
        neighbours ask for the next ones' together, each for a share of the planes.
        """
        tiles, x = np.arange(len(begins) - 1), self._segments[:, 0]
        following, counts, turn_planes = tiles + 1, np.append(np.diff(begins), 1), 0
        self._runs = x.copy()
        if self._in_place:
            together = self._run_tiles
            following = np.minimum((tiles // together + 1) * together, len(tiles))
            share = tiles % together * math.ceil(self._inputs / together) * self._plane * self._itemsize
            self._runs, following = x[following] + share, tiles
            rounds = [self._lines(vectors) // self._each(vectors) for vectors in self._cut.vectors]
            turn_planes = np.maximum(self._inputs // np.array(rounds), 1)
        return {
            "runs": self._runs.ctypes.data + 8 * begins[following],
            "run_count": counts[following],
            "turn_planes": turn_planes,
        }

    def _lines(self, vectors):
        """Cache lines of a plane that tiles of so many vectors ask for."""
        if self._in_place:
            return self._run_tiles * vectors
        return self._spec.stride[-1] if self._strided else vectors  # of which a vector of outputs reads so many, or one

    def _each(self, vectors):
        """How many of those in a round, as few as can be with so many tiles of channels."""
        lines, turns = self._lines(vectors), len(self._cut.channels)
        least = math.ceil(vectors / turns) if self._in_place else 1
        return next(each for each in range(least, lines + 1) if lines % each == 0)

    def _row_table(self):
        """A record for each (group, tile of channels)."""
        spec, down = self._spec, np.array(self._cut.channels)
        first = np.arange(spec.groups)[:, None] * self._outputs + np.cumsum(down) - down
        rows = {
            "weights": first * self._inputs * self._itemsize,
            "bias": first * self._target.vector_bytes,
            "out": first * self._pixels * self._itemsize,
            "channels": down,
            "kind": np.searchsorted(np.unique(down), down) * len(set(self._cut.vectors)),
        }
        return table(kernels.ROWS, rows).reshape(-1, len(kernels.ROWS))

    def _task_table(self):
        """A record for each (image, group, range of tiles, range of channels)."""
        spec, item = self._spec, self._itemsize
        images = spec.batch * spec.groups
        down, across = len(self._cut.channels), len(self._cut.vectors)
        cycles = self._cut.cycles * images
        wanted = max(1, min(int(cycles / TASK_CYCLES), TASKS_PER_THREAD * settings.get_num_threads()))
        row_parts = math.ceil(self._outputs * self._k_block * item / WEIGHT_BYTES)
        tile_parts = math.ceil(wanted / (images * row_parts))
        tile_parts = shared(tile_parts, images * row_parts) if wanted > 1 else tile_parts
        if self._k_block < self._inputs:
            tile_parts = max(tile_parts, math.ceil(self._pixels * self._outputs * item / row_parts / SUM_BYTES))
        tile_parts = min(tile_parts, across)
        row_parts = min(down, max(row_parts, math.ceil(wanted / (images * tile_parts))))
        tile_ends = np.cumsum(in_halves(parts(across, tile_parts)))[:, None]
        row_ends = np.cumsum(in_halves(parts(down, row_parts)))
        image = np.arange(images)[:, None, None]
        group_rows = image % spec.groups * down
        rows = {
            "x": image * self._inputs * self._plane * item,
            "out": image // spec.groups * spec.out_channels * self._pixels * item,
            "tile": np.concatenate([[[0]], tile_ends[:-1]]),
            "tile_end": tile_ends,
            "row": group_rows + np.concatenate([[0], row_ends[:-1]]),
            "row_end": group_rows + row_ends,
        }
        return table(kernels.TASK, rows).reshape(-1, len(kernels.TASK))

    def _compile(self):
        """Addresses of the kernels, [channels][vectors]."""
        dtype, across = self._spec.dtype, np.unique(self._cut.vectors)
        asks = are_far(self._weights.nbytes)
        ways = {"dtype": dtype, "in_place": self._in_place, "from_zero": self._from_zero, "asks": asks}
        tiles = [
            kernels.Tile(
                rows,
                v,
                **ways,
                lines=self._lines(v),
                each=self._each(v),
                level=self._input_level(v),
                soon=self._is_soon(v),
                streams=self._streams(),
            )
            for rows in np.unique(self._cut.channels).tolist()
            for v in across.tolist()
        ]
        return np.array([kernels.kernel_address(tile, self._target) for tile in tiles], np.int64)

    def _streams(self):
        """Whether outputs are written past the caches where their memory is in none: whole lines, each once."""
        written = self._spec.batch * self._spec.out_channels * self._pixels * self._itemsize
        once = self._k_block == self._inputs and self._pixels % self._lanes == 0
        return once and residence.pays(self._target, written, self._inputs)

    def _is_soon(self, vectors):
        """Whether inputs come from the second-level cache into the first before their use: of many planes, read once.

        Where more tiles of channels read them, they are there for all but one: 128 -> 128 channels at 64x64 with it
        1084, without 816 us (Zen 4, November 2026).
        """
        far = self._in_place and self._input_level(vectors) == 2
        return far and len(self._cut.channels) <= FEW_TILES and self._inputs >= 2 * kernels.SOON_ROUNDS

    def _input_level(self, vectors):
        """The cache that the next tiles' inputs are asked into; panels' neighbours are few at a time, but for strides.

        With strides, into the first and the second of 32 KiB, caches cold: 672 -> 48 channels at 96x96 1223 and 1158
        us, 128 -> 256 at 56x56 293 and 289, 64 -> 128 107 and 105 (Zen 4, November 2026).
        """
        lines = self._inputs * vectors * self._run_tiles
        apart = self._in_place or self._strided
        return inputs_level(lines * LINE_BYTES, self._strided or self._same_sets) if apart else 1

    def _new_frame(self):
        """Constants and scratch for one caller at a time."""
        item = self._itemsize
        panel = 0 if self._in_place else self._k_block * max(self._cut.vectors) * self._target.vector_bytes
        arrays = {
            "weights": self._weights,
            "bias": self._bias,
            "tiles": self._tiles,
            "rows": self._rows,
            "tasks": self._tasks,
            "kernels": self._kernels,
        }
        constants = {
            **{name: array.ctypes.data for name, array in arrays.items()},
            "pack": kernels.pack_address(self._spec.dtype, self._strided and self._spec.stride[-1], self._target),
            "k_count": self._inputs,
            "k_block": self._k_block,
            "in_place": int(self._in_place),
            "asked_planes": math.ceil(self._inputs / self._run_tiles),
            "far_cycles": residence.far_cycles(self._target) if self._streams() else 0,
            "x_channel": self._plane * item,
            "out_channel": self._pixels * item,
        }
        function = kernels.task_address(self._spec.dtype, self._target)
        scratch_bytes = -(-panel // ALIGN) * ALIGN + ALIGN
        frame = Frame(kernels.FRAME, constants, function, len(self._tasks), scratch_bytes, settings.get_num_threads())
        self._frame_bytes = frame.scratch.nbytes
        return frame
