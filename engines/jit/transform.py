"""Discrete Fourier transforms of many sequences side by side, one in each lane of a vector.

    X[q + r·k] = sum over j < n/r of  w^(j·q) · ( sum over p < r of x[j + p·n/r] · v^(p·q) ) · u^(j·k)

with roots of unity w, v and u of order n, r and n/r: a butterfly of r values and a twiddle factor, then r
transforms of a shorter sequence each (decimation in frequency; C. Van Loan, Computational Frameworks for
the Fast Fourier Transform, 1992, §1.9).  Every pass works in place, so that frequencies come out in a
scrambled order (`order`), and the inverse takes them in it: a convolution never needs them sorted.  A
sequence element is two vectors, real parts and imaginary parts, so no pass moves a value from lane to lane.
"""

import math

import numpy as np

from ..fft_tiles import factors
from .compile import address
from .vector import Code, Value

#: Words of a step: function, blocks, elements between a butterfly's inputs, and its table's address.
STEP = 4


def order(length):
    """The frequency that each position holds after the passes."""
    position = np.arange(length)
    frequency, unit, rest = np.zeros(length, np.int64), 1, length
    for radix in factors(length):
        rest //= radix
        frequency += position // rest * unit
        position, unit = position % rest, unit * radix
    return frequency


def _combined(even, odd):
    """DFT of 2, 4 or 8 values from the DFTs of its even and its odd ones."""
    low, high, half = [], [], math.sqrt(0.5)
    for k, ((a, b), (c, d)) in enumerate(zip(even, odd, strict=True)):
        turn = 8 * k // (2 * len(even))  # eighths of a circle
        if turn in (1, 3):
            left, right = (c + d, d - c) if turn == 1 else (d - c, c + d)
            plus, minus = _constant(a, half), _constant(a, -half)
            first, second = (plus, minus) if turn == 1 else (minus, plus)
            low.append((a.fma(left, plus), b.fma(right, first)))
            high.append((a.fma(left, minus), b.fma(right, second)))
            continue
        c, d, sign = (c, d, 1) if turn == 0 else (d, c, -1)
        low.append((a + c, b + d if sign == 1 else b - d))
        high.append((a - c, b - d if sign == 1 else b + d))
    return low + high


def _constant(like, number):
    return Value(like.code, like.code.value(float(number), like.ir.type).ir)


def _three(x):
    (a, b), (c, d), (e, f) = x
    more, less = (c + e, d + f), (c - e, d - f)
    half, side = _constant(a, -0.5), math.sqrt(0.75)
    u = a.fma(more[0], half), b.fma(more[1], half)
    plus, minus = _constant(a, side), _constant(a, -side)
    return [
        (a + more[0], b + more[1]),
        (u[0].fma(less[1], plus), u[1].fma(less[0], minus)),
        (u[0].fma(less[1], minus), u[1].fma(less[0], plus)),
    ]


def _five(x):
    c1, c2 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
    s1, s2 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)
    near = [(x[1][i] + x[4][i], x[1][i] - x[4][i]) for i in range(2)]
    far = [(x[2][i] + x[3][i], x[2][i] - x[3][i]) for i in range(2)]
    first = tuple(x[0][i] + near[i][0] + far[i][0] for i in range(2))
    result = [first, None, None, None, None]
    for k, (a, b, s, t) in ((1, (c1, c2, s1, s2)), (2, (c2, c1, s2, -s1))):
        a, b, s, t = (_constant(x[0][0], number) for number in (a, b, s, t))
        u = [x[0][i].fma(near[i][0], a).fma(far[i][0], b) for i in range(2)]
        v = [(near[i][1] * s).fma(far[i][1], t) for i in range(2)]
        result[k] = u[0] + v[1], u[1] - v[0]
        result[5 - k] = u[0] - v[1], u[1] + v[0]
    return result


def _butterfly(x, inverse=False):
    """DFT of a few complex values, pairs of vectors; the inverse (times their number) has its outputs reversed."""
    if inverse:
        y = _butterfly(x)
        return [y[0], *y[:0:-1]]
    if len(x) == 1:
        return x
    if len(x) == 3:
        return _three(x)
    if len(x) == 5:
        return _five(x)
    return _combined(_butterfly(x[::2]), _butterfly(x[1::2]))


def multiply(x, w, conjugate=False):
    """Product of complex values; with the conjugate of the second where asked."""
    (a, b), (c, s) = x, w
    minus = Value(s.code, s.code.builder.fneg(s.ir))
    return ((a * c).fma(b, s), (b * c).fma(a, minus)) if conjugate else ((a * c).fma(b, minus), (b * c).fma(a, s))


