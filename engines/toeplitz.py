"""Convolution as one sparse matrix times vec(x).

    vec(y) = A · vec(x),   A of C/groups · prod(kernel) entries in each row (fewer at the border)

The textbook's (doubly block) Toeplitz matrix, for every rank, stride, dilation and group: built
once in the plan as CSR by `convbench.matrices`, multiplied by the batch as columns.  It reads a
column index beside every weight and runs on one core, so it wins almost nowhere: tiny problems
with a batch, where the matrix stays in the cache and all columns share each entry that is read.
"""

from __future__ import annotations

import math

import numpy as np

from convbench.engine import Engine
from convbench.machine import BYTES_PER_SECOND_PER_CORE, Machine
from convbench.shapes import products_inside
from convbench.spec import ConvSpec

MATRIX_LIMIT_BYTES = 256 << 20  # several times the largest caches: beyond it every call streams A from memory
INDEX_BYTES = 4  # SciPy's 32-bit indices, which a matrix within the limit never outgrows
# What `convbench.matrices` allocates while it builds, per product of one output channel: two
# positions and two flags, and per input channel a column before and after the mask.
POSITION_BYTES = 2 * INDEX_BYTES + 2
COLUMN_BYTES = 2 * INDEX_BYTES
DTYPES = ("float32", "float64", "complex64", "complex128")
# SciPy 1.17 on a 2-core Zen 5 VM (2026-11), matrices of 0.1 to 8 million entries: products per
# second with one column 1.2e9 to 2.1e9, with 2 columns together 0.6e9 to 1e9, with 8 of them 2.3e9 to
# 2.8e9; an empty product takes 3 µs.
COLUMNS_TOGETHER = 8
ALONE_PER_SECOND = 1.6e9
TOGETHER_PER_SECOND = 2.5e9
PRODUCT_SECONDS = 3e-6


class Toeplitz(Engine):
    """The sparse matrix of the problem, times the input."""

    name = "toeplitz"
    summary = "the (doubly block) Toeplitz matrix as SciPy CSR, times vec(x)"
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
        result = math.prod(spec.output_shape[1:])
        if spec.batch >= COLUMNS_TOGETHER:
            result = spec.batch * (result + math.prod(spec.input_shape[1:]))
        return matrix_bytes(spec) + max(building, result * spec.itemsize)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """The larger of reading the matrix from memory and multiplying its entries, on one core."""
        together = spec.batch >= COLUMNS_TOGETHER
        multiply = products_inside(spec) * spec.batch / (TOGETHER_PER_SECOND if together else ALONE_PER_SECOND)
        passes = 1 if together else spec.batch
        read = passes * matrix_bytes(spec) / BYTES_PER_SECOND_PER_CORE
        return machine.call_seconds + passes * PRODUCT_SECONDS + max(multiply, read)

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Build the matrix."""
        from convbench.matrices import correlation_matrix

        return _Product(correlation_matrix(spec, weight))


class _Product:
    """``plan(x, out)``: a sparse product for each item of a small batch, one for all of a larger one."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.nbytes = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes

    def __call__(self, x, out):
        batch = len(x)
        if batch >= COLUMNS_TOGETHER:
            out.reshape(batch, -1)[:] = (self.matrix @ x.reshape(batch, -1).T).T
        else:
            for item, result in zip(x.reshape(batch, -1), out.reshape(batch, -1), strict=True):
                result[:] = self.matrix @ item


def matrix_bytes(spec: ConvSpec) -> int:
    """Bytes of the CSR matrix: a value and a column per entry, and where each row starts."""
    rows = math.prod(spec.output_shape[1:])
    return products_inside(spec) * (spec.itemsize + INDEX_BYTES) + (rows + 1) * INDEX_BYTES
