"""The shape of a dense problem as the kernels see it: three spatial dimensions, and distances in memory."""

import dataclasses
import itertools
import math

import numpy as np

from convbench.forks import cached_property

from .target import cache_bytes

#: Data this many bytes apart compete for the same sets of the first-level cache (64 sets of 64-byte lines;
#: half of it is bad enough). 64 -> 64 channels, 1x1 at 32x32 (planes of 4096 bytes), read in place: 60
#: GFLOP/s, copied: 154 (Zen 4, November 2026).
CONFLICT_BYTES = 2048
#: Columns come in parts where they see less than this share of a row's taps: 512 -> 1024 channels at 19x19, 3x3 with
#: dilation and padding 6.
COLUMN_TAPS = 0.85
#: ... and where the parts are at least so wide in the mean, for tiles of one or two columns share too little: 8 -> 91
#: channels at 7x7, 6x6, padding 2, batch 4: parts of one and two columns 182, one part 15 us (Zen 5, November 2026).
LEAST_PART = 4
#: Part of the L2 cache for a band of input; as much or more is for one block's weights.
BAND_SHARE = 0.35
#: Rows of a pointwise problem that is copied in bands, which may be cut anywhere, and whose longer rows leave less over
#: beside whole tiles.  As the plane lies, and with 16 and 8 rows, us: 256 -> 768 channels at 160x16 2446, 2332, 2129;
#: 128 -> 128 at 128x128 1486, 1360, 1356; 256 -> 64 at 64x64 346, 327, 325; 512 -> 256 at 64x64 2384, 2401, 2415 (Zen
#: 5, November 2026).
LEAST_ROWS = 8
#: Weights so many times the second-level cache come from far each time that they are read.
FAR_WEIGHTS = 10


