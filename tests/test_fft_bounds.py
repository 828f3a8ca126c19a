"""The FFT engine's error bound in every precision, by both families of code, for inputs that are hard on it."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_refused, correlate

from convbench import ConvSpec, registry, select, verify
from convbench.engine import unit_roundoff
from convbench.engines import fft_circular, fft_fftw
from convbench.padding import pad

pytest.importorskip("pyfftw", reason="these transforms are pyfftw's")
ENGINE = registry.get("fft")
EXTENDED = [np.dtype(np.longdouble).name, np.dtype(np.clongdouble).name]
DTYPES = ("float32", "float64", "complex64", "complex128", *EXTENDED)
SPECS = (
    ConvSpec(1, 1, 1, (301,), (31,), padding=((30, 3),)),
    ConvSpec(1, 2, 2, (240,), (15,), stride=3, dilation=2, groups=2),
    ConvSpec(1, 4, 5, (31, 28), (6, 7), padding=3),
    ConvSpec(1, 2, 1, (11, 12, 13), (4, 3, 5), stride=(2, 1, 3), padding=1),
    ConvSpec(1, 1, 2, (10, 11, 9), (3, 2, 3), dilation=(1, 3, 2), padding=((2, 3), (0, 1), (4, 4))),
)
KINDS = ("even", "dynamic range", "cancelling", "one spike", "constant", "denormal", "near zero", "large")
#: What numbers of a kind are multiplied by, and what the other factor then is, by bytes of a real number.
MAGNITUDES = {
    "denormal": {4: (1e-40, 1e25), 8: (1e-311, 1e200)},
    "near zero": {4: (1e-34, 1e10), 8: (1e-300, 1e100)},
    "large": {4: (1e25, 1e-10), 8: (1e270, 1e-100)},
}
specs = pytest.mark.parametrize("spec", SPECS, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
kinds = pytest.mark.parametrize("kind", KINDS)


def draw(shape, kind, dtype, rng):
    """Random numbers of a kind, complex ones with random phases."""
    values = rng.uniform(-1, 1, shape)
    if kind == "dynamic range":
        values = rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-9, 9, shape)
    if kind == "cancelling":
        values = (-1.0) ** np.indices(shape).sum(0)
    if kind == "one spike":
        values.flat[values.size // 3] = 1e9
    if kind == "constant":
        values = np.ones(shape)
    return (values * np.exp(2j * np.pi * rng.uniform(size=shape)) if np.dtype(dtype).kind == "c" else values).astype(
        dtype
    )


def factors(kind, dtype):
    """What inputs and weights are multiplied by; extended precision is tested in double's range."""
    real = np.dtype(dtype).itemsize // (2 if np.dtype(dtype).kind == "c" else 1)
    return MAGNITUDES.get(kind, {}).get(min(real, 8), (1, 1))


def error_over_bound(spec, x, weight, out):
    """The L2 error over what the bound allows: that part of |x| ∗ |w| over every window that meets the input."""
    everywhere = tuple((extent - 1, extent - 1) for extent in spec.extents)
    wide = EXTENDED[0]
    scale = correlate(
        spec.replace(dtype=wide, stride=1, padding=everywhere),
        abs(x.astype(EXTENDED[1])),
        abs(weight.astype(EXTENDED[1])),
    )
    error = np.linalg.norm(abs(out - correlate(spec, x, weight)).ravel().astype(wide))
    # The expected values of extended precision are sums in that very type.
    own = spec.taps * np.finfo(wide).eps
    return error / ((ENGINE.error_bound(spec) + own) * np.linalg.norm(scale.ravel()))


def run_both(spec, x, weight):
    """Outputs of the engine, and of FFTW's transforms where generated code is the engine's."""
    for plan in (ENGINE.plan(spec, weight), fft_fftw.plan(spec, weight, 1)):
        out = np.full(spec.output_shape, np.nan, spec.dtype)
        plan(x, out)
        yield out


