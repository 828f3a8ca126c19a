"""The loops of `separable_integers`, compiled by Numba for the width of the integers.

For each output row: the plane it lies in (depths), a line of the plane (columns), the row itself.  No line is
summed twice, and a plane only where its rows are in the parts of two threads.  Loops run over whole slices from
their beginning, which is what the compiler makes vectors of.
"""

from __future__ import annotations

import numba

_compiled = numba.njit(nogil=True, error_model="numpy")


@_compiled
def filter_rows(x, vectors, bias, out, geometry, running, groups, first, last, plane, line, sums):
    """Output rows first to last, counted over (batch, channel, depth, row)."""
    channels, filters = vectors[0].shape[1], out.shape[1] // groups
    rows = out.shape[2] * out.shape[3]
    row = first
    while row < last:
        volume = row // rows
        end = min(last, (volume + 1) * rows)
        n, o = divmod(volume, out.shape[1])
        base = o // filters * channels
        target, begin, stop = out[n, o], row - volume * rows, end - volume * rows
        for r in range(begin, stop):
            target[r // out.shape[3], r % out.shape[3]] = bias[o]
        for c in range(channels):
            own = vectors[0][o, c], vectors[1][o, c], vectors[2][o, c]
            _filter_volume(x[n, base + c], own, target, geometry, running, begin, stop, plane, line, sums)
        row = end


@_compiled
def _filter_volume(x, vectors, out, geometry, running, first, last, plane, line, sums):
    """Add what one input channel gives to rows first to last of an output volume."""
    height = out.shape[1]
    deep = x.reshape(x.shape[0], x.shape[1] * x.shape[2])
    top = first // height
    for d in range(top, (last - 1) // height + 1):
        begin, end = max(first - d * height, 0), min(last - d * height, height)
        if len(vectors[0]) == 1:  # its element is 1
            z = d * geometry[0, 0] - geometry[2, 0]
            if 0 <= z < x.shape[0]:
                _filter_plane(x[z], vectors, out[d], geometry, running, begin, end, line, sums)
            continue
        _filter_down(plane.reshape(plane.size), deep, vectors[0], geometry[:, 0], running[0], d, d == top)
        _filter_plane(plane, vectors, out[d], geometry, running, begin, end, line, sums)


@_compiled
def _filter_plane(plane, vectors, out, geometry, running, first, last, line, sums):
    """Columns into a padded line, and from it the rows first to last."""
    low = geometry[2, 2]
    inside = line[low : low + plane.shape[1]]
    for h in range(first, last):
        _filter_down(inside, plane, vectors[1], geometry[:, 1], running[1], h, h == first)
        if running[2]:
            _add_differences(out[h], line, vectors[2], geometry[0, 2], sums)
        else:
            _add_products(out[h], line, vectors[2], geometry[0, 2], geometry[1, 2])


@_compiled
def _filter_down(total, lines, vector, geometry, running, position, fresh):
    """``total`` of the lines that the window at an output position covers; those outside are zero.

    A running total, unless it is fresh, is the one of the position before, and its vector is all 1.
    """
    stride, dilation = geometry[0], geometry[1]
    at = position * stride - geometry[2]
    if not running:
        total[:] = 0
        for t in range(len(vector)):
            if 0 <= at + t * dilation < len(lines):
                _add(total, lines[at + t * dilation], vector[t])
        return
    entering = at
    if fresh:
        total[:] = 0
    else:
        entering = at - stride + len(vector)
        for leaving in range(max(at - stride, 0), min(at, len(lines))):
            _subtract(total, lines[leaving])
    for number in range(max(entering, 0), min(at + len(vector), len(lines))):
        _add(total, lines[number], vector[0])


@_compiled
def _add(total, line, weight):
    for i in range(len(total)):
        total[i] += weight * line[i]


@_compiled
def _subtract(total, line):
    for i in range(len(total)):
        total[i] -= line[i]


@_compiled
def _add_products(out, line, vector, stride, dilation):
    for t in range(len(vector)):
        source = line[t * dilation :]
        if stride == 1:
            _add(out, source, vector[t])
        else:
            for i in range(len(out)):
                out[i] += vector[t] * source[i * stride]


@_compiled
def _add_differences(out, line, vector, stride, sums):
    """A window's sum is the difference of two prefix sums, and each output that sum times the one weight there is."""
    total = sums[0]  # stays zero
    for i in range(len(line)):
        total += line[i]
        sums[i + 1] = total
    upper, weight = sums[len(vector) :], vector[0]
    if stride == 1:
        for i in range(len(out)):
            out[i] += weight * (upper[i] - sums[i])
    else:
        for i in range(len(out)):
            out[i] += weight * (upper[i * stride] - sums[i * stride])
