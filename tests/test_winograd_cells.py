"""Winograd's engines where lanes are channels: dilation, strides, many taps, volumes, channels-last memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_within_bound, correlate, run, sample

import convbench
from convbench import ConvSpec, registry
from convbench.engines import winograd_lanes
from convbench.engines.jit import winograd_cells_kernel as kernels
from convbench.engines.jit.target import levels, target
from convbench.engines.jit.winograd import WinogradPlan
from convbench.engines.jit.winograd_cells import CellPlan
from convbench.engines.jit.winograd_cells_layout import NOWHERE, Axis, axes, output_places, parted
from convbench.engines.jit.winograd_cells_tiling import blocks
from convbench.engines.winograd_lanes import ChannelLanes, TileLanes
from convbench.machine import this_machine

NAMES = ("winograd", "winograd4", "winograd8")
named = pytest.mark.parametrize("name", NAMES)


def problem(spatial, kernel=3, batch=2, channels=(6, 4), **rest):
    kernel = (kernel,) * len(spatial) if isinstance(kernel, int) else kernel
    return ConvSpec(batch, *channels, spatial=spatial, kernel=kernel, **rest)


DILATED = [
    problem((40, 41), dilation=2, padding=2),
    problem((33, 33), dilation=6, padding=6),
    problem((21, 19), dilation=(1, 3), padding=((0, 2), (5, 1))),
    problem((18, 23), dilation=(3, 1), padding=((4, 0), (1, 1)), groups=2),
    problem((5, 4), dilation=6, padding=6),  # sizes below the dilation
    problem((3, 2), dilation=(6, 3), padding=9),  # more padding than dilation and size
    problem((13, 13), dilation=6, padding=0),  # one output, one phase
    problem((14, 17), dilation=6, padding=0),  # fewer outputs than phases
    problem((9, 50), (1, 3), dilation=(7, 2), padding=1),  # a single tap has no distance
    problem((64,), dilation=6, padding=((0, 12),), groups=2),
    problem((100,), dilation=49, padding=0, batch=1),
    problem((97,), 11, dilation=3, padding=((11, 4),), batch=3),
]
#: With m and r, so that parts share inputs or not.
OTHERS = [
    (problem((40, 41), channels=(20, 40), padding=1), (4, 3), (3, 3)),
    (problem((30, 31), (5, 2), dilation=(2, 5), padding=3), (2, 4), (5, 2)),
    (problem((41, 30), (7, 4), stride=(2, 3), dilation=(2, 1), padding=3), (3, 2), (4, 2)),
    (problem((33, 28), (11, 8), padding=2, channels=(3, 17)), (4, 3), (4, 3)),
    (problem((28, 26), (9, 7), stride=2, padding=4), (3, 2), (3, 2)),
    (problem((301,), 11, padding=5, channels=(17, 33)), (4,), (4,)),
    (problem((301,), 10, padding=5, channels=(17, 33), dtype="float64"), (4,), (3,)),
    (problem((6, 12, 14), padding=1, channels=(17, 9)), (1, 4, 4), (1, 3, 3)),
    (problem((7, 12, 14), (4, 3, 5), padding=1, stride=(2, 1, 1), dilation=(1, 2, 1), groups=2), (1, 2, 3), (1, 3, 3)),
    (problem((1, 1), 2, channels=(1, 1), padding=1, batch=1), (3, 3), (2, 2)),
]


def lying(array, memory_format):
    """The array in that memory format, and what an engine's plan sees of it."""
    if memory_format == "channels_first":
        return array, array
    last = np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return np.moveaxis(last, -1, 1), last


def computed(spec, plan, x):
    given, out = (
        lying(x, spec.memory_format)[1],
        lying(np.full(spec.output_shape, np.nan, spec.dtype), spec.memory_format),
    )
    assert plan(given, out[1]), spec
    return out[0]


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(("spec", "outputs", "taps"), OTHERS, ids=str)
def test_every_problem_on_every_level(spec, outputs, taps, level, memory_format, monkeypatch):
    x, weight, bias = sample(spec)
    exact = correlate(spec, x, weight, bias)
    results = []
    for bytes_of_round, share in ((12 << 20, 0.5), (1, 1e-6)):  # one round, or one for each group and image
        monkeypatch.setattr("convbench.engines.jit.winograd_cells.SHARED_BYTES", bytes_of_round)
        monkeypatch.setattr("convbench.engines.jit.winograd_cells.FREQUENCY_SHARE", share)
        spec = spec.replace(memory_format=memory_format)
        plan = CellPlan(spec, weight, bias, outputs=outputs, taps=taps, isa=level)
        assert len(plan._rounds) == (1 if share > 0.1 else spec.batch * spec.groups), spec
        results.append(computed(spec, plan, x))
        limit = 3e-5 if spec.dtype == "float32" else 1e-13
        assert np.linalg.norm(results[-1] - exact) <= limit * np.linalg.norm(exact), spec
    np.testing.assert_array_equal(*results, err_msg=str(spec))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", [*DILATED, *[spec for spec, *_ in OTHERS]], ids=str)
