"""Circular problems: as such by one transform of the image's size, and extended for every other engine."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_refused, assert_within_bound, sample, skip_if_refused
from scipy import ndimage

import convbench
from convbench import ConvSpec, nearby, planning, records, registry, shapes
from convbench.engine import Engine
from convbench.engines import fft_sizes, fft_tiles
from convbench.engines.fft import family, uncovered
from convbench.machine import this_machine
from convbench.matrices import correlation_matrix
from convbench.padding import pad, resolve

FFT = registry.get("fft")
EXTENDED = [np.dtype(np.longdouble).name, np.dtype(np.clongdouble).name]
DTYPES = ("float32", "float64", "complex64", "complex128", *EXTENDED)


def same(batch, channels, filters, spatial, kernel, stride=1, dilation=1, groups=1, **options):
    """A circular problem whose padding makes the output as long as the input, at stride 1."""
    steps = [(value,) * len(spatial) if isinstance(value, int) else value for value in (stride, dilation)]
    pairs = resolve("same", spatial, kernel, *steps)
    shape = {"stride": stride, "dilation": dilation, "groups": groups, "padding": pairs, "padding_mode": "circular"}
    return ConvSpec(batch, channels, filters, spatial, kernel, **shape, **options)


#: One to three axes, odd, even and prime sizes, and those of tiles; strides that divide them and not; kernels longer
#: than the image.
SPECS = (
    same(2, 1, 1, (40,), (9,)),
    same(1, 4, 6, (37,), (8,), stride=3, dilation=2, groups=2),
    same(1, 1, 2, (12,), (31,)),
    same(1, 2, 2, (9,), (4,), dilation=7, groups=2),
    same(2, 2, 3, (12, 15), (5, 4), stride=(2, 3)),
    same(1, 4, 4, (11, 13), (3, 6), stride=(2, 1), dilation=(1, 3), groups=4),
    same(1, 5, 4, (6, 7), (9, 20)),
    same(1, 2, 4, (6, 8, 5), (3, 2, 7), stride=(2, 1, 3), groups=2),
    same(1, 1, 1, (5, 1, 4), (2, 3, 3), dilation=(2, 1, 1)),
    same(2, 1, 1, (16, 32), (5, 4)),
    same(2, 4, 6, (32, 48), (9, 50), stride=(2, 3), groups=2),
    same(1, 3, 3, (16, 16), (40, 3), dilation=(1, 2), groups=3),
    ConvSpec(1, 1, 1, (10, 9), (3, 4), padding=((1, 0), (0, 0)), padding_mode="circular"),
    ConvSpec(1, 2, 1, (10,), (25,), padding=((23, 1),), stride=4, padding_mode="circular"),
)
specs = pytest.mark.parametrize("spec", SPECS, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def circular_fft(spec):
    """The engine that computes `spec` as such."""
    pytest.importorskip("pyfftw", reason="these transforms are pyfftw's")
    found = FFT.circular(spec)
    assert found is not None, spec
    return found


def extended(spec, x):
    return pad(x, spec.padding, "circular")


def by(engine, spec, x, weight):
    out = np.full(spec.output_shape, 77, spec.dtype)
    planning.make_plan(engine, spec, weight)(x, out)
    return out


@specs
@dtypes
def test_one_transform_of_the_image(spec, dtype):
    spec = spec.replace(dtype=dtype)
    x, weight, _ = sample(spec)
    engine = circular_fft(spec)
    assert fft_sizes.choose_tiling(spec, 2).transform == spec.spatial, spec
    assert_within_bound(engine, spec.padded(), by(engine, spec, x, weight), extended(spec, x), weight)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_of_the_size_of_a_tile_are_one(dtype):
    small = [spec.replace(dtype=dtype) for spec in SPECS if all(size % 16 == 0 for size in spec.spatial)]
    assert len(small) == 3, small
    for spec in small:
        assert fft_tiles.is_tile(spec), spec
        (tiling,) = fft_tiles.tilings(spec, 4)
        assert (tiling.tile.rows, tiling.tile.columns, tiling.counts) == (*spec.spatial, (1, 1)), spec
    for spatial in ((17, 16), (16, 24), (112, 16)):
        spec = same(1, 1, 1, spatial, (3, 3), dtype="float32")
        assert not fft_tiles.is_tile(spec), spec


@pytest.mark.parametrize("faster", [True, False])
@specs
def test_both_families_of_transforms(spec, faster, monkeypatch):
    """Whichever is predicted to be faster."""
    if not fft_tiles.is_tile(spec):
        pytest.skip(f"{spec}: its image has not the size of a tile")
    monkeypatch.setattr(fft_sizes, "predict_seconds", lambda spec, machine: 1.0 if faster else 0.0)
    assert family(spec) == ("tiles" if faster else "fftw"), spec
    x, weight, _ = sample(spec)
    engine = circular_fft(spec)
    assert_within_bound(engine, spec.padded(), by(engine, spec, x, weight), extended(spec, x), weight)


def test_it_needs_no_pyfftw_where_the_image_is_a_tile(monkeypatch):
    monkeypatch.setattr("convbench.engines.fft._has_pyfftw", lambda: False)
    assert FFT.circular(same(1, 1, 1, (16, 32), (5, 4))) is not None
    assert FFT.circular(same(1, 1, 1, (17, 32), (5, 4))) is None


@pytest.mark.parametrize("kernel", [(3, 3), (4, 5), (11, 8), (13, 30)])
def test_it_is_scipys_wrap(kernel):
    spec = same(1, 1, 1, (11, 10), kernel, dtype="float64")
    x, weight, _ = sample(spec)
    found = by(circular_fft(spec), spec, x, weight)[0, 0]
    # "same" puts the extra element of even kernels on the high side; SciPy puts it on the low side.
    origin = [-1 if k % 2 == 0 else 0 for k in kernel]
    expected = ndimage.correlate(x[0, 0], weight[0, 0], mode="grid-wrap", origin=origin)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.prod(kernel), err_msg=str(spec))


@specs
def test_every_engine_agrees(engine, spec):
    spec = spec.replace(dtype="float64")
    reason = planning.why_unsupported(engine, spec)
    if reason is not None:
        skip_if_refused(engine, planning.engine_spec(engine, spec))
    found = convbench.verify(spec, [engine.name])
    assert found.ok, found


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", ["auto", "fft", "direct", "im2col"])
@specs
def test_layers(spec, name, memory_format):
    spec = spec.replace(dtype="float64")
    x, weight, bias = sample(spec)
    layer = getattr(convbench, f"Conv{spec.ndim}d")
    options = {"stride": spec.stride, "padding": spec.padding, "dilation": spec.dilation, "groups": spec.groups}
    x = convbench.data.as_memory_format(x, memory_format)
    result = layer(weight, bias, **options, padding_mode="wrap", engine=name)(x)
    right = layer(weight, bias, **options | {"padding": 0}, engine="reference")(extended(spec, x))
    np.testing.assert_allclose(result, right, rtol=0, atol=1e-12 * spec.taps, err_msg=f"{name} on {spec}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "complex64", EXTENDED[0]])
@specs
def test_nan_and_inf_reach_exactly_the_outputs_that_cover_them(spec, dtype, value):
    spec = spec.replace(dtype=dtype)
    x, weight, _ = sample(spec)
    plan, out = planning.make_plan(circular_fft(spec), spec, weight), np.empty(spec.output_shape, dtype)
    plan(x, out)
    clean = out.copy()
    for place in (0, x.size // 2, x.size - 1):
        struck = x.copy()
        struck.flat[place] = value
        plan(struck, out)
        right = by(registry.get("reference"), spec, struck, weight)
        assert np.array_equal(np.isfinite(out), np.isfinite(right)), f"{spec}: {value} at {place}"
    plan(x, out)
    assert np.array_equal(out, clean), f"{spec}: a {value} outlives its call"


@specs
def test_positions_that_no_window_covers(spec):
    ones = spec.replace(batch=1, in_channels=1, out_channels=1, groups=1, dtype="float64")
    for axis, places in enumerate(uncovered(spec)):
        x = np.zeros(ones.input_shape)
        for index in range(spec.spatial[axis]):
            x[...] = 0
            x[(0, 0, *(index if other == axis else slice(None) for other in range(spec.ndim)))] = 1
            reached = by(registry.get("reference"), ones, x, np.ones(ones.weight_shape)).any()
            assert reached == (index not in places), f"{spec}: axis {axis}, position {index}"


def test_an_uncovered_position_rounds_nothing():
    spec = ConvSpec(1, 1, 1, (14,), (1,), stride=3, padding=((1, 0),), padding_mode="circular")
    x = np.ones(spec.input_shape, "float32")
    x[0, 0, 1] = 1e30
    assert 1 in uncovered(spec)[0]
    out = by(circular_fft(spec), spec, x, np.ones(spec.weight_shape, "float32"))
    np.testing.assert_allclose(out, np.ones_like(out), rtol=1e-6, err_msg=str(spec))


def test_a_stride_folds_as_far_as_it_divides_the_image():
    spec = same(1, 1, 1, (12, 15, 7), (3, 3, 3), stride=(2, 6, 3))
    assert fft_sizes.choose_tiling(spec, 2).inverse == (6, 5, 7), spec


@dtypes
def test_the_workspace_is_what_a_plan_holds(dtype):
    spec = same(1, 2, 3, (12, 15), (5, 4), dtype=dtype)
    weight = sample(spec)[1]
    engine = circular_fft(spec)
    assert engine.plan(spec, weight).nbytes - weight.nbytes == engine.workspace_bytes(spec), spec


def test_more_outputs_than_the_image_has_are_extended():
    for padding in ("full", 3, ((2, 3), (1, 1))):
        x, weight = np.random.default_rng(0).uniform(-1, 1, (2, 1, 2, 9, 8))
        weight = np.ascontiguousarray(weight[:, :, :3, :3])
        selected = convbench.explain(x, weight, padding=padding, padding_mode="circular", engine="fft")
        assert selected.spec.padding_mode == "zeros", padding
        found = convbench.conv2d(x, weight, padding=padding, padding_mode="circular", engine="fft")
        right = convbench.conv2d(x, weight, padding=padding, padding_mode="circular", engine="reference")
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-13)
    assert FFT.circular(ConvSpec(1, 1, 1, (8,), (3,), padding=2, padding_mode="circular")) is None


@pytest.fixture
def one_thread():
    before = convbench.get_num_threads()
    convbench.set_num_threads(1)
    yield
    convbench.set_num_threads(before)


def test_a_prime_size_costs_more_than_its_smooth_neighbour(one_thread):
    """A volume: padded and not, FFTW computes it.  Two threads would share the tiles of a padded one."""
    sizes = {n: same(1, 1, 1, (n, n, n), (3, 3, 3), dtype="complex64") for n in (96, 97)}
    seconds = {n: circular_fft(spec).predict_seconds(spec, this_machine(1)) for n, spec in sizes.items()}
    assert seconds[97] > 1.5 * seconds[96], seconds
    chosen = {n: convbench.select(spec, engine="fft").variant for n, spec in sizes.items()}
    assert chosen == {96: "circular", 97: ""}, chosen


@pytest.mark.parametrize("tuning", ["measure", "incremental"])
def test_both_forms_are_timed_and_recorded_apart(tuning):
    spec = same(1, 1, 1, (24, 24), (15, 15), dtype="complex64")
    circular_fft(spec)
    x, weight, _ = sample(spec)
    convbench.clear_cache()
    layer = convbench.Conv2d(weight, padding="same", padding_mode="circular", engine="fft", tuning=tuning)
    right = by(registry.get("reference"), spec, x, weight)
    for _ in range(20):
        np.testing.assert_allclose(layer(x), right, rtol=0, atol=1e-4, err_msg=str(spec))
    timings = records.load(spec).timings
    assert {"fft", "fft, circular"} <= set(timings), timings
    assert records.load(spec.padded()) is None, "the extended problem is another"
    assert records.load(spec.replace(padding_mode="zeros")) is None, "so is the one that is padded by zeros"
    convbench.clear_cache()
    selected = convbench.select(spec, "replay", engine="fft")
    best = min(("fft", "fft, circular"), key=lambda name: timings[name].median)
    assert records.name_of("fft", selected.variant) == best, selected


def test_explain_says_it():
    spec = same(1, 1, 1, (64, 64), (63, 63), dtype="complex64")
    circular_fft(spec)
    assert "fft (circular)" in str(convbench.explain(str(spec))), spec


def test_limits_hold_for_each_form():
    """What a form needs, not what the other does, decides whether it is within the limits."""
    spec = same(1, 1, 1, (4096,), (5,), dtype="complex64")
    ways = (circular_fft(spec), FFT)
    bytes_of = {way.variant: planning.workspace_bytes(way, spec) for way in ways}
    less, more = sorted(bytes_of, key=bytes_of.get)
    assert bytes_of[less] < bytes_of[more]
    for tuning in ("estimate", "measure"):
        selected = convbench.select(spec, tuning, engine="fft", max_workspace=bytes_of[less])
        assert selected.variant == less, selected
    with pytest.raises(ValueError, match="max_workspace"):
        convbench.select(spec, engine="fft", max_workspace=bytes_of[less] - 1)
    with pytest.raises(ValueError, match="rtol"):
        convbench.select(spec, engine="fft", rtol=1e-9)


def test_an_engine_that_computes_it_only_as_such():
    class Only(Engine):
        name = "only"

        def why_unsupported(self, spec):
            return None if spec.padding_mode == "circular" else "only computes what goes round, nothing else"

        def circular(self, spec):
            return Round()

        def plan(self, spec, weight):
            return lambda x, out: out.fill(spec.padding_mode == "circular")

    class Round(Only):
        takes_circular, variant = True, "round"

    convbench.register(Only())
    try:
        spec = SPECS[0]
        assert [way.variant for way in planning.variants(registry.get("only"), spec)] == ["round"]
        x, weight, _ = sample(spec)
        out = convbench.conv1d(x, weight, padding="same", padding_mode="circular", engine="only")
        assert (out == 1).all()
        assert_refused(["only", "nothing else"], convbench.conv1d, x, weight, padding="same", engine="only")
        assert not convbench.verify(spec, ["only"]).ok
    finally:
        convbench.unregister("only")


@specs
@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_the_text_is_read_back(spec, memory_format):
    spec = spec.replace(memory_format=memory_format)
    assert "--pad=circular" in str(spec)
    assert ConvSpec.parse(str(spec)) == spec
    assert spec.padded().output_shape == spec.output_shape, spec
    assert spec.padded().padding_mode == "zeros", spec


def test_one_problem_has_one_key():
    """Padding of nothing is no circular one, and zeros are no near problem of it."""
    bare = ConvSpec(1, 1, 1, (9,), (3,), padding_mode="circular")
    assert bare == ConvSpec(1, 1, 1, (9,), (3,))
    assert "pad" not in str(bare)
    spec = SPECS[0]
    assert nearby.distance(spec, spec.replace(spatial=(44,))) < nearby.distance(
        spec, spec.replace(padding_mode="zeros")
    )


def test_bad_modes_are_refused():
    for mode in ("reflect", "wrap", 3, None):
        assert_refused([repr(mode), "zeros", "circular"], ConvSpec, 1, 1, 1, (9,), (3,), padding_mode=mode)
    empty = {"padding": ((3, 3),), "padding_mode": "circular"}
    assert_refused(["circular", "(0,)", "zeros"], ConvSpec, 1, 1, 1, (0,), (3,), **empty)
    assert_refused(["'mirror'", "zeros", "circular"], ConvSpec.parse, "--pad=mirror mb1ic1iw9oc1kw3pw1")
    weight = np.ones(SPECS[0].weight_shape)
    assert_refused(["circular", "zeros", "padded"], correlation_matrix, SPECS[0], weight)


def test_products_inside_are_all_products():
    for spec in SPECS:
        assert shapes.products_inside(spec) == spec.macs // spec.batch, spec
