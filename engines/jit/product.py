"""Pointwise convolution, channels first, as the matrix product that it is: vectors along the pixels.

    out[n, oc, p] = bias[oc] + sum over c of w[oc, c] * x[n, c, stride * p]

The dense kernels hold channels in vectors, so their sums are transposed when they are stored, and they read a
few pixels from each of many distant planes.  Here sums lie as the output does, inputs are read where they lie or from
a panel that stays in or near the L1 cache (`product_kernel`), and strides cost nothing but in the copy to that.

Wins on 1x1 layers in planes of some vectors; in small ones the last vector is mostly empty.
"""

import math

import numpy as np

from convbench import settings

from . import parallel, product_runs, residence
from . import product_kernel as kernels
from .ahead import LINE_BYTES, inputs_level
from .dense_layout import shared
from .dense_shape import CONFLICT_BYTES
from .dense_tiling import in_halves, parts
from .frames import Frame, Framed
from .product_tiling import block, choose
from .records import ALIGN, aligned, table
from .target import cache_bytes, target

#: Bytes of a block of k's weights that a task reads for each tile of pixels: fewer leave more tasks, each with a copy
#: of the same inputs; weights come in the order of their use, from afar as well.  Six layers of stride 2 (256 to 1024
#: inputs, 128 to 1024 outputs) take with 256 KiB 1.12 of the time hot, 1.10 cold, with 4 MiB 1.01 and 1.00; eight
#: without strides 1.00 and 1.02, 1.00 and 0.99 (Cascade Lake, November 2026).
WEIGHT_BYTES = 1024 * 1024
#: Bytes of sums that stay in the L2 cache between blocks of k.
SUM_BYTES = 128 * 1024
#: Tiles of pixels whose inputs, read in place, are asked for together where one or two tiles of channels read them, for
#: memory likes long runs of a plane.  Caches cold, 256 -> 16 channels at 56x56, one tile 308, two 149, four 140 us; hot
#: 69, 73, 73, and 512 -> 12 at 64x64 113, 113, 115 (Zen 5, November 2026; more in docs/kernels.md).  More tiles of
#: channels ask for a part each, and one tile of pixels is enough: 64 -> 256 at 56x56, batch 8, 1 4236, 2 4490, 4 4702
#: us (Zen 4).
RUN_TILES, FEW_TILES = 2, 2
#: Rounds at most that share the lines of a plane which they ask for, written one after the other.  Two threads, ms, all
#: asked for in as many rounds as lines, and in 8: 256 -> 64 channels at 56x56, batch 8, 6.22 and 5.43, 192 -> 64 at
#: 35x35, batch 16, 4.15 and 3.67, 512 -> 128 at 28x28 0.49 and 0.47; 12, 16 and 24 rounds 0.93 to 1.01 of the speed
#: of 8 (Cascade Lake, November 2026).
MOST_ROUNDS = 8
#: Planes at least, read in place, whose lines are asked for by no earlier tile where too many want the same sets of the
#: L2 cache: they are driven out before they are read, and nothing is asked for earlier than `SOON_ROUNDS` ahead; see
#: docs/kernels.md.  Cold, 32 -> 8 at 128x128 takes 280 us with, 400 without (Cascade Lake, November 2026).
CROWDED_PLANES = 64
#: Bytes after which lines want the same set of the L2 cache again, and as many as its ways.
SET_BYTES = 64 * 1024
#: Tasks per thread that even out delays, if a task then still has `TASK_CYCLES`.  64 -> 128 channels at 56x56, stride
#: 2, in 2, 4, 6, 8 and 26 tasks 80, 84, 85, 82, 81 us: short ones cost nothing (Zen 4, November 2026).  But tasks that
#: share pixels copy the same inputs: 4 instead of 8, fourteen layers 0.99 to 1.02 of the speed (Cascade Lake).
TASKS_PER_THREAD, TASK_CYCLES = 6, 20_000


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
        alone = self._parts()[1] == len(self._cut.channels)  # a tile of channels in each task
        self._copies = not (self._in_place or self._strided or alone)
        self._tiles = self._tile_table()
        self._rows = self._row_table()
        self._tasks = self._task_table()
        self._rows_in_place = 0 if self._strided else 1 if self._copies else len(self._rows)
        self._kernels = self._compile(False)
        self._kernels_in_place = self._compile(True)
        self._call, self.summon = parallel.caller(), parallel.summoner(len(self._tasks))
        self._frames = [self._new_frame()]

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        arrays = [self._weights, self._bias, self._segments, self._runs, self._tiles, self._rows, self._tasks]
        arrays += [self._steps] if self._run else []
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
        self._rounds = self._asking_rounds(int(np.diff(begins).max()))
        self._run = self._chosen_run()
        rows = {
            "x": 0 if self._strided else first * self._itemsize,
            "out": first * self._itemsize,
            "segments": self._segments.ctypes.data + begins[:-1] * kernels.size(kernels.SEGMENT),
            "count": np.diff(begins),
            "rest": np.minimum(self._pixels - first - (across - 1) * self._lanes, self._lanes),
            "vectors": across,
            "kind": np.searchsorted(np.unique(across), across),
            **(self._asks_of_runs(first * self._itemsize) if self._run else self._asks(begins)),
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
            turn_planes = max(self._inputs // self._rounds, 1)
        return {
            "runs": self._runs.ctypes.data + 8 * begins[following],
            "run_count": counts[following],
            "turn_planes": turn_planes,
            "steps": 0,
            "out_run": 0,
        }

    def _chosen_run(self):
        """Tiles whose inputs and outputs are asked for together, in the order of memory, or None (`product_runs`)."""
        whole = self._spec.groups == self._parts()[1] == 1 and self._k_block == self._inputs
        if not (whole and self._copies) or self._is_crowded() or self._streams():
            return None
        nbytes = self._spec.batch * (self._inputs * self._plane + self._outputs * self._pixels) * self._itemsize
        return product_runs.choose(
            self._cut, self._inputs, self._outputs, self._rounds, self._target.multiplies, nbytes
        )

    def _asks_of_runs(self, first):
        """The same where tiles ask for runs, given where they begin (bytes); the next image follows."""
        run, across, item = self._run, len(first), self._itemsize
        following, rows = run.following(across), len(self._cut.channels)
        begins, ends = self._inputs * self._plane * item, self._outputs * self._pixels * item
        steps, lines, line = run.tiles * rows * run.steps, run.tiles * max(self._cut.vectors), self._target.vector_bytes
        inputs = product_runs.places(steps, (run.inputs, lines), self._inputs, self._plane * item, line)
        outputs = product_runs.places(steps, (run.outputs, lines), self._outputs, self._pixels * item, line)
        self._runs = np.append(first, begins)
        self._steps = table(kernels.STEP, {"inputs": inputs, "outputs": outputs})
        step = kernels.size(kernels.STEP)
        return {
            "runs": self._runs.ctypes.data + 8 * following,
            "run_count": 1,
            "turn_planes": 0,
            "steps": self._steps.ctypes.data + np.arange(across) % run.tiles * rows * run.steps * step,
            "out_run": np.append(first, ends)[following],
        }

    def _lines(self, vectors):
        """Cache lines of a plane that tiles of so many vectors ask for, for later ones."""
        if self._in_place:
            return 0 if self._is_crowded() and self._is_soon(vectors) else self._run_tiles * vectors
        return self._spec.stride[-1] if self._strided else vectors  # of which a vector of outputs reads so many, or one

    def _is_crowded(self):
        """Whether a line of every plane is more than the L2 cache holds of them, for those want the same few sets."""
        apart = math.gcd(self._plane * self._itemsize, SET_BYTES)
        return self._inputs >= CROWDED_PLANES and self._inputs * apart > cache_bytes()

    def _asking_rounds(self, runs):
        """Rounds that ask for a plane's lines together, where a tile has so many `runs` of inputs.

        As many as tiles of channels of a task share what is asked for, so that none is asked for twice; those that a
        block of k leaves over must do for a plane, too.
        """
        sharing = self._run_tiles * (len(self._cut.channels) // self._parts()[1]) // runs
        lines = self._lines(max(self._cut.vectors))

        def complete(rounds):
            left = self._k_block % rounds
            return left == 0 or left * math.ceil(lines / rounds) >= lines

        return next((rounds for rounds in range(min(MOST_ROUNDS, sharing), 1, -1) if complete(rounds)), 1)

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

    def _parts(self):
        """Into how many ranges of tiles of pixels, and of tiles of channels, tasks cut an image (and group)."""
        item, images = self._itemsize, self._spec.batch * self._spec.groups
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
        return tile_parts, row_parts

    def _task_table(self):
        """A record for each (image, group, range of tiles, range of channels)."""
        spec, item = self._spec, self._itemsize
        images = spec.batch * spec.groups
        down, across = len(self._cut.channels), len(self._cut.vectors)
        tile_parts, row_parts = self._parts()
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

    def _compile(self, in_place):
        """Addresses of the kernels, [channels][vectors], that read inputs where they lie or from a panel."""
        down, across = np.array(self._cut.channels), np.unique(self._cut.vectors).tolist()
        called = down if self._copies or in_place != self._strided else down[:0]
        if in_place and self._copies:  # those that tasks begin with
            called = down[np.unique(self._tasks[:, kernels.TASK["row"] // 8] % len(down))]
        return np.array(
            [
                kernels.kernel_address(self._tile(channels, v, in_place), self._target) if channels in called else 0
                for channels in np.unique(down).tolist()
                for v in across
            ],
            np.int64,
        )

    def _tile(self, channels, vectors, in_place):
        """What the kernel of so many channels and vectors is compiled for."""
        return kernels.Tile(
            channels,
            vectors,
            self._spec.dtype,
            in_place=in_place,
            copies=in_place and self._copies,
            from_zero=self._from_zero,
            lines=self._lines(vectors),
            rounds=self._rounds,
            level=self._input_level(vectors),
            outputs=self._asked_outputs(channels),
            soon=in_place and self._is_soon(vectors),
            streams=self._streams(),
            run=self._run and (self._run.inputs, self._run.outputs),
        )

    def _streams(self):
        """Whether outputs are written past the caches where their memory is in none: whole lines, each once."""
        written = self._spec.batch * self._spec.out_channels * self._pixels * self._itemsize
        once = self._k_block == self._inputs and self._pixels % self._lanes == 0
        return once and residence.pays(self._target, written, self._inputs)

    def _is_soon(self, vectors):
        """Whether tiles that read in place bring inputs from the second-level cache into the first before their use.

        Not where more tiles read them so: they are there for all but one.  128 -> 128 channels at 64x64 with it 1084,
        without 816 us (Zen 4, November 2026).
        """
        once = not self._in_place or len(self._cut.channels) <= FEW_TILES
        return once and self._input_level(vectors) == 2 and self._k_block >= 2 * kernels.SOON_ROUNDS

    def _input_level(self, vectors):
        """The cache that the next tiles' inputs are asked into.

        With strides, into the first and the second of 32 KiB, caches cold: 672 -> 48 channels at 96x96 1223 and 1158
        us, 128 -> 256 at 56x56 293 and 289, 64 -> 128 107 and 105 (Zen 4, November 2026).  Panels that their first
        reader copies: 0.97 to 1.04 (Cascade Lake, November 2026).
        """
        lines = self._inputs * vectors * self._run_tiles
        return inputs_level(lines * LINE_BYTES, not self._in_place or self._same_sets)

    def _asked_outputs(self, channels):
        """Channels whose outputs a tile of so many asks for by each `_rounds` rounds, or 0: all before the first.

        All at once is 0.97 to 1.05 as fast where outputs are few, 0.8 to 0.96 where they are many (docs/kernels.md).
        """
        turns = self._k_block // self._rounds
        return 0 if self._streams() or not turns else math.ceil(channels / turns)

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
            "kernels_in_place": self._kernels_in_place,
        }
        constants = {
            **{name: array.ctypes.data for name, array in arrays.items()},
            "pack": kernels.pack_address(self._spec.dtype, self._spec.stride[-1], self._target) if self._strided else 0,
            "k_count": self._inputs,
            "k_block": self._k_block,
            "rows_in_place": self._rows_in_place,
            "asked_planes": math.ceil(self._inputs / self._run_tiles),
            "steps_bytes": self._run.steps * kernels.size(kernels.STEP) if self._run else 0,
            "far_cycles": residence.far_cycles(self._target) if self._streams() else 0,
            "x_channel": self._plane * item,
            "out_channel": self._pixels * item,
        }
        function = kernels.task_address(self._spec.dtype, self._target)
        scratch_bytes = -(-panel // ALIGN) * ALIGN + ALIGN
        frame = Frame(kernels.FRAME, constants, function, len(self._tasks), scratch_bytes, settings.get_num_threads())
        self._frame_bytes = frame.scratch.nbytes
        return frame
