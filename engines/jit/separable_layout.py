"""Where everything lies in a plan of the separable family: strips, rings and segments, and the tables that say so."""

import dataclasses
import math

import numpy as np

from convbench import settings

from . import separable_kernel, separable_rows
from .compile import address
from .vector import Code
from .wide import SMALL, TASKS_PER_THREAD, _stage, _tile
from .wide_steps import CHANNEL, KX, KY, REGISTERS_PER_TAP, Geometry, Steps, choose_rows, strands

# Figures are from a 2-core Cascade Lake VM, float32, two threads, 2026-11.
#: Vectors of a tile at most: side by side in a row that is staged, and one above the other in columns.
STAGED_VECTORS = 16
COLUMN_ROWS = 16
SPARE_REGISTERS = 2
#: Vectors that a row of taps spans at most to be shifted in registers.  512 x 512 with k = 31, 51, 101: 0.37, 0.46,
#: 0.79 ms shifted, 0.34, 0.43, 0.67 staged, and the code of 51 taps takes 160 ms to compile instead of 40.
MOST_REACH = 2
#: Bytes of the lines of a strip, all terms together, about, and of one of them at least and at most.  4096 x 4096,
#: k = 5: 15.9 ms with strips of 1 KiB, 12.4 with 4 KiB (a memory page); 1024 x 1024, k = 31: 1.03 ms and 1.11.
RING_BYTES = 192 << 10
STRIP_BYTES = 1024, 4096
#: Output rows of a segment: that many times the lines that it shares with the next (4096 x 4096, k = 31: 17.9 ms with
#: 2, 20.3 with 1).
SEGMENT_SHARE = 2
#: A band of output rows repeats the lines that it shares with the one above: that many times fewer than its own.
#: 512 x 512, k = 31: 0.25 ms with 4, 0.27 with 2, 0.32 with 1.
BAND_SHARE = 4
#: Rows ahead of the filter that are fetched into the cache.
ROWS_AHEAD = 8


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


