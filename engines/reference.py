"""The definition.

    out[n, o, p] = sum over c, t of  x[n, g·C/groups + c, p·s + t·d - l] · w[o, c, t]

One loop over groups and one over kernel taps; each tap adds its product to every output at once.
Sums are kept in a wider type (float64 for float32, extended precision for float64 where the
machine has it, 64-bit integers for integers) and rounded once at the end, so this is the result
that every other engine is measured by.  It wins nowhere.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from convbench.engine import Engine, unit_roundoff
from convbench.machine import Machine
from convbench.spec import ConvSpec

BAND_ELEMENTS = 1 << 16  # of a band's input or output, 512 KiB of float64: 18 s became 1.6 s at 1024², 31×31
MACS_PER_SECOND = 5e8  # few channels; many go through BLAS and are 20 times as fast (2-core Zen 4 VM, 2026-11)
EXTENDED_SLOWDOWN = 10  # extended precision has no vector unit and no BLAS

_ACCUMULATE = {
    "float16": "float64",
    "bfloat16": "float64",
    "float32": "float64",
    "float64": np.dtype(np.longdouble).name,
    "complex64": "complex128",
    "complex128": np.dtype(np.clongdouble).name,
}


def accumulator(dtype: str) -> np.dtype:
    """The type that sums of `dtype` products are kept in."""
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return np.dtype("uint64" if kind == "u" else "int64")
    return np.dtype(_ACCUMULATE.get(dtype, dtype))


class Reference(Engine):
    """The definition, in readable loops: slow, always right."""

    name = "reference"
    summary = "the definition, summed tap by tap in a wider type"
    exact_integers = True
    fuses_bias = True
    automatic = False

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Takes every numeric dtype; integers wrap like NumPy's when a sum leaves their range."""
        if np.dtype(spec.dtype).kind in "iufc" or spec.dtype == "bfloat16":
            return None
        return f"reference computes floating, complex and integer numbers, not {spec.dtype}"

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """A padded copy of the input, the weight and the sums, all in the wide type."""
        wide = accumulator(spec.dtype).itemsize
        padded = math.prod(i + low + high for i, (low, high) in zip(spec.spatial, spec.padding, strict=True))
        elements = spec.batch * spec.in_channels * padded + math.prod(spec.weight_shape)
        return wide * (elements + 2 * math.prod(spec.output_shape))

    def error_bound(self, spec: ConvSpec) -> float:
        """One rounding at the end, and K of the wide type."""
        u, wide = unit_roundoff(spec.dtype), unit_roundoff(accumulator(spec.dtype).name)
        return (u + (spec.taps + 2) * max(wide, 0.0)) * 1.01

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Proportional to the products."""
        slow = EXTENDED_SLOWDOWN if "128" in accumulator(spec.dtype).name else 1
        return 1e-4 + slow * spec.macs / MACS_PER_SECOND

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Keep weight and bias in the wide type."""
        wide = accumulator(spec.dtype)
        weight = weight.astype(wide)
        bias = np.zeros(spec.out_channels, wide) if bias is None else bias.astype(wide)
        bias = bias.reshape(-1, *(1,) * spec.ndim)

        def run(x, out):
            with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf are data here
                out[...] = correlate(spec, x.astype(wide), weight) + bias

        return run

    def sums(self, spec: ConvSpec, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The result before it is rounded, in the wide type: what the equality check compares with."""
        wide = accumulator(spec.dtype)
        return correlate(spec, x.astype(wide), weight.astype(wide))


def correlate(spec: ConvSpec, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sum itself, in the arrays' own type, a band of output rows at a time so that it stays in the cache."""
    padded = np.pad(x, ((0, 0), (0, 0), *spec.padding))
    out = np.zeros(spec.output_shape, x.dtype)
    if spec.is_empty:
        return out
    channels, filters = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    taps = np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-2, -1)))  # (*kernel, O, C/groups): a matrix per tap
    row = spec.batch * max(channels, filters) * math.prod(spec.output_spatial[1:])
    rows = max(1, BAND_ELEMENTS // row)
    for group in range(spec.groups):
        inputs = padded[:, group * channels : (group + 1) * channels]
        outputs = slice(group * filters, (group + 1) * filters)
        for first in range(0, spec.output_spatial[0], rows):
            band = slice(first, min(first + rows, spec.output_spatial[0]))
            out[:, outputs, band] = _band(spec, inputs, taps[..., outputs, :], band)
    return out


def _band(spec, inputs, taps, band):
    """Output rows `band` of one group: every tap's weights times the inputs it meets."""
    shape = (spec.batch, taps.shape[-2], band.stop - band.start, *spec.output_spatial[1:])
    sums = np.zeros((spec.batch, taps.shape[-2], math.prod(shape[2:])), inputs.dtype)
    for tap in itertools.product(*map(range, spec.kernel)):
        window = inputs[(..., *_positions(spec, tap, band))]
        columns = window.reshape(spec.batch, window.shape[1], -1)
        # One channel needs no matrix product, which NumPy computes without vectors where it has no BLAS.
        sums += taps[tap] * columns if columns.shape[1] == 1 else taps[tap] @ columns
    return sums.reshape(shape)


def _positions(spec, tap, band):
    """Per axis, where a kernel tap reads for the outputs of a band."""
    ranges = [(band.start, band.stop), *((0, size) for size in spec.output_spatial[1:])]
    return tuple(
        slice(t * d + first * s, t * d + (last - 1) * s + 1, s)
        for t, d, s, (first, last) in zip(tap, spec.dilation, spec.stride, ranges, strict=True)
    )
