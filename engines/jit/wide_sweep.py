"""Small kernels over one input channel, swept along rows read where they lie: depthwise layers, images and signals.

    sum[r] += w[ky, kx] * x[s (y + t r) + d ky - p, s x + d kx - p],    the kernel unrolled, `rows` sums per tile

Nothing is staged: rows above and below the image are read from a row of zeros, columns beside it are left out by
masks, which only the first and last vectors of a row have, and column strides are sorted out in registers.  Where it
pays, vectors begin on the output's cache lines, whatever the address of the array; outputs that no cache would hold
are then written past the caches.
"""

import math

import numpy as np

from .compile import address
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .transpose import deinterleaved
from .vector import Code
from .wide_kernel import _inside

#: Words of a frame behind its head.
FRAME = (
    "tasks",
    "bands",
    "band_table",
    "planes",
    "outputs",
    "filters",
    "height",
    "width",
    "out_width",
    "low",
    "inner_first",
    "inner_last",
    "aligned",
    "plane_bytes",
    "out_plane_bytes",
    "weights",
    "bias",
    "zeros",
    "scratch",
    "scratch_bytes",
)
#: Words of the band table: the first output row of a tile, how many rows are real, the input row of its first tap, and
#: the columns [start, stop), whole vectors but for a row's last.
BAND = ("y", "rows", "top", "start", "stop")
#: Taps of a kernel at most: they stay in registers from one tile to the next.  (Those of 5 x 5 cannot: half as fast as
#: `wide_kernel`.)
MAX_TAPS = 12
#: Taps of one row beyond the number of lanes at most, as then `wide_kernel` uses its vectors for several: 256 signals
#: of 1000, float32 with 16 lanes, k = 9, 15, 18, 21, 25: 0.73, 0.76, 0.84, 1.02, 1.25 of its time; with 8 lanes, k = 5,
#: 9, 12, 15: 0.60, 0.70, 0.98, 1.25; with 4, k = 5, 9: 0.81, 1.24; float64 with 8, k = 9, 12: 0.79, 1.01 (Zen 4).
MORE_TAPS = 4
#: Output columns of a band at least where rows are cut so that threads can share them, and bands that are wanted.
LEAST_COLUMNS, BANDS_WANTED = 1024, 16
#: Rows of a tile; 3 x 3 kernels, us (2-core Zen 4, 2026-11).  144 channels at 128 x 128 with 2, 3, 4, 6, 8 rows: 324,
#: 290, 286, 295, 314; rows as long as a memory page, 1024 x 1024: 140, 143, 197, 252, 329; past the caches, 4096^2:
#: 4836, 4591, 4070, 3581, 3765; stride 2, 64 channels at 112 x 112: 69, 74, 91, 94, 92.
ROWS, ROWS_ON_PAGES, ROWS_STREAMED, ROWS_STRIDED = 4, 3, 6, 2
PAGE = 4096
#: Column strides that are sorted out in registers.
MAX_STRIDE = 2
#: Output columns from which vectors begin on cache lines: one more vector per row costs less than stores across lines.
ALIGNED_WIDTH = 256
#: Bytes of inputs and outputs that no cache holds until the next operation: 4096 x 4096 (128 MiB) 4.7 ms through the
#: caches, 3.6 past them; 2048 x 2048 (32 MiB) 0.65 and 0.90.
STREAMED_BYTES = 64 << 20
#: How far ahead of a tile inputs are asked for: with column strides, which hide from the processor that it could fetch
#: ahead (480 channels at 75 x 75, batch 1 and 4: 69, 14 without, 78, 56 GFLOP/s; 2 KiB ahead 46, 8 KiB 55), of rows
#: shorter than a page where arrays have `FAR_BYTES` (144 at 128 x 128, batch 4, 124 and 141), and of rows of at most
#: `SHORT_ROW` bytes.  Hot and with caches cold, us without and with: 144 at 56 x 56, batch 4, 176, 646 and 165, 458;
#: 384 at 28 x 28 35, 213 and 35, 127; 80 at 64 x 64, batch 4, 115, 505 and 108, 314; 64 at 160 x 160 131, 367 and 125,
#: 319; but 32 at 256 x 256 132, 477 and 174, 504 (Zen 5, 2026-11).
AHEAD_BYTES, FAR_BYTES, SHORT_ROW = 4096, 64 << 20, 768


def _taps(g):
    """The taps of each run of loads: {columns to the right: [(phase, kx)]}."""
    groups = {}
    for kx in range(g.kernel[2]):
        shift, phase = divmod(kx * g.dilation[2], g.stride[2])
        groups.setdefault(shift, []).append((phase, kx))
    return groups


