"""Where everything lies in a plan of the wide family: tiles, patches and blocks, and the tables that say so.

A `Layout` says how a tile lies in the image and in a staged patch.  `block_table` says for each rectangle of an
output image what it reads, what it must stage and which steps it may skip;
`image_table` says where each image and group begins.
"""

import dataclasses
import math

import numpy as np

from convbench.forks import cached_property

from .wide_kernel import BLOCK, IMAGE
from .wide_rectangles import EDGE, IN_PLACE, STAGED, skippable
from .wide_steps import (
    KX,
    REGISTERS_PER_TAP,
    Geometry,
    Steps,
    choose_rows,
    strands,
)

#: Image rows of a tile at most: with more, inputs and outputs crowd the first-level cache (richardson_lucy
#: 256 x 256 x 32, k = 5: 3.1 ms with 16 rows, 3.5 with 24; alexnet:conv1 2.3 with 14, 4.0 with 19).
ROWS = 16
#: Rows of a tile at most where each lies on a memory page of its own: more would exhaust the hardware's
#: prefetchers and, where they fall on the same cache sets, push each other out (1024 x 1024, k = 3: 0.16 ms
#: with 8 rows, 0.21 with 16, 0.26 with 24; Zen 4, 2026-11).
ROWS_ON_PAGES = 8
PAGE = 4096
#: Rows that may share a set of the first-level cache, as many as the smallest in use has ways, before they are copied
#: into a patch that spreads them; tiles are of `ROWS_ON_PAGES` where that saves the copies.  In place and copied, us:
#: 512 x 512, k = 5, 7, 9 (6 to 8 rows of tiles of 8 per set) 62, 121, 193 and 76, 133, 207; 120 channels at 128 x 256,
#: k = 5, dilation 2, 1340 and 1720; 64 at 64 x 256, k = 5 (5 rows of tiles of 16) 300 and 330 (Zen 4, 2026-11).
ROWS_PER_SET = 8
#: ... of several planes, each of which has such rows: 16 channels at 512 x 512, k = 5, 8 rows 2100, copied 1140 us.
ROWS_OF_PLANES_PER_SET = 4
CACHE_LINE = 64
#: Bytes of a plane whose tiles ask for the rows that the tiles below will read.  Hot and with caches cold, with and
#: without, us: 2000 x 2000, k = 5, 994, 1073 and 1106, 1226; 32 channels at 256 x 512 1650, 1798 and 1958, 2144; at
#: 256 x 128 (128 KiB) 273, 533 and 281, 682; but 64 at 64 x 64, batch 4, 335, 634 and 290, 616 (Zen 4, 2026-11).
LARGE_PLANE = 128 << 10
#: Output columns of one block where vectors follow each other in one row: short enough to share one signal
#: between threads.
FOLDED_COLUMNS = 2048
#: Blocks that a problem should have, so that threads can share it, as long as tiles keep `ROWS_ON_PAGES` rows.
BLOCKS_WANTED = 16
#: A staged patch stays under this, half of the smallest L2 cache in use (64 to 256 KiB measured alike).
STAGE_BYTES = 128 << 10
#: The same where several tiles of output channels read it, one after the other, and at most so many pieces of a row
#: that is read in place (vgg_19:conv1_2 499 instead of 465, general:46 465 instead of 387 GFLOP/s with tiles of 4 x 4;
#: patches of 16 to 32 KiB 465, of 128 KiB 443; Zen 5, 2026-11).
SHARED_BYTES, SHARED_PIECES = 32 << 10, 16
#: Output channels of a tile at most, rows of each where they are several, and the part of the registers that their
#: taps may take.
MOST_FILTERS, FILTERS_ROWS, TAPS_SHARE = 4, 8, 3 / 8
#: Bytes of vectors from which processors load under a mask.
MASKED_BYTES = 32
#: Loads that an input vector counts for: most lie across two cache lines.
SPLIT_LOADS = 1.75
#: Registers that a tile needs besides its sums and weights: the input vector, and one to spare.
SPARE_REGISTERS = 2


