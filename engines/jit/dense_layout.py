"""Where a dense plan reads and writes: distances in memory, and bands of the input that are copied first.

A copied band lies with rows outermost, so that all channels of a row are near each other, and with zeros around
it where there is padding.  Bands are sized so that they stay in the L2 cache.
"""

import itertools
import math

import numpy as np

from convbench import settings

from .dense_shape import BAND_SHARE, CONFLICT_BYTES, conflict, strides
from .dense_tiling import TASKS_PER_THREAD, in_halves, parts
from .records import ALIGN
from .target import cache_bytes

#: As `BAND_SHARE` where each band fetches its weights from far (`Shape.far_weights`): 512 -> 1024 channels at 19x19,
#: 3x3, dilation 6: 178 against 219 GFLOP/s; 256 -> 512, 5x5, stride 2 at 20x84: 116 against 162 (Cascade Lake, November
#: 2026; nothing lost or gained at 2 to 9 MB of weights).  Nor are bands cut for `LONG_TASK_CYCLES` then: the former in
#: 4 bands 666, in one 705 GFLOP/s with tiles of 6 x 3 (Zen 5).
FAR_BAND_SHARE = 4.0
#: Output rows of a band that are worth copying fewer groups at once: rows of taps overlap between bands. 32 groups of
#: 32 channels, 56x56, 3x3, stride 2: all groups at once leave bands of one row.
BAND_ROWS = 16
#: Work worth a task of its own: at some 4 GHz, 10 us against a fork-join of about 1 us; and work that is better cut,
#: so that a thread that begins late, or shares its core with another library's, holds nobody up for long.
TASK_CYCLES, LONG_TASK_CYCLES = 40_000, 2_000_000


def shared(count, others=1):
    """`count`, or so many more that the threads get equally many of ``count * others`` tasks.

    256 -> 512 channels at 28x28, 1x1, stride 2, two threads: 9 tasks 440, 10 tasks 485 GFLOP/s (Zen 5, November 2026).
    """
    threads = settings.get_num_threads()
    return math.ceil(count / threads) * threads if others % threads else count