@named
def test_problems_within_the_bound(name, spec, dtype):
    spec, engine = spec.replace(dtype=dtype), registry.get(name)
    if engine.why_unsupported(spec):
        pytest.skip(engine.why_unsupported(spec))
    x, weight, bias = sample(spec)
    for given_bias in (None, bias):
        assert_within_bound(engine, spec, run(engine, spec, x, weight, given_bias), x, weight, given_bias)


@pytest.mark.parametrize("spec", DILATED, ids=str)
def test_dilated_problems_are_supported(spec):
    assert registry.get("winograd").why_unsupported(spec) is None, spec
    assert {type(option) for option in winograd_lanes.options(spec, (5, 6))} == {ChannelLanes}, spec


def test_strides_of_tiles_of_channels_are_those_of_the_definition():
    """Against sums that nobody here wrote, with dilation and stride together."""
    torch = pytest.importorskip("torch")
    spec = problem((41, 37), (5, 7), stride=(2, 3), dilation=(3, 2), padding=4, channels=(20, 18), groups=2)
    x, weight, bias = sample(spec)
    tensors = (torch.from_numpy(array.astype("float64")) for array in (x, weight, bias))
    exact = torch.nn.functional.conv2d(*tensors, stride=(2, 3), padding=4, dilation=(3, 2), groups=2).numpy()
    result = run("winograd", spec, x, weight, bias)
    assert np.linalg.norm(result - exact) <= 1e-6 * np.linalg.norm(exact), spec


# Layout.

AXES = [
    Axis(size, out, low, taps, stride, dilation, m, r)
    for size, out, low, taps, stride, dilation in ((40, 38, 0, 3, 1, 1), (19, 19, 6, 3, 1, 6), (50, 22, 3, 11, 2, 1))
    for m, r in ((4, 3), (3, 3), (2, 2), (1, 1))
] + [Axis(3, 3, 6, 3, 1, 6, 4, 3), Axis(30, 2, 1, 8, 4, 3, 2, 2)]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_parts_have_every_tap_and_tiles_every_output_once(axis):
    assert sorted(itertools.chain(*axis.parts)) == list(range(axis.taps))
    outputs, places = axis.outputs()
    assert sorted(outputs[outputs != NOWHERE]) == list(range(axis.out))
    assert len(set(places)) == len(places) <= axis.grid


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_each_part_sees_the_inputs_of_its_taps(axis):
    inputs, (outputs, places) = axis.inputs(), axis.outputs()
    assert inputs.shape == (axis.copies, axis.grid, axis.products)
    for taps, (copy, shift) in zip(axis.parts, axis.sources(), strict=True):
        for number, place in enumerate(places):
            for (i, output), (j, tap) in itertools.product(enumerate(outputs[number]), enumerate(taps)):
                expected = output * axis.stride + tap * axis.dilation - axis.low
                if output != NOWHERE:
                    found = inputs[copy, place + shift, i + j]
                    assert found == (expected if 0 <= expected < axis.size else NOWHERE), (axis, taps, output, tap)


def test_parts_that_follow_each_other_share_inputs():
    shared, apart = (Axis(301, 301, 5, 11, 1, 1, m, r) for m, r in ((4, 4), (4, 3)))
    assert (shared.copies, len(shared.parts)) == (1, 3)
    assert (apart.copies, len(apart.parts)) == (4, 4)


def test_places_of_planes_are_those_of_volumes():
    spec = problem((5, 6, 7), padding=1)
    found, places = output_places(axes(spec, (1, 2, 3), (1, 3, 3)))
    assert sorted(found[found < 210]) == list(range(210))
    assert (np.diff(places) > 0).all()
    weight = np.arange(27.0).reshape(1, 1, 3, 3, 3)
    assert sorted(parted(weight, axes(spec, (1, 2, 3), (1, 3, 2))).ravel()) == [0] * 9 + list(range(27))