@dataclasses.dataclass(frozen=True)
class Layout:
    """Tile shape and addresses of one plan, all in elements.

    Attributes
    ----------
    lanes, rows : int
        The tile: `rows` vectors of `lanes`.
    fold : bool
        Whether the vectors of a tile follow each other in one image row.
    filters : int
        Output channels of a tile.
    edges : bool
        Whether tiles beside the rows' ends read under masks (richardson_lucy 256 x 256 x 32, k = 5, where there are no
        others: 1.74 instead of 2.22 ms; Zen 5, 2026-11).
    columns : int
        Output columns that one staged patch serves.
    """

    geometry: Geometry
    lanes: int
    rows: int
    fold: bool
    filters: int
    edges: bool
    columns: int

    @property
    def shared(self):
        """Whether several tiles of output channels read the same inputs."""
        return self.geometry.outputs > self.filters

    @property
    def reach(self):
        """Output columns of one tile."""
        return self.lanes * (self.rows if self.fold else 1)

    @property
    def tile_step(self):
        """Output rows from one row of a tile to the next."""
        return 1 if self.fold else self.geometry.row_unit // self.geometry.stride[1]

    @property
    def staged_step(self):
        """Staged rows (one every `dilation` input rows) from one row of a tile to the next."""
        return self.geometry.row_unit // self.geometry.dilation[1]

    @property
    def shift(self):
        """Elements from the first tap of a row to the last, in a staged row."""
        g = self.geometry
        return g.dilation[2] * (g.kernel[2] - 1) // g.stride[2]

    @property
    def staged_rows(self):
        """Rows of a staged patch."""
        return (0 if self.fold else self.rows - 1) * self.staged_step + self.geometry.kernel[1]

    @cached_property
    def phase_pitch(self):
        """Elements of one column phase of a staged row: an odd number of vectors, so that rows spread over the sets."""
        most = -(-self.columns // self.reach) * self.reach + self.shift
        return (-(-most // self.lanes) | 1) * self.lanes

    def patch_columns(self):
        """Output columns of a patch that stays in the cache, all patches of a row about equal."""
        g, most_bytes = self.geometry, SHARED_BYTES if self.shared else STAGE_BYTES
        lines = self.staged_rows * g.kernel[0] * g.channels * g.stride[2]
        most = max(self.reach, most_bytes // g.itemsize // lines - self.shift - 2 * self.lanes)
        if self.fold:
            most = self.reach if self.shift > self.reach else min(most, max(self.reach, FOLDED_COLUMNS))
        patches = -(-g.out[2] // most)
        return -(-g.out[2] // (patches * self.reach)) * self.reach

    @property
    def stage_pitch(self):
        """Elements of a staged row."""
        return self.phase_pitch * self.geometry.stride[2]

    @property
    def stage_plane(self):
        """Elements of a staged patch of one channel."""
        return self.staged_rows * self.stage_pitch

    @property
    def stage_size(self):
        """Elements of the whole scratch; one vector more, since the last tile may read over a row's end."""
        return self.stage_plane * self.geometry.kernel[0] * self.geometry.channels + self.lanes

    @property
    def pitches(self):
        """Elements from one row of a tile to the next: in the image, in a staged patch, in the output."""
        g = self.geometry
        if self.fold:
            return self.lanes, self.lanes, self.lanes
        return g.row_unit * g.size[2], self.staged_step * self.stage_pitch, self.tile_step * g.out[2]

    def offsets(self, taps):
        """Addresses of steps in the image and in a staged patch."""
        g = self.geometry
        channel, kz, ky, kx = taps[:, 0].T
        depth, height, width = g.size
        shift, phase = np.divmod(g.dilation[2] * kx, g.stride[2])
        image = ((channel * depth + kz * g.dilation[0]) * height + ky * g.dilation[1]) * width + kx * g.dilation[2]
        staged = (
            (kz * g.channels + channel) * self.stage_plane + ky * self.stage_pitch + phase * self.phase_pitch + shift
        )
        return image, staged

    def inside(self):
        """Output columns [first, last) whose tiles, of `reach` columns each, need not be staged."""
        g = self.geometry
        if g.stride[2] > 1:
            return 0, 0
        low, span = g.low[2], g.dilation[2] * (g.kernel[2] - 1)
        first = -(-low // self.reach) * self.reach
        last = (g.size[2] - span + low) // self.reach * self.reach
        return (first, min(last, g.out[2])) if last > first else (0, 0)

    def reads_in_place(self):
        """Whether tiles without padding read the image in place: the cache can hold rows so far apart together."""
        g = self.geometry
        if g.stride[2] > 1:
            return False
        rows, planes = 1 if self.fold else self.staged_rows, g.channels * g.kernel[0]
        lines = np.arange(rows) * (g.dilation[1] * g.size[2] * g.itemsize) // CACHE_LINE
        per_set = int(np.bincount(lines % (PAGE // CACHE_LINE)).max())
        return per_set <= (ROWS_PER_SET if planes == 1 else ROWS_OF_PLANES_PER_SET)

    def asks(self, cache_bytes):
        """Whether tiles that read in place ask for the rows below: of large planes, and arrays beyond the caches."""
        g = self.geometry
        large = math.prod(g.size[1:]) * g.itemsize >= LARGE_PLANE and g.arrays_bytes > cache_bytes
        return large and self.filters == 1 and not self.fold and self.reads_in_place()

    def segments(self, direct):
        """Column ranges (first, last, how they read) of a band of rows."""
        first, last = self.inside() if direct else (0, 0)
        piece = self.columns if self.fold else max(last - first, 1)
        if self.shared:
            pieces = -(-max(last - first, 1) // self.reach)
            piece = min(piece, self.reach * -(-pieces // SHARED_PIECES))
        beside = EDGE if self.edges and direct else STAGED
        parts = (
            (0, first, self.columns, beside),
            (first, last, piece, IN_PLACE),
            (last, self.geometry.out[2], self.columns, beside),
        )
        return [
            (x, min(x + length, stop), reads)
            for start, stop, length, reads in parts
            for x in range(start, stop, length)
        ]

    def bands(self):
        """Starts and lengths of the bands of output rows that one tile covers, as pairs (first row, rows)."""
        height = self.geometry.out[1]
        if self.fold:
            return [(y, 1) for y in range(height)]
        step = self.tile_step
        return [
            (y, min(self.rows, -(-(height - y) // step)))
            for first in range(min(step, height))
            for y in range(first, height, step * self.rows)
        ]

    def present(self, y):
        """Which staged rows of the band from output row `y` exist: from the first number to before the second."""
        g, top = self.geometry, y * self.geometry.stride[1] - self.geometry.low[1]
        return tuple(min(max(-((top - end) // g.dilation[1]), 0), self.staged_rows) for end in (0, g.size[1]))


def design(geometry, target):
    """Layout and steps for `geometry`: how tall a tile is, which way it lies, and how much of a row one patch holds."""
    choices = (_tiled(geometry, target, rows) for rows in (ROWS, ROWS_ON_PAGES))
    layout, limit = min(choices, key=lambda choice: not choice[0].reads_in_place())
    steps = Steps(geometry, layout.lanes, layout.fold, layout.filters, layout.rows, limit)
    return dataclasses.replace(layout, columns=layout.patch_columns()), steps


def _tiled(geometry, target, most_rows):
    """The layout of the cheapest tile of at most so many image rows, patches not yet sized; and taps of a step."""
    lanes = target.lanes(geometry.dtype)
    fold = geometry.kernel[1] == 1 and (geometry.out[1] == 1 or (geometry.out[2] > lanes and geometry.kernel[2] > 1))
    filters, rows, limit = _tile(geometry, target, lanes, fold, most_rows)
    edges = not fold and target.vector_bytes >= MASKED_BYTES
    return Layout(geometry, lanes, rows, fold, filters, edges, 1), limit


def _tile(geometry, target, lanes, fold, most_rows):
    """The cheapest tile: output channels, vectors of each, and taps of a step at most.

    A round takes as long as its multiply-adds or its loads, and the loads are waited for besides: they come from the
    second-level cache where channels are many.
    """
    longest = max(map(len, strands(geometry, lanes, fold)))
    step = 1 if fold else geometry.row_unit // geometry.stride[1]
    extent = -(-geometry.out[2] // lanes) if fold else -(-geometry.out[1] // step)
    images = geometry.batch * geometry.groups * geometry.out[0]
    most = max(ROWS_ON_PAGES, -(-extent * images // BLOCKS_WANTED))
    if not fold:
        most = min(most, ROWS_ON_PAGES if step * geometry.out[2] * geometry.itemsize >= PAGE else most_rows)
    best, best_cost = None, math.inf
    for filters in (f for f in range(1, MOST_FILTERS + 1) if geometry.outputs % f == 0):
        taps = target.registers // REGISTERS_PER_TAP if filters == 1 else int(target.registers * TAPS_SHARE) // filters
        limit, bound = min(longest, taps), most if filters == 1 else FILTERS_ROWS
        rows = choose_rows(extent, min(bound, (target.registers - SPARE_REGISTERS) // filters - limit))
        products, loads = filters * rows * limit, SPLIT_LOADS * (rows + limit - 1) + filters * limit
        cost = (max(products, loads) + loads) / (filters * limit) * -(-extent // rows)
        if cost < best_cost:
            best, best_cost = (filters, rows, limit), cost
    return best


def _depths(g):
    """For each output plane the first kernel depth inside the image, and how many from there."""
    near = np.arange(g.out[0])[:, None] * g.stride[0] - g.low[0]
    first = np.clip(-(near // g.dilation[0]), 0, g.kernel[0])
    stop = np.clip(-((near - g.size[0]) // g.dilation[0]), first, g.kernel[0])
    return first, stop - first


def _step_columns(layout, steps, rectangles):
    """The columns of a block table that say which steps to take."""
    g, columns, passed = layout.geometry, {}, 0
    depth_first, depth_count = _depths(g)
    for name, taps, height in zip("ab", steps.taps, steps.heights, strict=True):
        if g.kernel[0] > 1:
            first, count = (depths * (len(taps) // g.kernel[0]) for depths in (depth_first, depth_count))
        else:
            first, count = np.array([skippable(layout, taps, rectangle) for rectangle in rectangles]).T
            count = count * depth_count
        columns["first_" + name], columns["count_" + name] = first, count
        columns["skip_" + name] = (passed + first * height) * steps.filters * g.itemsize
        passed += len(taps) * height
    return columns


def block_table(layout, steps, rectangles, functions):
    """The table of `BLOCK` entries of one image: every rectangle in every output plane, addresses in bytes.

    `functions` are the addresses of the tiles' code.
    """
    g = layout.geometry
    y, rows, x, stop, reads = np.array([(r.y, r.rows, r.x, r.stop, r.reads) for r in rectangles], np.int64).T
    z = np.arange(g.out[0])[:, None]
    plane, row, column = (place * stride - low for place, stride, low in zip((z, y, x), g.stride, g.low, strict=True))
    columns = _step_columns(layout, steps, rectangles)
    columns["depth_first"], columns["depth_count"] = _depths(g)
    vectors, patch = -(-(stop - x + layout.shift) // layout.lanes), layout.lanes * g.stride[2]
    columns.update(
        source=((plane * g.size[1] + row) * g.size[2] + column) * g.itemsize,
        out=((z * g.out[1] + y) * g.out[2] + x) * g.itemsize,
        rows=layout.rows if layout.fold else rows,
        columns=stop - x,
        staged=reads == STAGED,
        function=functions,
        row_low=np.clip(-(row // g.dilation[1]), 0, layout.staged_rows),
        row_high=np.clip(-((row - g.size[1]) // g.dilation[1]), 0, layout.staged_rows),
        column_low=np.clip(-column, 0, vectors * patch),
        column_high=np.clip(g.size[2] - column, 0, vectors * patch),
        edge_low=-column,
        edge_high=g.size[2] - column,
        vectors=vectors,
        last=0,
    )
    table = np.zeros((g.out[0], len(rectangles), len(BLOCK)), np.int64)
    for n, name in enumerate(BLOCK):
        table[..., n] = columns[name]
    table[-1, -1, BLOCK.index("last")] = 1
    return table.reshape(-1, len(BLOCK))


def image_table(layout, steps, per_task):
    """The table of `IMAGE` entries, in bytes: every image, group and run of `per_task` channels of a group."""
    g = layout.geometry
    image, group, part = np.indices((g.batch, g.groups, g.outputs // per_task)).reshape(3, -1)
    channel = group * g.outputs + part * per_task
    taps = sum(len(some) * height for some, height in zip(steps.taps, steps.heights, strict=True))
    table = np.zeros((len(image), len(IMAGE)), np.int64)
    for name, value in [
        ("source", (image * g.groups + group) * g.channels * math.prod(g.size)),
        ("out", (image * g.groups * g.outputs + channel) * math.prod(g.out)),
        ("weights", channel * taps),
        ("bias", channel),
    ]:
        table[:, IMAGE.index(name)] = value * g.itemsize
    return table


def offset_tables(layout, steps):
    """Step addresses in bytes and distances along the row, by the names that the frame has for them."""
    tables = {}
    for name, taps in zip("ab", steps.taps, strict=True):
        image, staged = layout.offsets(taps)
        tables["offsets_" + name] = image * layout.geometry.itemsize
        tables["staged_offsets_" + name] = staged * layout.geometry.itemsize
        tables["shifts_" + name] = np.ascontiguousarray(taps[:, 0, KX] * layout.geometry.dilation[2])
    return tables
