"""How the wide family cuts problems: the way it takes, rectangles, strips and pieces of rows."""

from __future__ import annotations

import numpy as np
import pytest

from convbench import ConvSpec, get_num_threads, set_num_threads
from convbench.engines.jit import (
    rolling_layout,
    wide,
    wide_layout,
    wide_planes,
    wide_rectangles,
    wide_rolling,
    wide_sweep,
)
from convbench.engines.jit.rolling_layout import BLOCK
from convbench.engines.jit.target import target
from convbench.engines.jit.wide_rectangles import EDGE, IN_PLACE, STAGED
from convbench.engines.jit.wide_steps import KX, Geometry
from convbench.verify import expected

LANES, REGISTERS = 16, 32


def depthwise(channels, size, kernel, **options):
    return ConvSpec(1, channels, channels, spatial=size, kernel=kernel, groups=channels, **options)


WAYS = [
    (depthwise(64, (7, 7), 3, padding=1), wide_planes.prepare),
    (depthwise(64, (56, 56), 3, padding=1), wide_rolling.prepare),
    (depthwise(64, (113, 90), 3, padding=1, stride=2), wide_rolling.prepare),
    (depthwise(8, (4, 56, 56), (1, 3, 3), padding=(0, 1, 1)), wide_rolling.prepare),
    (depthwise(8, (4, 56, 56), 3, padding=1), wide._prepare_rows),
    (depthwise(8, (56, 56), (16, 3), padding=(8, 1)), wide._prepare_rows),
    (depthwise(64, (1000,), 5, padding=2), wide_sweep.prepare),
    (depthwise(64, (1000,), 50), wide._prepare_rows),
    (ConvSpec(1, 1, 1, spatial=(1024, 1024), kernel=3, padding=1), wide_sweep.prepare),
    (ConvSpec(1, 1, 1, spatial=(1024, 1024), kernel=9, padding=4), wide._prepare_rows),
    (ConvSpec(1, 3, 4, spatial=(64, 64), kernel=3, padding=1), wide._prepare_rows),
]


@pytest.mark.parametrize(("spec", "way"), WAYS, ids=lambda value: str(value) if isinstance(value, ConvSpec) else "")
def test_the_way_of_a_problem(spec, way):
    assert wide._way(Geometry.of(spec), target()) is way, str(spec)


@pytest.mark.parametrize(("spec", "_"), WAYS, ids=lambda value: str(value) if isinstance(value, ConvSpec) else "")
def test_results_do_not_depend_on_threads(spec, _):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(spec.dtype) for shape in (spec.input_shape, spec.weight_shape))
    found, before = [], get_num_threads()
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            out = np.full(spec.output_shape, np.nan, spec.dtype)
            wide.WidePlan(spec, weight)(x, out)
            found.append(out)
    finally:
        set_num_threads(before)
    assert np.array_equal(*found), str(spec)
    exact, scale = expected(spec, x, weight)
    assert (np.abs(found[0] - exact) <= 2e-6 * scale).all(), str(spec)


def cut(spec):
    layout, steps = wide_layout.design(Geometry.of(spec), target())
    return layout, steps, wide_rectangles.rectangles(layout, steps)


def covered(shape, pieces):
    """How often each place of `shape` lies in one of `pieces`, pairs of slices."""
    counts = np.zeros(shape, int)
    for piece in pieces:
        counts[piece] += 1
    return counts


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(1, 2, 2, spatial=(32, 32), kernel=5, padding=2),
        ConvSpec(1, 2, 2, spatial=(19, 45), kernel=9, padding=4, dilation=2),
        ConvSpec(1, 2, 2, spatial=(300, 500), kernel=5, padding=2),
        ConvSpec(1, 1, 1, spatial=(5000,), kernel=100, padding=((99, 0),)),
    ],
    ids=str,
)
def test_rectangles_cover_the_output_once(spec):
    layout, _, found = cut(spec)
    g = Geometry.of(spec)
    step = layout.tile_step
    pieces = [(slice(r.y, r.y + (r.rows - 1) * step + 1, step), slice(r.x, r.stop)) for r in found]
    assert (covered(g.out[1:], pieces) == 1).all(), str(spec)


