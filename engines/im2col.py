"""Convolution as one matrix product: patches gathered into columns, times the weight matrix.

    Y (O × P) = W (O × K) · X̃ (K × P),   K = C/groups · prod(kernel), P output positions

(K. Chellapilla, S. Puri, P. Simard, High Performance Convolutional Neural Networks for Document
Processing, 2006.)  The patch matrix is gathered a band of output rows at a time, so that it stays
in the cache and its size does not grow with the image; a 1×1 kernel with stride 1 needs no copy at
all.  It wins where the BLAS does: many channels on both sides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from convbench.engine import Engine
from convbench.machine import Machine
from convbench.spec import ConvSpec

BAND_BYTES = 4 << 20  # of the patch matrix; 1 to 8 MiB are alike on a 2-core Zen 5 VM (2026-11)
BLAS_VECTOR_BYTES = 32  # NumPy's OpenBLAS runs its AVX2 kernels on AMD processors ...
GEMM_SHARE = 0.83  # ... at this share of their peak: sgemm 2048³ at 236 GFLOP/s on the same machine
THIN_ROWS = 24  # a product of fewer output channels than about this spends its time reading columns
GATHER_BYTES_PER_SECOND = 6e9  # a strided NumPy copy, on one core
DTYPES = ("float32", "float64", "complex64", "complex128")


class Im2col(Engine):
    """Patches gathered into columns, times the weight matrix, by NumPy's BLAS."""

    name = "im2col"
    summary = "patch matrix times weight matrix, by NumPy's BLAS, in cache-sized bands"
    exact_integers = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """The types that BLAS multiplies."""
        if spec.dtype in DTYPES:
            return None
        return f"im2col computes {', '.join(DTYPES)}, as BLAS does; not {spec.dtype}"

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """The padded image of one batch item, a band of the patch matrix and of the products."""
        if _is_product(spec):
            return 0
        rows = _band_rows(spec)
        columns = rows * math.prod(spec.output_spatial[1:])
        band = columns * (spec.groups * spec.taps + spec.out_channels)
        return spec.itemsize * (band + _padded_elements(spec)) + math.prod(spec.weight_shape) * spec.itemsize

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Gathering on one core, then a GEMM whose share of the peak falls with few output channels."""
        filters = spec.out_channels // spec.groups
        share = GEMM_SHARE * filters / (filters + THIN_ROWS)
        multiply = 2 * spec.macs / (machine.peak_flops(spec.dtype, BLAS_VECTOR_BYTES) * share)
        gather = 0.0
        if not _is_product(spec):
            patches = spec.batch * spec.groups * spec.taps * math.prod(spec.output_spatial)
            gather = spec.itemsize * (patches + spec.batch * _padded_elements(spec)) / GATHER_BYTES_PER_SECOND
        bands = spec.batch * -(-spec.output_spatial[0] // _band_rows(spec))
        return machine.call_seconds + 1e-5 * bands + gather + multiply

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Reshape the weight; allocate the padded image and the band."""
        matrix = np.array(weight).reshape(spec.groups, -1, spec.taps)
        return _Product(spec, matrix) if _is_product(spec) else _Bands(spec, matrix)


def _is_product(spec):
    """A 1×1 kernel with stride 1 and no padding: the input is the patch matrix."""
    ones = (1,) * spec.ndim
    return spec.kernel == ones == spec.stride and not any(map(any, spec.padding))


def _padded_elements(spec):
    padded = math.prod(i + low + high for i, (low, high) in zip(spec.spatial, spec.padding, strict=True))
    return spec.in_channels * padded


def _band_rows(spec):
    """Rows (of the first spatial axis) whose patches fill about `BAND_BYTES`."""
    row = spec.groups * spec.taps * math.prod(spec.output_spatial[1:]) * spec.itemsize
    return max(1, min(spec.output_spatial[0], BAND_BYTES // max(row, 1)))


class _Product:
    """``plan(x, out)`` without a copy."""

    def __init__(self, spec, matrix):
        self._matrix = matrix
        self._groups = spec.groups
        self.nbytes = matrix.nbytes

    def __call__(self, x, out):
        with np.errstate(all="ignore"):  # NaN and Inf are data here
            self._multiply(x, out)

    def _multiply(self, x, out):
        for item, result in zip(x, out, strict=True):
            columns = item.reshape(self._groups, self._matrix.shape[2], -1)
            np.matmul(self._matrix, columns, out=result.reshape(self._groups, self._matrix.shape[1], -1))


class _Bands:
    """``plan(x, out)``: pad one item, then gather and multiply band by band."""

    def __init__(self, spec, matrix):
        self._spec = spec
        self._matrix = matrix
        pads = spec.padding
        self._padded = np.zeros(
            (spec.in_channels, *(i + low + high for i, (low, high) in zip(spec.spatial, pads, strict=True))), spec.dtype
        )
        inside = tuple(slice(low, low + size) for (low, _), size in zip(pads, spec.spatial, strict=True))
        self._inside = self._padded[(slice(None), *inside)]
        self._rows = _band_rows(spec)
        band = (spec.groups, spec.taps, self._rows * math.prod(spec.output_spatial[1:]))
        self._band = np.empty(math.prod(band), spec.dtype)
        self._result = np.empty(spec.out_channels * band[2], spec.dtype)
        self._patches = self._patch_view()
        self.nbytes = sum(part.nbytes for part in (matrix, self._padded, self._band, self._result))

    def _patch_view(self):
        """(groups, C/groups, *kernel, *output) as strides of the padded item: nothing is copied."""
        spec = self._spec
        item, *steps = self._padded.strides
        channels = spec.in_channels // spec.groups
        shape = (spec.groups, channels, *spec.kernel, *spec.output_spatial)
        taps = (step * d for step, d in zip(steps, spec.dilation, strict=True))
        moves = (step * s for step, s in zip(steps, spec.stride, strict=True))
        return as_strided(self._padded, shape, (item * channels, item, *taps, *moves), writeable=False)

    def __call__(self, x, out):
        for item, result in zip(x, out, strict=True):
            self._inside[...] = item
            with np.errstate(all="ignore"):  # NaN and Inf are data here
                for first in range(0, self._spec.output_spatial[0], self._rows):
                    self._compute(first, result)

    def _compute(self, first, result):
        spec = self._spec
        last = min(first + self._rows, spec.output_spatial[0])
        positions = (last - first) * math.prod(spec.output_spatial[1:])
        before = (slice(None),) * (2 + spec.ndim)
        gathered = self._band[: spec.groups * spec.taps * positions]
        patches = self._patches[(*before, slice(first, last))]
        gathered.reshape(patches.shape)[...] = patches
        columns = gathered.reshape(spec.groups, spec.taps, positions)
        product = self._result[: spec.out_channels * positions].reshape(spec.groups, -1, positions)
        np.matmul(self._matrix, columns, out=product)
        result[:, first:last] = product.reshape(spec.out_channels, last - first, *spec.output_spatial[1:])
