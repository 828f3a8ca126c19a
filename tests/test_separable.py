"""Kernels of low rank: found by their elements, separated within the error asked for, computed in passes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import assert_within_bound, correlate, run, sample, skip_if_refused
from scipy import ndimage

import convbench
from convbench import ConvSpec, kernels, records, registry, selection, settings
from convbench.engine import unit_roundoff
from convbench.engines.lowrank import factorise

ENGINE = registry.get("separable")
BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])
RANK_ONE = {
    "gaussian": kernels.gaussian(2.5),
    "wide gaussian": kernels.gaussian(1.0, 20),
    "box": kernels.box(7),
    "even box": kernels.box(4),
    "sobel_x": kernels.sobel_x(),
    "sobel_y": kernels.sobel_y(),
    "prewitt_x": kernels.prewitt_x(),
    "prewitt_y": kernels.prewitt_y(),
    "binomial": BINOMIAL.astype(float),
    "binomial mean": BINOMIAL / 256,
    "identity": kernels.identity(5),
}
by_kernel = pytest.mark.parametrize("name", RANK_ONE)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])

PROBLEMS = (
    ConvSpec(1, 1, 1, spatial=(40, 50), kernel=(7, 9), padding=(3, 4)),
    ConvSpec(2, 3, 3, spatial=(23, 300), kernel=(5, 31), padding=((2, 5), (0, 30)), groups=3),
    ConvSpec(1, 2, 3, spatial=(70, 33), kernel=(33, 4), padding=((20, 0), (9, 1))),
    ConvSpec(1, 1, 2, spatial=(50, 61), kernel=(6, 5), stride=(2, 3), padding=4),
    ConvSpec(1, 2, 2, spatial=(64, 40), kernel=(5, 3), dilation=(4, 7), padding=(6, 5), groups=2),
    ConvSpec(1, 1, 1, spatial=(61, 64), kernel=(4, 6), stride=(4, 2), dilation=(3, 2)),
    ConvSpec(2, 2, 4, spatial=(9, 17, 20), kernel=(5, 3, 7), padding=(2, 1, 3), groups=2),
    ConvSpec(1, 1, 1, spatial=(12, 11, 13), kernel=(2, 3, 3), stride=(2, 1, 3), dilation=(3, 2, 1), padding=2),
)
by_problem = pytest.mark.parametrize("spec", PROBLEMS, ids=str)


def outer(*vectors):
    """The product of one vector for each axis."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = np.multiply.outer(product, vector)
    return product


def low_rank(spec, terms, seed=0):
    """A weight of so many products for each pair of channels."""
    rng = np.random.default_rng(seed)
    weight = np.zeros(spec.weight_shape)
    for o, c in np.ndindex(*spec.weight_shape[:2]):
        weight[o, c] = sum(outer(*(rng.uniform(-1, 1, k) for k in spec.kernel)) for _ in range(terms))
    return weight.astype(spec.dtype)


def image_spec(kernel, dtype="float32", size=512):
    """A filter over an image of one channel."""
    pads = tuple(((k - 1) // 2, k // 2) for k in kernel.shape)
    return ConvSpec(1, 1, 1, spatial=(size, size), kernel=kernel.shape, padding=pads, dtype=dtype)


def fitted(spec, weight, rtol=None):
    """The engine for this weight."""
    return ENGINE.for_weight(spec, weight, rtol)


@dtypes
@by_kernel
def test_usual_kernels_are_one_product(name, dtype):
    kernel = RANK_ONE[name].astype(dtype)
    engine = fitted(image_spec(kernel, dtype), kernel[None, None])
    assert engine.variant == ("" if min(kernel.shape) < 3 else "1 term"), name


@dtypes
@by_problem
@pytest.mark.parametrize("terms", [1, 2])
def test_kernels_of_low_rank_are_within_the_bound(spec, terms, dtype):
    spec = spec.replace(dtype=dtype)
    weight = low_rank(spec, terms)
    x, _, bias = sample(spec)
    engine = fitted(spec, weight)
    plan = engine.plan(spec, weight, bias)
    out = np.full(spec.output_shape, np.nan, dtype)
    plan(x, out)
    assert_within_bound(engine, spec, out, x, weight, bias)


@by_problem
def test_the_number_of_threads_does_not_matter_to_the_bit(spec):
    spec = spec.replace(spatial=tuple(size * 4 for size in spec.spatial))
    weight = low_rank(spec, 1)
    x, _, _ = sample(spec)
    results = []
    before = convbench.get_num_threads()
    for threads in (1, 2, 3):
        convbench.set_num_threads(threads)
        try:
            results.append(run("separable", spec, x, weight).tobytes())
        finally:
            convbench.set_num_threads(before)
    assert len(set(results)) == 1, str(spec)


@dtypes
@pytest.mark.parametrize("name", [name for name in RANK_ONE if (RANK_ONE[name] == np.rint(RANK_ONE[name])).all()])
def test_whole_numbers_stay_exact(name, dtype):
    kernel = RANK_ONE[name].astype(dtype)
    spec = image_spec(kernel, dtype, 60)
    x = np.random.default_rng(1).integers(0, 256, spec.input_shape).astype(dtype)
    result = run("separable", spec, x, kernel[None, None])
    np.testing.assert_array_equal(result, correlate(spec, x, kernel[None, None]), err_msg=name)


def test_against_scipy_and_opencv():
    cv2 = pytest.importorskip("cv2")
    x = np.random.default_rng(2).random((200, 333))
    sigma, radius = 4.0, 16
    kernel = kernels.gaussian(sigma, radius)
    result = convbench.conv2d(x[None], kernel[None, None], padding=radius, engine="separable")[0]
    expected = ndimage.gaussian_filter(x, sigma, radius=radius, mode="constant")
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-15)
    line = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_64F)
    expected = cv2.sepFilter2D(x, -1, line, line, borderType=cv2.BORDER_CONSTANT)
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-15)