@specs
@dtypes
@kinds
def test_hard_inputs(spec, dtype, kind):
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(0)
    ours, others = factors(kind, dtype)
    for other in ("even", "dynamic range", "constant"):
        x = draw(spec.input_shape, kind, dtype, rng) * np.dtype(dtype).type(ours)
        weight = draw(spec.weight_shape, other, dtype, rng) * np.dtype(dtype).type(others)
        for out in run_both(spec, x, weight):
            error = error_over_bound(spec, x, weight, out)
            assert error <= 1, f"{spec}: {kind} inputs, {other} kernel: {error:.2g} times the bound"


@specs
@dtypes
@kinds
def test_hard_kernels(spec, dtype, kind):
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(1)
    ours, others = factors(kind, dtype)
    weight = draw(spec.weight_shape, kind, dtype, rng) * np.dtype(dtype).type(ours)
    x = draw(spec.input_shape, "even", dtype, rng) * np.dtype(dtype).type(others)
    for out in run_both(spec, x, weight):
        error = error_over_bound(spec, x, weight, out)
        assert error <= 1, f"{spec}: {kind} kernel: {error:.2g} times the bound"


@pytest.mark.parametrize("spatial", [(16, 32), (15, 22), (61,), (5, 4, 6)], ids=str)
@dtypes
@kinds
def test_hard_inputs_that_go_round(spatial, dtype, kind):
    """By a generated transform where there is one, and by FFTW's."""
    kernel = tuple(size + 3 for size in spatial)
    padding = tuple((k // 2, k - 1 - k // 2) for k in kernel)
    spec = ConvSpec(1, 1, 2, spatial, kernel, padding=padding, dtype=dtype, padding_mode="circular")
    rng = np.random.default_rng(3)
    ours, others = factors(kind, dtype)
    x = draw(spec.input_shape, kind, dtype, rng) * np.dtype(dtype).type(ours)
    weight = draw(spec.weight_shape, "even", dtype, rng) * np.dtype(dtype).type(others)
    for plan in (ENGINE.circular(spec).plan(spec, weight), fft_circular.plan(spec, weight, 1)):
        out = np.full(spec.output_shape, np.nan, dtype)
        plan(x, out)
        error = error_over_bound(spec.padded(), pad(x, padding, "circular"), weight, out)
        assert error <= 1, f"{spec}: {kind} inputs: {error:.2g} times the bound"


@specs
@dtypes
def test_numbers_that_overflow_on_the_way_are_right(spec, dtype):
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(2)
    largest, small = np.finfo(dtype).max / 8, np.dtype(dtype).type(np.finfo(dtype).tiny) * 1024
    x = draw(spec.input_shape, "even", dtype, rng) * np.dtype(dtype).type(largest)
    weight = draw(spec.weight_shape, "even", dtype, rng) * small
    for out in run_both(spec, x, weight):
        assert error_over_bound(spec, x, weight, out) <= 1, spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_is_a_few_roundings_of_each_of_log_n(dtype):
    """Stated as 8·u·√log2(N), where N is the length of the transform."""
    for spec in (spec.replace(dtype=dtype) for spec in SPECS):
        positions = np.prod([size + 2 * extent for size, extent in zip(spec.spatial, spec.extents, strict=True)])
        allowed = ENGINE.error_bound(spec) / unit_roundoff(dtype)
        assert 8 < allowed < 8 * np.sqrt(np.log2(4.0 * positions)), f"{spec}: {allowed} roundings"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("shape", SPECS[::2], ids=str)
def test_integers_are_refused(dtype, shape):
    spec = shape.replace(dtype=dtype)
    assert_refused([dtype, "fft"], select, spec, engine="fft")
    (check,) = verify(spec, ["fft"]).results
    assert dtype in check.refused, spec


@specs
@dtypes
def test_an_rtol_under_the_bound_is_refused_with_both(spec, dtype):
    spec = spec.replace(dtype=dtype)
    bound = ENGINE.error_bound(spec)
    assert_refused([f"{bound:.1e}", f"{bound / 2:.1e}"], select, spec, engine="fft", rtol=bound / 2)
    assert select(spec, engine="fft", rtol=bound).engine == "fft", spec
