"""Which tile computes what: the table of jobs that the code of `tile_code` reads."""

import numpy as np

from .tile_code import JOB


def _axis(size, low, outputs, stride, kept, length, step, count):
    """Per tile of one axis: start in the input, valid first and stop, first output and outputs at stride 1, kept ones.

    `size` counts the input's positions up to the last that a window covers.
    """
    origin = np.arange(count) * step
    start = origin - low
    first, stop = np.maximum(-start, 0), np.clip(size - start, 0, length)
    made = np.minimum(step, outputs - origin)
    begin = -(-origin // stride)
    end = np.minimum(-(-(origin + made) // stride), kept)
    return {
        "start": start,
        "first": np.minimum(first, stop),
        "stop": stop,
        "made": made,
        "begin": begin,
        "kept": np.maximum(end - begin, 0),
        "skipped": begin * stride - origin,
    }


def axes(spec, tiling):
    """`_axis` of every spatial axis."""
    outputs = [(size - 1) * s + 1 for size, s in zip(spec.output_spatial, spec.stride, strict=True)]
    lows = [low for low, _ in spec.padding]
    reached = [made + span - 1 - low for made, span, low in zip(outputs, spec.extents, lows, strict=True)]
    sizes = np.maximum(np.minimum(spec.spatial, reached), 0).tolist()
    parts = sizes, lows, outputs, spec.stride, spec.output_spatial
    parts += tiling.tile.lengths, tiling.steps, tiling.counts
    return [_axis(*values) for values in zip(*parts, strict=True)]


def job_table(spec, tiling, planes, itemsize):
    """One row of words per job, for jobs (in, out, spectrum, plane, tile).

    Parameters
    ----------
    spec, tiling
    planes : dict of numpy.ndarray
        Per job: "source" and "out", the number of the input and output plane; "spectrum" and "plane", offsets in bytes;
        "tile", the number of the tile in its plane.
    itemsize : int

    Returns
    -------
    numpy.ndarray
        (jobs, words of a job), int64.
    """
    if not spec.ndim - 1:
        rows = {name: np.zeros(1, np.int64) for name in ("start", "first", "begin", "skipped")}
        rows |= {"stop": np.ones(1, np.int64), "made": np.ones(1, np.int64), "kept": np.ones(1, np.int64)}
        (columns,) = axes(spec, tiling)
        width, out_width, height, out_height = spec.spatial[0], spec.output_spatial[0], 1, 1
    else:
        rows, columns = axes(spec, tiling)
        (height, width), (out_height, out_width) = spec.spatial, spec.output_spatial
    across = len(columns["start"])
    y, x = planes["tile"] // across, planes["tile"] % across
    made = columns["made"][x]
    table = {
        "source": planes["source"] * (height * width) + rows["start"][y] * width + columns["start"][x],
        "first_row": rows["first"][y],
        "stop_row": rows["stop"][y],
        "first": columns["first"][x],
        "stop": columns["stop"][x],
        "out": planes["out"] * (out_height * out_width) + rows["begin"][y] * out_width + columns["begin"][x],
        "out_rows": -(-made // tiling.tile.columns) if tiling.tile.flat else rows["made"][y],
        "out_columns": made,
        "spectrum": planes["spectrum"],
        "plane": planes["plane"],
        "kept_rows": rows["kept"][y],
        "kept_columns": columns["kept"][x],
        "skipped": rows["skipped"][y] * tiling.tile.columns + columns["skipped"][x],
    }
    bytes_of = {"source": itemsize, "out": itemsize, "skipped": itemsize}
    return np.ascontiguousarray(np.stack([table[name] * bytes_of.get(name, 1) for name in JOB], -1), np.int64)


def window(spec, tiling, tile):
    """Input region, padding and output region of a tile's kept outputs, per axis; None if it keeps none."""
    numbers = np.unravel_index(tile, tiling.counts)
    inputs, padding, outputs = [], [], []
    for axis, parts in enumerate(axes(spec, tiling)):
        begin, kept = (int(parts[name][numbers[axis]]) for name in ("begin", "kept"))
        if not kept:
            return None
        size, (low, _) = spec.spatial[axis], spec.padding[axis]
        start = begin * spec.stride[axis] - low
        stop = (begin + kept - 1) * spec.stride[axis] + spec.extents[axis] - low
        inside = min(max(start, 0), size - 1), max(min(stop, size), min(max(start, 0), size - 1) + 1)
        inputs.append(slice(*inside))
        padding.append((inside[0] - start, stop - inside[1]))
        outputs.append(slice(begin, begin + kept))
    return inputs, padding, outputs


def grid(*sizes):
    """Columns of every combination of numbers below `sizes`, the last one changing fastest."""
    return np.indices(sizes).reshape(len(sizes), -1)
