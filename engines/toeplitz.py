"""Convolution as one matrix times vec(x).

    vec(y) = A · vec(x),   A of C/groups · prod(kernel) entries in each row (fewer at the border)

The textbook's (doubly block) Toeplitz matrix, for every rank, stride, dilation and group, built once in
the plan by `convbench.matrices` and applied to the batch as columns.

Dense, zeros and all, it is one matrix product with no border, no tap and no short row in it.  That wins
where images are tiny, have some channels, and come in batches (docs/kernels.md has the figures).  Larger
ones are sparse: CSR reads a column index beside every weight and wins nowhere.  Of SciPy's formats it is
the cheapest: blocks of channels (BSR) take 1.1 to 7 times as long, and DIA, the best at batch 1, stores
zeros that turn a NaN at one row's end into NaNs at the next row's start.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from convbench import forks, settings
from convbench.engine import Engine
from convbench.machine import Machine
from convbench.shapes import products_inside
from convbench.spec import ConvSpec

from .direct import GENERATED_DTYPES, generates_code
from .workers import run_all

MATRIX_LIMIT_BYTES = 256 << 20  # several times the largest caches: beyond it every call streams A from memory
DENSE_LIMIT_BYTES = 4 << 20  # a few times the second-level cache
INDEX_BYTES = 4  # SciPy's 32-bit indices, which a matrix within the limit never outgrows
# What `convbench.matrices` allocates while it builds, per product of one output channel: two
# positions and two flags, and per input channel a column before and after the mask, and the weight's 64-bit number.
POSITION_BYTES = 2 * INDEX_BYTES + 2
COLUMN_BYTES = 2 * INDEX_BYTES + 8
DTYPES = ("float32", "float64", "complex64", "complex128")
# SciPy 1.17 on one core of a 2-core Cascade Lake VM (2026-11), matrices of 500 to 5 million entries: products
# per second with one column, and with B columns so many times B / (B + 8); an empty product; starting threads.
ALONE_PER_SECOND = 0.85e9
TOGETHER_PER_SECOND, HALF_SPEED_COLUMNS = 4.3e9, 8
PRODUCT_SECONDS = 8e-6
TURNED_SECONDS = 1.5e-9  # of an element of a batch: items are columns of the product (16 x 871 x 871: 23 ms, Zen 5)
THREADS_SECONDS = 7e-5
SHARED_SECONDS = 3e-4  # of predicted work; below it a second thread costs more than it saves
# The dense product there: 105 GFLOP/s for 64×64 times 64 columns, 190 to 210 for 256×256 and larger, of a nominal
# peak of 448; with few columns it reads the matrix, at 23 (4 MiB) to 52 GB/s (256 KiB); the call and the look for NaN.
DENSE_SHARE, DENSE_FLOPS = 0.4, 150e9
DENSE_BYTES_PER_SECOND = 30e9
DENSE_SECONDS = 4e-6


class Toeplitz(Engine):
    """The matrix of the problem, dense or sparse, times the input."""

    name = "toeplitz"
    version = "2"
    summary = "the (doubly block) Toeplitz matrix, dense for tiny images, else SciPy's CSR, times vec(x)"
    exact_integers = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Everything but half precision and matrices over `MATRIX_LIMIT_BYTES`."""
        if spec.dtype not in DTYPES and np.dtype(spec.dtype).kind not in "iu":
            return (
                f"toeplitz computes {', '.join(DTYPES)} and integers, as SciPy's sparse product does; not {spec.dtype}"
            )
        needed = matrix_bytes(spec)
        if needed > MATRIX_LIMIT_BYTES:
            return (
                f"toeplitz would store a matrix of {needed:,} bytes ({products_inside(spec):,} entries); "
                f"at most {MATRIX_LIMIT_BYTES:,} bytes are accepted"
            )
        return None

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """The matrix, and the larger of what building it and what SciPy's product allocate."""
        products = math.prod(spec.output_spatial) * math.prod(spec.kernel)
        building = products * (POSITION_BYTES + spec.weight_shape[1] * COLUMN_BYTES)
        columns = math.prod(spec.output_shape) + (math.prod(spec.input_shape) if spec.batch > 1 else 0)
        needed = matrix_bytes(spec) + max(building, columns * spec.itemsize)
        return needed + 3 * dense_bytes(spec) if _is_dense(spec) else needed  # as made, as packed, and between

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """The dense product at a share of the peak, or the sparse one at SciPy's rate."""
        if _is_dense(spec):
            return DENSE_SECONDS + _dense_seconds(spec, machine.peak_flops(spec.dtype) * DENSE_SHARE)
        seconds = _sparse_seconds(spec)
        if seconds >= SHARED_SECONDS:
            seconds = THREADS_SECONDS + seconds / machine.threads
        return machine.call_seconds + PRODUCT_SECONDS + seconds

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Build the matrix."""
        with forks.held_off:
            from convbench.matrices import correlation_matrix

        matrix = correlation_matrix(spec, weight)
        threads = settings.get_num_threads() if _sparse_seconds(spec) >= SHARED_SECONDS else 1
        sparse = _Sparse(matrix, threads)
        return _Dense(spec, sparse) if _is_dense(spec) and generates_code() else sparse


def _is_dense(spec):
    """Whether the dense matrix is multiplied: it is near the cache's size, and faster than the sparse one."""
    if spec.dtype not in GENERATED_DTYPES or not 0 < dense_bytes(spec) <= DENSE_LIMIT_BYTES:
        return False
    return _dense_seconds(spec, DENSE_FLOPS) < PRODUCT_SECONDS + _sparse_seconds(spec)


