"""Separable filters: sums of products of a row and a column filter, both passes in the cache.

    out[n, o, y, x] = bias[o] + sum over t, ky of  column[o, t, ky]
                                  * sum over kx of  row[o, t, kx] * x[source(n, o, t), s y + d ky - p, s x + d kx - p]

A kernel of k x k that is a product costs 2 k multiply-adds instead of k².  `separable_kernel` says how it runs.
"""

import dataclasses
import math

import numpy as np

from convbench import settings

from . import separable_kernel, wide_kernel
from .compile import address
from .frames import FramePlan
from .target import target
from .vector import Code
from .wide import SMALL, TASKS_PER_THREAD
from .wide_steps import CHANNEL, KX, KY, REGISTERS_PER_TAP, Geometry, Steps, choose_rows, strands

#: Vectors of a tile at most, side by side for rows and one above the other for columns.
ROW_VECTORS = 16
COLUMN_ROWS = 16
SPARE_REGISTERS = 2
#: Bytes of a strip's lines, all terms together: they stay in the second-level cache.
RING_BYTES = 384 << 10
#: Output columns of a strip, about.
STRIP_BYTES = 1024
#: Lines move back when that many times the lines that move were made.
MOVED_SHARE = 2
#: A band of output rows repeats the lines that it shares with the one above: that many times fewer than its own.
BAND_SHARE = 4


@dataclasses.dataclass(frozen=True)
class Problem:
    """Planes to filter: how they lie, and what is summed into each.

    Attributes
    ----------
    size, kernel, stride, dilation, low, out : (int, int)
        Rows and columns: of an input plane, of the kernel, ..., of an output plane.
    sources : int array [images, terms]
        Number of the input plane of every term of every output plane.
    filters : int array [images]
        Which factors an output plane takes.
    rows, columns : float array [filters, terms, kernel]
    bias : float array [filters]
    """

    size: tuple
    kernel: tuple
    stride: tuple
    dilation: tuple
    low: tuple
    out: tuple
    dtype: str
    sources: np.ndarray
    filters: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    bias: np.ndarray

    def geometry(self, axis, channels=1):
        """The pass along an axis alone, as the wide kernels have it."""

        def only(values, otherwise):
            return (1, *(value if n == axis else otherwise for n, value in enumerate(values)))

        return Geometry(
            1,
            1,
            channels,
            1,
            (1, *self.size),
            only(self.kernel, 1),
            only(self.stride, 1),
            (0, *self.low),
            only(self.dilation, 1),
            (1, *self.out),
            self.dtype,
        )


class SeparablePlan(FramePlan):
    """`Problem`, ready to run."""

    def __init__(self, problem, *, isa=None):
        machine = target(isa)
        layout = _Layout(problem, machine)
        words, arrays = layout.words(), layout.arrays()
        items = len(problem.sources) * len(arrays["strip_table"]) * (len(arrays["band_table"]) - 1)
        tasks = min(items, layout.threads * TASKS_PER_THREAD) if layout.threads > 1 else 1
        kinds = machine, problem.dtype
        words.update(
            row_tile=_tile(*kinds, layout.row_vectors, layout.row_steps.heights, True),
            column_tile=_tile(*kinds, layout.column_rows, layout.column_steps.heights, False),
            stage=_stage(*kinds, problem.stride[1]),
        )
        super().__init__(
            _task(*kinds), separable_kernel.FRAME, words, arrays, tasks, layout.ring_bytes + layout.patch_bytes
        )


def plan(spec, axes, bias=None, *, isa=None):
    """``plan(x, out)`` for `spec` with a weight's factors.

    Parameters
    ----------
    spec : ConvSpec
        Two or three axes, channels first, float32 or float64.
    axes : tuple of ndarray [out_channels, in_channels / groups, terms, k]
        For each axis of the kernel its vectors.
    bias : ndarray [out_channels], optional
    isa : str, optional
        Instruction set level, as `target` takes it.
    """
    bias = np.zeros(spec.out_channels) if bias is None else bias
    vectors = [axis.reshape(spec.out_channels, -1, axis.shape[-1]) for axis in axes]
    filters, channels = np.indices((spec.out_channels, axes[0].shape[1])).reshape(2, spec.out_channels, -1)
    planes = filters // (spec.out_channels // spec.groups) * channels.shape[1] + channels
    planes = np.arange(spec.batch)[:, None, None] * spec.in_channels + np.repeat(planes, axes[0].shape[2], axis=1)
    outputs = np.tile(np.arange(spec.out_channels), spec.batch)
    if spec.ndim == 2:
        return SeparablePlan(
            Problem(*_axes(spec, (0, 1)), spec.dtype, planes.reshape(len(outputs), -1), outputs, *vectors[::-1], bias),
            isa=isa,
        )
    return _ThreeAxes(spec, vectors, planes, outputs, bias, isa)


