"""Integer kernels that are products: found by their elements, computed in passes, exact modulo 2^bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import convbench
from convbench import ConvSpec, kernels, registry
from convbench.engines.lowrank import factorise_integers
from convbench.machine import Machine

ENGINE = registry.get("separable")
MACHINE = Machine("a processor", ("AVX2",), 2, 2, 32)
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
dtypes = pytest.mark.parametrize("dtype", DTYPES)

USUAL = {
    "binomial": (np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]), ""),
    "long binomial": (np.outer([1, 8, 28, 56, 70, 56, 28, 8, 1], [1, 2, 1]), ""),
    "gaussian": (np.outer([1, 5, 13, 18, 13, 5, 1], [1, 5, 13, 18, 13, 5, 1]), ""),
    "box 3": (np.full((3, 3), 1), "h"),
    "even box": (np.full((4, 4), -2), "h"),
    "box 9": (np.full((9, 9), 3), "hw"),
    "motion": (np.outer(np.full(9, 1), [1, 2, 1]), "h"),
    "sobel_x": (kernels.sobel_x("int64"), ""),
    "sobel_y": (kernels.sobel_y("int64"), ""),
    "prewitt_x": (kernels.prewitt_x("int64"), "h"),
    "prewitt_y": (kernels.prewitt_y("int64"), ""),
    "identity": (kernels.identity(5, "int64"), ""),
}

PROBLEMS = (
    ConvSpec(1, 1, 1, spatial=(40, 50), kernel=(7, 9), padding=(3, 4)),
    ConvSpec(2, 3, 3, spatial=(23, 30), kernel=(5, 31), padding=((2, 5), (0, 30)), groups=3),
    ConvSpec(1, 2, 3, spatial=(20, 33), kernel=(33, 4), padding=((20, 0), (9, 1))),
    ConvSpec(2, 4, 2, spatial=(50, 61), kernel=(6, 15), stride=(2, 3), padding=4, groups=2),
    ConvSpec(1, 1, 2, spatial=(19, 21), kernel=(3, 3), stride=(5, 4)),
    ConvSpec(1, 2, 2, spatial=(64, 40), kernel=(5, 3), dilation=(4, 7), padding=(6, 5), groups=2),
    ConvSpec(2, 2, 4, spatial=(9, 17, 20), kernel=(5, 3, 7), padding=((2, 0), (1, 3), (3, 3)), groups=2),
    ConvSpec(1, 2, 1, spatial=(12, 11, 13), kernel=(2, 3, 3), stride=(2, 1, 3), dilation=(3, 2, 1), padding=2),
    ConvSpec(1, 2, 1, spatial=(12, 11, 13), kernel=(1, 5, 3), stride=(2, 1, 1), padding=2),
    ConvSpec(1, 1, 2, spatial=(12, 11, 13), kernel=(7, 1, 9), stride=(3, 2, 2), padding=3),
)
by_problem = pytest.mark.parametrize("spec", PROBLEMS, ids=str)


def product(vectors):
    """The product of one vector for each axis, in Python integers."""
    found = np.array(vectors[0], object)
    for vector in vectors[1:]:
        found = np.multiply.outer(found, np.array(vector, object))
    return found


def products(spec, rng, constant=()):
    """A weight whose pairs of channels are products, along the `constant` axes of equal elements; one pair is zero."""
    lowest = -3 if spec.dtype.startswith("int") else 0
    weight = np.zeros(spec.weight_shape, spec.dtype)
    for o, c in np.ndindex(*spec.weight_shape[:2]):
        vectors = [rng.integers(lowest, 4, 1 if axis in constant else k) for axis, k in enumerate(spec.kernel)]
        vectors = [np.broadcast_to(vector, k) for vector, k in zip(vectors, spec.kernel, strict=True)]
        weight[o, c] = product([vector.tolist() for vector in vectors])
    if math.prod(spec.weight_shape[:2]) > 1:
        weight[0, 0] = 0
    return weight


def whole_range(spec, rng):
    """Input and bias that fill the type, so that sums leave it."""
    info = np.iinfo(spec.dtype)
    shapes = spec.input_shape, spec.out_channels
    return [rng.integers(info.min, info.max, shape, dtype=spec.dtype, endpoint=True) for shape in shapes]


def fitted(spec, weight):
    """The engine for this weight, which must be another than the engine itself."""
    engine = ENGINE.for_weight(spec, weight)
    assert engine is not ENGINE, f"{spec}: not found"
    return engine


def planned(engine, spec, x, weight, bias=None):
    """The output of an engine's plan."""
    out = np.full(spec.output_shape, 77, spec.dtype)
    engine.plan(spec, weight, bias)(x, out)
    return out


