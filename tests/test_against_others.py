"""The same results as SciPy, NumPy and PyTorch on random problems, padding modes included."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import correlate, sample, skip_if_refused
from scipy import ndimage, signal

import convbench
from convbench import ConvSpec
from convbench.engine import UNROUNDED_GUARD, gamma
from convbench.padding import MODE_ALIASES

RNG = np.random.default_rng(11)


def assert_close(engine, spec, result, expected, x, weight, bias=None):
    """Equal within the engine's bound and that of the other library, which sums in the same precision."""
    bias = None if bias is None else abs(bias)
    scale = correlate(spec.replace(dtype="float64"), abs(x), abs(weight), bias)
    other = gamma(spec.taps + UNROUNDED_GUARD, spec.dtype)
    assert result.shape == expected.shape, spec
    error, bound = abs(result - expected), engine.error_bound(spec) + other
    if engine.error_measure == "l2":
        assert np.linalg.norm(error) <= bound * np.linalg.norm(scale), f"{engine.name} on {spec}"
    else:
        assert (error <= bound * scale).all(), f"{engine.name} on {spec}"


@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("seed", range(6))
def test_scipy_correlate2d(engine, seed, mode):
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, rng.integers(8, 20, 2))
    kernel = rng.uniform(-1, 1, rng.integers(1, 8, 2))
    padding = [k - 1 if mode == "full" else 0 for k in kernel.shape]
    spec = ConvSpec(1, 1, 1, image.shape, kernel.shape, padding=padding, dtype="float64")
    skip_if_refused(engine, spec)
    x, weight = image[None, None], kernel[None, None]
    result = convbench.conv2d(x, weight, padding=mode, engine=engine.name)
    assert_close(engine, spec, result, signal.correlate2d(image, kernel, mode)[None, None], x, weight)
    flipped = convbench.conv2d(x, weight, padding=mode, flip=True, engine=engine.name)
    expected = signal.convolve2d(image, kernel, mode)[None, None]
    assert_close(engine, spec, flipped, expected, x, weight[:, :, ::-1, ::-1])


@pytest.mark.parametrize(("mode", "boundary"), [("zeros", "fill"), ("symmetric", "symm"), ("circular", "wrap")])
@pytest.mark.parametrize("kernel_shape", [(3, 5), (1, 7), (9, 3)])
def test_scipy_boundaries(mode, boundary, kernel_shape):
    image, kernel = RNG.uniform(-1, 1, (11, 12)), RNG.uniform(-1, 1, kernel_shape)
    expected = signal.correlate2d(image, kernel, "same", boundary)
    for name in (mode, boundary):
        result = convbench.conv2d(image[None], kernel[None, None], padding="same", padding_mode=name)
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("mode", "theirs"),
    [
        ("zeros", "constant"),
        ("replicate", "nearest"),
        ("reflect", "mirror"),
        ("symmetric", "reflect"),
        ("symmetric", "grid-mirror"),
        ("circular", "wrap"),
        ("circular", "grid-wrap"),
    ],
)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ndimage_modes(mode, theirs, ndim):
    x, kernel = RNG.uniform(-1, 1, (9, 8, 7)[:ndim]), RNG.uniform(-1, 1, (3, 5, 3)[:ndim])
    conv = getattr(convbench, f"conv{ndim}d")
    result = conv(x[None], kernel[None, None], padding="same", padding_mode=mode)
    np.testing.assert_allclose(result[0], ndimage.correlate(x, kernel, mode=theirs), rtol=0, atol=1e-13)
    if theirs != "reflect":  # the one name that means two things: here it is NumPy's
        again = conv(x[None], kernel[None, None], padding="same", padding_mode=theirs)
        np.testing.assert_array_equal(again, result)