@dataclasses.dataclass(frozen=True)
class Shape:
    """A problem with three spatial dimensions, the outer ones 1 where it has fewer.

    The pixels of a pointwise one are one row, or some long ones where channels compete for the cache's sets.
    """

    batch: int
    channels: int
    out_channels: int
    groups: int
    spatial: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    output: tuple
    last: bool

    @classmethod
    def of(cls, spec):
        """From a `ConvSpec`."""
        missing = 3 - len(spec.spatial)
        spatial, output = (1,) * missing + tuple(spec.spatial), (1,) * missing + tuple(spec.output_spatial)
        kernel, stride = (1,) * missing + tuple(spec.kernel), (1,) * missing + tuple(spec.stride)
        padding, dilation = ((0, 0),) * missing + tuple(map(tuple, spec.padding)), (1,) * missing + tuple(spec.dilation)
        last, batch = spec.memory_format == "channels_last", spec.batch
        pointwise = set(kernel) == set(stride) == {1} and not np.any(padding)
        itemsize, pixels = np.dtype(spec.dtype).itemsize, math.prod(spatial)
        if pointwise and not conflict(strides(spec.in_channels, spatial, last), spatial, itemsize):
            pixels *= batch if last else 1
            spatial = output = (1, 1, pixels)
            batch = 1 if last else batch
        elif pointwise and not last:
            width = _longest_row(pixels, spec.in_channels // spec.groups * itemsize)
            spatial = output = (1, pixels // width, width) if width > spatial[2] else spatial
        elif not last and set(kernel[1:]) == set(stride[1:]) == {1} and not np.any(padding[1:]):
            spatial, output = ((depth, 1, height * width) for depth, height, width in (spatial, output))
        return cls(
            batch,
            spec.in_channels,
            spec.out_channels,
            spec.groups,
            spatial,
            kernel,
            stride,
            padding,
            dilation,
            output,
            last,
        )

    @property
    def group_channels(self):
        """Input channels that an output channel sees."""
        return self.channels // self.groups

    @property
    def k_count(self):
        """Products per output."""
        return self.group_channels * math.prod(self.kernel)

    def far_weights(self, itemsize):
        """Whether all weights together come from far each time that they are read."""
        return self.k_count * self.out_channels * itemsize > FAR_WEIGHTS * cache_bytes()

    @cached_property
    def column_parts(self):
        """Widths of neighbouring columns that see the same taps, if enough columns see fewer; otherwise one part.

        One where slices and rows meet padding, too: a tile leaves out ranges of taps in two directions only.
        """
        if self._in_slices and any(self.padding[1]):
            return (self.output[2],)
        columns = np.arange(self.output[2])
        begin, end = self._tap_range(2, columns, columns)
        if (end - begin).mean() > COLUMN_TAPS * self.kernel[2]:
            return (self.output[2],)
        changes = np.flatnonzero(np.diff(begin) | np.diff(end)) + 1
        if self.output[2] < LEAST_PART * (len(changes) + 1):
            return (self.output[2],)
        return tuple(np.diff([0, *changes, self.output[2]]).tolist())

    @cached_property
    def row_parts(self):
        """How many neighbouring rows see the same taps, and how many k that are."""
        rows = np.arange(self.output[1])
        begin, end = self._tap_range(1, rows, rows)
        ends = [*(np.flatnonzero(np.diff(begin) | np.diff(end)) + 1), len(rows)]
        per_row = self.k_count // self.kernel[1]
        return tuple(
            (int(last - first), int(end[first] - begin[first]) * per_row)
            for first, last in itertools.pairwise([0, *ends])
        )

    def k_ranges(self, first_row, last_row, first_column=None, last_column=None):
        """The k of tiles between these output rows and columns that meet more than padding, per (slice, row, column).

        With taps along the depth, whole slices are left out, and rows by tiles at the edge; otherwise rows; and, if
        columns are given, taps of a row.  As `k`, `k_end`, `k_step`, `k_low` and `k_high` of a position.
        """
        axis = 0 if self._in_slices else 1
        slices = np.arange(self.output[0])[:, None, None]
        first, last = (slices, slices) if axis == 0 else (first_row[:, None], last_row[:, None])
        begin, end = self._tap_range(axis, first, last)
        per_tap = self.k_count // self.kernel[axis]
        begin, end = begin * per_tap, end * per_tap
        low, high, step = 0, end - begin, np.maximum(end - begin, 1)
        if first_column is not None:
            low, high = (tap * self.group_channels for tap in self._tap_range(2, first_column, last_column))
            step = self.group_channels * self.kernel[2]
        elif axis == 0:
            row, row_end = self._tap_range(1, first_row[:, None], last_row[:, None])
            all_rows, per_row = row_end - row == self.kernel[1], per_tap // self.kernel[1]
            low, high = row * per_row, np.where(all_rows, high, row_end * per_row)
            step = np.where(all_rows, step, per_tap)
        nothing = end == begin
        high = np.where(nothing, low, high)
        return {"k": begin, "k_end": end + nothing, "k_step": step, "k_low": low, "k_high": high}

    @property
    def _in_slices(self):
        """Whether tiles leave out slices of taps."""
        return self.kernel[0] > 1 or any(self.padding[0])

    def _tap_range(self, axis, first, last):
        """First and end tap along `axis` that outputs `first` to `last` see beside padding."""
        size, stride, dilation = self.kernel[axis], self.stride[axis], self.dilation[axis]
        low = self.padding[axis][0]
        begin = np.clip(-((last * stride - low) // dilation), 0, size)
        return begin, np.clip(-((first * stride - low - self.spatial[axis]) // dilation), begin, size)


def _longest_row(pixels, pixel_bytes):
    """The longest row that so many pixels can be cut into, if it fits a band and leaves `LEAST_ROWS`."""
    most = min(int(BAND_SHARE * cache_bytes() / pixel_bytes), pixels // LEAST_ROWS)
    return next((width for width in range(most, 1, -1) if pixels % width == 0), 1)


def strides(channels, spatial, last):
    """Elements between neighbours along image, channel, depth, height and width."""
    depth, height, width = spatial
    if last:
        return channels * depth * height * width, 1, height * width * channels, width * channels, channels
    return channels * depth * height * width, depth * height * width, height * width, width, 1


def conflict(distances, spatial, itemsize):
    """Whether neighbouring channels' (channels-last: pixels') data fall into the same few sets of a cache."""
    far = distances[1] if distances[1] > 1 else distances[4]
    return math.prod(spatial) > 1 and far * itemsize % CONFLICT_BYTES == 0