def test_three_axes_against_scipy():
    x = np.random.default_rng(3).random((30, 31, 40))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 2.0) ** 2)
    kernel = outer(line, line, line) / line.sum() ** 3
    result = convbench.conv3d(x[None], kernel[None, None], padding=5, engine="separable")[0]
    np.testing.assert_allclose(result, ndimage.gaussian_filter(x, 2.0, radius=5, mode="constant"), rtol=1e-12)


# What the judge makes of it


def test_the_judge_finds_separable_kernels_without_being_told():
    kernel = kernels.gaussian(3.0, dtype="float32")[None, None]
    layer = convbench.Conv2d(kernel, padding="same")
    selected = layer.selection((1, 1, 1024, 1024))
    assert selected.engine == "separable", selected
    noise = np.random.default_rng(4).random(kernel.shape, "float32")
    other = convbench.Conv2d(noise, padding="same").selection((1, 1, 1024, 1024))
    assert other.spec == selected.spec
    assert other.engine != "separable", other


def test_a_flipped_kernel_is_the_one_that_is_looked_at():
    kernel = np.outer([1, 2, 3, 4, 5, 6, 7.0], [1, 0, 2, 0, 0, 0, 1])[None, None]
    x = np.random.default_rng(5).random((1, 1, 30, 30))
    result = convbench.conv2d(x, kernel, padding=3, flip=True, engine="separable")
    np.testing.assert_allclose(result, convbench.conv2d(x, kernel, padding=3, flip=True, engine="direct"), rtol=1e-13)


def test_a_record_of_one_rank_is_not_taken_for_another():
    noise = np.random.default_rng(6).random((1, 1, 9, 9), "float32")
    one = kernels.gaussian(2.0, 4, "float32")[None, None]
    spec = image_spec(one[0, 0], size=256)
    fast = records.EngineTiming(1e-9, 1e-9, 1e-9, 5, 0, None, ENGINE.version)
    records.save(spec, {"separable, 1 term": fast})
    assert convbench.select(spec, weight=one).engine == "separable"
    assert convbench.select(spec, weight=one).source == "record"
    for weight in (noise, one + low_rank(spec, 1), None):
        selection.forget()
        selected = convbench.select(spec, weight=weight)
        assert all(c.measured is None for c in selected.candidates), selected


def test_measuring_times_the_very_weight_and_records_its_variant(monkeypatch):
    monkeypatch.setattr(settings, "_tuning_seconds", 0.01)
    one = kernels.gaussian(2.0, 4, "float32")[None, None]
    spec = image_spec(one[0, 0], size=64)
    selected = convbench.select(spec, "measure", weight=one)
    assert "separable, 1 term" in records.load(spec).timings
    assert next(c for c in selected.candidates if c.engine == "separable").measured
    selection.forget()
    assert convbench.select(spec, "replay", weight=one).engine == selected.engine


def test_a_dense_weight_gets_the_engine_itself():
    noise = np.random.default_rng(7).random((64, 64, 15, 15))
    assert fitted(ConvSpec(1, 64, 64, spatial=(20, 20), kernel=(15, 15)), noise) is ENGINE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_computed_directly(value):
    weight = kernels.gaussian(1.0, dtype="float32")[None, None]
    weight[0, 0, 2, 3] = value
    spec = image_spec(weight[0, 0], size=40)
    x, _, _ = sample(spec)
    assert fitted(spec, weight) is ENGINE
    result = run("separable", spec, x, weight)
    np.testing.assert_array_equal(result, run("direct", spec, x, weight))


# Truncation