def _dense_seconds(spec, flops):
    """The larger of multiplying everything, zeros too, and reading the matrix."""
    needed = dense_bytes(spec)
    return max(2 * spec.batch * needed / spec.itemsize / flops, needed / DENSE_BYTES_PER_SECOND)


def _sparse_seconds(spec):
    """The sparse product on one core."""
    columns = spec.batch
    if columns == 1:
        return products_inside(spec) / ALONE_PER_SECOND
    rate = TOGETHER_PER_SECOND * columns / (columns + HALF_SPEED_COLUMNS)
    turned = math.prod(spec.input_shape) + math.prod(spec.output_shape)
    return products_inside(spec) * columns / rate + turned * TURNED_SECONDS


class _Sparse:
    """``plan(x, out)``: one sparse product for the whole batch, rows shared among threads."""

    def __init__(self, matrix, threads):
        self.matrix = matrix
        ends = np.linspace(0, matrix.shape[0], threads + 1).astype(int).tolist()
        self._parts = [(first, end, _rows(matrix, first, end)) for first, end in itertools.pairwise(ends)]
        self.nbytes = matrix.data.nbytes + matrix.indices.nbytes + 2 * matrix.indptr.nbytes

    def __call__(self, x, out):
        batch = len(x)
        columns = np.ascontiguousarray(x.reshape(batch, -1).T) if batch > 1 else x.reshape(-1)
        rows = out.reshape(batch, -1)
        run_all([partial(_multiply, part, columns, rows[:, first:end]) for first, end, part in self._parts])


def _rows(matrix, first, end):
    """Rows of a CSR matrix that share its entries."""
    start, stop = matrix.indptr[first], matrix.indptr[end]
    parts = matrix.data[start:stop], matrix.indices[start:stop], matrix.indptr[first : end + 1] - start
    return type(matrix)(parts, shape=(end - first, matrix.shape[1]))


def _multiply(matrix, columns, rows):
    rows[...] = (matrix @ columns).T


class _Dense:
    """``plan(x, out)``: one product of dense matrices, by the generated kernel."""

    def __init__(self, spec, sparse):
        with forks.held_off:
            from .jit.dense import DensePlan

        rows, columns = sparse.matrix.shape
        product = ConvSpec(1, columns, rows, (spec.batch,), 1, dtype=spec.dtype, memory_format="channels_last")
        self._plan = DensePlan(product, sparse.matrix.toarray().reshape(product.weight_shape))
        self._sparse = sparse
        self._first = (slice(None), *(0,) * (1 + spec.ndim))
        self.nbytes = self._plan.nbytes + sparse.nbytes

    def __call__(self, x, out):
        self._plan(x, out)
        # A zero of the matrix times NaN or Inf is NaN: then every output of that item is, and the first one tells.
        if not np.logical_and.reduce(np.isfinite(out[self._first])):
            self._sparse(x, out)


def matrix_bytes(spec: ConvSpec) -> int:
    """Bytes of the CSR matrix: a value and a column per entry, and where each row starts."""
    rows = math.prod(spec.output_shape[1:])
    return products_inside(spec) * (spec.itemsize + INDEX_BYTES) + (rows + 1) * INDEX_BYTES


def dense_bytes(spec: ConvSpec) -> int:
    """Bytes of the matrix with its zeros."""
    return math.prod(spec.output_shape[1:]) * math.prod(spec.input_shape[1:]) * spec.itemsize
