"""Dense convolution at the processor's speed: register tiles of pixels x output channels over an offset table.

    out[n, oc, p] = bias[oc] + sum over (c, tap) of x[n, c, stride * p + dilation * tap - pad] * w[oc, c, tap]

A plan cuts the work into tasks of (image, band of rows, some blocks of output channels).  Everything that
depends on the shape is in tables that NumPy builds here; the code that walks them (`dense_kernel`) is
compiled once per tile.  The input is read in place, and kernels of tiles at the borders leave out what lies in
the padding; only where they cannot a task first copies its band with zeros around it into scratch that stays in
the L2 cache.  A 1x1 convolution of stride 1 is a matrix product: its pixels are one long row.

Wins on everything with some 16 and more output channels per group; one-channel images and depthwise layers
waste the lanes: see `wide`.
"""

import itertools
import math

import numpy as np

from convbench import settings

from . import dense_kernel as kernels
from . import parallel
from .ahead import LINE_BYTES, SMALL_CACHE, are_far, inputs_level
from .dense_layout import Layout
from .dense_shape import Shape
from .dense_tasks import Work
from .dense_tiling import NEAR_WEIGHT_CYCLES, WEIGHT_CYCLES, Machine, Row, choose, runs
from .frames import Frame, Framed
from .records import ALIGN, aligned, table
from .target import cache_bytes, target

DTYPES = ("float32", "float64")
#: Part of the L2 cache for one block's weights; more k than fit are done in turns that leave their sums in scratch. 512
#: -> 1024 channels at 19x19, 3x3, dilation 6: 0.6 616, 0.3 669, 0.15 663 GFLOP/s (Zen 5, November 2026).
WEIGHT_SHARE = 0.3
#: Registers left for pixels' addresses where the step between them is not a constant (channels-last); no
#: limit where it is.
BASE_REGISTERS, MANY = 4, 1 << 20
#: Cycles to copy a vector of the input: 64 -> 64 channels at 224x224, 3x3, bands of 4 rows, one thread, 107 GFLOP/s,
#: 112 if nothing is copied (Zen 4, November 2026).
COPY_CYCLES = 18


def why_unsupported(spec):
    """The reason why `DensePlan` does not take `spec`, or None."""
    if spec.dtype not in DTYPES:
        return f"dense kernels compute {' and '.join(DTYPES)}, not {spec.dtype}"
    return None


