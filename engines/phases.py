"""Dilation by phases: a convolution of stride 1 and dilation d is d undilated ones, on every d-th element each.

    y[q·d + p] = sum over k of w[k] · x[(q + k)·d + p] = sum over k of w[k] · x_p[q + k],    x_p = x[p::d]

per axis, so d_h · d_w of them on images: a batch.  An engine whose tiles are made of neighbouring outputs, such as
Winograd's, computes that batch.  Zero padding becomes zeros in the phases, so the batch has none; where the size does
not divide, its last outputs are of windows that reach further, into zeros, and are dropped.

The copies pay where the engine saves more than two passes over input and output, so for many channels.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np

from convbench.machine import Machine
from convbench.spec import ConvSpec

# Counted, not measured: NumPy copies elements at a distance one at a time, a load, a store and two steps each, and
# advances its iterator from one run of neighbours (in the phases) to the next.
ELEMENT_CYCLES = 2
RUN_CYCLES = 20


def undilated(spec: ConvSpec) -> ConvSpec:
    """The batch of phases that `spec`, of stride 1, consists of; `spec` itself where nothing is dilated.

    Image n's phases follow each other, the last axis' fastest.  Phases without outputs are left out, so inputs that
    no window covers are never read.
    """
    return _batch(spec) if is_dilated(spec) else spec


@lru_cache(maxsize=1024)
def _batch(spec):
    per_phase = _per_phase(spec)
    return spec.replace(
        batch=spec.batch * math.prod(_phases(spec)),
        spatial=tuple(q + k - 1 for q, k in zip(per_phase, spec.kernel, strict=True)),
        padding=0,
        dilation=1,
    )


def is_dilated(spec: ConvSpec) -> bool:
    """Whether taps lie apart along any axis; a single tap has no distance."""
    return max(_dilation(spec)) > 1


def copies_bytes(spec: ConvSpec) -> int:
    """What a `PhasedPlan` holds beside the plan of the phases: their inputs and outputs."""
    if not is_dilated(spec):
        return 0
    inner = undilated(spec)
    return (math.prod(inner.input_shape) + math.prod(inner.output_shape)) * spec.itemsize


def copies_seconds(spec: ConvSpec, machine: Machine) -> float:
    """Predicted time of the copies, by one thread: elements one by one, or read and written through memory."""
    if not is_dilated(spec):
        return 0.0
    inner = undilated(spec)
    elements = runs = 0
    for shape in (inner.input_shape, inner.output_shape):
        elements += math.prod(shape)
        runs += math.prod(shape[:-1])
    cycles = ELEMENT_CYCLES * elements + RUN_CYCLES * runs
    return max(cycles / machine.hertz, 2 * elements * spec.itemsize * machine.threads / machine.bandwidth)


def _dilation(spec):
    return tuple(d if k > 1 else 1 for k, d in zip(spec.kernel, spec.dilation, strict=True))


def _phases(spec):
    """Phases with outputs, per axis."""
    return tuple(min(d, out) for d, out in zip(_dilation(spec), spec.output_spatial, strict=True))


def _per_phase(spec):
    """Outputs of the longest phase, per axis."""
    return tuple(-(-out // d) for d, out in zip(_dilation(spec), spec.output_spatial, strict=True))


class PhasedPlan:
    """``plan(x, out)`` of a dilated problem, by a plan of its phases.

    Parameters
    ----------
    spec : ConvSpec
        Dilated, stride 1, channels first.
    plan : callable
        Of ``undilated(spec)``.

    Attributes
    ----------
    nbytes : int
        Bytes of the phases' inputs and outputs, and of `plan`.

    Notes
    -----
    A call returns what `plan` returns.  One thread at a time may call it, as any plan of an engine.
    """

    def __init__(self, spec, plan):
        inner = undilated(spec)
        self._plan = plan
        # Zeros, because no call writes where the padding lies.
        self._inputs = np.zeros(inner.input_shape, spec.dtype)
        self._outputs = np.empty(inner.output_shape, spec.dtype)
        low = tuple(low for low, _ in spec.padding)
        self._gather = _parts(spec, self._inputs, spec.spatial, low)
        self._scatter = _parts(spec, self._outputs, spec.output_spatial, (0,) * spec.ndim)
        self.nbytes = plan.nbytes + self._inputs.nbytes + self._outputs.nbytes

    def __call__(self, x, out):
        """Compute `out` from `x`, both C-contiguous; nothing is checked."""
        for part in self._gather:
            part.of_phases[...] = part.of(x)
        result = self._plan(self._inputs, self._outputs)
        for part in self._scatter:
            part.of(out)[...] = part.of_phases
        return result


class _Part:
    """A box of an array (N, C, *spatial) that is one box of its phases, too: whole periods, or a part of one."""

    def __init__(self, phases, stretches):
        places, periods = [s.places for s in stretches], [s.phases for s in stretches]
        box = phases[(slice(None), *periods, slice(None), *places)]
        ndim = len(stretches)
        axes = (axis for i in range(ndim) for axis in (2 + ndim + i, 1 + i))
        #: The box in the phases, with axes (N, C, place, phase, ...).
        self.of_phases = box.transpose(0, 1 + ndim, *axes)
        self._index = (..., *(s.elements for s in stretches))
        self._shape = tuple(size for s in stretches for size in s.shape)
        self._kept = (..., *(index for s in stretches for index in (slice(None), slice(s.kept))))

    def of(self, array):
        """The box in `array`, a view with the same axes."""
        box = array[self._index]
        return box.reshape(*box.shape[:2], *self._shape)[self._kept]


class _Stretch:
    """Part of an axis that is a rectangle of places × phases.

    Attributes
    ----------
    elements : slice
        Of the axis.
    shape : tuple of int
        Their rectangle, and `kept` how many of its columns have a phase.
    places, phases : slice
        The rectangle among the axis' phases.
    """

    def __init__(self, first, place, phase, rows, columns, phases):
        self.elements = slice(first, first + rows * columns)
        self.shape = rows, columns
        self.places = slice(place, place + rows)
        self.phases = slice(phase, min(phase + columns, phases))
        self.kept = max(0, self.phases.stop - phase)


def _stretches(size, low, dilation, phases):
    """An axis of `size` elements behind `low` zeros: the rest of a period, whole periods, the begin of one."""
    first = 0
    while first < size:
        place, phase = divmod(low + first, dilation)
        rows, columns = 1, min(dilation - phase, size - first)
        if phase == 0 and columns == dilation:
            rows = (size - first) // dilation
        if phase < phases:
            yield _Stretch(first, place, phase, rows, columns, phases)
        first += rows * columns


def _parts(spec, phases, sizes, low):
    """The parts of an array of so many elements per axis, and of its `phases`."""
    dilation, counts = _dilation(spec), _phases(spec)
    batch = phases.reshape(spec.batch, *counts, *phases.shape[1:])
    axes = (_stretches(*axis) for axis in zip(sizes, low, dilation, counts, strict=True))
    return [_Part(batch, stretches) for stretches in itertools.product(*axes)]
