"""The FFT engine: its regimes, its numbers at their limits, NaN and Inf, threads and forks."""

from __future__ import annotations

import concurrent.futures
import multiprocessing

import numpy as np
import pytest
from conftest import assert_refused, correlate, run, skip_if_refused

import convbench
from convbench import ConvSpec, registry, select, settings
from convbench.engine import unit_roundoff
from convbench.engines import fft_tiles
from convbench.engines.fft import family
from convbench.engines.jit.spectral import SpectralPlan
from convbench.engines.jit.target import target

ENGINE = registry.get("fft")
DTYPES = ("float32", "float64")
#: One of each regime: many tiles, a few, one, flat ones, with strides and dilations, channels in and out.
REGIMES = (
    ConvSpec(1, 1, 1, (400, 333), (31, 21), padding=((15, 2), (0, 10))),
    ConvSpec(2, 1, 1, (90, 77), (60, 80), padding=70),
    ConvSpec(1, 1, 1, (5000,), (700,), padding=((0, 699),)),
    ConvSpec(1, 1, 1, (900,), (1200,), padding=800),
    ConvSpec(3, 4, 4, (50, 40), (9, 17), groups=4, padding=(4, 8)),
    ConvSpec(2, 5, 7, (3000,), (129,), padding=128),
    ConvSpec(1, 6, 9, (64, 70), (15, 16), groups=3, padding=7),
    ConvSpec(1, 2, 3, (120, 100), (20, 12), stride=(3, 2), padding=6),
    ConvSpec(2, 1, 1, (2000,), (90,), stride=7, dilation=3),
    ConvSpec(1, 1, 2, (70, 80), (6, 5), dilation=(7, 9), padding=20),
)
regimes = pytest.mark.parametrize("spec", REGIMES, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def draw(shape, kind, rng):
    """Random numbers of a kind that rounding errors are known to grow on."""
    if kind == "dynamic range":
        return rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-9, 9, shape)
    if kind == "cancelling":
        return (-1.0) ** np.indices(shape).sum(0)
    if kind == "one spike":
        values = rng.uniform(-1, 1, shape)
        values.flat[values.size // 3] = 1e9
        return values
    if kind == "constant":
        return np.ones(shape)
    return rng.uniform(-1, 1, shape) * {"even": 1, "denormal": 1e-40, "huge": 1e30}[kind]


KINDS = ("even", "dynamic range", "cancelling", "one spike", "constant", "denormal", "huge")


def every_window(spec):
    """`spec` with every window that meets the input at all: no product of an input and a weight is left out."""
    padding = tuple((extent - 1, extent - 1) for extent in spec.extents)
    return spec.replace(stride=1, padding=padding, dtype="float64")


def relative_error(spec, x, weight):
    """L2 error over the L2 norm of |x| * |w| in every window, both by the direct engine in twice the precision."""
    result = run("fft", spec, x, weight)
    x, weight = x.astype("float64"), weight.astype("float64")
    expected = run("direct", spec.replace(dtype="float64"), x, weight)
    scale = run("direct", every_window(spec), abs(x), abs(weight))
    return np.linalg.norm(result - expected) / np.linalg.norm(scale)


def assert_close(result, right, scale, spec):
    """Equal within both engines' bounds, times `scale`, the largest sum of products."""
    bound = ENGINE.error_bound(spec) + registry.get("direct").error_bound(spec)
    np.testing.assert_allclose(result, right, rtol=0, atol=bound * scale, err_msg=str(spec))


@regimes
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_bound_holds_for_hard_inputs(spec, kind):
    rng = np.random.default_rng(0)
    x = draw(spec.input_shape, kind, rng).astype("float32")
    for other in ("even", "dynamic range", "constant"):
        weight = draw(spec.weight_shape, other, rng).astype("float32")
        if kind == "denormal":
            weight *= np.float32(1e20)  # so that the outputs are not denormal, too
        if kind == "huge":
            weight *= np.float32(1e-10)
        error = relative_error(spec, x, weight)
        assert error <= ENGINE.error_bound(spec), f"{spec}: {kind} inputs, {other} kernel: {error:.2e}"


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e36])
def test_kernels_of_any_magnitude(scale):
    spec = REGIMES[0]
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, spec.input_shape).astype("float32") * np.float32(min(1, 1e-3 / scale))
    weight = (rng.uniform(-1, 1, spec.weight_shape) * scale).astype("float32")
    assert relative_error(spec, x, weight) <= ENGINE.error_bound(spec), f"{spec} with weights of {scale}"


@regimes
def test_double_precision_against_longer(spec):
    """The bound in float64, with inputs that are sums of few bits, so that float64 sums are exact."""
    spec = spec.replace(dtype="float64")
    rng = np.random.default_rng(2)
    x, weight = (rng.integers(-1000, 1000, shape).astype("float64") for shape in (spec.input_shape, spec.weight_shape))
    error = np.linalg.norm(run("fft", spec, x, weight) - run("direct", spec, x, weight))
    scale = np.linalg.norm(run("direct", spec, abs(x), abs(weight)))
    assert error <= ENGINE.error_bound(spec) * scale, spec


