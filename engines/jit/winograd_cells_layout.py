"""Where the elements of tiles lie, for Winograd convolution whose lanes are channels: tables of addresses.

A tile along an axis of stride s and dilation d is m outputs, d apart: o, o + d, ...  A tap t sees the inputs
s·o + d·t, so taps that are s apart see inputs s·d apart, as the tile's outputs do: with r of them, t, t + s, ...,
m + r - 1 inputs make m outputs.  A kernel is cut into such *parts*; each is an input channel of its own as far as
products are concerned.  So any stride, dilation and number of taps is a matter of tables.

With m = r, the next r taps see what the next tile sees with these, so they share its transformed inputs.  There are
as many *copies* of the inputs as parts that do not.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

#: An element outside of the plane.
NOWHERE = -1


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a problem, and F(m, r) along it.

    Attributes
    ----------
    size, out, low : int
        Inputs, outputs, and zeros in front.
    taps, stride, dilation : int
    m, r : int
    """

    size: int
    out: int
    low: int
    taps: int
    stride: int
    dilation: int
    m: int = 1
    r: int = 1

    @property
    def products(self) -> int:
        """Inputs of a tile, and frequencies."""
        return self.m + self.r - 1

    @property
    def chains(self) -> list[list[range]]:
        """The taps of each part, `r` at most, in chains of parts that follow each other."""
        every = [range(first, self.taps, self.stride) for first in range(min(self.stride, self.taps))]
        return [[taps[i : i + self.r] for i in range(0, len(taps), self.r)] for taps in every]

    @property
    def parts(self) -> list[range]:
        """The taps of each part, chain after chain."""
        return list(itertools.chain(*self.chains))

    @property
    def shares(self) -> bool:
        """Whether the parts of a chain share their inputs."""
        return self.m == self.r

    @property
    def copies(self) -> int:
        """Copies of transformed inputs."""
        return len(self.chains if self.shares else self.parts)

    def sources(self) -> list[tuple[int, int]]:
        """Of each part, which copy it takes, and how many tiles further on."""
        if not self.shares:
            return [(copy, 0) for copy in range(self.copies)]
        return [(copy, shift) for copy, chain in enumerate(self.chains) for shift in range(len(chain))]

    def _phases(self):
        """The first outputs of the tiles of each phase of the dilation, with tiles beyond whose inputs are shared."""
        step = self.dilation * self.m
        end = self.out + step * (len(self.chains[0]) - 1 if self.shares else 0)
        return [range(phase, end, step) for phase in range(min(self.dilation, self.out))]

    def _firsts(self):
        """The first output of every tile, phase after phase."""
        return np.concatenate([np.arange(phase.start, phase.stop, phase.step) for phase in self._phases()])

    @property
    def grid(self) -> int:
        """Tiles, with those beyond the outputs."""
        return sum(map(len, self._phases()))

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of outputs, [tile][m], of tiles that have some, and these tiles' places in the grid."""
        firsts = self._firsts()
        real = firsts < self.out
        found = firsts[real, None] + self.dilation * np.arange(self.m)
        return np.where(found < self.out, found, NOWHERE), np.flatnonzero(real)

    def inputs(self) -> np.ndarray:
        """Numbers of inputs, [copy][tile of the grid][products]."""
        firsts = [chain[0][0] for chain in self.chains] if self.shares else [taps[0] for taps in self.parts]
        offsets = np.array(firsts)[:, None, None] * self.dilation - self.low
        steps = self.stride * self.dilation * np.arange(self.products)
        found = offsets + self._firsts()[:, None] * self.stride + steps
        return np.where((found >= 0) & (found < self.size), found, NOWHERE)


def axes(spec, outputs, taps) -> tuple[Axis, Axis, Axis]:
    """The axes of a `ConvSpec`, three with those that it lacks in front, and m and r per spatial dimension."""
    per_axis = spec.spatial, spec.output_spatial, spec.padding, spec.kernel, spec.stride, spec.dilation, outputs, taps
    found = [
        Axis(size, out, low, k, stride, dilation if k > 1 else 1, m, r)
        for size, out, (low, _), k, stride, dilation, m, r in zip(*per_axis, strict=True)
    ]
    return (*[Axis(1, 1, 0, 1, 1, 1)] * (3 - spec.ndim), *found)


def _places(numbers, sizes):
    """Places in a volume of all combinations of numbers per axis, [tile][element] each, or that behind its last."""
    z, y, x = (values.reshape(_spread(values.shape, axis)) for axis, values in enumerate(numbers))
    place = np.where((z < 0) | (y < 0) | (x < 0), math.prod(sizes), (z * sizes[1] + y) * sizes[2] + x)
    return place.reshape(math.prod(place.shape[:3]), -1)


def _spread(shape, axis):
    return [shape[part] if other == axis else 1 for part in (0, 1) for other in range(3)]


def input_places(both) -> np.ndarray:
    """[copy][tile][element]: the number of an input of the volume, or that behind its last."""
    sizes = [axis.size for axis in both]
    return np.stack([_places(copies, sizes) for copies in itertools.product(*(axis.inputs() for axis in both))])


def output_places(both) -> tuple[np.ndarray, np.ndarray]:
    """[tile][output], the number of an output of the volume, or that behind its last, and tiles' places in the grid."""
    numbers, tiles = zip(*(axis.outputs() for axis in both), strict=True)
    grid = np.ix_(*tiles)
    place = (grid[0] * both[1].grid + grid[1]) * both[2].grid + grid[2]
    return _places(numbers, [axis.out for axis in both]), place.ravel()


def part_sources(both) -> tuple[np.ndarray, np.ndarray]:
    """Of each part, which copy of the inputs it takes, and how many places of the grid further on."""
    every = itertools.product(*(axis.sources() for axis in both))
    copies, shifts = np.moveaxis(np.array(list(every)), 2, 0)
    copy = (copies[:, 0] * both[1].copies + copies[:, 1]) * both[2].copies + copies[:, 2]
    return copy, (shifts[:, 0] * both[1].grid + shifts[:, 1]) * both[2].grid + shifts[:, 2]


def parted(weight, both) -> np.ndarray:
    """Weights (filters, channels, *taps) as those of parts, (filters, parts, channels, *r); zeros for missing taps."""
    parts = list(itertools.product(*(axis.parts for axis in both)))
    found = np.zeros((weight.shape[0], len(parts), weight.shape[1], *(axis.r for axis in both)), weight.dtype)
    for number, taps in enumerate(parts):
        box = (slice(None), number, slice(None), *(slice(len(t)) for t in taps))
        found[box] = weight[(slice(None), slice(None), *(slice(t.start, t.stop, t.step) for t in taps))]
    return found
