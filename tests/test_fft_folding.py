"""Strides and dilations by FFTW's transforms: sums of aliases, repeated spectra, and the convolutions they make."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_within_bound, correlate, sample

from convbench import ConvSpec, registry
from convbench.engine import unit_roundoff
from convbench.engines import fft_fftw, fft_folding, fft_sizes
from convbench.engines.fft import family
from convbench.machine import this_machine

pytest.importorskip("pyfftw", reason="these transforms are pyfftw's")
ENGINE = registry.get("fft")
DTYPES = ("float32", "float64", "complex64", "complex128")
FOLDS = (
    ((12,), (3,)),
    ((15,), (5,)),
    ((8,), (8,)),
    ((18,), (2,)),
    ((9, 12), (3, 2)),
    ((8, 15), (1, 3)),
    ((10, 7), (5, 1)),
    ((6, 9, 15), (3, 3, 5)),
    ((4, 6, 14), (2, 1, 2)),
)
#: One to three axes of odd and even sizes, groups, one and several channels on both sides.
SPECS = (
    ConvSpec(2, 1, 1, (61,), (7,), padding=((3, 5),)),
    ConvSpec(1, 8, 8, (45,), (4,), groups=2, padding=2),
    ConvSpec(1, 2, 4, (19, 23), (3, 4), groups=2, padding=((1, 2), (0, 3))),
    ConvSpec(2, 5, 4, (17, 16), (4, 3)),
    ConvSpec(1, 3, 3, (9, 11, 13), (3, 2, 3), groups=3, padding=1),
    ConvSpec(1, 2, 3, (8, 9, 11), (2, 3, 2), padding=((0, 1), (2, 0), (1, 1))),
)
STEPS = tuple(itertools.product((1, 2, 3), (1, 2, 3)))
specs = pytest.mark.parametrize("spec", SPECS, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
steps = pytest.mark.parametrize(("stride", "dilation"), STEPS)


def by_fftw(spec, x, weight, threads=1, tiling=None):
    """`spec` by FFTW's transforms, whatever `fft` would take."""
    out = np.full(spec.output_shape, np.nan, spec.dtype)
    if tiling is None:
        fft_fftw.plan(spec, weight, threads)(x, out)
    else:
        fft_fftw.FFTWPlan(spec, tiling, weight, threads)(x, out)
    return out


@pytest.mark.parametrize(("lengths", "factors"), FOLDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_aliases_is_the_spectrum_of_every_sth_position(lengths, factors, dtype):
    real = dtype.startswith("float")
    x, _, _ = sample(ConvSpec(1, 2, 1, lengths, (1,) * len(lengths), dtype=dtype))
    axes = tuple(range(1, 1 + len(lengths)))
    transform = np.fft.rfftn if real else np.fft.fftn
    spectrum = transform(x[0], axes=axes)
    expected = transform(x[0][(slice(None), *(slice(None, None, s) for s in factors))], axes=axes)
    folded = np.empty_like(expected)
    fft_folding.fold(spectrum, lengths, factors, real, folded)
    np.testing.assert_allclose(folded / np.prod(factors), expected, rtol=0, atol=200 * unit_roundoff(dtype))


@pytest.mark.parametrize("lengths", [(24,), (25,), (18, 20), (15, 16), (9, 10, 12)])
@pytest.mark.parametrize("real", [True, False])
def test_a_dilated_kernels_spectrum(lengths, real):
    rng = np.random.default_rng(0)
    transform = np.fft.rfftn if real else np.fft.fftn
    for dilation in itertools.product((1, 2, 3, 6), repeat=len(lengths)):
        kernel = rng.uniform(-1, 1, (2, 1, 2)[: len(lengths)])
        kernel = kernel if real else kernel * (1 + 2j)
        spread = np.zeros(lengths, kernel.dtype)
        spread[tuple(slice(0, (k - 1) * d + 1, d) for k, d in zip(kernel.shape, dilation, strict=True))] = kernel
        expected = transform(spread)
        found = fft_folding.kernel_spectrum(kernel, dilation, lengths, expected.shape, real)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14, err_msg=f"{dilation} in {lengths}")


@specs
@dtypes
@steps
def test_strides_and_dilations(spec, dtype, stride, dilation):
    spec = spec.replace(dtype=dtype, stride=stride, dilation=dilation)
    x, weight, _ = sample(spec)
    assert_within_bound(ENGINE, spec, by_fftw(spec, x, weight), x, weight)
    if family(spec) == "tiles":
        out = np.empty(spec.output_shape, dtype)
        ENGINE.plan(spec, weight)(x, out)
        assert_within_bound(ENGINE, spec, out, x, weight)


