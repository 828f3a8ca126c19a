"""Strides by phases: a convolution of stride s is a sum of s of stride 1, each of every s-th element and tap.

    y[i] = sum over k of w[k] · x[s·i + k] = sum over p < s and j of w[s·j + p] · x_p[i + j],    x_p[i] = x[s·i + p]

per axis.  So minimal filtering sees s_h · s_w times as many channels, with kernels of r = ⌈k / s⌉ taps; 3×3 taps of
stride 2 on 4×4 outputs need 81 products instead of 144.  Phases of one tap less have a zero as their last one, and
the product at infinity is with that tap alone: it is left out.  To leave it out by a range of channels they stand in
this order, by whether all taps are there down and across: no and yes, yes and yes, yes and no, no and no.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Axis:
    """A kernel's taps along an axis, and the stride.

    Attributes
    ----------
    taps, stride : int
    """

    taps: int
    stride: int

    @property
    def reduced(self) -> int:
        """Taps of a phase, at most."""
        return math.ceil(self.taps / self.stride)

    @property
    def phases(self) -> int:
        """Phases that have a tap."""
        return min(self.taps, self.stride)

    @property
    def full(self) -> int:
        """Phases, the first ones, that have all the taps; the others have one less."""
        return self.taps - self.stride * (self.reduced - 1)

    def taps_of(self, phase: int) -> int:
        """Taps of a phase."""
        return self.reduced - (phase >= self.full)


def axes(spec) -> tuple[Axis, ...]:
    """Every axis of a `ConvSpec`."""
    return tuple(itertools.starmap(Axis, zip(spec.kernel, spec.stride, strict=True)))


def down_across(spec) -> tuple[Axis, Axis]:
    """The axes of a plane; a lone one is across."""
    return (*[Axis(1, 1)] * (2 - spec.ndim), *axes(spec))


def phases(both) -> int:
    """How many phases the axes have together."""
    return math.prod(axis.phases for axis in both)


def places(down: Axis, across: Axis) -> np.ndarray:
    """Where each phase [down][across] stands in the order of channels."""
    kinds = [(False, True), (True, True), (True, False), (False, False)]
    every = itertools.product(range(down.phases), range(across.phases))
    order = sorted(every, key=lambda phase: kinds.index((phase[0] < down.full, phase[1] < across.full)))
    found = np.empty((down.phases, across.phases), np.int64)
    for place, phase in enumerate(order):
        found[phase] = place
    return found


def spans(down: Axis, across: Axis, outputs: tuple[int, int]) -> np.ndarray:
    """First phase and number of phases, in the order of `places`, whose product [down, across] is not with zeros."""
    products = [m + axis.reduced - 1 for m, axis in zip(outputs, (down, across), strict=True)]
    found = np.empty((*products, 2), np.int64)
    everything, missing = phases((down, across)), (down.phases - down.full) * across.full
    found[..., 0], found[..., 1] = 0, everything
    found[:, -1, 1] = down.phases * across.full
    found[-1, :, 0], found[-1, :, 1] = missing, down.full * across.phases
    found[-1, -1, 1] = down.full * across.full
    return found.reshape(-1, 2)


def phased(weight: np.ndarray, down: Axis, across: Axis) -> np.ndarray:
    """Weights (filters, channels, taps, taps) as those of the phases: (filters, phases, channels, taps, taps).

    Phases in the order of `places`; the taps that some lack are zeros.
    """
    filters, channels = weight.shape[:2]
    found = np.zeros((filters, phases((down, across)), channels, down.reduced, across.reduced), weight.dtype)
    for (q, p), place in np.ndenumerate(places(down, across)):
        part = weight[:, :, q :: down.stride, p :: across.stride]
        found[:, place, :, : part.shape[2], : part.shape[3]] = part
    return found
