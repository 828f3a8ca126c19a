"""The engine toeplitz: its dense and its sparse product, and the circulant way against the FFT."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sample
from scipy import signal

import convbench
from convbench import ConvSpec, registry
from convbench.engines.toeplitz import DENSE_LIMIT_BYTES, _Dense, _Sparse, dense_bytes
from convbench.matrices import doubly_block_circulant
from convbench.verify import expected, measured_error

TINY = (
    ConvSpec(64, 1, 1, spatial=(8, 8), kernel=(7, 7), padding=3),
    ConvSpec(16, 8, 8, spatial=(4, 4), kernel=(3, 3), padding=1, dtype="float64"),
    ConvSpec(3, 4, 6, spatial=(5, 6), kernel=(3, 2), stride=(1, 2), groups=2),
    ConvSpec(9, 1, 2, spatial=(17,), kernel=(5,), dilation=3, padding=4),
    ConvSpec(2, 2, 3, spatial=(3, 4, 3), kernel=(2, 2, 2), padding=1),
)
LARGE = (
    ConvSpec(1, 1, 1, spatial=(128, 128), kernel=(9, 9), padding=4),
    ConvSpec(5, 3, 4, spatial=(40, 40), kernel=(5, 5), padding=2, dtype="float64"),
)


def planned(spec):
    x, weight, _ = sample(spec)
    return registry.get("toeplitz").plan(spec, weight), x, weight, np.full(spec.output_shape, 7, spec.dtype)


@pytest.mark.parametrize("spec", TINY + LARGE, ids=str)
def test_both_products_are_the_convolution(spec):
    plan, x, weight, out = planned(spec)
    assert isinstance(plan, _Dense if spec in TINY else _Sparse), spec
    exact, scale = expected(spec, x, weight)
    plan(x, out)
    assert measured_error("componentwise", out, exact, scale) <= registry.get("toeplitz").error_bound(spec), spec


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", TINY, ids=str)
def test_the_dense_product_keeps_nonfinite_values_in_their_windows(spec, strange):
    plan, x, weight, out = planned(spec)
    x[-1, 0][(0,) * spec.ndim] = strange
    plan(x, out)
    expected_out = np.empty_like(out)
    registry.get("reference").plan(spec, weight)(x, expected_out)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(expected_out), err_msg=str(spec))
    assert np.isfinite(out).any(), spec
    x[-1, 0][(0,) * spec.ndim] = 0  # nothing of it stays in the plan
    plan(x, out)
    assert np.isfinite(out).all(), spec


@pytest.fixture
def threads():
    """Sets the number of threads, and resets it."""
    before = convbench.get_num_threads()
    yield convbench.set_num_threads
    convbench.set_num_threads(before)


@pytest.mark.parametrize("spec", LARGE, ids=str)
def test_threads_change_no_bit(spec, threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        plan, x, _, out = planned(spec)
        plan(x, out)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1], err_msg=str(spec))
    np.testing.assert_array_equal(results[0], results[2], err_msg=str(spec))


def test_the_dense_matrix_is_counted_and_bounded():
    engine = registry.get("toeplitz")
    for spec in TINY:
        plan, *_ = planned(spec)
        assert dense_bytes(spec) <= DENSE_LIMIT_BYTES, spec
        assert plan.nbytes <= engine.workspace_bytes(spec) + 65_536, spec
    large = ConvSpec(1000, 1, 1, spatial=(33, 33), kernel=(31, 31), padding=15)
    assert dense_bytes(large) > DENSE_LIMIT_BYTES
    assert isinstance(planned(large.replace(batch=1))[0], _Sparse)


@pytest.mark.parametrize(("image", "kernel"), [((6, 7), (3, 2)), ((5, 5), (5, 5)), ((9, 4), (2, 4))])
def test_embedded_in_a_circulant_the_dft_computes_the_convolution(image, kernel):
    """A = R · C · E: zeros around the image make it periodic (E), and the DFT diagonalises what is periodic."""
    rng = np.random.default_rng(3)
    x, w = rng.uniform(-1, 1, image), rng.uniform(-1, 1, kernel)
    period = tuple(i + k - 1 for i, k in zip(image, kernel, strict=True))
    embedded = np.zeros(period)
    embedded[: image[0], : image[1]] = x
    circulant = doubly_block_circulant(w, period, shift=tuple(k - 1 for k in kernel))
    column = np.zeros(period)
    column[: kernel[0], : kernel[1]] = w
    column = np.roll(column, [1 - k for k in kernel], (0, 1))
    spectral = np.fft.ifft2(np.fft.fft2(embedded) * np.fft.fft2(column).conj())
    full = (circulant @ embedded.ravel()).reshape(period)
    np.testing.assert_allclose(spectral.real, full, atol=1e-13)
    np.testing.assert_allclose(full, signal.correlate2d(x, w), atol=1e-13)
    padding = tuple((k - 1, k - 1) for k in kernel)
    for engine in ("fft", "toeplitz"):
        found = convbench.conv2d(x[None, None], w[None, None], padding=padding, engine=engine)[0, 0]
        np.testing.assert_allclose(found, full, atol=1e-13, err_msg=engine)
