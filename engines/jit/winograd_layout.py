"""Which tiles a block holds, and the records of input and output rows that say where its elements lie.

Tiles are numbered in strips at most a vector wide: along the columns of a strip, down its rows, strip by strip,
image by image.  Blocks are whole vectors of them, so only the very last vector of a problem has empty lanes,
whatever the width of a plane.  A *run* is what a row of a strip and a block have in common.
"""

import dataclasses
import math

import numpy as np

from .records import table
from .winograd_kernel import input_slots, output_slots
from .winograd_strides import Axis, down_across

#: The image of a run of empty lanes.
NOWHERE = -1


@dataclasses.dataclass(frozen=True)
class Plane:
    """A problem with two spatial dimensions, the first of them 1 where there is only one.

    `axes` are its kernel's: taps and stride.  Where images are the slices of volumes, `slices` of each, a channel's lie
    one behind the other.
    """

    batch: int
    channels: int
    out_channels: int
    groups: int
    size: tuple[int, int]
    out: tuple[int, int]
    low: tuple[int, int]
    axes: tuple[Axis, Axis]
    slices: int = 1

    @classmethod
    def of(cls, spec, slices=1):
        """From a `ConvSpec` of one or two dimensions, whose batch is made of volumes of so many slices."""
        one = (1,) * (2 - spec.ndim)
        low = (0,) * (2 - spec.ndim) + tuple(low for low, _ in spec.padding)
        size, out = one + tuple(spec.spatial), one + tuple(spec.output_spatial)
        channels = spec.in_channels, spec.out_channels, spec.groups
        return cls(spec.batch, *channels, size, out, low, down_across(spec), slices)

    @property
    def channel_sizes(self):
        """Elements from one input channel to the next, and from one output channel."""
        return self.slices * math.prod(self.size), self.slices * math.prod(self.out)

    def image_places(self, image):
        """Elements in front of images in the input, and in the output."""
        volume, number = np.divmod(image, self.slices)
        channels = (self.channels, self.size), (self.out_channels, self.out)
        return [(volume * count * self.slices + number) * math.prod(size) for count, size in channels]

    def tiles(self, outputs):
        """Rows and columns of tiles of an image, of so many outputs."""
        return math.ceil(self.out[0] / outputs[0]), math.ceil(self.out[1] / outputs[1])


@dataclasses.dataclass(frozen=True)
class Runs:
    """Arrays with an entry per run: its block, image, row and first column of tiles, place in the block, tiles."""

    block: np.ndarray
    image: np.ndarray
    row: np.ndarray
    column: np.ndarray
    place: np.ndarray
    count: np.ndarray


def runs(plane, form, vectors, lanes):
    """The runs of blocks of so many `vectors`; the last one is that of the empty lanes, if there are any."""
    height, width = plane.tiles((form.down[0], form.across[0]))
    left = np.arange(0, width, lanes)  # of the strips
    image, left, row = (a.ravel() for a in np.meshgrid(np.arange(plane.batch), left, np.arange(height), indexing="ij"))
    count = np.minimum(lanes, width - left)
    ends, starts = np.cumsum(count), np.cumsum([0, *vectors[:-1]]) * lanes
    total, room = int(ends[-1]), sum(vectors) * lanes
    begin = np.union1d(ends - count, starts)
    line = np.searchsorted(ends, begin, side="right")
    columns = [image[line], row[line], left[line] + begin - (ends - count)[line]]
    columns += [begin, np.diff(np.append(begin, total))]
    if room > total:
        empty = (NOWHERE, 0, 0, total, room - total)
        columns = [np.append(values, more) for values, more in zip(columns, empty, strict=True)]
    image, row, column, begin, count = columns
    block = np.searchsorted(starts, begin, side="right") - 1
    return Runs(block, image, row, column, begin - starts[block], count)


def _bits(low, high, lanes):
    """Words with bits `low` to `high` - 1 set, both cut to the lanes."""
    low, high = np.clip(low, 0, lanes), np.clip(high, 0, lanes)
    return (1 << np.maximum(low, high)) - (1 << low)


def input_table(plane, form, found, vectors, lanes, itemsize, phase=0):
    """Records of the input rows of a phase, and an array [block][copies - 1] of how many serve so many rows of tiles.

    Records stand in the order of blocks, then of copies.
    """
    slots, down = input_slots(form, lanes), form.products[0]
    distance = tuple(axis.stride for axis in plane.axes)
    line = np.tile(np.arange(down), len(found.block))
    block, image, row, column, place, count = (np.repeat(values, down) for values in vars(found).values())
    y = (row * form.down[0] + line) * distance[0] + phase - plane.low[0]
    x = column * form.across[0] * distance[1] - plane.low[1]
    inside = (y >= 0) & (y < plane.size[0]) & (image != NOWHERE)
    seen = np.minimum(plane.size[1] - x, form.seen(count))
    fields = {
        "source": np.where(inside, plane.image_places(image)[0] + y * plane.size[1] + x, 0) * itemsize,
        "tiles": _bits(0 * count, count, lanes),
    }
    for v in range(form.loads(lanes)):
        fields[f"mask{v}"] = np.where(inside, _bits(-x - v * lanes, seen - v * lanes, lanes), 0)
    width = np.array(vectors)[block] * lanes
    fields.update({f"to{copy}": (line * width + place) * itemsize for copy in range(form.shared)})
    return _merged(table(slots, fields), (count, x, y, image, block), slots, len(vectors))


def _merged(records, keys, slots, blocks):
    """Records with equal keys as one that is stored to several places; and how many of which kind a block has."""
    order = np.lexsort(keys)
    records, keys = records[order], np.stack(keys)[:, order]
    first = np.flatnonzero(np.append(True, (np.diff(keys, axis=1) != 0).any(axis=0)))
    copies = np.diff(np.append(first, len(records)))
    number = np.repeat(np.arange(len(first)), copies)
    place = slots["to0"] // 8
    merged = records[first]
    merged[number, place + np.arange(len(records)) - first[number]] = records[:, place]
    block = keys[-1, first]
    counts = np.zeros((blocks, records.shape[1] - place), np.int64)
    np.add.at(counts, (block, copies - 1), 1)
    return np.ascontiguousarray(merged[np.lexsort((copies, block))]), counts


def output_table(plane, form, found, vectors, lanes, itemsize):
    """Records of output rows in the order of blocks, and how many each has."""
    slots, (height, width) = output_slots(form), plane.out
    real = found.image != NOWHERE
    line = np.tile(np.arange(form.down[0]), np.count_nonzero(real))
    block, image, row, column, place, count = (np.repeat(values[real], form.down[0]) for values in vars(found).values())
    y, x = row * form.down[0] + line, column * form.across[0]
    pitch = np.array(vectors)[block] * lanes
    length = np.minimum(count * form.across[0], width - x)
    fields = {
        "source": (line * pitch + place) * itemsize,
        "to": (plane.image_places(image)[1] + y * width + x) * itemsize,
        "tiles": _bits(0 * count, count, lanes),
    }
    fields.update({f"mask{v}": _bits(0 * x, length - v * lanes, lanes) for v in range(form.stores)})
    kept = y < height
    order = np.lexsort((x[kept], y[kept], image[kept], block[kept]))
    return np.ascontiguousarray(table(slots, fields)[kept][order]), np.bincount(block[kept], minlength=len(vectors))