def _axes(spec, which):
    """Size, kernel, stride, dilation, low padding and output size of some axes of a spec."""
    lows = [low for low, _ in spec.padding]
    every = spec.spatial, spec.kernel, spec.stride, spec.dilation, lows, spec.output_spatial
    return [tuple(values[axis] for axis in which) for values in every]


class _ThreeAxes:
    """Rows and columns of every plane and term into memory, then the depths of all of them."""

    def __init__(self, spec, vectors, planes, outputs, bias, isa):
        depths, columns, rows = vectors
        count, depth = depths.shape[1], spec.spatial[0]
        between = _axes(spec, (1, 2))
        sources = planes.reshape(-1, 1) * depth + np.arange(depth)  # [images and terms, depth]
        filters = np.repeat(np.arange(spec.out_channels * count), depth)
        self._first = SeparablePlan(
            Problem(
                *between,
                spec.dtype,
                sources.reshape(-1, 1),
                np.tile(filters, spec.batch),
                rows.reshape(-1, 1, rows.shape[-1]),
                columns.reshape(-1, 1, columns.shape[-1]),
                np.zeros(spec.out_channels * count),
            ),
            isa=isa,
        )
        pixels = math.prod(spec.output_spatial[1:])
        down = zip(_axes(spec, (0,)), (pixels, 1, 1, 1, 0, pixels), strict=True)
        self._last = SeparablePlan(
            Problem(
                *((along[0], across) for along, across in down),
                spec.dtype,
                np.arange(len(outputs) * count).reshape(-1, count),
                outputs,
                np.ones((spec.out_channels, count, 1)),
                depths,
                bias,
            ),
            isa=isa,
        )
        self._between = np.empty((len(outputs), count, depth, pixels), spec.dtype)

    @property
    def nbytes(self):
        """Bytes that both plans and the planes between them hold."""
        return self._first.nbytes + self._last.nbytes + self._between.nbytes

    def __call__(self, x, out):
        self._first(x, self._between)
        self._last(self._between, out)