@specs
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 1), (3, 2), (11, 1), (22, 1)])
def test_every_tiling(spec, dtype, stride, dilation):
    """Tiles begin on outputs, whatever the stride, a prime over 7 among its factors or not."""
    spec = spec.replace(dtype=dtype, stride=stride, dilation=dilation)
    x, weight, _ = sample(spec)
    for tiling in set(fft_sizes.tilings(spec, 3)):
        assert_within_bound(ENGINE, spec, by_fftw(spec, x, weight, 2, tiling), x, weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@steps
def test_nan_and_inf_reach_exactly_the_outputs_that_cover_them(value, dtype, stride, dilation):
    for shape in SPECS:
        spec = shape.replace(dtype=dtype, stride=stride, dilation=dilation)
        x, weight, _ = sample(spec)
        plan, out, right = ENGINE.plan(spec, weight), *(np.empty(spec.output_shape, dtype) for _ in range(2))
        plan(x, out)
        clean = out.copy()
        for place in (0, x.size // 2, x.size - 1):
            struck = x.copy()
            struck.flat[place] = value
            plan(struck, out)
            registry.get("reference").plan(spec, weight)(struck, right)
            finite = np.isfinite(right)
            assert np.array_equal(np.isfinite(out), finite), f"{spec}: {value} at {place}"
            if dtype == "float32":  # whether a complex product with Inf is Inf or NaN depends on how it is written
                assert np.array_equal(np.isnan(out), np.isnan(right)), f"{spec}: {value} at {place}"
            scale = abs(right[finite]).max(initial=1) * spec.taps
            bound = ENGINE.error_bound(spec) * scale
            np.testing.assert_allclose(out[finite], right[finite], rtol=0, atol=bound, err_msg=str(spec))
        plan(x, out)
        assert np.array_equal(out, clean), f"{spec}: a {value} outlives its call"


def test_a_stride_makes_the_inverse_transform_smaller():
    spec = ConvSpec(1, 2, 3, (30, 31, 32), (5, 5, 5), stride=(2, 3, 1))
    for tiling in fft_sizes.tilings(spec, 2):
        assert tiling.fold == (2, 3, 1), tiling
        assert np.prod(tiling.inverse) * 6 == np.prod(tiling.transform), tiling


def test_a_stride_costs_less_than_all_outputs():
    """Twice as many output channels as inputs, so that inverse transforms weigh most."""
    dense = ConvSpec(1, 4, 8, (60, 60, 60), (9, 9, 9))
    strided = dense.replace(stride=2)
    seconds = [ENGINE.predict_seconds(spec, this_machine(1)) for spec in (dense, strided)]
    assert seconds[1] < 0.9 * seconds[0], seconds


def test_a_dilation_and_a_stride_with_little_in_common():
    spec = ConvSpec(1, 1, 1, (40,), (3,), stride=7, dilation=13, padding=2, dtype="complex128")
    x, weight, _ = sample(spec)
    result = by_fftw(spec, x, weight)
    np.testing.assert_allclose(result, correlate(spec, x, weight), rtol=1e-13, err_msg=str(spec))


@specs
@dtypes
def test_the_workspace_is_what_a_plan_holds(spec, dtype):
    spec = spec.replace(dtype=dtype, stride=2)
    weight = sample(spec)[1]
    held = fft_fftw.plan(spec, weight, 2).nbytes - weight.nbytes
    assert held == fft_sizes.workspace_bytes(spec, 2), spec


def test_one_output_of_a_long_stride_takes_a_short_transform():
    spec = ConvSpec(1, 2, 3, (9, 40), (6, 5), stride=(50, 3), dtype="complex64")
    x, weight, _ = sample(spec)
    tiling = fft_sizes.choose_tiling(spec, 1)
    assert tiling.transform[0] < 16, tiling
    assert tiling.fold == (1, 3)
    assert_within_bound(ENGINE, spec, by_fftw(spec, x, weight), x, weight)


def test_several_struck_tiles_in_several_items():
    spec = ConvSpec(3, 2, 3, (200,), (5,), stride=2, dtype="complex64")
    x, weight, _ = sample(spec)
    x[0, 0, 3] = x[0, 1, 150] = x[2, 0, 199] = np.nan
    tiling = max(fft_sizes.tilings(spec, 1), key=lambda tiling: tiling.tiles)
    assert tiling.tiles[0] > 4, tiling
    out, right = by_fftw(spec, x, weight, 2, tiling), np.empty(spec.output_shape, spec.dtype)
    registry.get("reference").plan(spec, weight)(x, right)
    assert np.isfinite(right).any(), spec
    assert np.array_equal(np.isfinite(out), np.isfinite(right)), spec
    finite = np.isfinite(right)
    np.testing.assert_allclose(out[finite], right[finite], rtol=0, atol=1e-5, err_msg=str(spec))
