"""Filters along rows in vector registers.

    line[x] = sum over j of  weight[j] * input[x + d j]

A vector of 64 bytes that lies across two cache lines takes two cycles to load, so vectors are loaded once, side by
side, and shifted in registers: taps at the same distance from a whole vector share the shift.  Columns beside the
image are left out by masks.
"""

from llvmlite import ir

from .vector import Value


def reach(kernel, dilation, lanes):
    """Vectors that a row of taps spans beside the one it is summed into."""
    return -(-(kernel - 1) * dilation // lanes)


def write_row(code, dtype, kernel, dilation, vectors):
    """Body of ``row(source, to, weights, masks, rows, source_pitch, to_pitch, tiles, ahead)``.

    A tile is `vectors` vectors side by side.  `masks` has the bits of the columns that exist, a byte (or two) for
    every vector; `ahead` is the distance in bytes of the inputs that are fetched meanwhile.
    """
    kind = code.vector(dtype)
    source, to, weights, masks, rows, source_pitch, to_pitch, tiles, ahead = code.arguments
    taps = _taps(kernel, dilation, kind.lanes)
    inputs = vectors + reach(kernel, dilation, kind.lanes)
    mask_bytes = max(1, kind.lanes // 8)

    def row(j):
        def tile(t):
            at = source + j * source_pitch + t * (vectors * kind.bytes)
            known = masks + t * (vectors * mask_bytes)
            loads = [_masked(code, at + v * kind.bytes, known + v * mask_bytes, kind) for v in range(inputs)]
            for v in range(vectors):
                code.prefetch(at + ahead + v * kind.bytes)
            sums = [code.zero(kind)] * vectors
            for shift, members in taps:
                shifted = [_shifted(loads, v, shift) for v in range(inputs - (shift > 0))]
                for step, tap in members:
                    weight = (weights + tap * kind.itemsize).broadcast(kind)
                    sums = [total.fma(shifted[v + step], weight) for v, total in enumerate(sums)]
            for v, total in enumerate(sums):
                (to + j * to_pitch + t * (vectors * kind.bytes) + v * kind.bytes).store(total)

        code.loop(tiles, tile)

    code.loop(rows, row)
    code.finish()


def _taps(kernel, dilation, lanes):
    """Taps by their distance from a whole vector: [(elements, [(whole vectors, tap)])]."""
    groups = {}
    for tap in range(kernel):
        step, shift = divmod(tap * dilation, lanes)
        groups.setdefault(shift, []).append((step, tap))
    return sorted(groups.items())


def _shifted(loads, v, shift):
    if not shift:
        return loads[v]
    lanes = loads[v].ir.type.count
    return loads[v].shuffle(loads[v + 1], range(shift, shift + lanes))


def _masked(code, at, mask, kind):
    bits = Value(code, code.builder.load(mask.ir, typ=ir.IntType(max(8, kind.lanes)), align=1))
    if kind.lanes < 8:
        bits = Value(code, code.builder.trunc(bits.ir, ir.IntType(kind.lanes)))
    mask = Value(code, code.builder.bitcast(bits.ir, ir.VectorType(ir.IntType(1), kind.lanes)))
    return at.load(kind, mask)
