"""The stage of the wide family lays a patch of the input, with its padding, into the cache: columns sorted by phase."""

from .transpose import deinterleaved
from .wide_kernel import _inside

#: Rows between a row being staged and the one that is fetched meanwhile: those of the next band (4096 x
#: 4096, k = 3: 5.1-5.3 ms against 5.6 without; nothing lost where images fit the caches; Zen 4, 2026-11).  With column
#: strides as many rows as are staged: 240 channels at 112 x 112, k = 5, stride 2, batch 4, 56 and 65 GFLOP/s (Zen 5).
ROWS_AHEAD = 8
#: Strides above this are staged element by element: the shuffles would grow with the square of the stride.
MAX_SHUFFLED_STRIDE = 8


def write_stage(code, dtype, stride):
    """Body of ``stage(source, to, rows, row_low, row_high, source_pitch, to_pitch, low, high, vectors, phase_pitch)``.

    Row j of the patch is the source's row, zero outside [row_low, row_high) and outside columns [low,
    high).  Column ``stride * q + p`` goes to element q of phase p, so that every tap of a strided
    convolution reads contiguous vectors.
    """
    kind = code.vector(dtype)
    source, to, rows, row_low, row_high, source_pitch, to_pitch, low, high, vectors, phase_pitch = code.arguments

    def clear(j):
        def phase(p):
            code.loop(vectors, lambda q: (to + j * to_pitch + p * phase_pitch + q * kind.bytes).store(code.zero(kind)))

        code.loop(stride, phase)

    code.loop(row_low, clear)
    code.loop(rows, clear, start=row_high)
    to, source, count = to + row_low * to_pitch, source + row_low * source_pitch, row_high - row_low
    if stride > MAX_SHUFFLED_STRIDE:

        def spread(j):
            line, to_line = source + j * source_pitch, to + j * to_pitch
            _stage_elements(code, line, to_line, vectors * kind.lanes, low, high, phase_pitch, kind, stride)

        code.loop(count, spread)
        return code.finish()
    block = stride * kind.lanes
    first = ((low + (block - 1)) // block).least(vectors)
    last = (high // block).least(vectors)
    last = last.compare("<", first).choose(first, last)

    def edge(q):
        masks = [_inside(code, q * block + v * kind.lanes, low, high, kind) for v in range(stride)]
        code.loop(
            count, lambda j: _stage_vectors(source + j * source_pitch, to + j * to_pitch, q, phase_pitch, kind, masks)
        )

    def row(j):
        line, to_line = source + j * source_pitch, to + j * to_pitch
        ahead = line + source_pitch * (rows if stride > 1 else ROWS_AHEAD)

        def whole(q):
            for v in range(stride):
                code.prefetch(ahead + (q * stride + v) * kind.bytes)
            _stage_vectors(line, to_line, q, phase_pitch, kind, [None] * stride)

        code.loop(last, whole, start=first)

    code.loop(first, edge)
    code.loop(vectors, edge, start=last)
    code.loop(count, row)
    code.finish()


def _stage_vectors(source, to, q, phase_pitch, kind, masks):
    """As many vectors from the source as there are masks, sorted by phase."""
    source = source + q * (len(masks) * kind.bytes)
    loaded = [(source + v * kind.bytes).load(kind, mask) for v, mask in enumerate(masks)]
    for phase, vector in enumerate(deinterleaved(loaded, kind.lanes)):
        (to + phase_pitch * phase + q * kind.bytes).store(vector)


def _stage_elements(code, source, to, count, low, high, phase_pitch, kind, stride):
    """One element at a time, for strides that are too long to shuffle."""

    def phase(p):
        def element(q):
            x = q * stride + p
            at = to + p * phase_pitch + q * kind.itemsize
            at.store(code.zero(kind.scalar))
            with code.when(x.compare(">=", low) & x.compare("<", high)):
                at.store((source + x * kind.itemsize).load(kind.scalar))

        code.loop(count, element)

    code.loop(stride, phase)
