"""The identities of the convolution matrices."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from conftest import assert_refused, correlate, sample
from scipy import signal

import convbench
from convbench import ConvSpec, registry
from convbench.matrices import correlation_matrix, doubly_block_circulant, doubly_block_toeplitz, toeplitz
from convbench.shapes import products_inside

RNG = np.random.default_rng(7)
MODES = ["valid", "same", "full"]


def whole(*shape):
    return RNG.integers(-5, 6, shape)


def is_toeplitz(block):
    return np.array_equal(block[1:, 1:], block[:-1, :-1])


def blocks(matrix, rows, columns):
    """(block row, block column, row, column)"""
    dense = matrix.toarray()
    return dense.reshape(rows, dense.shape[0] // rows, columns, -1).swapaxes(1, 2)


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_1d_of_kernel_and_of_signal(size, padding):
    x, kernel = whole(9), whole(size)
    for flip, function in ((False, signal.correlate), (True, signal.convolve)):
        expected = function(x, kernel, mode="full")
        if padding == "valid":
            expected = expected[size - 1 : len(expected) - size + 1]
        elif padding == "same":  # the extra element on the high side, where SciPy's "same" has it on the low one
            low = (size - 1) // 2
            expected = expected[size - 1 - low :][:9]
        of_kernel = toeplitz(kernel, 9, padding=padding, flip=flip)
        of_signal = toeplitz(x, size, of="signal", padding=padding, flip=flip)
        assert of_kernel.shape == (len(expected), 9)
        assert of_signal.shape == (len(expected), size)
        np.testing.assert_array_equal(of_kernel @ x, expected)
        np.testing.assert_array_equal(of_signal @ kernel, expected)


@pytest.mark.parametrize("flip", [False, True])
def test_1d_structure(flip):
    assert is_toeplitz(toeplitz(whole(4), 9, padding=[(2, 5)], flip=flip).toarray())
    of_signal = toeplitz(whole(9), 4, of="signal", padding="full", flip=flip).toarray()
    assert is_toeplitz(of_signal if flip else of_signal[:, ::-1])  # Hankel is Toeplitz, mirrored


@pytest.mark.parametrize("flip", [False, True])
def test_1d_with_stride_and_dilation(flip):
    x, kernel = whole(17), whole(3)
    spec = ConvSpec(1, 1, 1, spatial=17, kernel=3, stride=3, dilation=4, padding=((2, 5),), dtype="int64")
    expected = correlate(spec, x[None, None], (kernel[::-1] if flip else kernel)[None, None])[0, 0]
    keywords = {"stride": 3, "dilation": 4, "padding": [(2, 5)], "flip": flip}
    np.testing.assert_array_equal(toeplitz(kernel, 17, **keywords) @ x, expected)
    np.testing.assert_array_equal(toeplitz(x, 3, of="signal", **keywords) @ kernel, expected)


@pytest.mark.parametrize("padding", ["valid", "full"])
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 5), (4, 1)])
def test_2d_is_scipy(kernel_shape, padding):
    image, kernel = whole(6, 7), whole(*kernel_shape)
    for flip, function in ((False, signal.correlate2d), (True, signal.convolve2d)):
        expected = function(image, kernel, mode=padding)
        matrix = doubly_block_toeplitz(kernel, image.shape, padding=padding, flip=flip)
        assert matrix.shape == (expected.size, image.size)
        np.testing.assert_array_equal((matrix @ image.ravel()).reshape(expected.shape), expected)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", ["valid", "same", "full", ((2, 0), (1, 3))])
def test_2d_structure(padding, flip):
    matrix = doubly_block_toeplitz(whole(3, 2), (6, 5), padding=padding, flip=flip)
    height = convbench.output_shape((1, 6, 5), (1, 1, 3, 2), padding=padding)[1]
    blocked = blocks(matrix, height, 6)
    assert all(is_toeplitz(block) for row in blocked for block in row)
    assert is_toeplitz(blocked)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (2, 4), (1, 1), (5, 6), (7, 3)])
def test_circulant_is_the_periodic_sum(kernel_shape, flip):
    image, kernel = whole(5, 6), whole(*kernel_shape)
    expected = np.zeros(image.shape, int)
    for tap, value in np.ndenumerate(kernel):
        expected += value * np.roll(image, tap if flip else (-tap[0], -tap[1]), (0, 1))
    matrix = doubly_block_circulant(kernel, image.shape, flip=flip)
    np.testing.assert_array_equal((matrix @ image.ravel()).reshape(image.shape), expected)


def test_circulant_is_circular_padding():
    image, kernel = whole(5, 6), whole(3, 3)
    expected = convbench.conv2d(image[None], kernel[None, None], padding=1, padding_mode="circular", engine="reference")
    matrix = doubly_block_circulant(kernel, image.shape, shift=1)
    np.testing.assert_array_equal((matrix @ image.ravel()).reshape(image.shape), expected[0])


@pytest.mark.parametrize("flip", [False, True])
def test_circulant_structure(flip):
    blocked = blocks(doubly_block_circulant(whole(2, 3), (4, 5), flip=flip), 4, 4)
    np.testing.assert_array_equal(blocked, np.roll(blocked, (1, 1), (0, 1)))
    np.testing.assert_array_equal(blocked, np.roll(blocked, (1, 1), (2, 3)))


def dft_matrix(height, width):
    """The 2-D DFT as a matrix on vec(image), unitary."""
    one = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n) for n in (height, width)]
    return np.kron(*one)


@pytest.mark.parametrize("flip", [False, True])
def test_the_dft_diagonalises_the_circulant(flip):
    kernel = RNG.uniform(-1, 1, (3, 2))
    matrix = doubly_block_circulant(kernel, (4, 5), flip=flip).toarray()
    dft = dft_matrix(4, 5)
    spectrum = np.fft.fft2(kernel, (4, 5)).ravel()
    diagonal = dft @ matrix @ dft.conj().T
    np.testing.assert_allclose(diagonal, np.diag(spectrum if flip else spectrum.conj()), atol=1e-13)


def test_the_circulants_eigenvalues_are_the_kernels_spectrum():
    kernel = RNG.uniform(-1, 1, (3, 3))
    spectrum = np.fft.fft2(kernel, (5, 4)).ravel()
    for flip in (False, True):
        eigenvalues = np.linalg.eigvals(doubly_block_circulant(kernel, (5, 4), flip=flip).toarray())
        # A real kernel's spectrum is closed under conjugation: either way the same set.
        distance = abs(eigenvalues[:, None] - spectrum[None, :])
        assert distance.min(axis=0).max() < 1e-12
        assert distance.min(axis=1).max() < 1e-12
        np.testing.assert_allclose(eigenvalues.sum(), spectrum.sum(), atol=1e-12)


GENERAL = (
    ConvSpec(1, 4, 6, spatial=(9,), kernel=(3,), groups=2, stride=2, padding=((0, 3),), dtype="float64"),
    ConvSpec(1, 3, 2, spatial=(7, 8), kernel=(3, 2), stride=(2, 1), padding=((1, 2), (3, 0)), dtype="float64"),
    ConvSpec(1, 4, 8, spatial=(6, 5), kernel=(2, 3), dilation=(3, 2), groups=4, padding=2, dtype="float64"),
    ConvSpec(1, 2, 3, spatial=(4, 5, 3), kernel=(2, 3, 2), stride=(1, 2, 1), padding=1, dtype="float64"),
    ConvSpec(1, 1, 1, spatial=(2, 2), kernel=(5, 4), padding=(4, 3), stride=3, dtype="float64"),
    ConvSpec(1, 1, 1, spatial=(0,), kernel=(2,), padding=3, dtype="float64"),
    ConvSpec(1, 2, 0, spatial=(4,), kernel=(2,), dtype="float64"),
)


@pytest.mark.parametrize("spec", GENERAL, ids=str)
def test_every_problem_is_a_matrix(spec):
    x, weight, _ = sample(spec)
    matrix = correlation_matrix(spec, weight)
    assert matrix.shape == (np.prod(spec.output_shape), np.prod(spec.input_shape))
    assert matrix.nnz == products_inside(spec), spec
    assert all((np.diff(matrix.indices[a:b]) > 0).all() for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False))
    product = (matrix @ x.ravel()).reshape(spec.output_shape)
    np.testing.assert_allclose(product, correlate(spec, x, weight).astype("float64"), atol=1e-14, err_msg=str(spec))


def test_zeros_of_the_kernel_are_entries():
    matrix = doubly_block_toeplitz(np.zeros((2, 2)), (3, 3))
    assert matrix.nnz == 4 * 4
    image = np.zeros((3, 3))
    image[0, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(matrix @ image.ravel()), [True, False, False, False])
    circulant = doubly_block_circulant(np.zeros((2, 2)), (3, 3))
    assert np.isnan(circulant @ image.ravel()).sum() == 4


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", "complex64"])
def test_matrices_keep_the_kernels_dtype(dtype):
    kernel = np.ones((2, 2), dtype)
    assert doubly_block_toeplitz(kernel, (3, 3)).dtype == dtype
    assert doubly_block_circulant(kernel, (3, 3)).dtype == dtype
    assert toeplitz(kernel[0], 3).dtype == dtype
    assert toeplitz(kernel[0], 2, of="signal").dtype == dtype


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lambda: toeplitz(np.ones((2, 2)), 3), ["(2, 2)", "2 dimensions", "1"]),
        (lambda: toeplitz([], 3), ["(0,)"]),
        (lambda: toeplitz([1, 2, 3], 2), ["3 positions", "2"]),
        (lambda: toeplitz([1, 2], 3, of="image"), ["'image'", "'kernel'", "'signal'"]),
        (lambda: toeplitz([1, 2], 3, padding="some"), ["'some'", "same"]),
        (lambda: toeplitz([1, 2], 3, stride=0), ["stride", "0", "1"]),
        (lambda: doubly_block_toeplitz(np.ones(3), (4, 4)), ["(3,)", "1 dimensions", "2"]),
        (lambda: doubly_block_toeplitz(np.ones((3, 3)), (4, 4, 4)), ["(4, 4, 4)", "3 entries", "2"]),
        (lambda: doubly_block_toeplitz(np.ones((3, 3)), (4, 2)), ["kernel 3", "2"]),
        (lambda: doubly_block_circulant(np.ones((3, 3)), (4, 0)), ["(4, 0)", "1"]),
        (lambda: doubly_block_circulant(np.ones((3, 3)), (4, 4), shift=(1, 2, 3)), ["(1, 2, 3)", "2"]),
        (lambda: correlation_matrix(GENERAL[0], np.ones((6, 4, 3))), ["(6, 4, 3)", "(6, 2, 3)"]),
    ],
)
def test_bad_arguments_name_both_values(call, values):
    assert_refused(values, call)


def test_a_matrix_over_the_limit_is_refused_with_both_numbers():
    from convbench.engines.toeplitz import MATRIX_LIMIT_BYTES, matrix_bytes

    spec = ConvSpec(1, 64, 64, spatial=(56, 56), kernel=(3, 3), padding=1)
    reason = registry.get("toeplitz").why_unsupported(spec)
    assert f"{matrix_bytes(spec):,}" in reason
    assert f"{MATRIX_LIMIT_BYTES:,}" in reason


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("channels", [(1, 1), (4, 2)])
def test_the_engines_workspace_covers_what_it_allocates(batch, channels):
    spec = ConvSpec(batch, *channels, spatial=(64, 64), kernel=(5, 5), padding=2)
    engine = registry.get("toeplitz")
    x, weight, _ = sample(spec)
    out = np.empty(spec.output_shape, spec.dtype)
    engine.plan(spec, weight)  # imports what it imports
    tracemalloc.start()
    try:
        engine.plan(spec, weight)(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= engine.workspace_bytes(spec) + 32_768, spec  # Python's own objects