class Layout:
    """Distances and bands of a plan.

    Attributes
    ----------
    x_strides, out_strides : tuple of int
        Elements between neighbours along image, channel, depth, height and width.
    copying : bool
        Whether bands of the input are copied.
    band_groups : list of int
        Tile rows of each band.
    slice_groups : list of int
        Slices of outputs that are copied and computed together.
    read_strides : tuple of int
        As `x_strides`, of what the kernels read.

    Parameters
    ----------
    shape : Shape
    tiling : Tiling
    itemsize : int
    distances : pair of tuple of int, optional
        `x_strides` and `out_strides` of arrays that are parts of larger ones; they are read in place.
    """

    def __init__(self, shape, tiling, itemsize, distances=None):
        self._shape, self._tiling, self._itemsize = shape, tiling, itemsize
        self.x_strides, self.out_strides = distances or (
            strides(shape.channels, shape.spatial, shape.last),
            strides(shape.out_channels, shape.output, shape.last),
        )
        self.copying = distances is None and self._copies()
        self.band_groups = in_halves(parts(len(tiling.rows), self._band_count() if self.copying else 1))
        self.slice_groups = in_halves(parts(shape.output[0], math.ceil(shape.output[0] / self._slices_together())))
        self.read_strides = self._copy_strides() if self.copying else self.x_strides

    def _copies(self):
        """Whether bands are copied: for padding, for the cache's sets, or to have a row's channels together.

        Not where kernels leave out the padding, a line serves some taps, and inputs are asked for ahead. Without that,
        planes apart, each k reads another page: 128 -> 128 channels, 3x3 over 58x58, in place 150, copied 210 GFLOP/s
        (Cascade Lake, November 2026).
        """
        shape = self._shape
        taps = math.prod(shape.kernel)
        if self._tiling.exact and taps > 1:
            return False
        apart = not shape.last and shape.output[1] > 1 and taps > 1
        return bool(np.any(shape.padding[1:])) or apart or conflict(self.x_strides, shape.spatial, self._itemsize)

    def beyond(self):
        """How many of a column tile's inputs lie in the padding, at its low and its high end, unless that is copied."""
        shape, tiling = self._shape, self._tiling
        nothing = [(0, 0)] * len(tiling.columns)
        return nothing if self.copying else tiling.run.beyond(tiling.columns, shape.spatial[2], shape.padding[2][0])

    def _extent(self, axis, outputs):
        """Inputs along `axis` that `outputs` neighbouring outputs see."""
        shape = self._shape
        return (outputs - 1) * shape.stride[axis] + (shape.kernel[axis] - 1) * shape.dilation[axis] + 1

    def _copied_rows(self, outputs):
        """Rows of input to copy for so many rows of outputs, for each of how many taps, and from tap to tap.

        One range that all taps share, or each tap's own, where dilation leaves out more rows than those overlap:
        2048 -> 256 channels at 33x33, 3x3, dilation 12.
        """
        all_rows, taps = self._extent(1, outputs), self._shape.kernel[1]
        each = (outputs - 1) * self._shape.stride[1] + 1
        return (all_rows, 1, 0) if all_rows <= taps * each else (each, taps, self._shape.dilation[1])

    def _outputs_of(self, rows):
        """Rows of outputs, at least one, for which at most so many rows of input are copied."""
        return next((n for n in range(self._shape.output[1], 1, -1) if math.prod(self._copied_rows(n)[:2]) <= rows), 1)

    def _band_count(self):
        """Bands of rows: their input fits the L2 cache, and with the blocks of channels they make enough tasks."""
        shape, groups = self._shape, len(self._tiling.rows)
        channels = shape.group_channels * self.groups_together()
        row_bytes = channels * self._row_elements() * self._itemsize
        count = math.ceil(shape.output[1] / self._outputs_of(int(self._band_bytes() / row_bytes)))
        blocks = shape.groups * len(self._tiling.vectors)
        wanted = self._needed_tasks() if self._shape.far_weights(self._itemsize) else self.wanted_tasks()
        count = max(count, math.ceil(wanted / (shape.batch * shape.output[0] * blocks)))
        return min(groups, shared(count, shape.batch * shape.output[0]) if count > 1 else 1)

    def _band_bytes(self):
        """Bytes of input that a band may have."""
        return (FAR_BAND_SHARE if self._shape.far_weights(self._itemsize) else BAND_SHARE) * cache_bytes()

    def _slices_together(self):
        """Slices of outputs that share the slices of a copy: as many as fit a band, and leave enough tasks.

        16 -> 48 channels of 16x14x14, 3x3x3: one by one 493, four together 486 us (Zen 5, November
        2026).
        """
        shape = self._shape
        if not self.copying or len(self.band_groups) > 1 or shape.kernel[0] == 1 or shape.output[1] == 1:
            return 1
        rows = math.prod(self._copied_rows(shape.output[1])[:2])
        one = shape.group_channels * self.groups_together() * self._row_elements() * rows * self._itemsize
        slices = int(self._band_bytes() / one * self._extent(0, 1)) - self._extent(0, 1)
        enough = shape.batch * shape.output[0] // self.wanted_tasks()
        return max(1, min(1 + slices // shape.stride[0], enough))

    def first_slices(self):
        """The first slice of outputs of each group."""
        return np.cumsum([0, *self.slice_groups[:-1]])

    def _row_elements(self):
        """Elements of one channel's padded row, in all slices that an output sees."""
        return (self._shape.spatial[2] + sum(self._shape.padding[2])) * self._extent(0, 1)

    def groups_together(self):
        """Groups whose inputs one task copies: few, so that their bands are of some rows."""
        shape = self._shape
        rows = math.prod(self._copied_rows(min(BAND_ROWS, shape.output[1]))[:2])
        one = shape.group_channels * self._row_elements() * rows * self._itemsize
        return max(1, min(shape.groups, int(self._band_bytes() / one)))

    def least_chunks(self):
        """Into how many ranges of blocks of output channels the tasks must be cut, to copy so few groups at once."""
        return math.ceil(self._shape.groups / self.groups_together()) if self.copying else 1

    def _copied_channels(self):
        """Channels of a copy: those of a range of blocks, which may begin and end within a group."""
        shape, per_group = self._shape, len(self._tiling.vectors)
        blocks = math.ceil(shape.groups * per_group / self.least_chunks())
        return shape.group_channels * min(shape.groups, math.ceil(blocks / per_group) + (per_group > 1))

    def wanted_tasks(self):
        """How many tasks the work is worth."""
        return max(self._needed_tasks(), int(self._cycles() / LONG_TASK_CYCLES))

    def _needed_tasks(self):
        """How many tasks keep all threads busy."""
        return max(1, min(int(self._cycles() / TASK_CYCLES), TASKS_PER_THREAD * settings.get_num_threads()))

    def _cycles(self):
        return self._tiling.cycles * self._shape.groups * self._shape.batch * self._shape.output[0]

    def bands(self):
        """First and end row of each band."""
        rows, ends = iter(self._tiling.rows), []
        for count in self.band_groups:
            ends.append((ends[-1] if ends else 0) + sum(itertools.islice(rows, count)))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _copy_strides(self):
        """Layout of a padded band: rows outermost, so that all channels of a row are near each other.

        Of the channels that a task copies: 32 groups of 32 channels, 56x56, 3x3, stride 2, all groups in one array 343,
        each in the place of the one before 412 GFLOP/s (Zen 5, November 2026).
        """
        shape = self._shape
        width = shape.spatial[2] + sum(shape.padding[2])
        most = max(end - begin for begin, end in self.bands())
        self._copy_rows, self._copy_taps, self._tap_step = self._copied_rows(most)
        self._copy_slices = self._extent(0, max(self.slice_groups))
        if shape.last:
            channel, pixel = 1, self._pitch(self._copied_channels())
            row = width * pixel
        else:
            channel, pixel = self._pitch(width), 1
            row = self._copied_channels() * channel
        return 0, channel, self._copy_taps * self._copy_rows * row, row, pixel

    def _pitch(self, count):
        """`count`, or so much more that neighbours do not compete for sets of the cache."""
        return count + ALIGN // self._itemsize if count * self._itemsize % CONFLICT_BYTES == 0 else count

    def tap_distances(self):
        """Slices, rows and pixels from tap to tap in what the kernels read."""
        slices, rows, pixels = self._shape.dilation
        return slices, self._copy_rows if self.copying and self._copy_taps > 1 else rows, pixels

    def copied_bytes(self):
        """Bytes of the largest band's copy."""
        return self._copy_slices * self.read_strides[2] * self._itemsize if self.copying else 0

    def copy_constants(self):
        """What a frame says of the copy."""
        if not self.copying:
            return {}
        shape, item = self._shape, self._itemsize
        _, from_channel, from_slice, from_row, from_pixel = (stride * item for stride in self.x_strides)
        _, to_channel, to_slice, to_row, to_pixel = (stride * item for stride in self.read_strides)
        line_from, line_to = (from_pixel, to_pixel) if shape.last else (from_channel, to_channel)
        return {
            "copy_at": shape.padding[2][0] * to_pixel,
            "copy_slices": self._copy_slices,
            "copy_taps": self._copy_taps,
            "copy_rows": self._copy_rows,
            "tap_step": self._tap_step,
            "depth": shape.spatial[0],
            "height": shape.spatial[1],
            "slice_from": from_slice,
            "row_from": from_row,
            "line_from": line_from,
            "slice_to": to_slice,
            "row_to": to_row,
            "line_to": line_to,
        }
