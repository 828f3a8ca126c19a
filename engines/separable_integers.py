"""Separable convolution of integers: passes of compiled loops, exact modulo 2^bits.

    out[d, h, w] = sum over c of  w_c ∗ (v_c ∗ (u_c ∗ x_c))            (u, v, w: depth, column and row vector)

Sums and products modulo 2^bits form a ring, so the order of the passes changes no bit of the result, nor does the
sign that an element's top bit has: signed and unsigned types are computed by the same code.  An axis along which all
vectors are constant (a box) takes *running sums* (M. McDonnell, Box-filtering techniques, 1981): what enters the
window is added and what leaves it is subtracted, whatever the window's size.  Rounded sums would keep the errors of
everything that ever went through the window, so floating-point types have none of this.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from convbench import settings
from convbench.engine import Engine
from convbench.machine import Machine
from convbench.spec import ConvSpec

from .direct import CALL_SECONDS, LOOP_SHARE
from .loops import PARALLEL_MACS
from .workers import run_all

AXES = "dhw"
# Operations are counted on the scale of `loops`, whose inner loop (a load, a multiply-add to a sum in the cache) is
# the passes' too; they are counts, not measurements.
CLEAR = 1  # setting a sum to zero
PREFIX = 2  # an element of a row's prefix sums: each waits for the one before, so no vectors
DIFFERENCE = 2  # an output from two of them


class IntegerSeparable(Engine):
    """Passes along one axis after the other for a weight whose pairs of channels are products of integer vectors.

    Parameters
    ----------
    spec : ConvSpec
        Two or three axes, of an integer dtype.
    vectors : tuple of ndarray [out_channels, in_channels / groups, k]
        For each axis of the kernel its vectors, as `lowrank.factorise_integers` gives them.
    """

    name = "separable"
    summary = "integer kernels of one product: passes along one axis after the other, running sums for boxes"
    exact_integers = True
    fuses_bias = True

    def __init__(self, spec: ConvSpec, vectors):
        self._vectors = vectors
        self._running = _running_axes(spec, [bool((v == v[..., :1]).all()) for v in vectors])
        running = "".join(axis for axis, runs in zip(AXES, self._running, strict=True) if runs)
        self.variant = f"1 term, running sums along {running}" if running else "1 term"

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """The weight that this engine was made for."""
        return None

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """A line and its sums of every thread, of three axes a plane too, and the vectors."""
        low, high = spec.padding[-1]
        elements = 2 * (low + spec.spatial[-1] + high)
        if spec.ndim == 3:
            elements += math.prod(spec.spatial[1:])
        return spec.itemsize * (settings.get_num_threads() * elements + sum(v.size for v in self._vectors))

    def error_bound(self, spec: ConvSpec) -> float:
        """Exact modulo 2^bits."""
        return 0.0

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """The passes' operations at the rate of plain loops, or the arrays through memory."""
        seconds = 2 * _steps(spec, self._running) / (machine.peak_flops("float32") * LOOP_SHARE)
        return CALL_SECONDS + max(seconds, spec.data_bytes / machine.bandwidth)

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Vectors modulo 2^bits, and scratch for every thread."""
        return IntegerPlan(spec, self._vectors, self._running, bias)


class IntegerPlan:
    """``plan(x, out)``: output rows shared among threads, everything lifted to three spatial dimensions."""

    def __init__(self, spec, vectors, running, bias=None):
        self._signed = f"int{8 * spec.itemsize}"
        ones = (1,) * (3 - spec.ndim)
        lows = (0,) * len(ones) + tuple(low for low, _ in spec.padding)
        self._geometry = np.array([ones + spec.stride, ones + spec.dilation, lows], np.int64)
        self._x_shape = (*spec.input_shape[:2], *ones, *spec.spatial)
        self._out_shape = (*spec.output_shape[:2], *ones, *spec.output_spatial)
        lifted = [np.ones((*spec.weight_shape[:2], 1), object)] * len(ones) + list(vectors)
        self._vectors = tuple(self._wrapped(vector, spec.itemsize) for vector in lifted)
        self._running = running
        bias = np.zeros(spec.out_channels, spec.dtype) if bias is None else bias
        self._bias = np.array(bias, spec.dtype).view(self._signed)
        self._groups = spec.groups
        rows = math.prod(self._out_shape[:-1])
        threads = settings.get_num_threads() if _steps(spec, running) >= PARALLEL_MACS else 1
        cuts = np.linspace(0, rows, min(threads, rows) + 1).astype(int).tolist()
        self._parts = [(*cut, *self._scratch(spec)) for cut in itertools.pairwise(cuts)]
        scratch = (array for part in self._parts for array in part[2:])
        self.nbytes = sum(array.nbytes for array in (*self._vectors, self._bias, *scratch))

    def _wrapped(self, vector, itemsize):
        """Python integers modulo 2^bits."""
        low_bits = vector & ((1 << 8 * itemsize) - 1)
        return np.ascontiguousarray(low_bits.astype(f"uint{8 * itemsize}")).view(self._signed)

    def _scratch(self, spec):
        """A plane, a padded line whose padding stays zero, and its prefix sums."""
        width = spec.spatial[-1] + sum(spec.padding[-1])
        plane = self._x_shape[3:] if self._vectors[0].shape[2] > 1 else (0, 0)
        return np.empty(plane, self._signed), np.zeros(width, self._signed), np.zeros(width + 1, self._signed)

    def __call__(self, x, out):
        from .separable_passes import filter_rows

        x, out = x.view(self._signed).reshape(self._x_shape), out.view(self._signed).reshape(self._out_shape)
        arguments = x, self._vectors, self._bias, out, self._geometry, self._running, self._groups
        run_all([partial(filter_rows, *arguments, *part) for part in self._parts])


def _running_axes(spec, constant):
    """For each of three axes, whether its pass takes running sums, where its vectors are `constant`."""
    lift = (True,) * (3 - spec.ndim)
    able = [c and d == 1 for c, d in zip(constant, spec.dilation, strict=True)]
    fewer = [2 * s < k for s, k in zip(spec.stride[:-1], spec.kernel[:-1], strict=True)]
    fewer.append(_row_steps(spec, True) < _row_steps(spec, False))
    return (False,) * len(lift) + tuple(a and f for a, f in zip(able, fewer, strict=True))


def _steps(spec, running):
    """Operations of all passes."""
    ones = (1,) * (3 - spec.ndim)
    kernel, stride, out = ones + spec.kernel, ones + spec.stride, ones + spec.output_spatial
    down = [2 * s if runs else k + CLEAR for k, s, runs in zip(kernel, stride, running, strict=True)]
    height, width = (*ones, *spec.spatial)[1:]
    depths = out[0] * height * width * down[0] if kernel[0] > 1 else 0
    columns = out[0] * out[1] * width * down[1]
    rows = out[0] * out[1] * _row_steps(spec, running[2])
    return spec.batch * spec.out_channels * spec.weight_shape[1] * (depths + columns + rows)


def _row_steps(spec, runs):
    """Operations of the pass along one row."""
    if not runs:
        return spec.output_spatial[-1] * spec.kernel[-1]
    return PREFIX * (spec.spatial[-1] + sum(spec.padding[-1])) + DIFFERENCE * spec.output_spatial[-1]
