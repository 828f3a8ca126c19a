"""Convolution as one matrix product: patches gathered into columns, times the weight matrix.

    Y (O × P) = W (O × K) · X̃ (K × P),   K = C/groups · prod(kernel), P output positions

(K. Chellapilla, S. Puri, P. Simard, High Performance Convolutional Neural Networks for Document
Processing, 2006.)  X̃ is made in blocks that stay in the cache, never as a whole.  float32 and float64
are gathered and multiplied by generated code, block by block on one thread each (`jit.patches`); complex
numbers, and processors that no code is generated for, by NumPy and its BLAS, whose own threads share a
product.  A 1×1 kernel with stride 1 needs no patches at all; a kernel of one column without padding, and one of up to
32 output channels, none that are not views: what the products read lies in the input.

It is direct convolution plus a copy, so it wins by a little where the copy pays: rows of the input that
lie on too many pages, or far too wide strides.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

from convbench import forks
from convbench.engine import Engine
from convbench.machine import FMA_PIPES, Machine
from convbench.settings import get_num_threads
from convbench.spec import ConvSpec

from .direct import GENERATED_DTYPES, Direct, generates_code, works
from .jit.patches_layout import LANE_BYTES, ROOM_BYTES, WIDE_ROWS, Layout, views

BAND_BYTES = 4 << 20  # of BLAS' patch matrix; 1 to 8 MiB are alike on a 2-core Zen 5 VM (2026-11)
BLAS_VECTOR_BYTES = 32  # NumPy's OpenBLAS runs its AVX2 kernels on AMD processors ...
GEMM_SHARE = 0.83  # ... at this share of their peak: sgemm 2048³ at 236 GFLOP/s on the same machine
THIN_ROWS = 24  # a product of fewer output channels than about this spends its time reading columns
BLAS_GATHER_BYTES_PER_SECOND = 6e9  # a strided NumPy copy, on one core
# Generated code, against `direct` on the same problem's products, 2-core Cascade Lake VM (2026-11): a
# product reads its patches from the second-level cache. Copies are made at so many bytes per second.
PRODUCT_FACTOR = 1.1
GATHER_BYTES_PER_SECOND, ROW_SECONDS = 30e9, 3e-9  # on a core of a Zen 5 VM (2026-11), and for each row besides
FAR_BYTES_PER_SECOND = 10e9  # of weights or patches much larger than the second-level cache, per core
CACHE_BYTES = 4 << 20
CALL_SECONDS = 2e-6
VIEW_FACTOR = 1.1  # a view is `direct` itself: predictions leave it to that name
WIDE_FILTERS = 4  # that always go along the pixels, however many patches there are
WIDE_SHARE = 1.25  # of its cost by the model that a product along the pixels takes, reading patches from the cache
FEW_FILTERS = 32  # of a group: one tile of channels, so that a copy would be read once only
PLAN_BYTES, TASK_BYTES = 1 << 16, 88  # tables of a product, and of a block
PACKINGS = 2  # of the weights, at most: for blocks of different sizes
DTYPES = (*GENERATED_DTYPES, "complex64", "complex128")


class Im2col(Engine):
    """Patches gathered into columns, times the weight matrix."""

    name = "im2col"
    version = "15"
    summary = "patch matrix times weight matrix, in blocks that stay in the cache"
    exact_integers = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """The types that BLAS multiplies."""
        if spec.dtype in DTYPES:
            return None
        return f"im2col computes {', '.join(DTYPES)}, as BLAS does; not {spec.dtype}"

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Packed weights and each thread's block of patches; with BLAS a padded image and a band of both matrices."""
        if spec.dtype not in GENERATED_DTYPES:
            return _blas_bytes(spec)
        if _is_view(spec):
            return Direct().workspace_bytes(spec)
        return (
            PACKINGS * Direct().workspace_bytes(_product(spec))
            + _layout(spec, get_num_threads()).block_bytes() * get_num_threads()
        )

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """The product's time by `direct`'s model, and that of the copies."""
        if spec.dtype not in GENERATED_DTYPES:
            return _blas_seconds(spec, machine)
        if _is_view(spec):
            return CALL_SECONDS + VIEW_FACTOR * Direct().predict_seconds(spec, machine)
        layout = _layout(spec, machine.threads)
        rows = layout.copied_elements / layout.output[2] * len(layout.widths)
        copied = spec.itemsize * layout.copied_elements / GATHER_BYTES_PER_SECOND + rows * ROW_SECONDS
        kind = Direct("wide" if layout.wide else "dense")
        product = PRODUCT_FACTOR * kind.predict_seconds(_product(spec), machine)
        return CALL_SECONDS + product + (copied + _far_bytes(spec, layout) / FAR_BYTES_PER_SECOND) / machine.threads

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Pack the weight, cut the work into blocks, and generate what code is not there yet."""
        if spec.dtype in GENERATED_DTYPES and generates_code():
            if _is_view(spec):
                return Direct().plan(spec, weight)
            with forks.held_off:
                from .jit.patches import PatchPlan

            return PatchPlan(spec, weight, wide=_is_wide(spec))
        matrix = np.array(weight).reshape(spec.groups, -1, spec.taps)
        return _Product(spec, matrix) if _is_product(spec) else _Bands(spec, matrix)


def _is_product(spec):
    """A 1×1 kernel with stride 1 and no padding: the input is the patch matrix."""
    ones = (1,) * spec.ndim
    return spec.kernel == ones == spec.stride and not any(map(any, spec.padding))


def _is_view(spec):
    """Whether nothing is copied, because the patch matrix is a strided view of the input as it lies or is padded.

    That is so for a kernel of one column without padding or stride.  And for few output channels of several input
    channels a copy would cost as much as the products that it serves (512 -> 24 channels, 3x3: 0.69 of the speed): the
    columns of their products are read through the tables of `direct`, at any stride.
    """
    few = spec.out_channels // spec.groups <= FEW_FILTERS and spec.in_channels // spec.groups > 1
    return few or (spec.kernel[-1] == 1 and set(spec.stride) == {1} and not any(map(any, spec.padding)))


@lru_cache(maxsize=1024)
def _layout(spec, threads):
    return Layout.of(spec, threads, _is_wide(spec))


def _far_bytes(spec, layout):
    """Bytes from beyond the second-level cache: weights for every block, and patches for every 32 channels."""
    filters = spec.out_channels // spec.groups
    weights, patches = filters * spec.taps * spec.itemsize, layout.block_bytes()
    return (
        layout.block_count
        * spec.groups
        * sum(read for read in (weights, patches * -(-filters // 32)) if read > CACHE_BYTES)
    )


def _is_wide(spec):
    """Whether the product's vectors lie along the pixels: where they are well filled, and patches are not too many.

    (Few output channels leave no choice: one takes 20 times as long along the channels.)
    """
    product = _product(spec)
    channels, filters = product.in_channels // product.groups, product.out_channels // product.groups
    fits = channels * (WIDE_ROWS + product.kernel[0]) * LANE_BYTES <= ROOM_BYTES
    costs = works(product, FMA_PIPES)
    return channels > 1 and (fits or filters <= WIDE_FILTERS) and costs["wide"] <= WIDE_SHARE * costs["dense"]


@lru_cache(maxsize=1024)
def _product(spec):
    """One problem for all products: the copied taps are channels, the others a kernel of one column."""
    rows = views(spec)
    copies = (
        -(-spec.kernel[-2] // rows) * math.prod(spec.kernel) // spec.kernel[-2] if spec.ndim > 1 else spec.kernel[0]
    )
    dilation = spec.dilation[-2] if rows > 1 == spec.stride[-2] else 1
    height = math.prod(spec.output_spatial[:-1]) + (rows - 1) * dilation
    return ConvSpec(
        spec.batch,
        spec.in_channels * copies,
        spec.out_channels,
        spatial=(height, spec.output_spatial[-1]),
        kernel=(rows, 1),
        dilation=(dilation, 1),
        groups=spec.groups,
        dtype=spec.dtype,
    )


def _blas_bytes(spec):
    """The padded image of one batch item, a band of the patch matrix and of the products."""
    weight = math.prod(spec.weight_shape) * spec.itemsize
    if _is_product(spec):
        return weight
    columns = _band_rows(spec) * math.prod(spec.output_spatial[1:])
    band = columns * (spec.groups * spec.taps + spec.out_channels)
    return spec.itemsize * (band + _padded_elements(spec)) + weight


def _blas_seconds(spec, machine):
    """Gathering on one core, then a product whose share of the peak falls with few output channels."""
    filters = spec.out_channels // spec.groups
    share = GEMM_SHARE * filters / (filters + THIN_ROWS)
    multiply = 2 * spec.macs / (machine.peak_flops(spec.dtype, BLAS_VECTOR_BYTES) * share)
    gather = 0.0
    if not _is_product(spec):
        patches = spec.batch * spec.groups * spec.taps * math.prod(spec.output_spatial)
        gather = spec.itemsize * (patches + spec.batch * _padded_elements(spec)) / BLAS_GATHER_BYTES_PER_SECOND
    bands = spec.batch * -(-spec.output_spatial[0] // _band_rows(spec))
    return machine.call_seconds + 1e-5 * bands + gather + multiply


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