def test_small_planes_copy_nothing():
    if target().vector_bytes < wide_layout.MASKED_BYTES:
        pytest.skip("these vectors have no masks, and patches are copied")
    spec = ConvSpec(1, 2, 2, spatial=(32, 32), kernel=5, padding=2)
    layout, steps, found = cut(spec)
    assert STAGED not in {r.reads for r in found}, str(spec)
    assert EDGE in {r.reads for r in found}, str(spec)
    read = [sum(wide_rectangles._products(r.spans, layout.rows, steps)) for r in found]
    whole = sum(wide_rectangles._products(wide_rectangles.whole_spans(layout.rows, steps.heights), layout.rows, steps))
    assert read[0] < whole, str(spec)  # two rows of what the first band sees lie above the image ...
    assert read[-1] < whole, str(spec)  # ... and two of the last one's below


def test_large_planes_copy_at_the_top_and_bottom_only():
    spec = ConvSpec(1, 1, 1, spatial=(600, 600), kernel=9, padding=4)
    _, _, found = cut(spec)
    staged = {r.y for r in found if r.reads == STAGED and r.stop - r.x == 600}
    assert staged <= {0, max(r.y for r in found)}, str(spec)
    assert any(r.reads == IN_PLACE for r in found), str(spec)


def test_causal_signals_leave_out_the_past_of_the_first_tile():
    spec = depthwise(4, (128,), 128, padding=((127, 0),))
    layout, steps, found = cut(spec)
    for rectangle in found:
        for taps, (first, stop), height in zip(steps.taps, rectangle.spans, steps.heights, strict=True):
            begin = rectangle.x - 127 + taps[:, 0, KX, None] + layout.lanes * np.arange(layout.rows + height - 1)
            seen = begin + layout.lanes > 0
            assert not seen[:, :first].any(), f"{spec}: {rectangle}"
            assert stop == seen.shape[1] or not len(taps), f"{spec}: {rectangle}"
    assert any(span[0] > 0 for rectangle in found for span in rectangle.spans), str(spec)


@pytest.mark.parametrize(
    "spec",
    [
        depthwise(1, (32, 32), 5, padding=2),
        depthwise(1, (301, 75), 3, padding=1, stride=2),
        depthwise(1, (40, 130), 3, padding=3, dilation=3),
        depthwise(1, (3, 40), 7, padding=5),
        depthwise(1, (1, 20), 5, padding=((4, 9), (2, 2))),
    ],
    ids=str,
)
def test_strips_cover_the_output_once(spec):
    g = Geometry.of(spec)
    strips = []

    def function(strip):
        strips.append(strip)
        return len(strips) - 1

    table = rolling_layout.block_table(g, LANES, REGISTERS, function)
    step, pieces = g.row_unit // g.stride[1], []
    for row in table:
        block = dict(zip(BLOCK, row.tolist(), strict=True))
        strip = strips[block["function"]]
        y, x = divmod(block["out"] // g.itemsize, g.out[2])
        pieces.append((slice(y, y + (block["rows"] - 1) * step + 1, step), slice(x, x + block["out_width"])))
        assert block["begin"] <= 0 <= block["end"], f"{spec}: {block}"
        assert (block["end"] - block["begin"]) % strip.rows == 0, f"{spec}: {block}"
        assert block["rows"] - block["end"] <= strip.open_rows - strip.rows, f"{spec}: {block}"
        met = sorted(pair for ky in range(strip.kernel[0]) for pair in strip.met(ky))
        assert len(met) == len(set(met)), f"{spec}: {strip}"
    assert (covered(g.out[1:], pieces) == 1).all(), str(spec)


def test_steps_above_and_below_the_image_are_left_out():
    spec = depthwise(1, (32, 32), 5, padding=2)
    table = rolling_layout.block_table(Geometry.of(spec), LANES, REGISTERS, lambda strip: 0)
    steps = table[:, BLOCK.index("end")] - table[:, BLOCK.index("begin")]
    bands = len(table)
    assert steps.sum() <= 32 + 4 * (bands - 1), str(spec)  # rows of the image, and those that bands share


def test_long_rows_are_cut_for_threads():
    g = Geometry.of(ConvSpec(1, 1, 1, spatial=(100_000,), kernel=3, padding=1))
    table = wide_sweep._band_table(g, 1, LANES)
    start, stop = (table[:, wide_sweep.BAND.index(name)] for name in ("start", "stop"))
    assert len(table) == wide_sweep.BANDS_WANTED
    assert start[0] == 0
    assert (start[1:] == stop[:-1]).all()
    assert (start % LANES == 0).all()
    assert stop[-1] >= 100_000 + LANES - 1  # the last vector may begin before a cache line
