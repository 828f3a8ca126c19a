"""The matrices of F(m, r): m outputs of a filter of r taps with m + r - 1 products, exact.

    y = Aᵀ [(G g) ⊙ (Bᵀ d)],    y[i] = sum over j of d[i + j] g[j]

Toom and Cook's interpolation, transposed (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin
and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016): two polynomials are multiplied by their
values at m + r - 2 points and at infinity.  Any distinct points are right in exact arithmetic; which ones
they are decides how far floating point is off, and `growth` says how far.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction

import numpy as np

MOST_PRODUCTS = 8


def _points(*fractions):
    return tuple(map(Fraction, fractions))


#: Number of products -> the finite points.  Those with the least `growth` among 0 with pairs ±p (pairs halve
#: the work of the transforms) and at most one single point, p in eighths, so that every constant of Aᵀ and Bᵀ
#: is exact in binary.  Error of one dimension, 32 channels, uniform data, in u relative to ‖|x| ∗ |w|‖₂ (float32,
#: 2026-11), of these and of the usual 0, ±1, ±2, ±1/2: F(3, 3) 0.56 and 0.66, F(4, 3) 0.61 and 0.89 (of
#: 0, ±1, 1/2, -2: 0.73), F(5, 3) 1.06 and 1.13; F(2, 3) 0.34 and F(6, 3) 1.3, where the usual ones are best.
POINTS = {
    1: (),
    2: _points("0"),
    3: _points("0", "1"),
    4: _points("0", "1", "-1"),
    5: _points("0", "3/4", "-3/4", "2"),
    6: _points("0", "5/8", "-5/8", "3/2", "-3/2"),
    7: _points("0", "7/8", "-7/8", "7/4", "-7/4", "3/8"),
    8: _points("0", "1/2", "-1/2", "1", "-1", "2", "-2"),
}


@dataclasses.dataclass(frozen=True)
class Matrices:
    """F(m, r): Aᵀ (a row per output), G (a row per product), Bᵀ (square), of `Fraction`s."""

    at: tuple[tuple[Fraction, ...], ...]
    g: tuple[tuple[Fraction, ...], ...]
    bt: tuple[tuple[Fraction, ...], ...]


@functools.cache
def matrices(m: int, r: int) -> Matrices:
    """The matrices of F(m, r), m + r - 1 at most `MOST_PRODUCTS`."""
    points = POINTS[m + r - 1]
    zero, one = Fraction(0), Fraction(1)
    at = [[*(p**i for p in points), Fraction(i == m - 1)] for i in range(m)]
    g, bt = [], []
    for number, point in enumerate(points):
        others = points[:number] + points[number + 1 :]
        scale = math.prod((point - other for other in others), start=one)
        g.append([point**j / scale for j in range(r)])
        bt.append([*_with_roots(others), zero])
    g.append([Fraction(j == r - 1) for j in range(r)])
    bt.append(_with_roots(points))
    return Matrices(*(tuple(map(tuple, matrix)) for matrix in (at, g, bt)))


def _with_roots(roots):
    """Coefficients, lowest first, of the product of (x - root)."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *polynomial], [*(root * c for c in polynomial), Fraction(0)]
        polynomial = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return polynomial


def numbers(matrix) -> np.ndarray:
    """A matrix of fractions in float64, each rounded once."""
    return np.array([[float(value) for value in row] for row in matrix])


@functools.cache
def growth(m: int, r: int, parts: tuple[int, ...]) -> float:
    """How much larger than the taps' products are the numbers that are rounded and then cancel, in root mean square.

    With independent data of unit variance a product of G g and Bᵀ d has the variance |G_f|²·|B_f|², and its
    rounding error reaches output i times Aᵀ_if; r products summed directly have the variance r.  In more
    dimensions the factors multiply.  The parts of a kernel, of so many taps, are summed; those that one lacks have no
    variance.
    """
    found = matrices(m, r)
    at, g, bt = (numbers(matrix) ** 2 for matrix in (found.at, found.g, found.bt))
    variances = [(at @ (g[:, :taps].sum(1) * bt.sum(1))).mean() for taps in parts]
    return math.sqrt(sum(variances) / sum(parts))
