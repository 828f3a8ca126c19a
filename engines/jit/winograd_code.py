"""What the Winograd kernels are written with: products with constant matrices, and vectors taken apart by column."""

from fractions import Fraction

from llvmlite import ir

from .transpose import deinterleaved, interleaved
from .vector import Value


def multiply(code, matrix, inputs, kind):
    """Vectors matrix · inputs, of a constant matrix of `Fraction`s.

    Points ±p make pairs: two columns of Aᵀ are equal in every other row and opposite in the rest, so
    their inputs' sum and difference serve all rows; two rows of Bᵀ are the sum and the difference of their even
    and their odd part.
    """
    matrix, inputs = [list(row) for row in matrix], list(inputs)
    for a, b in _pairs(list(zip(*matrix, strict=True)), _mirrored):
        inputs[a], inputs[b] = inputs[a] + inputs[b], inputs[a] - inputs[b]
        for row in matrix:
            row[a], row[b] = (row[a], Fraction(0)) if row[a] == row[b] else (Fraction(0), row[a])
    outputs = [None] * len(matrix)
    for a, b in _pairs(matrix, _split):
        even = _combine(code, [(x + y) / 2 for x, y in zip(matrix[a], matrix[b], strict=True)], inputs, kind)
        odd = _combine(code, [(x - y) / 2 for x, y in zip(matrix[a], matrix[b], strict=True)], inputs, kind)
        outputs[a], outputs[b] = even + odd, even - odd
    return [_combine(code, row, inputs, kind) if out is None else out for row, out in zip(matrix, outputs, strict=True)]


def _pairs(lines, related):
    """Numbers of lines that are related, each in one pair at most."""
    free = set(range(len(lines)))
    for a in range(len(lines)):
        for b in range(a + 1, len(lines)):
            if {a, b} <= free and related(lines[a], lines[b]):
                free -= {a, b}
                yield a, b


def _mirrored(a, b):
    """Whether two columns differ by sign only, in some rows but not in all, and save work."""
    signs = {x == y for x, y in zip(a, b, strict=True) if x or y}
    return all(abs(x) == abs(y) for x, y in zip(a, b, strict=True)) and signs == {True, False} and len(a) > 2


def _split(a, b):
    """Whether half the sum and half the difference of two rows have nothing in common."""
    even, odd = [x + y for x, y in zip(a, b, strict=True)], [x - y for x, y in zip(a, b, strict=True)]
    return any(even) and any(odd) and not any(x and y for x, y in zip(even, odd, strict=True))


def _combine(code, row, inputs, kind):
    """The sum of `row`'s multiples of the inputs; those that need no product come first."""
    terms = sorted(
        ((c, x) for c, x in zip(row, inputs, strict=True) if c), key=lambda term: (term[0] != 1, abs(term[0]) != 1)
    )
    (first, total), *rest = terms
    if first != 1:
        total = total * code.value(float(first), kind.ir)
    for factor, value in rest:
        if abs(factor) == 1:
            total = total + value if factor > 0 else total - value
        else:
            total = total.fma(value, code.value(float(factor), kind.ir))
    return total


def columns(vectors, lanes):
    """Element ``m * t + j`` of m concatenated vectors as lane t of result j."""
    m = len(vectors)
    p = _smallest_factor(m)
    if p == m:
        return deinterleaved(vectors, lanes)
    parts = zip(*(deinterleaved(vectors[i : i + p], lanes) for i in range(0, m, p)), strict=True)
    parts = [columns(list(part), lanes) for part in parts]
    return [parts[j % p][j // p] for j in range(m)]


def rows(vectors, lanes):
    """The inverse of `columns`: lane t of vector j as element ``m * t + j`` of m concatenated vectors."""
    m = len(vectors)
    p = _smallest_factor(m)
    if p == m:
        return interleaved(vectors, lanes)
    parts = [rows(vectors[q::p], lanes) for q in range(p)]
    return [vector for i in range(m // p) for vector in interleaved([part[i] for part in parts], lanes)]


def _smallest_factor(m):
    return next((p for p in range(2, m) if m % p == 0), m)


def mask_of(code, word, kind):
    """The mask whose lane i is bit i of an integer."""
    bits = code.builder.trunc(word.ir, ir.IntType(kind.lanes))
    return Value(code, code.builder.bitcast(bits, ir.VectorType(ir.IntType(1), kind.lanes)))