@dtypes
def test_what_is_left_out_stays_within_the_tolerance(dtype):
    rng = np.random.default_rng(8)
    kernel = sum(10.0**-n * outer(rng.random(15), rng.random(15)) for n in range(8)).astype(dtype)
    spec = image_spec(kernel, dtype, 100)
    x, _, _ = sample(spec)
    counts = []
    for rtol in (1e-1, 1e-2, 1e-3, 1e-4):
        engine = fitted(spec, kernel[None, None], rtol)
        assert engine.error_bound(spec) <= rtol
        out = np.empty(spec.output_shape, dtype)
        engine.plan(spec, kernel[None, None])(x, out)
        assert_within_bound(engine, spec, out, x, kernel[None, None])
        counts.append(engine.variant)
    assert counts == sorted(set(counts)), counts  # more terms for less error
    tolerance = 20 * unit_roundoff(dtype)
    exact = factorise(kernel[None, None], tolerance)
    assert exact.truncation <= tolerance
    assert exact.terms > int(counts[-1].split()[0])


def test_rtol_decides_how_many_terms_the_judge_takes():
    kernel = kernels.gaussian(3.0) + 1e-6 * low_rank(image_spec(np.zeros((25, 25)), "float64"), 8)[0, 0]
    layers = [convbench.Conv2d(kernel[None, None], padding="same", rtol=rtol) for rtol in (1e-2, None)]
    x = np.random.default_rng(9).random((1, 512, 512))
    exact = convbench.conv2d(x, kernel[None, None], padding="same", engine="direct")
    loose, tight = (np.linalg.norm(layer(x) - exact) / np.linalg.norm(exact) for layer in layers)
    assert layers[0].selection(x.shape).engine == "separable"
    assert 1e-9 < loose <= 1e-2
    assert tight < 1e-12


def test_factors_of_whole_numbers_are_whole():
    factors = factorise(BINOMIAL[None, None].astype(float), 0.0, 1)
    assert factors.terms == 1
    assert factors.truncation == 0.0
    column, row = (axis[0, 0, 0] for axis in factors.axes)
    assert np.array_equal(np.outer(column, row), BINOMIAL)


def test_zeros_and_steps_have_factors():
    assert factorise(np.zeros((1, 1, 3, 3)), 0.0, 1).terms == 1
    corner = np.zeros((2, 1, 3, 3))
    corner[0, 0, 0, 0], corner[1, 0, 1, :] = -3, 2
    assert factorise(corner, 0.0, 1).truncation == 0.0


def test_pairs_of_channels_may_have_different_ranks():
    spec = ConvSpec(1, 2, 2, spatial=(30, 30), kernel=(9, 9), padding=4, dtype="float64")
    weight = low_rank(spec, 1)
    weight[1, 0] += outer(*np.random.default_rng(10).random((2, 9)))
    x, _, _ = sample(spec)
    engine = fitted(spec, weight)
    assert engine.variant == "2 terms"
    assert_within_bound(engine, spec, run("separable", spec, x, weight), x, weight)


def test_huge_and_tiny_weights_do_not_overflow_between_the_passes():
    for scale in (1e-30, 1e30):
        kernel = (kernels.gaussian(2.0) * scale).astype("float32")
        spec = image_spec(kernel, size=50)
        x = np.full(spec.input_shape, 1e8 if scale > 1 else 1e20, "float32")
        result = run("separable", spec, x, kernel[None, None])
        np.testing.assert_allclose(result[0, 0, 20:30, 20:30], x[0, 0, 0, 0] * np.float64(scale), rtol=1e-5)


# What it refuses


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ConvSpec(1, 1, 1, spatial=(9,), kernel=(3,)), "one axis"),
        (ConvSpec(1, 1, 1, spatial=(9, 9), kernel=(1, 5)), "1×5"),
        (ConvSpec(1, 1, 1, spatial=(9, 9, 9), kernel=(1, 1, 3)), "one axis"),
        (ConvSpec(1, 1, 1, spatial=(9, 9), kernel=(3, 3), dtype="complex64"), "complex64"),
        (ConvSpec(1, 1, 1, spatial=(9, 9), kernel=(3, 3), dtype="float16"), "float16"),
    ],
)
def test_refusals_say_why(spec, words):
    assert words in ENGINE.why_unsupported(spec)


def test_layers_compute_on_several_threads_at_once():
    spec = image_spec(np.zeros((9, 9)), size=300)
    weight = low_rank(spec, 1)
    x, _, _ = sample(spec)
    layer = convbench.Conv2d(weight, padding=spec.padding, engine="separable")
    expected, found = layer(x), []
    threads = [threading.Thread(target=lambda: found.append(layer(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, expected) for result in found)
    assert len(found) == 4


@by_problem
def test_a_nan_reaches_its_windows_and_no_other(spec):
    skip_if_refused(ENGINE, spec)
    weight = low_rank(spec, 2)
    x, _, _ = sample(spec)
    struck = np.zeros(spec.input_shape)
    struck.ravel()[np.random.default_rng(11).integers(0, struck.size, 3)] = 1
    x[struck > 0] = np.nan
    reached = correlate(spec.replace(dtype="float64"), struck, np.ones(spec.weight_shape)) > 0
    np.testing.assert_array_equal(np.isnan(run("separable", spec, x, weight)), reached, err_msg=str(spec))