def test_blocks_fit_the_registers():
    for vectors, tiles, registers in itertools.product((1, 2, 7, 64), (1, 4, 49, 1000), (16, 32)):
        filter_blocks, tile_blocks, cycles = blocks(vectors, tiles, registers, 2)
        n, t = -(-vectors // filter_blocks), -(-tiles // tile_blocks)
        assert n * t + n + 1 <= registers
        assert cycles >= vectors * tiles / 2


# The choice.


def test_the_choice_is_the_fastest_by_prediction():
    machine = this_machine(2)
    for spec in (problem((19, 19), dilation=6, padding=6, channels=(512, 1024), batch=1), problem((56, 56), padding=1)):
        every = winograd_lanes.options(spec, (5, 6))
        chosen = winograd_lanes.fastest(spec, (5, 6), machine)
        assert chosen.seconds(machine) == min(option.seconds(machine) for option in every), spec
        assert all(5 <= max(option.products) <= 6 for option in every), spec


def test_either_kind_of_lanes_is_chosen():
    machine = this_machine(2)
    images = problem((112, 112), padding=1, channels=(64, 64), batch=1)
    assert isinstance(winograd_lanes.fastest(images, (5, 6), machine), TileLanes)
    for spec in (images.replace(memory_format="channels_last"), images.replace(dilation=2, padding=2)):
        assert isinstance(winograd_lanes.fastest(spec, (5, 6), machine), ChannelLanes), spec


@named
def test_channels_last_memory_is_planned_natively(name):
    spec = problem((20, 21), padding=1, memory_format="channels_last", channels=(18, 35))
    engine = registry.get(name)
    assert engine.takes_channels_last(spec)
    x, weight, bias = sample(spec)
    layer = convbench.Conv2d(weight, bias, padding=1, engine=name)
    result = layer(lying(x, "channels_last")[0])
    assert np.moveaxis(result, 1, -1).flags.c_contiguous
    assert_within_bound(engine, spec, result, x, weight, bias)


def test_planes_of_many_elements_are_left_to_tiles(monkeypatch):
    monkeypatch.setattr(winograd_lanes, "MOST_ELEMENTS", 400)
    spec = problem((20, 21), padding=1)
    assert not ChannelLanes.options(spec)
    assert ChannelLanes.options(spec.replace(spatial=(20, 20)))
    engine = registry.get("winograd")
    assert "none fits" in engine.why_unsupported(spec.replace(dilation=2))
    assert engine.takes_channels_last(spec.replace(spatial=(20, 20), memory_format="channels_last"))
    assert not engine.takes_channels_last(spec.replace(memory_format="channels_last"))
    x, weight, bias = sample(spec)
    result = convbench.Conv2d(weight, bias, padding=1, engine="winograd")(lying(x, "channels_last")[0])
    assert_within_bound(engine, spec, result, x, weight, bias)


def test_workspace_is_what_plans_hold():
    for spec in [*DILATED[:4], problem((24, 24, 24), padding=1, channels=(32, 48))]:
        _, weight, _ = sample(spec)
        engine = registry.get("winograd")
        held = engine.plan(spec, weight).nbytes
        assert held <= engine.workspace_bytes(spec) * 1.5 + 100_000, spec


# Threads, and other plans in the process.


@pytest.mark.parametrize("spec", [DILATED[0], OTHERS[3][0], OTHERS[7][0]], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(spec):
    x, weight, _ = sample(spec)
    before, results = convbench.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            convbench.set_num_threads(threads)
            results.append(run("winograd", spec, x, weight))
    finally:
        convbench.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other, err_msg=str(spec))


def test_products_of_both_kinds_of_lanes_are_different_functions():
    """Keys of compiled functions are of plain numbers, and True is 1."""
    spec = problem((20, 20), padding=1, channels=(32, 32))
    x, weight, _ = sample(spec)
    exact = correlate(spec, x, weight)
    for make in (
        lambda: WinogradPlan(spec, weight, outputs=(2, 2), way="fused"),
        lambda: CellPlan(spec, weight, outputs=(2, 2), taps=(3, 3)),
    ):
        np.testing.assert_allclose(computed(spec, make(), x), exact, atol=1e-4)
    addresses = {kernels.product_address(2, 14, "float32", asks, target()) for asks in (0, 1, 2)}
    assert len(addresses) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_reach_their_windows_only(value):
    spec = problem((33, 31), dilation=5, padding=5, channels=(20, 18))
    x, weight, bias = sample(spec)
    x[0, 3, 7, 9] = x[1, 19, 32, 30] = value
    result, direct = (run(engine, spec, x, weight, bias) for engine in ("winograd", "direct"))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(direct), err_msg=str(spec))
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct), err_msg=str(spec))
