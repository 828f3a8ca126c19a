"""How an output plane of the wide family is cut into rectangles, and what each need not read.

Most of a plane reads its input where it lies.  What meets padding reads a staged patch, or the image under masks that
leave out what is beside the rows.

A step of a tile of `wide_kernel` meets input vectors 0 ... rows + height - 2.  In a tile at the top or bottom of an
image the first or last of them are rows that do not exist, in a tile at an end of a folded row they lie beside it.
The *spans* of a tile say for each of the two heights of its steps which ones it reads, as pairs (first, stop): the
code leaves out the others.
"""

import dataclasses

import numpy as np

from .wide_steps import KX, KY, KZ

#: How a rectangle of the output reads its input: where it lies, from a staged patch, or where it lies under masks that
#: leave out what is beside the rows.
IN_PLACE, STAGED, EDGE = range(3)
#: Spans of a plane at most, since each is a function to compile; and bands of which one must lack rows, since copying
#: a few patches costs nothing.
MOST_SPANS, BANDS_PER_CUT = 4, 8
#: Part of the multiply-adds that the spans of a folded tile must save.
WORTH = 1 / 8


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """Output rows from `y` and columns from `x` to before `stop`, how they read, and the spans of their tiles."""

    y: int
    rows: int
    x: int
    stop: int
    reads: int
    spans: tuple


def rectangles(layout, steps):
    """The rectangles of one output plane, in order."""
    direct, whole = layout.reads_in_place(), whole_spans(layout.rows, steps.heights)
    cut = _cut_bands(layout, steps) if direct and layout.edges else {}
    found = []
    for y, rows in layout.bands():
        if y in cut:
            found.append(Rectangle(y, rows, 0, layout.geometry.out[2], EDGE, cut[y]))
            continue
        within = direct and layout.present(y) == (0, layout.staged_rows)
        found += [Rectangle(y, rows, *segment, whole) for segment in layout.segments(within)]
    return _with_folded_spans(layout, steps, found) if layout.fold else found


def whole_spans(rows, heights):
    """Spans that leave out nothing."""
    return tuple((0, rows + height - 1 if height else 0) for height in heights)


def _cut_bands(layout, steps):
    """The spans of the bands that lack rows, by their first row; none if such bands are to be staged."""
    bands = [y for y, _ in layout.bands()]
    cut = {y: layout.present(y) for y in bands}
    cut = {y: _row_spans(layout, steps, *rows) for y, rows in cut.items() if rows != (0, layout.staged_rows)}
    few = len(cut) * BANDS_PER_CUT < len(bands) or len(set(cut.values())) > MOST_SPANS
    return {} if few or None in cut.values() else cut


def _row_spans(layout, steps, low, high):
    """Spans of tiles whose staged rows exist from `low` to before `high`; None if steps of one height differ."""
    unit, spans = layout.staged_step, []
    for taps, (_, most) in zip(steps.taps, whole_spans(layout.rows, steps.heights), strict=True):
        rows = set(taps[:, 0, KY].tolist())
        found = {(max(0, -((ky - low) // unit)), min(most, -((ky - high) // unit))) for ky in rows} or {(0, 0)}
        if len(found) > 1:
            return None
        first, stop = found.pop()
        spans.append((first, max(first, stop)))
    return tuple(spans)


def _with_folded_spans(layout, steps, found):
    """`found` with the spans of rectangles of one tile that need few of their input vectors."""
    whole = whole_spans(layout.rows, steps.heights)
    most = sum(_products(whole, layout.rows, steps))
    result = []
    for rectangle in found:
        spans = _column_spans(layout, steps, rectangle.x) if rectangle.stop - rectangle.x <= layout.reach else whole
        worth = sum(_products(spans, layout.rows, steps)) <= (1 - WORTH) * most
        result.append(dataclasses.replace(rectangle, spans=spans) if worth else rectangle)
    return found if len({rectangle.spans for rectangle in result}) > MOST_SPANS else result


def _column_spans(layout, steps, x):
    """Spans of a folded tile at column `x`: vectors that lie beside the row in all steps of a height are left out."""
    g, spans = layout.geometry, []
    reach = layout.lanes * g.stride[2]
    for taps, (_, most) in zip(steps.taps, whole_spans(layout.rows, steps.heights), strict=True):
        begin = x * g.stride[2] - g.low[2] + g.dilation[2] * taps[:, 0, KX]
        first = np.clip(-((begin + reach - g.stride[2]) // reach), 0, most)
        stop = np.clip(-((begin - g.size[2]) // reach), 0, most)
        seen = first < stop
        spans.append((int(first[seen].min()), int(stop[seen].max())) if seen.any() else (0, 0))
    return tuple(spans)


def _products(spans, rows, steps):
    """Multiply-adds of all steps of each height."""
    return [
        len(taps) * sum(min(height, i + 1) - max(0, i - rows + 1) for i in range(*span))
        for span, height, taps in zip(spans, steps.heights, steps.taps, strict=True)
    ]


def skippable(layout, taps, rectangle):
    """First step of `taps` that a rectangle needs, and how many from there: the others would read only padding."""
    g = layout.geometry
    y, x, stop = rectangle.y, rectangle.x, rectangle.stop
    if not len(taps) or g.kernel[0] > 1 or (layout.fold and g.channels > 1):
        return 0, len(taps)
    axis, start, extent = (
        (2, x, -(-(stop - x) // layout.reach) * layout.reach)
        if layout.fold
        else (1, y, (layout.rows - 1) * layout.tile_step + 1)
    )
    first = start * g.stride[axis] - g.low[axis] + taps[:, 0, KZ + axis] * g.dilation[axis]
    last = first + (taps[:, -1, KZ + axis] - taps[:, 0, KZ + axis]) * g.dilation[axis] + (extent - 1) * g.stride[axis]
    needed = np.flatnonzero((last >= 0) & (first < g.size[axis]))
    return (needed[0], needed[-1] + 1 - needed[0]) if len(needed) else (0, 0)