def load_element(at, kind):
    """The complex element at a pointer."""
    return at.load(kind, align=kind.bytes), (at + kind.bytes).load(kind, align=kind.bytes)


def store_element(at, element):
    """Write a complex element."""
    size = element[0].ir.type.count * element[0].ir.type.element.get_abi_size(at.code.layout)
    at.store(element[0], align=size)
    (at + size).store(element[1], align=size)


def _write_pass(module, target, dtype, radix, kind_of_pass):
    """``void pass(data, blocks, distance, table)``: one radix over all blocks of radix · distance elements.

    "forward" and "inverse" read twiddles from the table, [distance][radix - 1] pairs; "first" and "last" have
    none, and distance 1; "middle" is the last forward pass, the product with the spectrum that the table is, and the
    first inverse pass.
    """
    code = Code(module, "pass", target, "piip")
    data, blocks, distance, table = code.arguments
    kind = code.vector(dtype)
    element, pair = 2 * kind.bytes, 2 * kind.itemsize
    gap = distance * element

    def places(at):
        found = [at]
        for _ in range(radix - 1):
            found.append(found[-1] + gap)
        return found

    def twiddled(at, values, conjugate):
        places = [at + q * pair for q in range(radix - 1)]
        twiddles = [(place.broadcast(kind), (place + kind.itemsize).broadcast(kind)) for place in places]
        return [values[0], *(multiply(v, w, conjugate) for v, w in zip(values[1:], twiddles, strict=True))]

    def spread(b, at):
        def one(_, at, factor):
            where = places(at)
            values = [load_element(place, kind) for place in where]
            if kind_of_pass == "forward":
                values = twiddled(factor, _butterfly(values), False)
            else:
                values = _butterfly(twiddled(factor, values, True), inverse=True)
            for place, value in zip(where, values, strict=True):
                store_element(place, value)
            return at + element, factor + pair * (radix - 1)

        code.loop(distance, one, (at, table))
        return (at + gap * radix,)

    def leaf(b, at, factor):
        where = [at + i * element for i in range(radix)]
        values = _butterfly([load_element(place, kind) for place in where], kind_of_pass == "first")
        if kind_of_pass == "middle":
            spectrum = [load_element(factor + i * element, kind) for i in range(radix)]
            values = _butterfly([multiply(v, w) for v, w in zip(values, spectrum, strict=True)], inverse=True)
        for place, value in zip(where, values, strict=True):
            store_element(place, value)
        return at + radix * element, factor + radix * element

    if kind_of_pass in ("forward", "inverse"):
        code.loop(blocks, spread, (data,))
    else:
        code.loop(blocks, leaf, (data, table))
    code.finish()


def _function(target, dtype, radix, kind_of_pass):
    key = "pass", dtype, radix, kind_of_pass
    return address("pass", key, target, lambda module: _write_pass(module, target, dtype, radix, kind_of_pass))


class Axis:
    """The passes of transforms of one length, as tables for generated code.

    Attributes
    ----------
    forward, inverse : numpy.ndarray
        Rows of `STEP` words each.
    middle : tuple of int
        Function and blocks of the pass between them that multiplies by a spectrum.
    around : bool
        Whether `forward` and `inverse` leave out the pass that `middle` is.
    """

    def __init__(self, target, dtype, length, around):
        self._tables = []
        forward, inverse = [], []
        *radices, last = factors(length)
        rest, blocks = length, 1
        for radix in radices:
            rest //= radix
            j, q = np.arange(rest)[:, None], np.arange(1, radix)
            angles = -2 * np.pi * (j * q % (rest * radix)) / (rest * radix)
            table = np.ascontiguousarray(np.stack([np.cos(angles), np.sin(angles)], -1).astype(dtype))
            self._tables.append(table)
            at = table.ctypes.data
            forward.append((_function(target, dtype, radix, "forward"), blocks, rest, at))
            inverse.insert(0, (_function(target, dtype, radix, "inverse"), blocks, rest, at))
            blocks *= radix
        if around:
            self.middle = _function(target, dtype, last, "middle"), blocks
        else:
            forward.append((_function(target, dtype, last, "last"), blocks, 1, 0))
            inverse.insert(0, (_function(target, dtype, last, "first"), blocks, 1, 0))
        self.forward = np.array(forward, np.int64).reshape(-1, STEP)
        self.inverse = np.array(inverse, np.int64).reshape(-1, STEP)


def run_steps(code, steps, count, data):
    """Write the call of every pass of a table."""

    def step(_, at):
        function, table = at.load_pointer(), (at + 24).load_pointer()
        code.call(function, [data, (at + 8).load(), (at + 16).load(), table])
        return (at + 8 * STEP,)

    code.loop(count, step, (steps,))
