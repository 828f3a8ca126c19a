"""Kernels as sums of products of vectors, one vector for each axis.

    K[i, j] = sum over r of  u_r[i] · v_r[j]                            (u_r, v_r: singular vectors)

cut off where what is left is not above a tolerance (C. Eckart & G. Young, 1936); three axes are separated one
after the other.  A kernel of one product needs no singular vectors: its largest element's row and column are
the factors, which also keeps whole numbers whole.  Gaussian, box, binomial, Sobel and Prewitt are such.

Kernels of integers are separated over the integers or not at all (`factorise_integers`).  One that is a product has
a column that is a multiple of a primitive vector, one whose elements have no common divisor, and so is every other
column of it: that vector is the factor, and the rows are divisible by it (C. F. Gauss' lemma on content).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Pairs of channels that are looked at; more belong to networks, whose layers other engines compute faster.
MOST_PAIRS = 4096


@dataclass(frozen=True)
class Factors:
    """A weight (O, C, *kernel) as sums of products.

    Attributes
    ----------
    axes : tuple of ndarray [O, C, terms, k]
        For each axis of the kernel its vectors; pairs of channels with fewer terms have zeros.
    truncation : float
        Largest sum of |K - its terms| / sum of |K|, of all pairs.
    growth : float
        Largest sum of |products| / sum of |K|: 1 where nothing cancels.
    """

    axes: tuple[np.ndarray, ...]
    truncation: float
    growth: float

    @property
    def terms(self) -> int:
        """Products that a pair of channels sums."""
        return self.axes[0].shape[2]


def factorise(weight: np.ndarray, tolerance: float, most: int | None = None) -> Factors | None:
    """The factors of a weight (O, C, *kernel), or None where a pair of channels needs more than `most` terms.

    NaN and Inf have no factors either.

    Parameters
    ----------
    weight : ndarray
    tolerance : float
        What a kernel may lose, as a share of its sum of magnitudes.
    most : int, optional
        The most terms of a pair; None is any number.  With a limit, dense weights are refused at their first pair.
    """
    pairs = weight.shape[:2]
    kernels = weight.reshape(-1, *weight.shape[2:])
    if most is not None and len(kernels) > MOST_PAIRS:
        return None
    found, truncation, growth = [], 0.0, 1.0
    for kernel in kernels:
        if not np.isfinite(kernel).all():
            return None
        kernel = kernel.astype(np.float64)
        terms = _terms(kernel, tolerance / (kernel.ndim - 1), most)
        if terms is None or (most is not None and len(terms) > most):
            return None
        whole = np.abs(kernel).sum() or 1.0
        left = kernel - sum(_product(term) for term in terms)
        truncation = max(truncation, float(np.abs(left).sum() / whole))
        growth = max(growth, float(sum(np.abs(_product(term)).sum() for term in terms) / whole))
        found.append(terms)
    count = max(map(len, found))
    axes = []
    for axis, k in enumerate(weight.shape[2:]):
        vectors = np.zeros((len(found), count, k))
        for number, terms in enumerate(found):
            vectors[number, : len(terms)] = [term[axis] for term in terms]
        axes.append(vectors.reshape(*pairs, count, k))
    return Factors(tuple(axes), truncation, growth)


def factorise_integers(weight: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """The factors of an integer weight (O, C, *kernel), or None where a pair of channels is no product of vectors.

    Parameters
    ----------
    weight : ndarray of an integer dtype

    Returns
    -------
    tuple of ndarray [O, C, k], of Python integers
        For each axis of the kernel its vectors.  All but the last axis' are primitive and begin with a positive
        element (constant ones are all 1), so that the last ones carry sign and scale; zeros are 1 ⊗ … ⊗ 0.
    """
    pairs = weight.shape[:2]
    if math.prod(pairs) > MOST_PAIRS:
        return None
    found = []
    for kernel in weight.reshape(-1, *weight.shape[2:]):
        vectors = _primitive(kernel.astype(object))
        if vectors is None:
            return None
        found.append(vectors)
    return tuple(np.array(vectors, object).reshape(*pairs, -1) for vectors in zip(*found, strict=True))


def _primitive(kernel):
    """Vectors whose product is a kernel of Python integers, which never overflow, or None."""
    if kernel.ndim == 1:
        return [kernel]
    matrix = kernel.reshape(len(kernel), -1)
    places = np.argwhere(matrix != 0)
    if len(places):
        i, j = places[0]  # rows above are zero
        divisor = math.gcd(*matrix[:, j]) * (1 if matrix[i, j] > 0 else -1)
        column = matrix[:, j] // divisor
        row = matrix[i] // column[i]
    else:
        column, row = np.array([1] * len(matrix), object), matrix[0]
    if (np.outer(column, row) != matrix).any():
        return None
    rest = _primitive(row.reshape(kernel.shape[1:]))
    return None if rest is None else [column, *rest]


def _product(vectors):
    product = vectors[0]
    for vector in vectors[1:]:
        product = np.multiply.outer(product, vector)
    return product


def _terms(kernel, tolerance, most):
    """The terms of one kernel, each a vector for every axis, or None."""
    if kernel.ndim == 1:
        return [(kernel,)]
    pairs = _split(kernel.reshape(len(kernel), -1), tolerance, most)
    if pairs is None:
        return None
    found = []
    for first, rest in pairs:
        terms = _terms(rest.reshape(kernel.shape[1:]), tolerance, most)
        if terms is None:
            return None
        found += [(first, *term) for term in terms]
    return found


def _split(matrix, tolerance, most):
    """Pairs (column, row) whose products sum to `matrix`, or None."""
    allowed = tolerance * np.abs(matrix).sum()
    column, row = _cross(matrix)
    left = matrix - np.outer(column, row)
    if np.abs(left).sum() <= allowed:
        return [_scaled(column, row)]
    if most is not None and not _falls(left, allowed, most):
        return None
    columns, values, rows = np.linalg.svd(matrix, full_matrices=False)
    pairs, left = [], matrix.copy()
    for column, value, row in zip(columns.T, values, rows, strict=True):
        pairs.append(_scaled(column * value, row))
        left -= np.outer(*pairs[-1])
        if np.abs(left).sum() <= allowed:
            break
    return pairs


def _cross(matrix):
    """Column and row through the largest element: their product is `matrix` if it has rank one."""
    i, j = np.unravel_index(np.abs(matrix).argmax(), matrix.shape)
    if not matrix[i, j]:
        return matrix[:, j], matrix[i]
    row = matrix[i]
    if np.abs(row[j]) < 2**53 and (matrix == np.rint(matrix)).all():
        row = row / math.gcd(*row.astype(np.int64).tolist())
        return matrix[:, j] / row[j], row
    return matrix[:, j], row / row[j]


def _falls(left, allowed, most):
    """Whether what the first cross left vanishes within `most` crosses: Gaussian elimination, cheaper than an SVD."""
    for _ in range(most - 1):
        i, j = np.unravel_index(np.abs(left).argmax(), left.shape)
        left = left - np.outer(left[:, j], left[i] / left[i, j])
        if np.abs(left).sum() <= allowed:
            return True
    return False


def _scaled(column, row):
    """The row's magnitudes summing to at most 1, so that no sum between the passes overflows; by a power of two."""
    total = np.abs(row).sum()
    scale = 2.0 ** math.ceil(math.log2(total)) if total else 1.0
    return column * scale, row / scale