def rows_of_tile(g, streamed):
    """Rows of sums in a tile."""
    rows = ROWS_STREAMED if streamed else ROWS_ON_PAGES if g.out[2] * g.itemsize >= PAGE else ROWS
    rows = ROWS_STRIDED if g.stride[2] > 1 else rows
    return min(rows, -(-g.out[1] // (g.row_unit // g.stride[1])))


def suits(geometry, target):
    """Whether this is the faster way for `geometry`."""
    g = geometry
    flat = g.size[0] == g.kernel[0] == g.out[0] == 1 and g.low[0] == 0
    lanes = target.lanes(g.dtype)
    most = MAX_TAPS if g.kernel[1] > 1 else lanes + MORE_TAPS if g.outputs == 1 else 0
    small = math.prod(g.kernel) <= most and g.stride[2] <= MAX_STRIDE
    return flat and small and g.channels == 1 and g.out[2] >= lanes


def write_task(code, dtype, kernel, unit, strides, dilation, groups, rows, streamed, asks):
    """Body of ``task(frame, index, worker)``: an even share of the bands of all output planes."""
    frame, index, _ = code.arguments
    kind = code.vector(dtype)
    shared = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}
    bands, shape = shared["bands"], (kind, kernel, unit, dilation, rows)
    first, end = (n * (shared["planes"] * bands) // shared["tasks"] for n in (index, index + 1))
    out_pitch = shared["out_width"] * (unit // strides[0] * kind.itemsize)
    asked = {r * unit + n * dilation for r in range(rows) for n in range(strides[0])} if asks else ()

    def over_planes(plane):
        source = (frame + FRAME_INPUT).load_pointer() + plane // shared["outputs"] * shared["plane_bytes"]
        plane_out = (frame + FRAME_OUTPUT).load_pointer() + plane * shared["out_plane_bytes"]
        channel = plane % shared["filters"]
        weights = code.pointer(shared["weights"]) + channel * (kernel[0] * kernel[1] * kind.itemsize)
        bias = (code.pointer(shared["bias"]) + channel * kind.itemsize).broadcast(kind)
        taps = [(weights + n * kind.itemsize).broadcast(kind) for n in range(math.prod(kernel))]

        def over_bands(band):
            at = code.pointer(shared["band_table"]) + band * (8 * len(BAND))
            y, valid, top, start, stop = ((at + 8 * i).load() for i in range(len(BAND)))
            out = plane_out + y * shared["out_width"] * kind.itemsize
            lines = _lines(code, shared, shape, source, top)
            tile = _Tile(code, shared, shape, strides[1], groups, lines, taps, bias, asked)
            _sweep(code, shared, tile, (start, stop), out, out_pitch, valid, streamed)

        code.loop((end - plane * bands).least(bands), over_bands, start=(first - plane * bands).most(0))

    code.loop((end + bands - 1) // bands, over_planes, start=first // bands)
    code.finish()


def _lines(code, shared, shape, source, top):
    """Where each input row of a tile begins, by its distance from the first: rows outside of the image are zeros."""
    kind, kernel, unit, dilation, rows = shape
    zeros, lines = code.pointer(shared["zeros"]), {}
    for distance in sorted({r * unit + ky * dilation for r in range(rows) for ky in range(kernel[0])}):
        row = top + distance
        inside = row.compare(">=", 0) & row.compare("<", shared["height"])
        lines[distance] = inside.choose(source + row * shared["width"] * kind.itemsize, zeros)
    return lines


class _Tile:
    """Writes the sums of the tile whose first column is x, which ask for later input of the rows `asked`."""

    def __init__(self, code, shared, shape, stride, groups, lines, taps, bias, asked):
        self.code, self.shared, self.stride, self.groups = code, shared, stride, groups
        self.kind, self.kernel, self.unit, self.dilation, self.rows = shape
        self.lines, self.taps, self.bias = lines, taps, bias
        self.asked = [line for distance, line in lines.items() if distance in asked]

    def sums(self, x, masked):
        """The sums, with masks on what is loaded if `masked`."""
        kind, sums = self.kind, [self.bias] * self.rows
        for line in self.asked:
            for v in range(self.stride):
                self.code.prefetch(line + (x * (self.stride * kind.itemsize) + (AHEAD_BYTES + v * kind.bytes)))
        for shift, members in self.groups:
            column = (x + shift) * self.stride - self.shared["low"]
            masks = [None] * self.stride
            if masked:
                low, high = self.code.value(0), self.shared["width"]
                masks = [_inside(self.code, column + v * kind.lanes, low, high, kind) for v in range(self.stride)]
            for distance, line in self.lines.items():
                at = line + column * kind.itemsize
                loaded = [(at + v * kind.bytes).load(kind, mask) for v, mask in enumerate(masks)]
                phases = deinterleaved(loaded, kind.lanes)
                for phase, kx in members:
                    for r in range(self.rows):
                        ky, rest = divmod(distance - r * self.unit, self.dilation)
                        if not rest and 0 <= ky < self.kernel[0]:
                            sums[r] = sums[r].fma(phases[phase], self.taps[ky * self.kernel[1] + kx])
        return sums


def _sweep(code, shared, tile, columns, out, out_pitch, valid, streamed):
    """One tile after the other along the rows, those in between without masks."""
    kind, (start, stop) = tile.kind, columns
    ahead = (out.number() >> kind.itemsize.bit_length() - 1) & (kind.lanes - 1)
    ahead = shared["aligned"].compare("!=", 0).choose(ahead, code.value(0))
    start, stop = start - ahead, (stop - ahead).least(shared["out_width"])
    first = (start + (shared["inner_first"] - start + (kind.lanes - 1)) // kind.lanes * kind.lanes).most(start)
    last = (start + (shared["inner_last"] - start + kind.lanes) // kind.lanes * kind.lanes).most(first)

    def edge(x):
        sums = tile.sums(x, True)
        mask = _inside(code, x, code.value(0), shared["out_width"], kind)
        for r, total in enumerate(sums):
            with code.when(valid.compare(">", r)):
                (out + out_pitch * r + x * kind.itemsize).store(total, mask)

    def inner(x):
        for r, total in enumerate(tile.sums(x, False)):
            with code.when(valid.compare(">", r)):
                at = out + out_pitch * r + x * kind.itemsize
                at.stream(total) if streamed else at.store(total)

    code.loop(first.least(stop), edge, start=start, step=kind.lanes)
    code.loop(last.least(stop), inner, start=first, step=kind.lanes)
    code.loop(stop, edge, start=last, step=kind.lanes)


def _band_table(g, rows, lanes):
    """Bands of `rows` output rows that share inputs: with dilation or stride, every few rows."""
    step, height, width = g.row_unit // g.stride[1], g.out[1], g.out[2]
    places = [
        (y, min(rows, -(-(height - y) // step)), y * g.stride[1] - g.low[1])
        for first in range(0, height, step * rows)
        for y in range(first, min(first + step, height))
    ]
    pieces = -(-BANDS_WANTED // (len(places) * g.batch * g.groups * g.outputs))
    columns = max(-(-width // (pieces * lanes)) * lanes, LEAST_COLUMNS)
    ends = [*range(columns, width - LEAST_COLUMNS, columns), width + lanes]
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    return np.array([(*place, *span) for place in places for span in spans], np.int64)


def prepare(geometry, target, weight, bias):
    """Everything that a frame needs: (task function's address, words, blocks, scratch bytes, arrays to keep)."""
    g, lanes, size = geometry, target.lanes(geometry.dtype), geometry.itemsize
    groups = tuple((shift, tuple(some)) for shift, some in _taps(g).items())
    streamed = g.out[2] * size % target.vector_bytes == 0 and g.arrays_bytes >= STREAMED_BYTES
    rows = rows_of_tile(g, streamed)
    row_bytes = g.size[2] * size
    asks = g.stride[2] > 1 or row_bytes <= SHORT_ROW or (g.arrays_bytes >= FAR_BYTES and row_bytes < PAGE)
    key = g.dtype, g.kernel[1:], g.row_unit, g.stride[1:], g.dilation[1], groups, rows, streamed, asks
    task = address(
        "task", ("sweep", *key), target, lambda module: write_task(Code(module, "task", target, "pii"), *key)
    )
    table = _band_table(g, rows, lanes)
    shift = max(shift for shift, _ in groups)
    arrays = {
        "band_table": table,
        "bias": bias,
        "weights": np.array(weight),
        "zeros": np.zeros(g.size[2] + lanes, g.dtype),
    }
    words = {
        "bands": len(table),
        "planes": g.batch * g.groups * g.outputs,
        "outputs": g.outputs,
        "filters": g.groups * g.outputs,
        "height": g.size[1],
        "width": g.size[2],
        "out_width": g.out[2],
        "low": g.low[2],
        "inner_first": -(-g.low[2] // g.stride[2]),
        "inner_last": min((g.size[2] + g.low[2]) // g.stride[2] - lanes - shift, g.out[2] - lanes),
        "aligned": int(streamed or g.out[2] >= ALIGNED_WIDTH),
        "plane_bytes": math.prod(g.size) * size,
        "out_plane_bytes": math.prod(g.out) * size,
    }
    return task, FRAME, words, len(table) * words["planes"], 0, arrays
