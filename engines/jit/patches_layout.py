"""Which pixels and channels go into one block of patches: as many as the cache holds, as few as busy threads need."""

import dataclasses
import itertools
import math

import numpy as np

from convbench.spec import ConvSpec

from .dense_shape import CONFLICT_BYTES
from .dense_tiling import parts

#: Bytes of a block's patches: as many 4 KiB pages as the first-level table of translations has entries.
PATCH_BYTES = 256 << 10
#: Pixels that a block should have where they fit `ROOM_BYTES`, and has even where not: each weight that is read
#: serves all of them.
PIXELS, FEWEST_PIXELS = 56, 28
#: What a block may have beyond that for the sake of more pixels.  Rows of patches that need more are cut into tiles'
#: widths, so that what a tile reads lies close together.
ROOM_BYTES = 512 << 10
#: Columns of a block at most, and rows it has at least, where vectors lie along the rows.
WIDE_COLUMNS, WIDE_ROWS = 128, 16
#: Work worth a task of its own, in multiply-adds of whole vectors, and tasks per thread that even out delays.
TASK_PRODUCTS, TASKS_PER_THREAD = 80_000, 4
#: Channels of a chunk: 2 vectors of 64 bytes of float32.
CHUNK_CHANNELS = 32
#: Chunks of groups at most: each has plans of its own.
MOST_CHUNKS = 64
LANE_BYTES = 64
#: Sums of a kernel's tile (with 32 registers): so many pixels of one vector of channels, half of them of two.
TILE_SUMS = 28
#: Taps of a kernel filled up with zeros, of its own, at most.
MOST_FILLED = 1.15
#: Time that the threads with most tasks may take, of a mean one's.
MOST_WAITING = 1.05
#: Channels of a chunk that is made for that only: two threads may gather the same patches then.
EVEN_CHANNELS = 256
#: Elements added to rows of patches whose distance would put them into the same sets of the cache.
SHIFT = 16