class _Layout:
    """Where everything lies, and the tables that say so."""

    def __init__(self, problem, machine):
        p = self.problem = problem
        self.size = np.dtype(p.dtype).itemsize
        self.lanes = machine.lanes(p.dtype)
        self.terms = p.sources.shape[1]
        work = len(p.sources) * math.prod(p.out) * self.terms * sum(p.kernel)
        self.threads = 1 if work < SMALL else settings.get_num_threads()
        self._choose_tiles(machine)
        self._choose_ring()

    def _choose_tiles(self, machine):
        p, lanes = self.problem, self.lanes
        row, column = p.geometry(1), p.geometry(0, self.terms)
        limits = [
            min(max(map(len, strands(g, lanes, fold))), machine.registers // REGISTERS_PER_TAP)
            for g, fold in ((row, True), (column, False))
        ]
        most = [machine.registers - SPARE_REGISTERS - limit for limit in limits]
        self.unit = column.row_unit
        self.phases = self.unit // p.stride[0]
        wanted = max(1, STRIP_BYTES // self.size // lanes)
        vectors = -(-p.out[1] // lanes)
        strips = max(1, round(vectors / wanted))
        self.row_vectors = choose_rows(-(-vectors // strips), min(most[0], ROW_VECTORS))
        self.column_rows = choose_rows(-(-p.out[0] // self.phases), min(most[1], COLUMN_ROWS))
        reach = self.row_vectors * lanes
        self.strip = -(-vectors // (strips * self.row_vectors)) * reach
        self.row_steps = Steps(row, lanes, True, self.row_vectors, limits[0])
        self.column_steps = Steps(column, lanes, False, self.column_rows, limits[1])

    def _choose_ring(self):
        p, lanes = self.problem, self.lanes
        self.span = (p.kernel[0] - 1) * p.dilation[0] + 1
        self.kept = max(0, self.span - p.stride[0])  # lines that a row of outputs shares with the next
        self.block = self.column_rows * self.phases  # output rows
        self.block_lines = self.block * p.stride[0]
        self.pitch = (self.strip // lanes | 1) * lanes
        fitting = RING_BYTES // (self.terms * self.pitch * self.size)
        segment = max(1, min(-(-MOVED_SHARE * self.kept // self.block_lines), (fitting - self.kept) // self.block_lines))
        self.segment = max(segment, -(-self.kept // self.block_lines))  # moved lines never overlap
        self.ring_lines = self.kept + self.segment * self.block_lines
        shift = p.dilation[1] * (p.kernel[1] - 1) // p.stride[1]
        self.phase_pitch = (-(-(self.strip + shift) // lanes) | 1) * lanes
        self.line = self.phase_pitch * p.stride[1]
        # Over the last line a tile of columns may read on as far as it has rows that do not exist.
        self.ring_bytes = (self.terms * self.ring_lines + self.block_lines) * self.pitch * self.size
        self.patch_bytes = (self.block_lines * self.line + lanes) * self.size

    def words(self):
        """The words of a frame that are numbers."""
        p, size = self.problem, self.size
        row, column = ([len(taps) for taps in steps.taps] for steps in (self.row_steps, self.column_steps))
        return {
            "images": len(p.sources),
            "strips": len(self._strips()),
            "bands": len(self._bands()) - 1,
            "terms": self.terms,
            "spread": p.stride[0] * self.pitch * size,
            "ring_bytes": self.ring_bytes,
            "ring_plane": self.ring_lines * self.pitch * size,
            "ring_pitch": self.pitch * size,
            "line_bytes": self.line * size,
            "phase_pitch": self.phase_pitch * size,
            "source_pitch": p.size[1] * size,
            "out_plane": math.prod(p.out) * size,
            "out_row": p.out[1] * size,
            "out_pitch": self.phases * p.out[1] * size,
            "tile_pitch": self.unit * self.pitch * size,
            "phases": self.phases,
            "row_weights_step": p.kernel[1] * size,
            "row_tall": row[0],
            "row_short": row[1],
            "row_tall_bytes": row[0] * self.row_steps.heights[0] * size,
            "row_short_offset": row[0] * 8,
            "column_weights_step": self.terms * p.kernel[0] * size,
            "column_tall": column[0],
            "column_short": column[1],
            "column_tall_bytes": column[0] * self.column_steps.heights[0] * size,
            "column_short_offset": column[0] * 8,
            "row_vectors": self.row_vectors,
            "itemsize": size,
        }

    def arrays(self):
        """The words of a frame that are addresses."""
        p, size = self.problem, self.size
        rows = np.ascontiguousarray(p.rows, p.dtype).reshape(-1, 1, 1, 1, p.kernel[1])
        columns = np.ascontiguousarray(p.columns, p.dtype).reshape(-1, self.terms, 1, p.kernel[0], 1)
        taps = np.concatenate([taps[:, 0] for taps in self.row_steps.taps if len(taps)])
        shift, phase = np.divmod(p.dilation[1] * taps[:, KX], p.stride[1])
        down = np.concatenate([taps[:, 0] for taps in self.column_steps.taps if len(taps)])
        lines = down[:, CHANNEL] * self.ring_lines + down[:, KY] * p.dilation[0]
        return {
            "strip_table": np.array(self._strips(), np.int64),
            "band_table": np.array(self._bands(), np.int64),
            "block_table": np.array(self._blocks, np.int64),
            "image_table": np.array(p.filters, np.int64),
            "source_table": np.array(p.sources, np.int64) * (math.prod(p.size) * size),
            "row_weights": self.row_steps.pack(rows),
            "row_offsets": taps[:, KX] * p.dilation[1] * size,
            "staged_row_offsets": (phase * self.phase_pitch + shift) * size,
            "column_weights": self.column_steps.pack(columns),
            "column_offsets": lines * self.pitch * size,
            "bias": np.array(p.bias, p.dtype),
            "zero": np.zeros(1, p.dtype),
        }

    def _strips(self):
        """Entries `separable_kernel.STRIP`: what can't be read where it lies is staged."""
        p, lanes = self.problem, self.lanes
        reach, found = self.row_vectors * lanes, []
        for x in range(0, p.out[1], self.strip):
            columns = min(self.strip, p.out[1] - x)
            made = -(-columns // reach) * reach
            first = x * p.stride[1] - p.low[1]
            shift = p.dilation[1] * (p.kernel[1] - 1) // p.stride[1]
            last = first + made + p.dilation[1] * (p.kernel[1] - 1)
            staged = p.stride[1] > 1 or first < 0 or last > p.size[1]
            vectors = -(-(made + shift) // lanes)
            span = vectors * lanes * p.stride[1]
            low, high = (min(max(edge - first, 0), span) for edge in (0, p.size[1]))
            found.append((first * self.size, x * self.size, columns, made, staged, low, high, vectors))
        return found

    def _bands(self):
        """First block of every band of output rows, and the number of blocks."""
        return self._band_starts

    def __getattr__(self, name):
        if name in ("_band_starts", "_blocks"):
            self._band_starts, self._blocks = self._cut_rows()
            return self.__dict__[name]
        raise AttributeError(name)

    def _cut_rows(self):
        p = self.problem
        blocks = -(-p.out[0] // self.block)
        others = len(p.sources) * len(self._strips())
        wanted = -(-self.threads * TASKS_PER_THREAD // others) if self.threads > 1 else 1
        least = max(1, -(-BAND_SHARE * self.kept // self.block_lines))  # blocks of a band
        bands = max(1, min(wanted, blocks // least))
        starts, entries = [], []
        for band in range(bands):
            starts.append(len(entries))
            entries += self._blocks_of_band(band * blocks // bands, (band + 1) * blocks // bands)
        return [*starts, len(entries)], entries

    def _blocks_of_band(self, first, last):
        """Entries `separable_kernel.BLOCK`: the lines that the first outputs need, then outputs by blocks."""
        p, made, base = self.problem, None, None
        for block in range(first, last):
            y = block * self.block
            rows = min(self.block, p.out[0] - y)
            top = y * p.stride[0] - p.low[0]  # input row of the first line that this block needs
            end = top + (rows - 1) * p.stride[0] + self.span
            moved_from = moved = 0
            if made is None:
                made = base = top
            elif (block - first) % self.segment == 0:
                moved_from, moved = top - base, max(0, made - top)
                base = top
            made = max(made, top)
            while end - made > self.block_lines:
                yield self._block(moved_from, moved, made, self.block_lines, base, top, y, 0)
                moved_from, moved, made = 0, 0, made + self.block_lines
            yield self._block(moved_from, moved, made, end - made, base, top, y, rows)
            made = end

    def _block(self, moved_from, moved, first, count, base, top, y, rows):
        p = self.problem
        above = min(max(-first, 0), count)
        below = min(max(first + count - p.size[0], 0), count - above)
        source = (first + above) * p.size[1] * self.size
        out = y * p.out[1] * self.size
        return (
            moved_from,
            moved,
            source,
            first - base,
            above,
            count - above - below,
            below,
            top - base,
            out,
            rows,
        )


def _tile(machine, dtype, rows, heights, fold):
    def write(module):
        wide_kernel.write_tile(Code(module, "tile", machine, "p" * 3 + "pip" * 2 + "i" * 4), dtype, rows, heights, fold)

    return address("tile", (dtype, rows, heights, fold), machine, write)


def _stage(machine, dtype, stride):
    def write(module):
        wide_kernel.write_stage(Code(module, "stage", machine, "pp" + "i" * 9), dtype, stride)

    return address("stage", (dtype, stride), machine, write)


def _task(machine, dtype):
    return address(
        "task",
        ("separable", dtype),
        machine,
        lambda module: separable_kernel.write_task(Code(module, "task", machine, "pii"), dtype),
    )
