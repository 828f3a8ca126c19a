"""What is exact: whole numbers, and where a NaN or an infinity shows up."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import correlate, run, sample, skip_if_refused

import convbench
from convbench import ConvSpec, registry

PROBLEMS = (
    ConvSpec(2, 3, 4, spatial=(29,), kernel=(5,), padding=2, stride=2),
    ConvSpec(1, 1, 1, spatial=(100,), kernel=(33,), padding=16),
    ConvSpec(2, 3, 4, spatial=(11, 13), kernel=(3, 4), padding=((1, 2), (0, 3))),
    ConvSpec(1, 4, 6, spatial=(12, 9), kernel=(3, 3), dilation=2, stride=(1, 2), padding=2, groups=2),
    ConvSpec(1, 1, 1, spatial=(40, 41), kernel=(15, 15), padding=7),
    ConvSpec(1, 5, 5, spatial=(8, 8), kernel=(2, 2), groups=5),
    ConvSpec(1, 2, 3, spatial=(5, 6, 7), kernel=(3, 2, 3), padding=1),
)
problems = pytest.mark.parametrize("spec", PROBLEMS, ids=str)
automatic = pytest.mark.parametrize("name", [name for name, engine in registry.engines().items() if engine.automatic])


@problems
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers_in_floats(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec, integers=True)
    result = run(engine, spec, x, weight, bias)
    if not (engine.exact_integers and engine.error_measure == "componentwise"):
        result = np.rint(result)  # an engine that transforms is exact once rounded
    np.testing.assert_array_equal(result, correlate(spec, x, weight, bias), err_msg=f"{engine.name} on {spec}")


@problems
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    if not engine.exact_integers:
        pytest.skip(f"{engine.name} is not exact on integers, so it never sees them")
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    if dtype.endswith("int8"):
        x, weight = x % 2, weight % 2  # sums that 8 bits hold
    expected = correlate(spec, x, weight, bias)
    assert np.iinfo(dtype).min <= expected.min() <= expected.max() <= np.iinfo(dtype).max, spec
    result = run(engine, spec, x, weight, bias)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected, err_msg=f"{engine.name} on {spec}")


@problems
def test_the_automatic_choice_is_exact_on_integers(spec):
    spec = spec.replace(dtype="int64")
    x, weight, bias = sample(spec)
    x *= 1 << 30  # beyond what a float64 sum could hold exactly
    weight = weight * (1 << 26) + 1
    np.testing.assert_array_equal(run("auto", spec, x, weight, bias), correlate(spec, x, weight, bias), err_msg=spec)


@problems
@automatic
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nonfinite_reaches_its_windows_and_no_other(spec, name, value, dtype):
    engine, spec = registry.get(name), spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    weight[abs(weight) < 0.1] = 0.5  # a zero tap would turn an infinity into a NaN
    clean = run(engine, spec, x, weight)
    struck = np.zeros(spec.input_shape)
    places = np.random.default_rng(3).integers(0, struck.size, 3)
    struck.ravel()[places] = 1
    x[struck > 0] = value
    result = run(engine, spec, x, weight)
    reached = correlate(spec.replace(dtype="float64"), struck, np.ones(spec.weight_shape)) > 0
    np.testing.assert_array_equal(~np.isfinite(result), reached, err_msg=f"{engine.name} on {spec}")
    if np.isnan(value):
        assert np.isnan(result[reached]).all(), spec
    bound = engine.error_bound(spec) * max(spec.taps, 1) * 4
    np.testing.assert_allclose(result[~reached], clean[~reached], rtol=0, atol=bound, err_msg=str(spec))


@automatic
def test_a_zero_tap_does_not_hide_a_nan(name):
    spec = ConvSpec(1, 1, 1, spatial=(6, 6), kernel=(3, 3), padding=1)
    skip_if_refused(registry.get(name), spec)
    x = np.zeros(spec.input_shape, spec.dtype)
    x[0, 0, 2, 3] = np.nan
    result = run(name, spec, x, np.zeros(spec.weight_shape, spec.dtype))
    expected = np.zeros((6, 6), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(np.isnan(result[0, 0]), expected)


@automatic
def test_nan_after_a_clean_call_and_before_one(name):
    spec = ConvSpec(1, 1, 1, spatial=(24, 24), kernel=(9, 9), padding=4)
    skip_if_refused(registry.get(name), spec)
    clean, weight, _ = sample(spec)
    layer = convbench.Conv2d(weight, padding=4, engine=name)
    before = layer(clean)
    struck = clean.copy()
    struck[0, 0, 0, 0] = np.nan
    assert np.isnan(layer(struck)).sum() == 25
    np.testing.assert_array_equal(layer(clean), before)
