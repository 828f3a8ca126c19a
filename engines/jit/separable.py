"""Separable filters: sums of products of a row and a column filter, both passes in the cache.

    out[n, o, y, x] = bias[o] + sum over t, ky of  column[o, t, ky]
                                  * sum over kx of  row[o, t, kx] * x[source(n, o, t), s y + d ky - p, s x + d kx - p]

A kernel of k x k that is a product costs 2 k multiply-adds instead of k².  `separable_kernel` says how it runs.
"""

import math

import numpy as np

from . import separable_kernel
from .compile import address
from .frames import FramePlan
from .separable_layout import Layout, Problem
from .target import target
from .vector import Code
from .wide import TASKS_PER_THREAD


class SeparablePlan(FramePlan):
    """`Problem`, ready to run."""

    def __init__(self, problem, *, isa=None):
        machine = target(isa)
        layout = Layout(problem, machine)
        words, arrays = layout.words(), layout.arrays()
        items = words["images"] * words["strips"] * words["bands"]
        tasks = min(items, layout.threads * TASKS_PER_THREAD) if layout.threads > 1 else 1
        words.update(layout.functions(machine))
        key = problem.dtype, layout.shifted

        def write(module):
            separable_kernel.write_task(Code(module, "task", machine, "pii"), *key)

        task = address("task", ("separable", *key), machine, write)
        super().__init__(task, separable_kernel.FRAME, words, arrays, tasks, layout.scratch_bytes)


def plan(spec, axes, bias=None, *, isa=None):
    """``plan(x, out)`` for `spec` with a weight's factors.

    Parameters
    ----------
    spec : ConvSpec
        Two or three axes, channels first, float32 or float64.
    axes : tuple of ndarray [out_channels, in_channels / groups, terms, k]
        For each axis of the kernel its vectors.
    bias : ndarray [out_channels], optional
    isa : str, optional
        Instruction set level, as `target` takes it.
    """
    bias = np.zeros(spec.out_channels) if bias is None else bias
    vectors = [axis.reshape(spec.out_channels, -1, axis.shape[-1]) for axis in axes]
    filters, channels = np.indices((spec.out_channels, axes[0].shape[1])).reshape(2, spec.out_channels, -1)
    planes = filters // (spec.out_channels // spec.groups) * channels.shape[1] + channels
    planes = np.arange(spec.batch)[:, None, None] * spec.in_channels + np.repeat(planes, axes[0].shape[2], axis=1)
    outputs = np.tile(np.arange(spec.out_channels), spec.batch)
    if spec.ndim == 2:
        return SeparablePlan(
            Problem(*_axes(spec, (0, 1)), spec.dtype, planes.reshape(len(outputs), -1), outputs, *vectors[::-1], bias),
            isa=isa,
        )
    return _ThreeAxes(spec, vectors, planes, outputs, bias, isa)


def _axes(spec, which):
    """Size, kernel, stride, dilation, low padding and output size of some axes of a spec."""
    lows = [low for low, _ in spec.padding]
    every = spec.spatial, spec.kernel, spec.stride, spec.dilation, lows, spec.output_spatial
    return [tuple(values[axis] for axis in which) for values in every]


class _ThreeAxes:
    """Rows and columns of every plane and term into memory, then the depths of all of them."""

    def __init__(self, spec, vectors, planes, outputs, bias, isa):
        depths, columns, rows = vectors
        count, depth = depths.shape[1], spec.spatial[0]
        between = _axes(spec, (1, 2))
        sources = planes.reshape(-1, 1) * depth + np.arange(depth)  # [images and terms, depth]
        filters = np.repeat(np.arange(spec.out_channels * count), depth)
        self._first = SeparablePlan(
            Problem(
                *between,
                spec.dtype,
                sources.reshape(-1, 1),
                np.tile(filters, spec.batch),
                rows.reshape(-1, 1, rows.shape[-1]),
                columns.reshape(-1, 1, columns.shape[-1]),
                np.zeros(spec.out_channels * count),
            ),
            isa=isa,
        )
        pixels = math.prod(spec.output_spatial[1:])
        down = zip(_axes(spec, (0,)), (pixels, 1, 1, 1, 0, pixels), strict=True)
        self._last = SeparablePlan(
            Problem(
                *((along[0], across) for along, across in down),
                spec.dtype,
                np.arange(len(outputs) * count).reshape(-1, count),
                outputs,
                np.ones((spec.out_channels, count, 1)),
                depths,
                bias,
            ),
            isa=isa,
        )
        self._between = np.empty((len(outputs), count, depth, pixels), spec.dtype)

    @property
    def nbytes(self):
        """Bytes that both plans and the planes between them hold."""
        return self._first.nbytes + self._last.nbytes + self._between.nbytes

    def __call__(self, x, out):
        self._first(x, self._between)
        self._last(self._between, out)