class Layout:
    """Where everything lies, and the tables that say so.

    Attributes
    ----------
    shifted : bool
        Whether rows are filtered in registers, as they lie in the image.
    row_vectors, column_rows : int
        Vectors of the tiles.
    strip : int
        Output columns of a strip.
    block, segment : int
        Output rows of a column tile (all phases of a dilation together), blocks of a segment.
    """

    def __init__(self, problem, machine):
        p = self.problem = problem
        self.size, self.lanes = np.dtype(p.dtype).itemsize, machine.lanes(p.dtype)
        self.terms = p.sources.shape[1]
        work = len(p.sources) * math.prod(p.out) * self.terms * sum(p.kernel)
        self.threads = 1 if work < SMALL else settings.get_num_threads()
        self._choose_columns(machine)
        self._choose_rows(machine)
        self._choose_places()
        self.strips = self._strips()
        self.bands, self.segments = self._bands()

    def _choose_rows(self, machine):
        """The row filter, and the width of a strip: whole tiles of it."""
        p, lanes = self.problem, self.lanes
        reach = separable_rows.reach(p.kernel[1], p.dilation[1], lanes)
        self.shifted = p.stride[1] == 1 and reach <= min(MOST_REACH, machine.registers // REGISTERS_PER_TAP)
        geometry = p.geometry(1)
        limit = min(max(map(len, strands(geometry, lanes, True))), machine.registers // REGISTERS_PER_TAP)
        most = min(machine.registers - SPARE_REGISTERS - limit, STAGED_VECTORS)
        if self.shifted:  # sums, inputs, and an input shifted
            most = max(1, (machine.registers - SPARE_REGISTERS - 2 - reach) // 2)
        vectors = -(-p.out[1] // lanes)
        fitting = RING_BYTES // (self.terms * self.ring_lines)
        wanted = min(max(fitting, STRIP_BYTES[0]), STRIP_BYTES[1])
        strips = max(1, round(vectors * lanes * self.size / wanted))
        self.row_vectors = choose_rows(-(-vectors // strips), most)
        self.strip = -(-vectors // (strips * self.row_vectors)) * self.row_vectors * lanes
        self.row_steps = Steps(geometry, lanes, True, 1, self.row_vectors, limit)

    def _choose_columns(self, machine):
        """The column tile, and how many of them make a segment."""
        p, geometry = self.problem, self.problem.geometry(0, self.terms)
        limit = min(max(map(len, strands(geometry, self.lanes, False))), machine.registers // REGISTERS_PER_TAP)
        self.unit = geometry.row_unit
        self.phases = self.unit // p.stride[0]
        most = min(machine.registers - SPARE_REGISTERS - limit, COLUMN_ROWS)
        self.column_rows = choose_rows(-(-p.out[0] // self.phases), most)
        self.column_steps = Steps(geometry, self.lanes, False, 1, self.column_rows, limit)
        self.span = (p.kernel[0] - 1) * p.dilation[0] + 1
        self.kept = max(0, self.span - p.stride[0])  # lines that a row of outputs shares with the next
        self.block = self.column_rows * self.phases
        self.block_lines = self.block * p.stride[0]
        self.segment = max(1, min(-(-SEGMENT_SHARE * self.kept // self.block_lines), -(-p.out[0] // self.block)))
        self.segment = max(self.segment, -(-self.kept // self.block_lines))  # lines that move never overlap
        self.ring_lines = self.kept + self.segment * self.block_lines

    def _choose_places(self):
        """Scratch of a thread: the rings, lines being staged."""
        p, lanes, size = self.problem, self.lanes, self.size
        self.pitch = (self.strip // lanes | 1) * lanes
        self.patch = self.terms * self.ring_lines * self.pitch * size
        self.shift = p.dilation[1] * (p.kernel[1] - 1) // p.stride[1]
        self.phase_pitch = (-(-(self.strip + self.shift) // lanes) | 1) * lanes
        self.line = self.phase_pitch * p.stride[1]
        staged = 0 if self.shifted else separable_kernel.STAGED_LINES * self.line + lanes
        self.scratch_bytes = self.patch + staged * size

    def functions(self, machine):
        """Addresses of the compiled functions."""
        p = self.problem
        kind = machine, p.dtype
        tile = _tile(*kind, 1, self.column_rows, self.column_steps.heights, False)
        if not self.shifted:
            row_filter = _tile(*kind, 1, self.row_vectors, self.row_steps.heights, True)
            return {"row_filter": row_filter, "column_tile": tile, "stage": _stage(*kind, p.stride[1])}
        key = p.dtype, p.kernel[1], p.dilation[1], self.row_vectors

        def write(module):
            separable_rows.write_row(Code(module, "row", machine, "p" * 4 + "i" * 5), *key)

        return {"row_filter": address("row", key, machine, write), "column_tile": tile, "stage": 0}

    def words(self):
        """The words of a frame that are numbers."""
        p, size = self.problem, self.size
        row, column = ([len(taps) for taps in steps.taps] for steps in (self.row_steps, self.column_steps))
        return {
            "images": len(p.sources),
            "strips": len(self.strips),
            "bands": len(self.bands) - 1,
            "terms": self.terms,
            "patch": self.patch,
            "ring_plane": self.ring_lines * self.pitch * size,
            "ring_pitch": self.pitch * size,
            "line_bytes": self.line * size,
            "phase_pitch": self.phase_pitch * size,
            "source_pitch": p.size[1] * size,
            "ahead": ROWS_AHEAD * p.size[1] * size,
            "out_plane": math.prod(p.out) * size,
            "out_pitch": p.out[1] * size,
            "block": self.block,
            "block_lines": self.block_lines,
            "tile_pitch": self.unit * self.pitch * size,
            "tile_out_pitch": self.phases * p.out[1] * size,
            "phases": self.phases,
            "phase_lines": p.stride[0],
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
            "strip_table": np.array(self.strips, np.int64),
            "masks": self._masks(),
            "band_table": np.array(self.bands, np.int64),
            "segment_table": np.array(self.segments, np.int64),
            "image_table": np.array(p.filters, np.int64),
            "source_table": np.array(p.sources, np.int64) * (math.prod(p.size) * size),
            "row_weights": np.array(rows) if self.shifted else self.row_steps.pack(rows),
            "row_offsets": np.array((phase * self.phase_pitch + shift) * size),
            "column_weights": self.column_steps.pack(columns),
            "column_offsets": np.array(lines * self.pitch * size),
            "bias": np.array(p.bias, p.dtype),
            "zero": np.zeros(1, p.dtype),
        }

    def _strips(self):
        """Entries `separable_kernel.STRIP`."""
        p, lanes, found, masks = self.problem, self.lanes, [], 0
        reach = self.row_vectors * lanes
        for x in range(0, p.out[1], self.strip):
            columns = min(self.strip, p.out[1] - x)
            tiles = -(-columns // reach)
            first = x * p.stride[1] - p.low[1]
            vectors = -(-(tiles * reach + self.shift) // lanes)
            span = vectors * lanes * p.stride[1]
            low, high = (min(max(edge - first, 0), span) for edge in (0, p.size[1]))
            found.append((first * self.size, x * self.size, columns, tiles * reach, tiles, masks, low, high, vectors))
            masks += vectors * max(1, lanes // 8)
        return found

    def _masks(self):
        """For every vector of every strip's inputs, the bits of the columns that exist."""
        low, high, vectors = np.array(self.strips)[:, -3:].T
        bits = [np.arange(count * self.lanes) for count in vectors]
        bits = [((a <= n) & (n < b)).reshape(-1, self.lanes) for n, a, b in zip(bits, low, high, strict=True)]
        return np.array(np.packbits(np.concatenate(bits), axis=1, bitorder="little"))

    def _bands(self):
        """First segment of every band of output rows, with their number behind; and all segments."""
        p = self.problem
        rows = self.segment * self.block
        others = len(p.sources) * len(self.strips)
        wanted = -(-self.threads * TASKS_PER_THREAD // others) if self.threads > 1 else 1
        least = max(self.block, BAND_SHARE * self.kept // p.stride[0])  # output rows of a band
        bands = max(1, min(wanted, p.out[0] // least))
        height = -(-p.out[0] // (bands * self.block)) * self.block
        starts, segments = [], []
        for top in range(0, p.out[0], height):
            starts.append(len(segments))
            for y in range(top, min(top + height, p.out[0]), rows):
                segments.append(self._segment(y, min(rows, top + height - y, p.out[0] - y), y == top))
        return [*starts, len(segments)], segments

    def _segment(self, y, rows, opens):
        """An entry `separable_kernel.SEGMENT`; one that opens a band has no lines to keep."""
        p = self.problem
        top = y * p.stride[0] - p.low[0]  # input row of its first line
        kept = 0 if opens else self.kept
        first, count = top + kept, (rows - 1) * p.stride[0] + self.span - kept
        above = min(max(-first, 0), count)
        below = min(max(first + count - p.size[0], 0), count - above)
        source = (first + above) * p.size[1] * self.size
        moved_from = self.segment * self.block_lines
        out = y * p.out[1] * self.size
        return moved_from, kept, source, kept, above, count - above - below, below, out, rows
