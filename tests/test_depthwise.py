"""Channels-last depthwise layers: chosen, computed where they lie, right at every border, the same on any threads."""

from __future__ import annotations

import numpy as np
import pytest

import convbench
from convbench import ConvSpec, planning, registry
from convbench.data import as_memory_format
from convbench.data import sample as pair
from convbench.engines.direct import Direct, family
from convbench.engines.jit import compile as compiler
from convbench.engines.jit import depthwise
from convbench.verify import expected, measured_error

LAST = {"memory_format": "channels_last"}
PROBLEMS = (
    ConvSpec(2, 64, 64, spatial=(14, 14), kernel=3, padding=1, groups=64, **LAST),
    ConvSpec(1, 37, 37, spatial=(15, 30), kernel=(3, 5), padding=((1, 0), (0, 3)), stride=2, groups=37, **LAST),
    ConvSpec(1, 3, 3, spatial=(20, 33), kernel=7, padding=6, dilation=(1, 2), groups=3, dtype="float64", **LAST),
    ConvSpec(1, 20, 20, spatial=(5, 6), kernel=(2, 13), padding=(7, 30), stride=(1, 3), groups=20, **LAST),
    ConvSpec(3, 9, 9, spatial=(70,), kernel=5, padding=4, groups=9, dtype="float64", **LAST),
    ConvSpec(1, 18, 18, spatial=(5, 6, 7), kernel=(3, 2, 3), padding=2, stride=(2, 1, 1), groups=18, **LAST),
)
problem = pytest.mark.parametrize("spec", PROBLEMS, ids=str)


def sample(spec):
    """Input, weight and bias."""
    return *pair(spec), np.random.default_rng(1).uniform(-1, 1, spec.out_channels).astype(spec.dtype)


def planned(plan, spec, x):
    """What `plan` computes from `x`, into channels-last memory full of NaN."""
    out = as_memory_format(np.full(spec.output_shape, np.nan, spec.dtype), "channels_last")
    plan(x, out)
    return out


@problem
def test_every_variant_is_right(spec):
    x, weight, bias = sample(spec)
    exact, scale = expected(spec, x, weight)
    column = bias.reshape(-1, *(1,) * spec.ndim).astype(exact.dtype)
    ways = registry.get("direct").variants(spec)
    assert "depthwise" in {way.variant for way in ways}, str(spec)
    for way in ways:
        out = planned(planning.make_plan(way, spec, weight, bias), spec, x)
        error = measured_error("componentwise", out, exact + column, scale + abs(column))
        assert error <= way.error_bound(spec), f"{spec} {way.variant}: error {error}"


@problem
def test_nothing_is_copied(spec):
    _, weight, bias = sample(spec)
    plan = planning.make_plan(Direct("depthwise"), spec, weight, bias)
    assert type(plan) is depthwise.DepthwisePlan, str(spec)
    assert Direct("depthwise").takes_channels_last(spec), str(spec)
    assert not Direct("wide").takes_channels_last(spec), str(spec)
    assert plan.nbytes <= Direct().workspace_bytes(spec), str(spec)


def test_the_layers_of_networks_take_it():
    for channels, size, kernel, stride in ((32, 112, 3, 1), (96, 56, 7, 1), (144, 56, 3, 2), (960, 7, 3, 1)):
        spec = ConvSpec(
            1, channels, channels, spatial=(size, size), kernel=kernel, padding=kernel // 2, stride=stride,
            groups=channels, **LAST,
        )  # fmt: skip
        assert family(spec) == "depthwise", str(spec)
        assert family(spec.replace(memory_format="channels_first")) != "depthwise", str(spec)


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = as_memory_format(rng.uniform(-1, 1, (2, 24, 19, 22)).astype("float32"), "channels_last")
    weight, bias = rng.uniform(-1, 1, (24, 1, 3, 5)).astype("float32"), rng.uniform(-1, 1, 24).astype("float32")
    options = {"stride": (2, 1), "padding": (3, 4), "dilation": (1, 2), "groups": 24}
    got = convbench.conv2d(x, weight, bias, engine="direct", **options)
    wanted = torch.nn.functional.conv2d(*(torch.from_numpy(array.astype("float64")) for array in (x, weight, bias)),
                                        **options).numpy()  # fmt: skip
    np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=str(options))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous


@problem
def test_threads_do_not_change_a_bit(spec, monkeypatch):
    monkeypatch.setattr(depthwise, "SMALL", 0)
    x, weight, bias = sample(spec)
    results = []
    before = convbench.get_num_threads()
    try:
        for threads in (1, 2, 3):
            convbench.set_num_threads(threads)
            plan = depthwise.DepthwisePlan(spec, weight, bias)
            assert plan._tasks == 1 or threads > 1, str(spec)
            results.append(planned(plan, spec, x).tobytes())
    finally:
        convbench.set_num_threads(before)
    assert len(set(results)) == 1, str(spec)


def test_small_problems_stay_on_one_thread():
    weight = np.ones((8, 1, 3, 3), "float32")
    small = ConvSpec(1, 8, 8, spatial=(20, 20), kernel=3, groups=8, **LAST)
    assert small.macs < depthwise.SMALL
    assert depthwise.DepthwisePlan(small, weight)._tasks == 1, str(small)


def test_nan_reaches_its_windows_only():
    spec = PROBLEMS[0]
    x, weight, bias = sample(spec)
    clean = planned(planning.make_plan(Direct("depthwise"), spec, weight, bias), spec, x)
    x[1, 5, 0, 13] = np.nan
    struck = planned(planning.make_plan(Direct("depthwise"), spec, weight, bias), spec, x)
    window = np.zeros(spec.output_shape, bool)
    window[1, 5, :2, 12:] = True
    np.testing.assert_array_equal(np.isnan(struck), window, err_msg=str(spec))
    np.testing.assert_array_equal(struck[~window], clean[~window], err_msg=str(spec))


def test_windows_that_see_only_padding_give_the_bias():
    spec = ConvSpec(1, 17, 17, spatial=(2, 2), kernel=3, padding=9, groups=17, **LAST)
    x, weight, bias = sample(spec)
    out = planned(planning.make_plan(Direct("depthwise"), spec, weight, bias), spec, x)
    for corner in (out[:, :, :7, :], out[:, :, :, :7], out[:, :, 11:, :], out[:, :, :, 11:]):
        np.testing.assert_array_equal(corner, np.broadcast_to(bias.reshape(-1, 1, 1), corner.shape), str(spec))


def test_borders_share_a_few_functions():
    """Kernels as wide as their image cut every row into borders: no function for each width."""
    before = compiler.compiled_count()
    for size in range(20, 40):
        spec = ConvSpec(1, 16, 16, spatial=(3, size), kernel=(1, 19), padding=(0, 9), groups=16, **LAST)
        depthwise.DepthwisePlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert compiler.compiled_count() - before <= depthwise.MOST_PIXELS + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "int32"}, "int32"),
        ({"memory_format": "channels_first"}, "channels_first"),
        ({"out_channels": 16}, "16 output"),
        ({"groups": 4}, "4 groups"),
    ],
)
def test_refusals_say_what_is_computed(change, said):
    spec = ConvSpec(1, 8, 8, spatial=(9, 9), kernel=3, groups=8, **LAST)
    assert depthwise.why_unsupported(spec) is None, str(spec)
    assert said in depthwise.why_unsupported(spec.replace(**change)), str(spec)


def test_what_it_does_not_compute_takes_another_way():
    for change in ({"out_channels": 16}, {"dtype": "int32"}, {"groups": 4}):
        spec = ConvSpec(1, 8, 8, spatial=(9, 9), kernel=3, groups=8, **LAST).replace(**change)
        assert family(spec) != "depthwise", str(spec)
        found = convbench.verify(spec, ["direct"])
        assert found.ok, str(found)
