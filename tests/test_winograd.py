"""Winograd's engines: matrices, both ways of computing, errors and their bounds, NaN and Inf, threads."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from conftest import assert_refused, correlate, run, sample

import convbench
from convbench import ConvSpec, registry
from convbench.engine import gamma
from convbench.engines.jit.target import levels
from convbench.engines.jit.winograd import WinogradPlan
from convbench.engines.jit.winograd_layout import NOWHERE, Plane, runs
from convbench.engines.jit.winograd_matrices import MOST_PRODUCTS, matrices, numbers
from convbench.engines.jit.winograd_strides import Axis, axes, phases, places, spans
from convbench.engines.jit.winograd_tiling import choose
from convbench.machine import Machine

NAMES = ("winograd", "winograd4", "winograd8")
TILES = {"winograd": (4, 4), "winograd4": (2, 2), "winograd8": (6, 6)}
WAYS = ("fused", "pieces", "shared")
named = pytest.mark.parametrize("name", NAMES)
ALL = [(m, r) for m in range(1, 8) for r in range(1, MOST_PRODUCTS + 1 - m + 1)]


def problem(spatial, kernel=(3, 3), batch=1, channels=(8, 8), padding=1, **rest):
    return ConvSpec(batch, *channels, spatial=spatial, kernel=kernel, padding=padding, **rest)


def dot(row, values):
    return sum(a * b for a, b in zip(row, values, strict=True))


@pytest.mark.parametrize(("m", "r"), ALL)
def test_matrices_are_exact(m, r):
    found, rng = matrices(m, r), np.random.default_rng(m * r)
    d = [Fraction(int(value), 7) for value in rng.integers(-99, 99, m + r - 1)]
    g = [Fraction(int(value), 5) for value in rng.integers(-99, 99, r)]
    products = [dot(a, g) * dot(b, d) for a, b in zip(found.g, found.bt, strict=True)]
    assert [dot(row, products) for row in found.at] == [dot(d[i : i + r], g) for i in range(m)]


@pytest.mark.parametrize(("m", "r"), ALL)
def test_constants_of_the_code_are_exact_in_float32(m, r):
    for matrix in (matrices(m, r).at, matrices(m, r).bt):
        assert all(Fraction(float(np.float32(value))) == value for row in matrix for value in row)


@pytest.mark.parametrize("down", [Axis(3, 2), Axis(11, 4), Axis(2, 3), Axis(1, 1)], ids=str)
@pytest.mark.parametrize("across", [Axis(3, 2), Axis(5, 3), Axis(4, 2), Axis(1, 4)], ids=str)
def test_only_products_with_zeros_are_left_out(down, across):
    outputs = 1 if down.reduced == 1 else 4, 2 if across.reduced > 1 else 1
    order = places(down, across)
    assert sorted(order.ravel()) == list(range(order.size))
    for number, (first, count) in enumerate(spans(down, across, outputs)):
        i, j = divmod(number, outputs[1] + across.reduced - 1)
        for (q, p), place in np.ndenumerate(order):
            whole = matrices(outputs[0], down.reduced).g[i][: down.taps_of(q)]
            factors = [whole, matrices(outputs[1], across.reduced).g[j][: across.taps_of(p)]]
            assert all(map(any, factors)) == (first <= place < first + count), (q, p, i, j)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(
    ("spec", "outputs"),
    [
        (problem((56, 57)), (4, 4)),
        (problem((7, 7), batch=5, channels=(3, 40)), (2, 4)),
        (problem((14, 14), batch=3, channels=(6, 12), groups=3), (6, 6)),
        (problem((9, 200), (3, 7), padding=((0, 1), (5, 2))), (4, 2)),
        (problem((20, 31), (5, 1), padding=0), (2, 1)),
        (problem((20, 31), (1, 4), padding=2), (1, 5)),
        (problem((301,), (2,), padding=0), (7,)),
        (problem((1, 1), (2, 2), channels=(1, 1)), (3, 3)),
        (problem((40, 57), stride=2, batch=2, channels=(5, 7)), (4, 4)),
        (problem((60, 70), (11, 11), stride=4, padding=2, channels=(3, 40)), (4, 4)),
        (problem((31, 200), (5, 5), stride=3, padding=((0, 1), (2, 3)), channels=(4, 6), groups=2), (4, 6)),
        (problem((20, 31), (1, 3), stride=2), (1, 4)),
        (problem((40, 41), (5, 2), stride=(4, 1)), (4, 6)),
        (problem((9, 9), stride=(1, 2), padding=0), (2, 4)),
        (problem((301,), (7,), stride=2, padding=3), (4,)),
    ],
    ids=str,
)
def test_every_way_on_every_level(spec, outputs, level, way, monkeypatch):
    monkeypatch.setattr("convbench.engines.jit.winograd.piece_of", lambda *_: 3 * phases(axes(spec)))
    x, weight, bias = sample(spec)
    plan, out = (
        WinogradPlan(spec, weight, bias, outputs=outputs, way=way, isa=level),
        np.empty(spec.output_shape, "f"),
    )
    assert plan(x, out)
    expected = correlate(spec, x, weight, bias)
    assert np.linalg.norm(out - expected) <= 3e-5 * np.linalg.norm(expected), spec


def test_rounds_do_not_change_the_result(monkeypatch):
    spec = problem((30, 40), batch=2, channels=(5, 7))
    x, weight, _ = sample(spec)
    first, second = np.empty(spec.output_shape, "f"), np.empty(spec.output_shape, "f")
    WinogradPlan(spec, weight, outputs=(4, 4), way="shared")(x, first)
    monkeypatch.setattr("convbench.engines.jit.winograd.SHARED_BYTES", 1)
    plan = WinogradPlan(spec, weight, outputs=(4, 4), way="shared")
    assert len(plan._rounds) > 2
    plan(x, second)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("width", [1, 7, 14, 15, 64, 130])
@pytest.mark.parametrize("vectors", [[3, 3, 2], [1] * 8])
def test_runs_hold_every_tile_once(batch, width, vectors):
    lanes = 16
    total = lanes * sum(vectors) - 5
    height = max(1, total // (batch * width))
    tiles = batch * height * width
    vectors = vectors[: -(-tiles // lanes)]
    vectors += [1] * (-(-tiles // lanes) - sum(vectors))
    if sum(vectors) * lanes - tiles >= lanes:
        pytest.skip(f"{tiles} tiles leave a whole vector of {vectors} empty, which no plan does")
    form = type("F", (), {"down": (4, 3), "across": (2, 3)})
    size = 4 * height, 2 * width
    plane = Plane(batch, 1, 1, 1, size, size, (1, 1), (Axis(3, 1), Axis(3, 1)))
    found = runs(plane, form, vectors, lanes)
    seen = [
        (image, row, column + i)
        for image, row, column, count in zip(found.image, found.row, found.column, found.count, strict=True)
        for i in range(count)
        if image != NOWHERE
    ]
    assert len(seen) == len(set(seen)) == tiles
    assert found.count.max() <= lanes
    places = sorted(
        (block, place + i)
        for block, place, count in zip(found.block, found.place, found.count, strict=True)
        for i in range(count)
    )
    assert places == [(block, place) for block, n in enumerate(vectors) for place in range(n * lanes)]


def test_blocks_hold_all_vectors_and_filters():
    for total in (1, 2, 5, 13, 49, 1000):
        for filters in (1, 24, 64, 257):
            for fits in (1, 2, 9):
                vectors, sizes, cycles = choose(total, filters, fits, 32, 2, 2, 10.0)
                assert sum(vectors) == total
                assert sum(sizes) == filters
                assert max(vectors) <= fits
                assert (max(sizes) + 1) * max(vectors) + 2 <= 32
                assert cycles > 0


# Errors.

KINDS = {
    "both signs": lambda rng, shape: rng.uniform(-1, 1, shape),
    "positive": lambda rng, shape: rng.uniform(0, 1, shape),
    "normal": lambda rng, shape: rng.standard_normal(shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 8, 128])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3), 1), ((2, 2), 1), ((5, 5), 1), ((7, 7), 1), ((3,), 1), ((3, 3), 2), ((7, 7), 2), ((11, 11), 4), ((5,), 3)],
    ids=str,
)
@named
def test_the_bound_holds_and_is_near(name, kernel, stride, channels, kind):
    engine = registry.get(name)
    spec = problem((21 + 3 * stride,) * len(kernel), kernel, channels=(channels, 4), padding=0, stride=stride)
    if engine.why_unsupported(spec):
        pytest.skip(engine.why_unsupported(spec))
    rng = np.random.default_rng(channels)
    x, weight = (KINDS[kind](rng, shape).astype("f") for shape in (spec.input_shape, spec.weight_shape))
    wide = spec.replace(dtype="float64")
    expected, scale = correlate(wide, x, weight), correlate(wide, abs(x), abs(weight))
    error = np.linalg.norm(run(engine, spec, x, weight) - expected) / np.linalg.norm(scale)
    assert error <= engine.error_bound(spec), spec
    assert error >= engine.error_bound(spec) / 80, spec  # no bound so wide that it says nothing


def worst(spec, x, weight, outputs):
    """γ · |Aᵀ| [Σ |G| |g| |Gᵀ| ⊙ |Bᵀ| |d| |B|] |A| of every output: no rounding is larger, whatever the data."""
    (m, n), (r, s) = outputs, spec.kernel
    down, across = matrices(m, r), matrices(n, s)
    magnitude = lambda matrix: abs(numbers(matrix))  # noqa: E731
    (height, width), (low, left) = spec.output_spatial, (spec.padding[0][0], spec.padding[1][0])
    rows, columns = -(-height // m), -(-width // n)
    padded = np.zeros((*x.shape[:2], rows * m + r - 1, columns * n + s - 1))
    part = abs(x[:, :, : padded.shape[2] - low, : padded.shape[3] - left])
    padded[:, :, low : low + part.shape[2], left : left + part.shape[3]] = part
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (m + r - 1, n + s - 1), (2, 3))[:, :, ::m, ::n]
    v = np.einsum("ia,jb,zcyxab->zcyxij", magnitude(down.bt), magnitude(across.bt), tiles)
    u = np.einsum("ia,jb,kcab->kcij", magnitude(down.g), magnitude(across.g), abs(weight))
    sums = np.einsum("zcyxij,kcij->zkyxij", v, u)
    found = np.einsum("ai,bj,zkyxij->zkyaxb", magnitude(down.at), magnitude(across.at), sums)
    roundings = spec.in_channels + 2 * sum(m + k - 1 for m, k in zip(outputs, spec.kernel, strict=True)) + 6
    return gamma(roundings, spec.dtype) * found.reshape(*found.shape[:2], rows * m, columns * n)[:, :, :height, :width]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [(2, 2), (4, 4), (6, 6), (2, 6)], ids=str)
def test_no_output_is_off_by_more_than_the_worst_case(outputs, dtype):
    spec = problem((13, 17), channels=(5, 6), dtype=dtype)
    rng = np.random.default_rng(3)
    for power in (0, 6, 20):  # data of ever more uneven magnitude
        x, weight = (
            (rng.uniform(-1, 1, shape) * 2.0 ** rng.integers(-power, power + 1, shape)).astype(dtype)
            for shape in (spec.input_shape, spec.weight_shape)
        )
        out = np.empty(spec.output_shape, dtype)
        WinogradPlan(spec, weight, outputs=outputs)(x, out)
        bound = worst(spec, x, weight, outputs)
        error = abs(out - correlate(spec, x, weight)).astype("float64")
        assert (error <= bound).all(), f"{outputs} {dtype} at 2^{power}: {np.max(error / bound)} of the bound"
        assert power or np.max(error / bound) > 1 / 1000


def test_rtol_decides_the_tile():
    spec = problem((56, 56), channels=(64, 64))
    bounds = {name: registry.get(name).error_bound(spec) for name in NAMES}
    assert bounds["winograd4"] < bounds["winograd"] < bounds["winograd8"]
    for name in NAMES:
        allowed = convbench.select(spec, rtol=bounds[name])
        refused = {candidate.engine for candidate in allowed.candidates if candidate.refused}
        assert refused >= {other for other in NAMES if bounds[other] > bounds[name]}
        assert name not in refused


# What is refused.


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (problem((9, 9), stride=5), "strides to 4"),
        (problem((9, 9), (2, 2), stride=2), "2 and more taps per phase"),
        (problem((9, 9), (1, 1)), "2 and more taps"),
        (problem((9, 9, 9), (3, 1, 1)), "along the last two dimensions"),
        (problem((99, 99), (60, 60)), "none fits taps (60, 60)"),
        (problem((9, 9), dtype="float16"), "float16"),
    ],
    ids=str,
)
@named
def test_refusals_say_why(name, spec, words):
    assert words in registry.get(name).why_unsupported(spec)
    x, weight, _ = sample(spec)
    assert_refused([name, words], run, name, spec, x, weight)


def test_engines_share_no_tile():
    for kernel, stride in [(k, 1) for k in ((3, 3), (5, 5), (7, 7), (2, 3), (1, 3), (3,))] + [((3, 3), 2), ((9, 9), 4)]:
        spec = problem((24,) * len(kernel), kernel, stride=stride)
        engines = [registry.get(name) for name in NAMES if registry.get(name).why_unsupported(spec) is None]
        assert engines, spec
        largest = [max(engine._tiling(spec).products) for engine in engines]
        assert len(set(largest)) == len(largest), spec


# NaN and Inf, overflow.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [(4, 3), (400, 3), (400, 400)])
@named
def test_nan_and_inf_reach_their_windows_only(name, value, channels):
    spec = problem((17, 19), batch=3, channels=channels)
    x, weight, bias = sample(spec)
    for image, channel, y, column in ((0, 0, 0, 0), (1, 2, 9, 18), (2, 3, 16, 8)):
        x[image, channel, y, column] = value
    result, direct = (run(engine, spec, x, weight, bias) for engine in (name, "direct"))
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(direct))
    clean = np.isfinite(direct)
    np.testing.assert_allclose(result[clean], direct[clean], atol=1e-3)


@named
def test_a_nan_leaves_nothing_behind(name):
    spec = problem((30, 30), batch=2)
    x, weight, _ = sample(spec)
    layer = convbench.Conv2d(weight, padding=1, engine=name)
    clean = layer(x)
    struck = x.copy()
    struck[0, :, 5] = np.nan
    layer(struck)
    np.testing.assert_array_equal(layer(x), clean)


@named
def test_weights_that_are_not_finite(name):
    spec = problem((12, 12), channels=(4, 6))
    x, weight, _ = sample(spec)
    weight[2, 1, 0, 0] = np.inf
    weight[4, 0, 1, 1] = np.nan
    result, direct = (run(engine, spec, x, weight) for engine in (name, "direct"))
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct))


@named
def test_numbers_that_only_a_transform_overflows_with(name):
    spec = problem((12, 12), channels=(1, 1))
    x, weight = np.full(spec.input_shape, 1e38, "f"), np.full(spec.weight_shape, 0.1, "f")
    x[..., ::2] *= -1
    result = run(name, spec, x, weight)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, run("direct", spec, x, weight), rtol=1e-5)


# Threads.


@named
def test_results_do_not_depend_on_the_number_of_threads(name):
    for channels in ((16, 20), (300, 20), (300, 300)):
        spec = problem((23, 29), batch=2, channels=channels)
        x, weight, _ = sample(spec)
        results = []
        before = convbench.get_num_threads()
        try:
            for threads in (1, 2, 3):
                convbench.set_num_threads(threads)
                out = np.empty(spec.output_shape, "f")
                WinogradPlan(spec, weight, outputs=TILES[name])(x, out)
                results.append(out)
        finally:
            convbench.set_num_threads(before)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


def test_weights_in_double_precision_are_transformed_in_it():
    spec = problem((16, 16), dtype="float64")
    x, weight, _ = sample(spec)
    wide = spec.replace(dtype="float64")
    error = np.linalg.norm((run("winograd", spec, x, weight) - correlate(wide, x, weight)).astype(float))
    assert error <= registry.get("winograd").error_bound(spec) * np.linalg.norm(correlate(wide, abs(x), abs(weight)))
    single, double = (registry.get("winograd4").error_bound(spec.replace(dtype=d)) for d in ("float32", "float64"))
    assert math.isclose(double * 2**29, single)  # of the same tile: there is only one


def test_transforms_take_twice_as_long_where_vectors_are_halved():
    """Of one channel each, transforms are nearly all; a layer that multiplies much takes twice as long for that."""
    spec = ConvSpec.parse("g64mb1ic64ih112oc64oh56kh3sh2ph1")
    whole = Machine("another", ("AVX512F",), 2, 2, 64, fma_pipes=2, bandwidth=24e9)
    for name in ("winograd4", "winograd", "winograd8"):
        seconds = [registry.get(name).predict_seconds(spec, replace(whole, fma_pipes=pipes)) for pipes in (2, 1)]
        assert 1.5 < seconds[1] / seconds[0] < 2.1, f"{name}: {spec}"
        assert registry.get("direct").predict_seconds(spec, replace(whole, fma_pipes=1)) < seconds[1], str(spec)