class DensePlan(Framed):
    """A planned convolution: ``plan(x, out)`` computes.

    Parameters
    ----------
    spec : ConvSpec
        `why_unsupported` must be None for it.
    weight : ndarray, shape (out_channels, in_channels // groups, *kernel)
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
    Sums run over k in the same order whatever the number of threads, so results do not depend on it, to the
    bit.  Concurrent calls are safe; each takes scratch of its own.
    """

    #: Strides of input and output where they are parts of larger arrays.
    _distances = None

    def __init__(self, spec, weight, bias=None, *, isa=None):
        self._target = target(isa)
        self._dtype, self._itemsize = spec.dtype, np.dtype(spec.dtype).itemsize
        self._lanes = self._target.lanes(spec.dtype)
        self._shape = shape = Shape.of(spec)
        self._group_vectors = math.ceil(shape.out_channels // shape.groups / self._lanes)
        lanes, bases = (1, BASE_REGISTERS) if shape.last else (self._lanes, MANY)
        threads = 1 if shape.last else settings.get_num_threads()  # whose number must not decide the order of k
        near = self._target.multiplies > 1 and cache_bytes(1) <= SMALL_CACHE
        machine = Machine(
            self._target.registers,
            self._target.multiplies,
            lanes,
            bases,
            threads,
            NEAR_WEIGHT_CYCLES if near else WEIGHT_CYCLES,
        )
        self._tiling = choose(
            shape.row_parts,
            shape.column_parts,
            self._group_vectors,
            tuple(self._runs()),
            machine,
            self._half(),
            shape.batch * shape.groups,
            Row(shape.spatial[2], shape.padding[2][0], shape.kernel[2]),
            COPY_CYCLES * shape.group_channels * math.prod(shape.spatial) / self._lanes,
        )
        self._widths = self._block_widths()
        self._layout = Layout(shape, self._tiling, self._itemsize, self._distances)
        self._pack(weight, bias)
        self._cut()
        self._frames = []
        self._call, self.summon = parallel.caller(), parallel.summoner(len(self._tasks))
        self._frames.append(self._new_frame())
        self._scratch_bytes = self._frames[0].scratch.nbytes

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        arrays = [self._weights, self._bias, self._offsets, self._positions, self._blocks, self._tasks]
        return sum(array.nbytes for array in arrays) + self._scratch_bytes

    def _runs(self):
        """Runs of taps that a kernel may take in one round: as long as a row, or single ones, where columns see few."""
        shape = self._shape
        found = runs(shape.kernel[2], shape.stride[2], shape.dilation[2], shape.last)
        if len(shape.column_parts) == 1:
            return found
        return found[-1:] if found[-1].taps == shape.kernel[2] and not shape.last else found[:1]

    def _pack(self, weight, bias):
        """Weights as [block][k][channel], padded to whole vectors; the table of blocks and that of the offsets of k."""
        shape, groups = self._shape, self._shape.groups
        group_out, k_count = shape.out_channels // groups, shape.k_count
        weight, self._offsets = self._ordered(np.asarray(weight, self._dtype))
        room = int(self._widths.sum())
        padded = np.zeros((groups, room, k_count), self._dtype)
        padded[:, :group_out] = weight.reshape(groups, group_out, k_count)
        biases = np.zeros((groups, room), self._dtype)
        if bias is not None:
            biases[:, :group_out] = np.reshape(bias, (groups, group_out))
        self._bias = aligned(biases.size, self._dtype)
        self._bias[:] = biases.ravel()
        self._weights = aligned(padded.size, self._dtype)
        self._blocks = self._pack_blocks(padded, group_out)

    def _ordered(self, weight):
        """Weights with k as (tap of depth and height, channel, tap of width), and the offsets of k.

        With single taps, channels last or columns in parts, the channel is innermost.  Rows of taps are outermost,
        so that a tile whose rows of input lie in the padding leaves out a range of k.
        """
        shape = self._shape
        _, channel, *far = self._layout.read_strides
        depth, height, width = (
            np.arange(size) * dilation * step
            for size, dilation, step in zip(shape.kernel, self._layout.tap_distances(), far, strict=True)
        )
        lines, channels = np.add.outer(depth, height).ravel(), np.arange(shape.group_channels) * channel
        weight = weight.reshape(shape.groups, -1, shape.group_channels, len(lines), len(width))
        channels_inside = self._tiling.run.taps == 1 and (shape.last or self._in_parts)
        weight = weight.transpose(0, 1, 3, 4, 2) if channels_inside else weight.transpose(0, 1, 3, 2, 4)
        inner = np.add.outer(width, channels) if channels_inside else np.add.outer(channels, width)
        offsets = np.add.outer(lines, inner).ravel() * self._itemsize
        return weight, np.pad(offsets, (0, kernels.SOON_ROUNDS * self._tiling.run.taps), "edge").astype(np.int64)

    @property
    def _in_parts(self):
        """Whether columns come in parts that leave out single taps."""
        return len(self._shape.column_parts) > 1 and self._tiling.run.taps == 1

    def _block_widths(self):
        """Channels of a group's blocks, padded: to whole vectors, but for the last where half a vector does."""
        widths = np.array(self._tiling.vectors) * self._lanes
        widths[-1] -= self._lanes // 2 if self._half() else 0
        return widths

    def _half(self):
        """Whether half a vector does for the last channels of a group."""
        return 0 < self._shape.out_channels // self._shape.groups % self._lanes <= self._lanes // 2

    def _pack_blocks(self, padded, group_out):
        """Fill the packed weights; a record for each (group, block)."""
        shape, layout, item, widths = self._shape, self._layout, self._itemsize, self._widths
        groups, room, k_count = padded.shape
        first = np.cumsum(widths) - widths
        packed = self._weights.reshape(groups, -1)
        for begin, width in zip(first, widths, strict=True):
            packed[:, begin * k_count : (begin + width) * k_count] = (
                padded[:, begin : begin + width].swapaxes(1, 2).reshape(groups, -1)
            )
        group = np.arange(groups)[:, None]
        channel = group * group_out + first
        rows = {
            "weights": (group * room + first) * k_count * item,
            "x": group * shape.group_channels * layout.read_strides[1] * item,
            "out": channel * layout.out_strides[1] * item,
            "bias": (group * room + first) * item,
            "channels": np.minimum(widths, group_out - first),
            "vectors": np.array(self._tiling.vectors),
            "kernel": np.searchsorted(np.unique(widths), widths),
            "bytes": widths * item,
        }
        return table(kernels.BLOCK, rows).reshape(-1, len(kernels.BLOCK))

    def _cut(self):
        """The tables of positions, tasks and kernels."""
        tiling, shape = self._tiling, self._shape
        columns = list(zip(tiling.columns, self._layout.beyond(), strict=True))
        kinds = sorted(set(itertools.product(tiling.rows, columns)))
        self._positions, band_ends = self._position_table([[kinds.index((r, c)) for c in columns] for r in tiling.rows])
        self._tasks = self._work().tasks(band_ends)
        self._kernels = np.array(
            [self._kernel(rows, *column, int(width)) for rows, column in kinds for width in np.unique(self._widths)],
            np.int64,
        )
        per_k = int(self._widths.max()) * self._itemsize
        taps = tiling.run.taps
        self._k_block = min(shape.k_count, max(1, int(WEIGHT_SHARE * cache_bytes() / per_k) // taps) * taps)
        self._partial_bytes = max(tiling.rows) * max(tiling.columns) * per_k

    def _asks(self):
        """What kernels ask for: weights that are far, and, channels-first, outputs, and inputs that are read in place.

        Weights and outputs where both are: 256 -> 1024 channels at 14x14, 1x1, batch 8, weights only 4.72 ms, both
        4.26; 512 -> 1024 at 28x28, stride 2, batch 8, 8.84 and 8.59 (Zen 4).  Not outputs channels-last, where kernels
        need their address registers for the pixels (64 -> 256 channels at 56x56, 1x1, batch 8: 356 GFLOP/s without,
        162 with it; Zen 5, November 2026).

        Inputs of single taps where two multiply-adds begin per cycle, and a cache is waited for twice as long: 192 ->
        64 channels at 35x35, 1x1, 286 and 233 us, batch 8 1.84 and 1.54 ms (Cascade Lake).
        """
        rows_of_taps = self._tiling.exact and math.prod(self._shape.kernel) > 1
        in_place = not self._shape.last and not self._layout.copying
        wanted = {
            "weights": are_far(self._weights.nbytes),
            "outputs": not self._shape.last,
            "inputs": in_place and (rows_of_taps or self._target.multiplies > 1),
        }
        return frozenset(name for name, asked in wanted.items() if asked)

    def _kernel(self, rows, columns, beyond, channels):
        tile = kernels.Tile(
            rows,
            columns,
            channels,
            self._dtype,
            self._tiling.run,
            beyond,
            self._shape.last,
            self._asks(),
            self._input_level(rows, columns),
        )
        return kernels.kernel_address(tile, self._target)

    def _input_level(self, rows, columns):
        """The cache that a tile asks the next one's inputs into; a copy is in the second already."""
        if self._layout.copying or self._shape.last:
            return 1
        run = self._tiling.run
        lines = rows * len(kernels.fetched_ahead(columns, run.stride, self._itemsize, False))
        return inputs_level(self._shape.k_count * lines * LINE_BYTES, run.stride > 1)

    def _work(self):
        far = are_far(self._weights.nbytes)
        return Work(self._shape, self._layout, self._tiling, self._itemsize, len(self._blocks), far)

    def _position_table(self, kinds):
        """A record for each tile of an image, of the kind that `kinds` says, and where each (slice, band) ends."""
        shape, layout, tiling, item = self._shape, self._layout, self._tiling, self._itemsize
        _, _, x_slice, x_row, x_pixel = layout.read_strides
        _, _, out_slice, out_row, out_pixel = layout.out_strides
        block_kinds = len(np.unique(self._widths))
        columns = np.array(tiling.columns)
        column = np.cumsum(columns) - columns
        rows = np.array(tiling.rows)
        row = np.cumsum(rows) - rows
        base = np.repeat([begin if layout.copying else 0 for begin, _ in layout.bands()], layout.band_groups)
        outside = [0 if layout.copying else low for low, _ in shape.padding]
        x_rows = ((row - base) * shape.stride[1] - outside[1]) * x_row
        x = x_rows[:, None] + (column * shape.stride[2] - outside[2]) * x_pixel
        out = (row * out_row)[:, None] + column * out_pixel
        slices = np.arange(shape.output[0])[:, None, None]
        begin = np.repeat(layout.first_slices(), layout.slice_groups)[:, None, None] if layout.copying else 0
        joined = len(columns) == 1 and not shape.last
        heights, widths = np.array(tiling.rows)[:, None], columns
        rows = {
            "x": (((slices - begin) * shape.stride[0] - outside[0]) * x_slice + x) * item,
            "out": (slices * out_slice + out) * item,
            "kernel": np.array(kinds) * block_kinds,
            **shape.k_ranges(row, row + tiling.rows - 1, *((column, column + columns - 1) if self._in_parts else ())),
            "runs": 1 if joined else heights,
            "length": heights * widths if joined else widths,
        }
        found = table(kernels.POSITION, rows).reshape(-1, len(kernels.POSITION))
        return found, self._work().position_ends(len(found))

    def _constants(self):
        """The fixed part of a frame."""
        shape, layout, item = self._shape, self._layout, self._itemsize
        _, _, _, x_row, x_pixel = (stride * item for stride in layout.read_strides)
        _, out_channel, _, out_row, out_pixel = (stride * item for stride in layout.out_strides)
        arrays = {
            "offsets": self._offsets,
            "weights": self._weights,
            "bias": self._bias,
            "positions": self._positions,
            "blocks": self._blocks,
            "tasks": self._tasks,
            "kernels": self._kernels,
        }
        return {
            **{name: array.ctypes.data for name, array in arrays.items()},
            **layout.copy_constants(),
            "k_count": shape.k_count,
            "k_block": self._k_block,
            "x_row": x_row * shape.stride[1],
            "x_pixel": x_pixel,
            "out_row": out_row,
            "out_pixel": out_pixel,
            "out_channel": out_channel,
            "partial_bytes": self._partial_bytes,
        }

    def _new_frame(self):
        """Constants and scratch for one caller at a time."""
        copied = self._layout.copied_bytes() + self._target.vector_bytes
        partial_at = kernels.SCRATCH_HEAD + -(-copied // ALIGN) * ALIGN
        most = int(np.max(self._tasks[:, 3] - self._tasks[:, 2]))
        partials = most * self._partial_bytes if self._k_block < self._shape.k_count else 0
        constants = {**self._constants(), "partial_at": partial_at}
        constants["store"] = kernels.store_address(self._dtype, self._shape.last, self._target)
        function = kernels.task_address(self._dtype, self._layout.copying, self._target)
        scratch_bytes = partial_at + partials + 2 * ALIGN
        return Frame(kernels.FRAME, constants, function, len(self._tasks), scratch_bytes, settings.get_num_threads())
