"""The steps of a wide convolution: its kernel cut into pieces of columns that meet consecutive rows of the input.

A convolution of any stride and dilation is a sum of correlations of stride and dilation 1
(`Geometry.row_unit`), one for each phase of the kernel's rows.  Every column of every phase, for every
input channel and kernel depth, is cut into pieces of two heights: these are the *steps* that the tile of
`wide_kernel` walks.
"""

import dataclasses
import itertools
import math

import numpy as np

from convbench.forks import cached_property

#: Registers over taps of one step at most: 8 taps of 32 registers, 4 of 16.
REGISTERS_PER_TAP = 4
#: What the four numbers of a tap say.
CHANNEL, KZ, KY, KX = range(4)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A spec with three spatial dimensions (depth, height, width), in plain numbers."""

    batch: int
    groups: int
    channels: int
    outputs: int
    size: tuple
    kernel: tuple
    stride: tuple
    low: tuple
    dilation: tuple
    out: tuple
    dtype: str

    @classmethod
    def of(cls, spec):
        """The geometry of `spec`."""
        missing = 3 - len(spec.spatial)

        def fill(values, value):
            return (value,) * missing + tuple(values)

        return cls(
            spec.batch,
            spec.groups,
            spec.in_channels // spec.groups,
            spec.out_channels // spec.groups,
            fill(spec.spatial, 1),
            fill(spec.kernel, 1),
            fill(spec.stride, 1),
            fill([low for low, _ in spec.padding], 0),
            fill(spec.dilation, 1),
            fill(spec.output_spatial, 1),
            spec.dtype,
        )

    @property
    def itemsize(self):
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    def arrays_bytes(self):
        """Bytes of inputs and outputs."""
        places = self.channels * math.prod(self.size) + self.outputs * math.prod(self.out)
        return self.batch * self.groups * places * self.itemsize

    @cached_property
    def row_unit(self):
        """Input rows between two rows of a tile: the least common multiple of stride and dilation.

        Output rows ``y + r * unit / stride`` under kernel rows ``p + q * unit / dilation`` read input row
        ``stride * y + dilation * p + unit * (r + q)``: for each phase p a correlation of stride and dilation 1.
        """
        return math.lcm(self.stride[1], self.dilation[1])


def strands(geometry, lanes, fold):
    """Runs of taps that meet consecutive vectors of the input: lists of (ky, kx).

    Without `fold` a run goes down one phase of a kernel column.  With it the image is one row, whose
    vectors take the place of rows: a run holds taps that are one vector apart.
    """
    runs = {}
    for ky, kx in itertools.product(range(geometry.kernel[1]), range(geometry.kernel[2])):
        if fold:
            index, phase = divmod(geometry.dilation[2] * kx, geometry.stride[2])
            line, key = index // lanes, (phase, index % lanes)
        else:
            line, offset = divmod(geometry.dilation[1] * ky, geometry.row_unit)
            key = offset, kx
        if fold and runs.get(key) and runs[key][-1][0] != line - 1:
            key = *key, kx
        runs.setdefault(key, []).append((line, (ky, kx)))
    return [[tap for _, tap in run] for run in runs.values()]


def _split(count, tall, short):
    """(pieces of `tall`, pieces of `short`) that add up to `count`, as few as possible, or None."""
    for talls in range(count // tall, -1, -1):
        rest = count - talls * tall
        if not rest or (short and rest % short == 0):
            return talls, rest // short if rest else 0
    return None


def choose_heights(counts, filters, rows, limit):
    """Two step heights into which every run length of `counts` (length -> runs) can be cut, with the fewest loads."""
    best = None
    for tall in range(1, min(limit, max(counts)) + 1):
        for short in range(tall):
            cuts = {count: _split(count, tall, short) for count in counts}
            if None in cuts.values():
                continue
            loads = sum(
                runs * (talls * (rows - 1 + (1 + filters) * tall) + shorts * (rows - 1 + (1 + filters) * short))
                for count, runs in counts.items()
                for talls, shorts in [cuts[count]]
            )
            if best is None or loads < best[0]:
                best = loads, (tall, short)
    return best[1]


def choose_rows(length, most):
    """Rows of a tile, at most `most`: those that waste least, with two rows counted for a tile's overhead."""
    if length <= most:
        return length
    return min(range(most, most // 2, -1), key=lambda rows: -(-length // rows) * (rows + 2))


class Steps:
    """The steps of a kernel, tall ones first, each sorted so that the ones a block may skip stand at the ends.

    Attributes
    ----------
    filters : int
        Output channels that a tile computes from the same inputs.
    heights : (int, int)
        Taps of a tall and of a short step; the second may be 0.
    taps : list of two int arrays [steps, height, 4]
        `CHANNEL`, `KZ`, `KY`, `KX` of every tap.
    """

    def __init__(self, geometry, lanes, fold, filters, rows, limit):
        self.filters = filters
        runs = strands(geometry, lanes, fold)
        counts = {}
        for run in runs:
            counts[len(run)] = counts.get(len(run), 0) + 1
        self.heights = choose_heights(counts, filters, rows, limit)
        pieces = [], []
        for run in runs:
            at = 0
            for which, number in enumerate(_split(len(run), *self.heights)):
                for _ in range(number):
                    pieces[which].append(run[at : at + self.heights[which]])
                    at += self.heights[which]
        self.taps = [
            self._spread(geometry, some, height, fold) for some, height in zip(pieces, self.heights, strict=True)
        ]

    @staticmethod
    def _spread(geometry, pieces, height, fold):
        """Repeat the pieces of a kernel plane for all depths and channels, and sort them."""
        if not pieces:
            return np.zeros((0, 1, 4), np.int64)
        taps = np.zeros((geometry.kernel[0], geometry.channels, len(pieces), height, 4), np.int64)
        taps[..., CHANNEL] = np.arange(geometry.channels)[:, None, None]
        taps[..., KZ] = np.arange(geometry.kernel[0])[:, None, None, None]
        taps[..., KY:] = np.array(pieces, np.int64).reshape(len(pieces), height, 2)
        taps = taps.reshape(-1, height, 4)
        first = taps[:, :1].reshape(-1, 4)
        keys = (KZ, KX, CHANNEL) if fold else (KZ, KY, CHANNEL, KX)
        return taps[np.lexsort([first[:, key] for key in reversed(keys)])]

    def pack(self, weight):
        """Weights [outputs, channels, kz, ky, kx] in the order of the steps: [outputs / filters, step, filter, tap]."""
        shape, count = weight.shape[1:], len(weight) // self.filters
        weight = weight.reshape(count, self.filters, -1)
        parts = []
        for taps in self.taps:
            places = np.ravel_multi_index(tuple(taps.transpose(2, 0, 1)), shape)
            parts.append(weight[:, :, places].swapaxes(1, 2).reshape(count, -1))
        return np.ascontiguousarray(np.concatenate(parts, axis=1))