NUMPY_MODES = {"replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}


@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("padding", [1, (2, 3), ((0, 4), (3, 1)), ((9, 0), (0, 11))])
def test_numpy_pad(engine, mode, padding):
    x, weight = RNG.uniform(-1, 1, (2, 3, 5, 6)), RNG.uniform(-1, 1, (4, 3, 2, 3))
    pairs = [(p, p) if isinstance(p, int) else p for p in ((padding,) * 2 if isinstance(padding, int) else padding)]
    padded = np.pad(x, [(0, 0), (0, 0), *pairs], mode=NUMPY_MODES[mode])
    spec = ConvSpec.from_shapes(padded.shape, weight.shape, stride=(1, 2), dtype="float64")
    skip_if_refused(engine, spec)
    result = convbench.conv2d(x, weight, None, (1, 2), padding, padding_mode=mode, engine=engine.name)
    assert_close(engine, spec, result, correlate(spec, padded, weight), padded, weight)


@pytest.mark.parametrize("mode", MODE_ALIASES)
def test_every_alias_is_the_mode(mode):
    x, weight = RNG.uniform(-1, 1, (1, 5, 6)), RNG.uniform(-1, 1, (1, 1, 3, 3))
    expected = convbench.conv2d(x, weight, padding=2, padding_mode=mode)
    for alias in MODE_ALIASES[mode]:
        for name in (alias, alias.upper()):
            result = convbench.conv2d(x, weight, padding=2, padding_mode=name)
            np.testing.assert_array_equal(result, expected, err_msg=name)


def random_problem(seed):
    """A problem and its padding, which is the same on both sides as PyTorch has it."""
    rng = np.random.default_rng(seed)
    ndim = 1 + seed % 3
    groups = int(rng.choice([1, 1, 2, 3]))
    kernel, dilation = rng.integers(1, 5, ndim), rng.integers(1, 3, ndim)
    padding = rng.integers(0, 4, ndim)
    smallest = np.maximum(dilation * (kernel - 1) + 1 - 2 * padding, 1)
    return ConvSpec(
        batch=int(rng.integers(1, 4)),
        in_channels=groups * int(rng.integers(1, 5)),
        out_channels=groups * int(rng.integers(1, 5)),
        spatial=tuple(smallest + rng.integers(0, 16 // ndim, ndim)),
        kernel=tuple(kernel),
        stride=tuple(rng.integers(1, 4, ndim)),
        dilation=tuple(dilation),
        padding=tuple(padding.tolist()),
        groups=groups,
        dtype=str(rng.choice(["float32", "float64"])),
    ), tuple(padding.tolist())


@pytest.mark.parametrize("seed", range(24))
def test_torch(engine, seed):
    torch = pytest.importorskip("torch")
    spec, padding = random_problem(seed)
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    theirs = getattr(torch.nn.functional, f"conv{spec.ndim}d")
    arguments = (spec.stride, padding, spec.dilation, spec.groups)
    expected = theirs(*map(torch.from_numpy, (x, weight, bias)), *arguments).numpy()
    ours = getattr(convbench, f"conv{spec.ndim}d")
    result = ours(x, weight, bias, *arguments, engine=engine.name)
    assert result.dtype == expected.dtype
    assert_close(engine, spec, result, expected, x, weight, bias)


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_torch_padding_modes(mode):
    torch = pytest.importorskip("torch")
    x, weight = RNG.uniform(-1, 1, (2, 3, 7, 8)), RNG.uniform(-1, 1, (4, 3, 3, 5))
    layer = torch.nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 2), padding_mode=mode, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        expected = layer(torch.from_numpy(x)).numpy()
    result = convbench.conv2d(x, weight, None, 2, (1, 2), padding_mode=mode)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_torch_same(kernel, dilation):
    torch = pytest.importorskip("torch")
    x, weight = RNG.uniform(-1, 1, (1, 2, 13)), RNG.uniform(-1, 1, (3, 2, kernel))
    expected = torch.nn.functional.conv1d(
        torch.from_numpy(x), torch.from_numpy(weight), padding="same", dilation=dilation
    ).numpy()
    result = convbench.conv1d(x, weight, padding="same", dilation=dilation)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape"),
    [((0, 3, 6, 6), (4, 3, 3, 3)), ((2, 3, 6, 6), (4, 3, 6, 6)), ((3, 6, 6), (4, 3, 3, 3))],
)
def test_torch_empty_and_unbatched_shapes(engine, x_shape, weight_shape):
    torch = pytest.importorskip("torch")
    x, weight = RNG.uniform(-1, 1, x_shape), RNG.uniform(-1, 1, weight_shape)
    batched = (1, *x_shape)[-4:]
    skip_if_refused(engine, ConvSpec.from_shapes(batched, weight_shape, dtype="float64"))
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight)).numpy()
    result = convbench.conv2d(x, weight, engine=engine.name)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "kernel", "padding"), [(4, 5, 0), (2, 7, 2), (1, 2, 0)])
def test_what_torch_refuses_is_refused(size, kernel, padding):
    torch = pytest.importorskip("torch")
    x, weight = np.ones((1, 1, size)), np.ones((1, 1, kernel))
    with pytest.raises(RuntimeError, match="size"):
        torch.nn.functional.conv1d(torch.from_numpy(x), torch.from_numpy(weight), padding=padding)
    with pytest.raises(ValueError, match=f"kernel {kernel}"):
        convbench.conv1d(x, weight, padding=padding)