def test_the_bound_grows_like_the_root_of_the_logarithm():
    small, large = (ConvSpec(1, 1, 1, (n,), (n // 2,), padding=n) for n in (200, 200_000))
    bounds = [ENGINE.error_bound(spec) / unit_roundoff("float32") for spec in (small, large)]
    assert bounds[0] < bounds[1] < 2 * bounds[0] < 60, bounds


@regimes
@dtypes
def test_integers_come_out_after_rounding(spec, dtype):
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(3)
    x, weight = (rng.integers(-2, 3, shape).astype(dtype) for shape in (spec.input_shape, spec.weight_shape))
    assert np.array_equal(np.rint(run("fft", spec, x, weight)), run("direct", spec, x, weight)), spec


@regimes
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_reach_exactly_the_outputs_that_cover_them(spec, value):
    rng = np.random.default_rng(4)
    x, weight = (rng.uniform(0.5, 1, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
    clean = run("fft", spec, x, weight)
    for place in (0, x.size // 2 + 3, x.size - 1):
        struck = x.copy()
        struck.flat[place] = value
        result, right = run("fft", spec, struck, weight), run("direct", spec, struck, weight)
        assert np.array_equal(np.isnan(result), np.isnan(right)), f"{spec}: {value} at {place}"
        assert np.array_equal(np.isinf(result), np.isinf(right)), f"{spec}: {value} at {place}"
        finite = np.isfinite(right)
        assert_close(result[finite], right[finite], clean.max(), spec)
    assert np.array_equal(run("fft", spec, x, weight), clean), f"{spec}: a NaN outlives its call"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_in_the_kernel(value):
    spec = REGIMES[6]
    rng = np.random.default_rng(5)
    x, weight = (rng.uniform(0.5, 1, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
    weight[4, 1, 3, 2] = value
    result, right = run("fft", spec, x, weight), run("direct", spec, x, weight)
    assert np.array_equal(np.isfinite(result), np.isfinite(right)), spec
    finite = np.isfinite(right)
    assert_close(result[finite], right[finite], right[finite].max(), spec)


def test_numbers_whose_transform_overflows_are_right():
    spec = REGIMES[0]
    x = np.full(spec.input_shape, 1e35, "float32")
    weight = np.full(spec.weight_shape, 1e-3, "float32")
    np.testing.assert_allclose(run("fft", spec, x, weight), run("direct", spec, x, weight), rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (ConvSpec(1, 1, 1, (200, 201), (20, 2), stride=(1, 3)), 2),
        (ConvSpec(1, 1, 1, (205,), (40,), stride=7), 204),
        (ConvSpec(2, 2, 3, (300,), (40,), stride=2, dilation=4), 1),
        (ConvSpec(1, 1, 1, (30, 40, 20), (3, 3, 2), stride=(1, 1, 4)), 2),
    ],
    ids=str,
)
def test_positions_that_no_window_covers(spec, place):
    """Their values must not round what they have no part in."""
    x = np.random.default_rng(6).uniform(0.5, 1, spec.input_shape).astype("float32")
    weight = np.ones(spec.weight_shape, "float32")
    clean = run("fft", spec, x, weight)
    for value in (1e30, np.nan):
        x[..., place] = value
        assert np.isfinite(run("direct", spec, x, weight)).all(), spec
        assert_close(run("fft", spec, x, weight), clean, clean.max(), spec)


def test_what_it_refuses_and_why():
    assert_refused(["int32"], select, ConvSpec(1, 1, 1, (90,), (9,), dtype="int32"), engine="fft")
    assert_refused(["rtol"], select, REGIMES[0], engine="fft", rtol=1e-7)
    assert_refused(["max_workspace"], select, REGIMES[0], engine="fft", max_workspace=1000)
    huge = ConvSpec(1, 512, 4096, (256, 256), (255, 255))
    assert "bytes" in ENGINE.why_unsupported(huge)


@regimes
@dtypes
def test_groups_of_tiles(spec, dtype, monkeypatch):
    """Spectra held for one or a few tiles at once give the same bits as for all."""
    spec = spec.replace(dtype=dtype)
    rng = np.random.default_rng(7)
    x, weight = (rng.uniform(-1, 1, shape).astype(dtype) for shape in (spec.input_shape, spec.weight_shape))
    tiling = next(iter(fft_tiles.tilings(spec, 64 // spec.itemsize)))
    plane = fft_tiles.tile_bytes(tiling.tile, spec.itemsize) * (spec.in_channels + spec.out_channels)
    results = []
    for tiles in (1, 2, 3, 100):
        monkeypatch.setattr(fft_tiles, "MAX_GROUP_BYTES", tiles * plane)
        results.append(_plan(spec, weight)(x))
    assert all(np.array_equal(results[0], result) for result in results), spec


def _plan(spec, weight):
    plan, out = ENGINE.plan(spec, weight), np.empty(spec.output_shape, spec.dtype)

    def call(x):
        plan(x, out)
        return out.copy()

    return call


@regimes
def test_every_tiling_gives_the_same_numbers(spec):
    from convbench.engines.jit.spectral import SpectralPlan
    from convbench.engines.jit.target import target

    rng = np.random.default_rng(8)
    x, weight = (rng.uniform(-1, 1, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
    right, scale = (run("direct", spec, *pair) for pair in ((x, weight), (abs(x), abs(weight))))
    tilings = list(fft_tiles.tilings(spec, target().lanes("float32")))
    for tiling in tilings[:: max(1, len(tilings) // 12)]:
        out = np.full(spec.output_shape, np.nan, "float32")
        SpectralPlan(spec, weight, tiling)(x, out)
        error = np.linalg.norm(out - right) / np.linalg.norm(scale)
        assert error <= 2 * ENGINE.error_bound(spec), f"{spec} in {tiling}: {error}"


@regimes
def test_the_workspace_is_what_a_plan_holds(spec):
    weight = np.ones(spec.weight_shape, "float32")
    held = ENGINE.plan(spec, weight).nbytes
    assert held / 2 - 100_000 < ENGINE.workspace_bytes(spec) < 2 * held + 100_000, f"{spec}: {held}"


def test_an_image_in_tiles_needs_little_memory():
    spec = ConvSpec(1, 1, 1, (8192, 8192), (63, 63), padding=31)
    assert ENGINE.workspace_bytes(spec) < spec.itemsize * 8192**2 / 4


def _computes_right(seed, rounds=5):
    for spec in REGIMES[::3]:
        rng = np.random.default_rng(seed)
        x, weight = (rng.integers(-2, 3, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
        right, call = run("direct", spec, x, weight), _plan(spec, weight)
        first = call(x)
        if not np.array_equal(np.rint(first), right):
            return False
        if not all(np.array_equal(call(x), first) for _ in range(rounds)):
            return False
    return True


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(settings, "_threads", 4)
    monkeypatch.setattr(settings.CHANGES, "value", settings.epoch() + 1)


def test_several_python_threads_at_once(four_threads):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(_computes_right, range(8)))


def test_forked_children_compute(four_threads):
    assert _computes_right(0)
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert all(pool.map(_computes_right, range(4)))


def test_a_plan_made_for_fewer_threads(four_threads):
    spec = REGIMES[0]
    rng = np.random.default_rng(9)
    x, weight = (rng.uniform(-1, 1, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
    settings._threads = 1
    call = _plan(spec, weight)
    first = call(x)
    settings._threads = 4
    assert np.array_equal(call(x), first)


def test_auto_takes_it_where_kernels_are_large(records_directory):
    for text in ("mb1ic1ih1024oc1oh1024kh31ph15", "mb1ic1ih4096oc1oh4096kh63ph31", "mb1ic64ih128oc64oh128kh31ph15"):
        assert select(ConvSpec.parse(text)).engine == "fft", text
    for text in ("mb1ic1ih1024oc1oh1024kh3ph1", "mb1ic64ih56oc64oh56kh3ph1", "mb1ic1ih9oc1oh9kh3ph1"):
        assert select(ConvSpec.parse(text)).engine != "fft", text


@pytest.mark.parametrize(
    "text",
    [
        "mb1ic3ih232oc32oh224kh9ph0",
        "mb5ic600ih20oc2oh20kh9ph4",  # gathers more than a task's scratch would be otherwise
        "g2mb3ic4ih70oc6oh35kh7sh2ph3",
        "mb7ic5iw300oc3ow300kw65pw32",
    ],
)
def test_groups_of_a_thread_compute_what_shared_ones_do(text, monkeypatch):
    spec = ConvSpec.parse(text)
    rng = np.random.default_rng(11)
    x, weight = (rng.uniform(-1, 1, shape).astype("f") for shape in (spec.input_shape, spec.weight_shape))
    tiling = fft_tiles.choose(spec, target().lanes(spec.dtype), 2, 1e-9, 1e-10)[0]
    results = []
    for own in (2, 0):
        monkeypatch.setattr(fft_tiles, "own_group", lambda *_, own=own: own)
        plan = SpectralPlan(spec, weight, tiling)
        out = np.empty(spec.output_shape, "f")
        for _ in range(5):
            out[:] = np.nan
            plan(x, out)
        results.append(out)
    assert np.array_equal(*results)
    expected = correlate(spec, x, weight)
    assert np.linalg.norm(results[0] - expected) <= 1e-6 * np.linalg.norm(expected)


def test_layers_use_it():
    spec = REGIMES[2]
    rng = np.random.default_rng(10)
    x, weight = (rng.uniform(-1, 1, shape).astype("float32") for shape in (spec.input_shape, spec.weight_shape))
    layer = convbench.Conv1d(weight, padding=spec.padding, engine="fft")
    assert np.array_equal(layer(x), run("fft", spec, x, weight))


@pytest.mark.parametrize("dtype", ["float16", "int8", "bool"])
def test_other_dtypes_are_refused_in_a_sentence(dtype):
    spec = ConvSpec(1, 1, 1, (90,), (9,), dtype=dtype)
    assert family(spec) == "fftw"
    assert dtype in ENGINE.why_unsupported(spec)
    with pytest.raises(pytest.skip.Exception):
        skip_if_refused(ENGINE, spec)