def by_scipy(spec, x, weight, bias):
    """The sums by scipy.ndimage, in int64, and then modulo 2^bits."""
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), *spec.padding))
    kernel = np.zeros((*spec.weight_shape[:2], *spec.extents), np.int64)
    kernel[(..., *(slice(None, None, d) for d in spec.dilation))] = weight
    first = [extent // 2 for extent in spec.extents]
    out = np.zeros(spec.output_shape, np.int64) + bias.astype(np.int64).reshape(-1, *(1,) * spec.ndim)
    per_group = spec.weight_shape[1]
    places = tuple(
        slice(f, f + (size - 1) * s + 1, s) for f, size, s in zip(first, spec.output_spatial, spec.stride, strict=True)
    )
    for n, o, c in np.ndindex(spec.batch, spec.out_channels, per_group):
        channel = o // (spec.out_channels // spec.groups) * per_group + c
        out[n, o] += ndimage.correlate(padded[n, channel], kernel[o, c], mode="constant")[places]
    return out.astype(spec.dtype)


def image_spec(kernel, dtype, size=256):
    """A filter over an image of one channel."""
    pads = tuple(((k - 1) // 2, k // 2) for k in kernel.shape)
    return ConvSpec(1, 1, 1, spatial=(size, size), kernel=kernel.shape, padding=pads, dtype=dtype)


# What is found


FITTING = [
    (name, dtype) for name, (kernel, _) in USUAL.items() for dtype in DTYPES if (kernel.astype(dtype) == kernel).all()
]


@pytest.mark.parametrize(("name", "dtype"), FITTING)
def test_usual_kernels_are_found_by_the_judge_and_exact(name, dtype):
    kernel, running = USUAL[name]
    weight = kernel.astype(dtype)[None, None]
    spec = image_spec(kernel, dtype)
    engine = fitted(spec, weight)
    assert engine.variant == "1 term" + (f", running sums along {running}" if running else ""), name
    assert engine.exact_integers, name
    assert engine.error_bound(spec) == 0, name
    selected = convbench.select(spec, weight=weight)
    assert selected.engine == "separable", f"{name}: {selected}"
    x, bias = whole_range(spec, np.random.default_rng(1))
    result = run("auto", spec, x, weight, bias)
    if spec.itemsize < 8:  # SciPy multiplies in float64, which holds their sums
        np.testing.assert_array_equal(result, by_scipy(spec, x, weight, bias), err_msg=f"{name} on {spec}")
    np.testing.assert_array_equal(result, run("reference", spec, x, weight, bias), err_msg=f"{name} on {spec}")


def test_every_type_has_usual_kernels():
    assert {dtype for _, dtype in FITTING} == set(DTYPES)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize(
    "kernel",
    [kernels.laplacian(4), kernels.laplacian(8), kernels.sharpen(), np.outer([1, 2, 1], [1, 2, 1]) + np.eye(3)],
    ids=["laplacian 4", "laplacian 8", "sharpen", "two products"],
)
def test_kernels_of_higher_rank_are_left_to_others(kernel, dtype):
    weight = kernel.astype(dtype)[None, None]
    spec = image_spec(kernel, dtype, 30)
    assert ENGINE.for_weight(spec, weight) is ENGINE, spec
    assert convbench.select(spec, weight=weight).engine == "direct", spec
    assert_refused(["separable", dtype, "exact"], convbench.select, spec, weight=weight, engine="separable")
    x, bias = whole_range(spec, np.random.default_rng(2))
    expected = run("reference", spec, x, weight, bias)
    np.testing.assert_array_equal(planned(ENGINE, spec, x, weight, bias), expected, err_msg=str(spec))


@dtypes
@pytest.mark.parametrize("place", [(0, 0), (2, 2), (4, 1)])
def test_a_kernel_that_nearly_factors_is_left_to_others(place, dtype):
    weight = np.outer([1, 4, 6, 4, 1], [1, 2, 3, 2, 1]).astype(dtype)[None, None]
    spec = image_spec(weight[0, 0], dtype, 20)
    fitted(spec, weight)
    weight[(0, 0, *place)] += 1
    assert ENGINE.for_weight(spec, weight) is ENGINE, spec


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_a_difference_that_float64_does_not_hold_is_seen(dtype):
    big = np.array([1 << 30, (1 << 31) - 1, 1 << 29], dtype)
    weight = np.outer(big, big)[None, None]
    spec = image_spec(weight[0, 0], dtype, 20)
    fitted(spec, weight)
    weight[0, 0, 1, 1] -= 1
    assert ENGINE.for_weight(spec, weight) is ENGINE, spec
    x, bias = whole_range(spec, np.random.default_rng(3))
    np.testing.assert_array_equal(run("auto", spec, x, weight, bias), run("reference", spec, x, weight, bias))


def test_products_modulo_a_power_of_two_are_none():
    weight = np.array([[[[16, 0, 0], [0, 0, 0], [0, 0, 16]]]], "uint8")  # a corner missing: 16 · 16 = 0 modulo 2^8
    assert ENGINE.for_weight(image_spec(weight[0, 0], "uint8", 20), weight) is ENGINE


def test_a_pair_of_channels_without_factors_leaves_all_to_others():
    spec = ConvSpec(1, 2, 2, spatial=(20, 20), kernel=(3, 3), dtype="int32")
    weight = np.ones(spec.weight_shape, "int32")
    fitted(spec, weight)
    weight[1, 0, 0, 0] = 2
    assert ENGINE.for_weight(spec, weight) is ENGINE, spec


@pytest.mark.parametrize("kernel", [(1, 5), (5, 1), (2, 2)])
def test_kernels_with_nothing_to_gain_are_left_to_others(kernel):
    spec = ConvSpec(1, 1, 1, spatial=(20, 20), kernel=kernel, dtype="int32")
    weight = np.ones(spec.weight_shape, "int32")
    x, _ = whole_range(spec, np.random.default_rng(4))
    assert convbench.select(spec, weight=weight).engine != "separable", spec
    np.testing.assert_array_equal(run("auto", spec, x, weight), run("reference", spec, x, weight), err_msg=str(spec))


@pytest.mark.parametrize(
    ("dtype", "vectors"),
    [
        ("uint64", ([(1 << 32) - 1, 2, 0], [(1 << 32) + 1, 3, 1])),
        ("int64", ([-6, 0, 9], [0, -(1 << 59), 4])),
        ("int8", ([0, 1, 0], [-128, 0, 64])),
        ("int8", ([127, 128, 0], [-1, 0, 0])),  # a factor of 128, which the type does not hold
        ("int16", ([0, 4, -6], [0, 0, 10], [-15, 25])),
        ("int32", ([0, 0, 0], [0, 0, 0], [0, 0])),
    ],
)
def test_factors_are_primitive_and_exact(dtype, vectors):
    kernel = product(vectors)
    weight = kernel.astype(dtype)[None, None]
    found = [axis[0, 0].tolist() for axis in factorise_integers(weight)]
    assert (product(found) == kernel).all(), found
    for vector in found[:-1]:
        assert math.gcd(*vector) == 1, found
        assert next(element for element in vector if element) > 0, found
    spec = ConvSpec(1, 1, 1, spatial=(9,) * kernel.ndim, kernel=kernel.shape, dtype=dtype, padding=1)
    x, bias = whole_range(spec, np.random.default_rng(5))
    result = planned(fitted(spec, weight), spec, x, weight, bias)
    np.testing.assert_array_equal(result, run("reference", spec, x, weight, bias), err_msg=str(spec))


# What is computed


@dtypes
@by_problem
@pytest.mark.parametrize("constant", [(), (0,), (0, 1, 2)], ids=["any", "first axis constant", "boxes"])
def test_problems_are_exact_modulo_the_type(spec, constant, dtype):
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(6)
    weight = products(spec, rng, constant)
    x, bias = whole_range(spec, rng)
    engine = fitted(spec, weight)
    result = planned(engine, spec, x, weight, bias)
    np.testing.assert_array_equal(result, run("reference", spec, x, weight, bias), err_msg=f"{spec}, {engine.variant}")
    if spec.itemsize < 8:  # SciPy multiplies in float64, which holds their sums
        expected = by_scipy(spec, x, weight, bias)
        np.testing.assert_array_equal(result, expected, err_msg=f"{spec}, {engine.variant}")


@st.composite
def problems(draw):
    """Problems of two and three axes with at least two taps along two of them."""
    axes = []
    for axis in range(draw(st.integers(2, 3))):
        kernel, dilation = draw(st.integers(2 if axis < 2 else 1, 9)), draw(st.integers(1, 2))
        stride = draw(st.integers(1, 3))
        low, high = draw(st.integers(0, 10)), draw(st.integers(0, 10))
        smallest = max(1, dilation * (kernel - 1) + 1 - low - high)
        axes.append((draw(st.integers(smallest, smallest + 9)), kernel, stride, dilation, (low, high)))
    spatial, kernel, stride, dilation, padding = zip(*axes, strict=True)
    groups, channels, filters = (draw(st.integers(1, 2)) for _ in range(3))
    return ConvSpec(
        batch=draw(st.integers(1, 2)),
        in_channels=groups * channels,
        out_channels=groups * filters,
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        dtype=draw(st.sampled_from(DTYPES)),
    )


@settings(max_examples=100, deadline=None)
@given(problems(), st.sets(st.integers(0, 2)), st.integers(0, 1000))
def test_any_problem_is_exact_modulo_the_type(spec, constant, seed):
    rng = np.random.default_rng(seed)
    weight = products(spec, rng, constant)
    x, bias = whole_range(spec, rng)
    engine = ENGINE.for_weight(spec, weight)
    result = planned(engine, spec, x, weight, bias)
    np.testing.assert_array_equal(result, run("reference", spec, x, weight, bias), err_msg=f"{spec}, {engine.variant}")


@by_problem
def test_parts_of_several_threads_fit_together(spec, monkeypatch):
    monkeypatch.setattr("convbench.engines.separable_integers.PARALLEL_MACS", 0)
    spec = spec.replace(dtype="int16")
    rng = np.random.default_rng(7)
    weight = products(spec, rng, (0, 1, 2))
    x, bias = whole_range(spec, rng)
    expected = run("reference", spec, x, weight, bias)
    before = convbench.get_num_threads()
    for threads in (2, 3, 7):
        convbench.set_num_threads(threads)
        try:
            result = planned(fitted(spec, weight), spec, x, weight, bias)
        finally:
            convbench.set_num_threads(before)
        np.testing.assert_array_equal(result, expected, err_msg=f"{spec}, {threads} threads")


def test_a_plan_remembers_nothing_of_earlier_calls_and_leaves_the_input():
    spec = PROBLEMS[6].replace(dtype="int32")
    rng = np.random.default_rng(8)
    weight = products(spec, rng, (0, 1, 2))
    (first, _), (second, _) = whole_range(spec, rng), whole_range(spec, rng)
    second.flags.writeable = False
    plan = fitted(spec, weight).plan(spec, weight)
    assert plan.nbytes > 0, spec
    for x in (first, second, first):
        kept, out = x.copy(), np.empty(spec.output_shape, spec.dtype)
        plan(x, out)
        np.testing.assert_array_equal(x, kept, err_msg=str(spec))
        np.testing.assert_array_equal(out, run("reference", spec, x, weight), err_msg=str(spec))


def test_channels_last_and_true_convolution():
    rng = np.random.default_rng(9)
    weight = np.outer([1, 2, 3, 4, 5], [1, 0, -2, 3, 1]).astype("int16")[None, None].repeat(3, axis=0)
    x = np.moveaxis(rng.integers(-99, 99, (2, 20, 30, 3), dtype="int16"), -1, 1)
    options = {"padding": "same", "padding_mode": "reflect", "groups": 3, "flip": True}
    results = [convbench.conv2d(x, weight, engine=name, **options) for name in ("separable", "reference")]
    np.testing.assert_array_equal(*results)


# What it costs by the model


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_box_costs_the_same_at_any_size(dtype):
    seconds = []
    for k in (9, 31, 101):
        weight = np.ones((1, 1, k, k), dtype)
        spec = ConvSpec(1, 1, 1, spatial=(500 + k - 1,) * 2, kernel=(k, k), dtype=dtype)  # equal outputs
        seconds.append(fitted(spec, weight).predict_seconds(spec, MACHINE))
    assert max(seconds) < 1.3 * min(seconds), seconds


def test_only_integers_take_running_sums():
    for dtype in ("float32", "float64"):
        weight = np.ones((1, 1, 31, 31), dtype)
        assert ENGINE.for_weight(image_spec(weight[0, 0], dtype), weight).variant == "1 term"


@pytest.mark.parametrize(
    ("change", "running"),
    [({}, "hw"), ({"dilation": 2}, ""), ({"dilation": (1, 2)}, "h"), ({"stride": (5, 1)}, "w"), ({"stride": 5}, "")],
)
def test_running_sums_where_they_save_something(change, running):
    spec = ConvSpec(1, 1, 1, spatial=(99, 99), kernel=(9, 9), dtype="int32", **change)
    engine = fitted(spec, np.full(spec.weight_shape, 3, "int32"))
    assert engine.variant.partition("along ")[2] == running, f"{spec}: {engine.variant}"


@by_problem
def test_estimates_are_positive_and_small(spec):
    spec = spec.replace(dtype="int32")
    engine = fitted(spec, products(spec, np.random.default_rng(10)))
    assert 0 < engine.predict_seconds(spec, MACHINE) < 1, spec
    assert 0 < engine.workspace_bytes(spec) < 1 << 20, spec
    plan = engine.plan(spec, np.zeros(spec.weight_shape, "int32"))
    assert plan.nbytes <= engine.workspace_bytes(spec) + 8 * spec.out_channels + 64 * convbench.get_num_threads(), spec