def views(spec):
    """Rows of the kernel that may read one copy of the input, each from another row of it on.

    With a stride they are every stride-th, and the others read copies of their own; all copies have as many views, so
    some weights may be zeros.  1 where the dilation clashes, or zeros would be too many.
    """
    if spec.ndim == 1:
        return 1
    height, stride = spec.kernel[-2], spec.stride[-2]
    if stride > 1 and spec.dilation[-2] > 1:
        return 1
    count = -(-height // stride)
    return count if count * stride <= MOST_FILLED * height else 1


def _is_even(tasks, threads):
    """Whether no thread waits long for the others."""
    return tasks < threads or -(-tasks // threads) * threads <= MOST_WAITING * tasks


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Output channels, the input channels that they see, and how many groups these are."""

    filters: slice
    channels: slice
    groups: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """A problem with three spatial dimensions, the outer ones 1 where it has fewer, cut into blocks and chunks.

    Attributes
    ----------
    low : tuple of int
        Padding in front.
    wide : bool
        Whether products have their vectors along the pixels of a row, instead of along the output channels.
    views : int
        Rows of the kernel that read one copy, each from another row on: one of every stride's rows.
    heights, widths : tuple of int
        Into which rows and columns of one slice are cut, to make blocks.
    chunks : tuple
        Into which channels are cut.
    """

    batch: int
    channels: int
    out_channels: int
    groups: int
    spatial: tuple
    kernel: tuple
    stride: tuple
    low: tuple
    dilation: tuple
    output: tuple
    dtype: str
    wide: bool = False
    views: int = 1
    heights: tuple = ()
    widths: tuple = ()
    chunks: tuple = ()

    @classmethod
    def of(cls, spec, threads, wide):
        """From a `ConvSpec`, for so many threads."""
        ones = (1,) * (3 - spec.ndim)
        lifted = (ones + sizes for sizes in (spec.spatial, spec.kernel, spec.stride))
        low = (0,) * len(ones) + tuple(low for low, _ in spec.padding)
        rest = (low, ones + spec.dilation, ones + spec.output_spatial, spec.dtype, wide)
        plain = cls(spec.batch, spec.in_channels, spec.out_channels, spec.groups, *lifted, *rest)
        work = spec.macs * spec.itemsize / LANE_BYTES
        wanted = max(1, min(int(work / TASK_PRODUCTS), TASKS_PER_THREAD * threads))
        wanted = -(-wanted // threads) * threads if wanted > threads else wanted  # as many for each
        viewing = dataclasses.replace(plain, views=views(spec))._cut(wanted, threads)
        fewest = min(rows for rows, _ in viewing.kinds)
        saves = viewing.copies * viewing.copied_rows((fewest, 1)) <= fewest * plain.kernel[1]
        return viewing if saves or viewing.views == 1 else plain._cut(wanted, threads)

    @property
    def kinds(self):
        """The sizes of blocks that occur: (rows, columns)."""
        return sorted(itertools.product(set(self.heights), set(self.widths)))

    @property
    def blocks(self):
        """First row, first column and kind of every block of a slice, as arrays."""
        heights, widths = np.array(self.heights), np.array(self.widths)
        row, column = (
            np.repeat(np.cumsum(heights) - heights, len(widths)),
            np.tile(np.cumsum(widths) - widths, len(heights)),
        )
        number = {kind: number for number, kind in enumerate(self.kinds)}
        return row, column, np.array([number[kind] for kind in itertools.product(self.heights, self.widths)])

    @property
    def copies(self):
        """Copies for the rows of the kernel."""
        return -(-self.kernel[1] // self.views)

    @property
    def copied(self):
        """Taps along depth, height and width that have a copy of the input of their own."""
        return self.kernel[0], self.copies, self.kernel[2]

    @property
    def view_step(self):
        """Rows of a copy from one view to the next."""
        return self.dilation[1] if self.stride[1] == 1 else 1

    @property
    def itemsize(self):
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize

    def copied_rows(self, kind):
        """Rows of a block's copy for one tap."""
        return kind[0] + (self.views - 1) * self.view_step

    def pitch(self, kind):
        """Elements between two rows of the patch matrix."""
        count = self.copied_rows(kind) * kind[1]
        return count + SHIFT if count * self.itemsize % CONFLICT_BYTES == 0 and not self.wide else count

    def patch_bytes(self, kind, channels):
        """Bytes of a block's patches of so many input channels."""
        return channels * math.prod(self.copied) * self.pitch(kind) * self.itemsize

    def block_bytes(self):
        """Bytes of the largest block's patches."""
        channels = max(chunk.channels.stop - chunk.channels.start for chunk in self.chunks)
        return max(self.patch_bytes(kind, channels) for kind in self.kinds)

    @property
    def block_count(self):
        """Blocks of pixels, of all images and slices."""
        return self.batch * self.output[0] * len(self.heights) * len(self.widths)

    @property
    def copied_elements(self):
        """Elements that are written to make all blocks."""
        chunks = self.chunks if self.groups > 1 else self.chunks[:1]
        rows = sum(self.copied_rows((height, 1)) for height in self.heights)
        channels = sum(chunk.channels.stop - chunk.channels.start for chunk in chunks)
        return self.batch * self.output[0] * channels * math.prod(self.copied) * rows * self.output[2]

    def lowered(self, kind, chunk):
        """The problem that a block is: 1-D where its rows are whole, since then its outputs lie in one piece."""
        rows, height, step = self.copied_rows(kind), self.views, self.view_step if self.views > 1 else 1
        spatial, kernel, dilation = (rows, kind[1]), (height, 1), (step, 1)
        if kind[1] == self.output[2] and not self.wide:
            spatial, kernel, dilation = math.prod(spatial), height, step * kind[1]
        return ConvSpec(
            1,
            (chunk.channels.stop - chunk.channels.start) * math.prod(self.copied),
            chunk.filters.stop - chunk.filters.start,
            spatial=spatial,
            kernel=kernel,
            dilation=dilation,
            groups=chunk.groups,
            dtype=self.dtype,
        )

    def lowered_weight(self, weight):
        """The weight as [filter][copied tap and channel][tap that is a view]."""
        rows = self.copies * self.views
        filled = np.zeros((self.out_channels, self.channels // self.groups, self.kernel[0], rows, self.kernel[2]))
        filled = filled.astype(weight.dtype)
        filled[:, :, :, : self.kernel[1]] = weight.reshape(*filled.shape[:3], *self.kernel[1:])
        split = filled.reshape(*filled.shape[:3], self.views, self.copies, self.kernel[2])
        return split.transpose(0, 2, 4, 5, 1, 3).reshape(self.out_channels, -1, self.views)

    def _cut(self, wanted, threads):
        """With blocks and chunks: `wanted` tasks where they do not become too small, as many for each thread."""
        height, width = self.output[1:]
        together = self._groups_together(wanted)
        channels = self.channels // self.groups * together
        images = self.batch * self.output[0] * -(-self.groups // together)
        widths = parts(width, self._pieces(channels))
        one, two = (self.patch_bytes((rows, widths[0]), channels) for rows in (1, 2))
        rows = 1 + max(0, PATCH_BYTES - one) // max(two - one, 1)
        rows = max(rows, WIDE_ROWS if self.wide else -(-self._fewest(channels) // widths[0]))
        bands = max(-(-height // rows), -(-wanted // (images * len(widths))))
        bands = min(bands, height, max(1, height * widths[0] // self._fewest(channels)))
        if len(widths) > 1 and self.views == 1 and not self.wide:
            bands = height  # a matrix product's outputs lie in one piece
        heights = tuple(parts(height, bands))
        blocks = images * len(heights) * len(widths)
        fewest = -(-wanted // blocks)
        most = min(fewest + threads, 1 + self.out_channels // EVEN_CHANNELS)
        even = (count for count in range(fewest, most) if _is_even(blocks * count, threads))
        chunks = tuple(self._chunks(together, next(even, fewest)))
        return dataclasses.replace(self, heights=heights, widths=tuple(widths), chunks=chunks)

    def _fewest(self, channels):
        """Pixels that a block has at least."""
        return PIXELS if self.patch_bytes((1, PIXELS), channels) <= ROOM_BYTES else FEWEST_PIXELS

    def _pieces(self, channels):
        """Into how many pieces a row of output is cut."""
        width, whole = self.output[2], self.patch_bytes((1, self.output[2]), channels)
        if self.wide:
            column = self.patch_bytes((min(WIDE_ROWS, self.output[1]), 1), channels)
            vectors = ROOM_BYTES * self.itemsize // max(1, column * LANE_BYTES)
            columns = max(1, vectors) * LANE_BYTES // self.itemsize
            return -(-width // min(WIDE_COLUMNS, columns))
        if self.views > 1:
            filters = self.out_channels // self.groups
            tile = TILE_SUMS if filters * self.itemsize <= LANE_BYTES else TILE_SUMS // 2
            return 1 if whole <= ROOM_BYTES else -(-width // tile)
        return max(1, min(-(-whole // PATCH_BYTES), width // FEWEST_PIXELS))

    def _groups_together(self, wanted):
        """Groups that one task computes."""
        whole = self.patch_bytes(self.output[1:], self.channels // self.groups)
        enough = self.groups * self.batch * self.output[0] // wanted
        return max(-(-self.groups // MOST_CHUNKS), min(self.groups, PATCH_BYTES // whole, enough))

    def _chunks(self, together, wanted):
        """Whole groups, or with one group parts of its output channels."""
        seen, made = self.channels // self.groups, self.out_channels // self.groups
        if self.groups == 1:
            count = max(1, min(wanted, made // CHUNK_CHANNELS))
            vectors = parts(-(-made // CHUNK_CHANNELS), count)
            ends = np.minimum(np.cumsum(vectors) * CHUNK_CHANNELS, made).tolist()
            for first, end in zip([0, *ends], ends, strict=False):
                yield Chunk(slice(first, end), slice(0, seen), 1)
            return
        first = 0
        for count in parts(self.groups, -(-self.groups // together)):
            end = first + count
            yield Chunk(slice(first * made, end * made), slice(first * seen, end * seen), count)
            first = end
