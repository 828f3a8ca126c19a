"""What kernels ask the memory for ahead of its use."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from convbench import settings
from convbench.engines.jit import ahead, dense, product, product_runs, product_tiling
from convbench.engines.jit import compile as compiler
from convbench.engines.jit.target import target
from convbench.spec import ConvSpec

SMALL, LARGE = 32 << 10, 48 << 10


@pytest.mark.parametrize(
    ("first_level", "nbytes", "sparse", "level"),
    [(SMALL, 8 << 10, False, 1), (SMALL, 16 << 10, False, 2), (SMALL, 64, True, 2), (LARGE, 64 << 10, True, 1)],
)
def test_many_inputs_come_into_the_second_level_where_the_first_is_small(
    monkeypatch, first_level, nbytes, sparse, level
):
    monkeypatch.setattr(ahead, "cache_bytes", lambda level=2: first_level if level == 1 else 1 << 20)
    assert ahead.inputs_level(nbytes, sparse) == level


@pytest.mark.parametrize(
    ("text", "family", "level"),
    [
        ("mb1ic256ih28oc64kh1", dense.DensePlan, 2),
        ("mb1ic16ih28oc64kh1", dense.DensePlan, 1),  # few
        ("mb1ic16ih28oc64oh14kh1sh2", dense.DensePlan, 2),  # strided
        ("mb1ic256ih28oc64kh13ph6", dense.DensePlan, 1),  # a copy is in that cache already
        ("mb1ic256ih28oc8kh1", product.ProductPlan, 2),  # in place
        ("mb1ic16ih32oc8kh1", product.ProductPlan, 2),  # in place, planes of 4 KiB
        ("mb1ic256ih28oc32kh1", product.ProductPlan, 2),  # in place, several tiles of channels
        ("mb1ic64ih28oc2048kh1", product.ProductPlan, 2),  # panels, copied from many planes
        ("mb1ic64ih56oc128oh28kh1sh2", product.ProductPlan, 2),  # panels, of parts of lines
    ],
)
def test_plans_ask_for_inputs_by_how_they_read_them(monkeypatch, text, family, level):
    monkeypatch.setattr(ahead, "cache_bytes", lambda level=2: SMALL if level == 1 else 1 << 20)
    module = dense.kernels if family is dense.DensePlan else product.kernels
    tiles, address = [], module.kernel_address
    monkeypatch.setattr(module, "kernel_address", lambda tile, target: tiles.append(tile) or address(tile, target))
    spec = ConvSpec.parse(text)
    family(spec, np.ones(spec.weight_shape, spec.dtype))
    assert {tile.level for tile in tiles} == {level}, str(spec)


@pytest.mark.parametrize(
    ("text", "first_level", "soon"),
    [
        ("mb1ic256ih28oc8kh1", SMALL, True),
        ("mb1ic256ih28oc8kh1", LARGE, False),  # they come into the first at once
        ("mb1ic16ih32oc8kh1", SMALL, False),  # in fewer rounds than it is ahead
        ("mb1ic256ih28oc64kh1", SMALL, False),  # several tiles of channels read them
    ],
)
def test_products_in_place_ask_for_inputs_of_the_second_level_again(monkeypatch, text, first_level, soon):
    monkeypatch.setattr(ahead, "cache_bytes", lambda level=2: first_level if level == 1 else 1 << 20)
    monkeypatch.setattr(
        product,
        "choose",
        lambda channels, vectors, *_: product_tiling.Cut((8,) * (channels // 8), (1,) * vectors, True, 1e6),
    )
    tiles, address = [], product.kernels.kernel_address
    monkeypatch.setattr(
        product.kernels, "kernel_address", lambda tile, target: tiles.append(tile) or address(tile, target)
    )
    spec = ConvSpec.parse(text)
    product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert {tile.soon for tile in tiles} == {soon}, str(spec)


@pytest.mark.parametrize(
    ("text", "level", "far"),
    [
        ("mb1ic80ih64oc8kh1", 2, False),  # 80 planes of 16 KiB: the cache holds a line of 64 of them
        ("mb1ic64ih64oc8kh1", 2, True),  # of all
        ("mb1ic80ih63oc8kh1", 2, True),  # planes want sets of their own
        ("mb1ic40ih128oc8kh1", 2, True),  # of 16 planes, but most of so few are asked for in time
        ("mb1ic80ih64oc8kh1", 1, True),  # nothing comes again just before its use
    ],
)
def test_products_in_place_ask_only_for_what_stays_until_its_use(monkeypatch, text, level, far):
    monkeypatch.setattr(product, "cache_bytes", lambda: 1 << 20)
    monkeypatch.setattr(product, "inputs_level", lambda *_: level)
    monkeypatch.setattr(product, "choose", lambda _, vectors, *__: product_tiling.Cut((8,), (1,) * vectors, True, 1e6))
    tiles, address = [], product.kernels.kernel_address
    monkeypatch.setattr(
        product.kernels, "kernel_address", lambda tile, target: tiles.append(tile) or address(tile, target)
    )
    spec = ConvSpec.parse(text)
    product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert [tile.lines > 0 for tile in tiles] == [far], str(spec)
    assert [tile.soon for tile in tiles] == [level == 2], str(spec)


def asks_of(**ways):
    """What the kernel of 8 channels by 3 vectors asks for, its code tells: instructions."""
    plain = {"in_place": False, "copies": False, "from_zero": True, "soon": False, "streams": False}
    tile = product.kernels.Tile(8, 3, "float32", **{**plain, "lines": 0, "rounds": 1, "level": 2, "outputs": 0, **ways})
    text = compiler.assembly(target(), lambda module: product.kernels.write_kernel(module, tile, target()))
    return sum("prefetch" in line or "prfm" in line for line in text.splitlines())


def weight_lines(rounds):
    """The lines of 8 channels' weights that so many rounds take, and those of one that is left over."""
    return math.ceil(rounds * 8 * 4 / 64) + (rounds > 1)


@pytest.mark.parametrize("rounds", [1, 2, 5, 8])
def test_each_line_of_weights_is_asked_for_once(rounds):
    """In the rounds that share them, beside the lines that are stored to."""
    assert asks_of(rounds=rounds) == 8 * 3 + weight_lines(rounds)


@pytest.mark.parametrize(("nbytes", "turns"), [(32, 1), (32, 8), (24, 8), (64, 3), (112, 5), (4, 8)])
def test_turns_ask_for_the_lines_that_their_rounds_take(nbytes, turns):
    asked = []
    code = SimpleNamespace(prefetch=asked.append)
    for turn in range(turns):
        ahead.ask(code, turn * nbytes, nbytes, turn, turns)
    assert asked == list(range(ahead.WEIGHTS_AHEAD, ahead.WEIGHTS_AHEAD + turns * nbytes, ahead.LINE_BYTES))


def test_the_lines_of_a_round_are_asked_for_again():
    """Of three vectors, which may reach into a fourth line: beside what is asked for far ahead.

    In the two rounds that ask for a plane's lines, and in the one that is left over.
    """
    ways = {"in_place": True, "lines": 6, "rounds": 2}
    assert asks_of(**ways, soon=True) - asks_of(**ways) == 3 * 4


@pytest.mark.parametrize(("lines", "rounds"), [(3, 1), (3, 2), (3, 8), (6, 4), (1, 5)])
def test_each_line_of_a_plane_is_asked_for_once(lines, rounds):
    """In the rounds that share it, and an equal part in one that is left over, beside the lines that are stored to."""
    left = math.ceil(lines / rounds) if rounds > 1 else 0
    assert asks_of(lines=lines, rounds=rounds) == 8 * 3 + lines + left + weight_lines(rounds)


@pytest.mark.parametrize(("outputs", "rounds"), [(1, 8), (3, 8), (2, 1)])
def test_rounds_ask_for_the_outputs_of_some_channels(outputs, rounds):
    assert asks_of(outputs=outputs, rounds=rounds) == 3 * outputs + weight_lines(rounds)


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("mb1ic64ih28oc64kh1", 1),  # in 8 turns of 8 rounds, 8 channels
        ("mb1ic16ih28oc64kh1", 4),  # in 2 turns
        ("mb1ic6ih28oc64kh1", 0),  # in none
    ],
)
def test_products_ask_for_outputs_in_time(monkeypatch, text, outputs):
    monkeypatch.setattr(product.ProductPlan, "_streams", lambda _: False)
    monkeypatch.setattr(product.ProductPlan, "_asking_rounds", lambda *_: 8)
    spec = ConvSpec.parse(text)
    assert product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))._asked_outputs(8) == outputs, str(spec)


@pytest.mark.parametrize(
    ("text", "in_place", "kinds"),
    [
        ("mb1ic32ih28oc64kh1", False, {(True, True), (False, False)}),  # the first tile of channels copies for others
        ("mb1ic32ih28oc8kh1", False, {(True, False)}),  # there are no others
        ("mb1ic32ih28oc64kh1", True, {(True, False)}),
        ("mb1ic32ih56oc64oh28kh1sh2", False, {(False, False)}),  # sorted before
    ],
)
def test_the_first_tile_of_channels_copies_what_others_read(monkeypatch, text, in_place, kinds):
    def tiles_of_8(channels, vectors, *_):
        return product_tiling.Cut((8,) * (channels // 8), (1,) * vectors, in_place, 1e6)

    monkeypatch.setattr(product, "choose", tiles_of_8)
    tiles, address = [], product.kernels.kernel_address
    monkeypatch.setattr(
        product.kernels, "kernel_address", lambda tile, target: tiles.append(tile) or address(tile, target)
    )
    spec = ConvSpec.parse(text)
    plan = product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert {(tile.in_place, tile.copies) for tile in tiles} == kinds, str(spec)
    x = np.arange(math.prod(spec.input_shape), dtype=spec.dtype).reshape(spec.input_shape) % 64
    out = np.empty(spec.output_shape, spec.dtype)
    plan(x, out)
    sums = x[:, :, :: spec.stride[0], :: spec.stride[1]].sum(1, keepdims=True)
    np.testing.assert_array_equal(out, np.broadcast_to(sums, out.shape), str(spec))


@pytest.mark.parametrize("multiplies", [1, 2])
@pytest.mark.parametrize(("channels", "filters", "asks"), [(16, 64, {"outputs"}), (1024, 256, {"weights", "outputs"})])
def test_dense_kernels_ask_for_outputs_and_for_far_weights(monkeypatch, channels, filters, asks, multiplies):
    """And for their own inputs in time where two multiply-adds begin in a cycle."""
    machine = dataclasses.replace(target(), multiplies=multiplies)
    monkeypatch.setattr(dense, "target", lambda isa: machine)
    monkeypatch.setattr(ahead, "cache_bytes", lambda level=2: SMALL if level == 1 else 1 << 20)
    spec = ConvSpec(1, channels, filters, spatial=(14, 14), kernel=(1, 1))
    plan = dense.DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert plan._asks() == asks | ({"inputs"} if multiplies == 2 else set()), str(spec)
    last = dense.DensePlan(spec.replace(memory_format="channels_last"), np.ones(spec.weight_shape, spec.dtype))
    assert last._asks() == asks - {"outputs"}, str(spec)


@pytest.mark.parametrize(
    ("multiplies", "channels", "same_sets", "in_place"),
    [
        (1, 64, True, True),
        (2, 64, True, False),
        (2, 64, False, False),  # a tile's inputs would come from the second-level cache for each tile of channels
        (2, 16, False, True),  # twice only
        (2, 16, True, False),
        (2, 8, True, True),
    ],
)
def test_products_that_read_inputs_again_read_panels_where_that_takes_long(
    monkeypatch, multiplies, channels, same_sets, in_place
):
    monkeypatch.setattr(product_tiling, "cache_bytes", lambda level=2: SMALL if level == 1 else 1 << 20)
    cut = product_tiling.choose.__wrapped__(channels, 196, 256, 32, multiplies, False, same_sets)
    assert cut.in_place == in_place, cut


@pytest.mark.parametrize(("multiplies", "first_level", "rounds"), [(1, SMALL, 85), (2, SMALL, 682), (2, LARGE, 128)])
def test_panels_leave_a_small_cache_where_two_multiplies_begin_in_a_cycle(monkeypatch, multiplies, first_level, rounds):
    monkeypatch.setattr(product_tiling, "cache_bytes", lambda level=2: first_level if level == 1 else 1 << 20)
    assert product_tiling.block(3, ahead.LINE_BYTES, multiplies) == rounds


@pytest.mark.parametrize(("text", "most"), [("mb8ic512ih28oc256oh14kh1sh2", 1), ("mb1ic512ih28oc1024oh14kh1sh2", 3)])
def test_few_tasks_copy_the_same_strided_inputs(monkeypatch, text, most):
    monkeypatch.setattr(settings, "get_num_threads", lambda: 2)
    spec = ConvSpec.parse(text)
    plan = product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    first = plan._tasks[:, [product.kernels.TASK[name] // 8 for name in ("x", "tile")]]
    assert max(np.unique(first, axis=0, return_counts=True)[1]) <= most, str(spec)


def test_products_are_cut_into_as_many_tasks_for_each_thread(monkeypatch):
    monkeypatch.setattr(settings, "_threads", 2)
    spec = ConvSpec.parse("mb1ic64ih32oc64kh1")
    plan = product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert len(plan._tasks) % 2 == 0, str(spec)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(("inputs", "filters"), [(96, 8), (96, 40), (96, 200), (130, 8), (130, 40), (130, 200)])
def test_products_ask_for_all_of_the_next_tiles_inputs(monkeypatch, inputs, filters, in_place):
    """Each turn of channels for a part of the planes; in place, some tiles of pixels together for a run of each."""

    def tiles_of_8_by_3(channels, vectors, *_):
        return product_tiling.Cut(
            (8,) * (channels // 8), tuple(product.parts(vectors, -(-vectors // 3))), in_place, 1e6
        )

    monkeypatch.setattr(product, "choose", tiles_of_8_by_3)
    monkeypatch.setattr(product, "block", lambda *_: inputs)
    monkeypatch.setattr(product_runs, "choose", lambda *_: None)
    spec = ConvSpec.parse(f"mb1ic{inputs}ih24oc{filters}kh1")
    plan = product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype), isa="baseline")
    plane, vector, rounds = 24 * 24 * 4, plan._target.vector_bytes, plan._rounds
    column = {name: plan._tiles[:, number] for number, name in enumerate(product.kernels.TILE)}
    task = {name: plan._tasks[:, number] for number, name in enumerate(product.kernels.TASK)}
    turns, planes = int((task["row_end"] - task["row"]).min()), math.ceil(inputs / plan._run_tiles)

    def asked(tile):
        lines = plan._lines(int(column["vectors"][tile]))
        run = plan._runs[(column["runs"][tile] - plan._runs.ctypes.data) // 8]
        share = column["turn_planes"][tile] if in_place else math.ceil(inputs / turns)
        for turn in range(turns):
            begin = turn * share if turn * share < planes else 0
            for k in range(inputs // rounds):
                yield from (run + (begin + k) * plane + line * vector + vector - 1 for line in range(lines))
            last = run + (begin + inputs // rounds) * plane
            yield from (last + at * vector + vector - 1 for at in range(inputs % rounds * math.ceil(lines / rounds)))

    for first in range(0, len(plan._tiles) - 2 * plan._run_tiles, plan._run_tiles):
        asks = set().union(*(asked(tile) for tile in range(first, first + plan._run_tiles)))
        begin = column["x"][first + plan._run_tiles]
        needed = range(begin, begin + plan._run_tiles * int(column["vectors"][first]) * vector, vector)
        assert {at + k * plane + vector - 1 for at in needed for k in range(inputs)} <= asks, str(spec)


RUNS = ["mb16ic192ih35oc64kh1", "mb8ic128ih56oc32kh1", "mb2ic256ih56oc64kh1", "mb2ic96ih80oc48kh1"]


@pytest.fixture
def machine_of_runs(monkeypatch):
    """A processor with a small first-level cache that begins two multiply-adds in a cycle, and nothing that streams."""
    machine = dataclasses.replace(target(), multiplies=2)
    monkeypatch.setattr(product, "target", lambda isa: machine)
    for module in (ahead, product, product_runs, product_tiling):
        monkeypatch.setattr(module, "cache_bytes", lambda level=2: SMALL if level == 1 else 1 << 20)
    monkeypatch.setattr(product.ProductPlan, "_streams", lambda _: False)
    product_tiling.choose.cache_clear()
    yield monkeypatch
    product_tiling.choose.cache_clear()


def plan_of(text):
    spec = ConvSpec.parse(text)
    return spec, product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))


@pytest.mark.parametrize("text", RUNS)
def test_a_run_asks_for_all_of_the_next_one_in_the_order_of_memory(machine_of_runs, text):
    """Each of its tiles, of pixels and of channels, for its steps of one table."""
    spec, plan = plan_of(text)
    run, vector, record = plan._run, plan._target.vector_bytes, product.kernels.size(product.kernels.STEP)
    begins = (plan._tiles[:, list(product.kernels.TILE).index("steps")] - plan._steps.ctypes.data) // record
    tiles = np.arange(len(begins)) % run.tiles
    assert (begins == tiles * len(plan._cut.channels) * run.steps).all(), str(spec)
    assert len(plan._steps) == run.tiles * len(plan._cut.channels) * run.steps, str(spec)
    for name, each, count, size in (
        ("inputs", run.inputs, spec.in_channels, math.prod(spec.spatial) * 4),
        ("outputs", run.outputs, spec.out_channels, math.prod(spec.output_spatial) * 4),
    ):
        steps = plan._steps[:, list(product.kernels.STEP).index(name)].tolist()
        asked = {at + line * vector for at in steps for line in range(each)}
        lines = run.tiles * max(plan._cut.vectors)
        assert asked >= {k * size + line * vector for k in range(count) for line in range(lines)}, f"{spec}: {name}"
        used = count * math.ceil(lines / each)
        assert steps[:used] == sorted(set(steps)), f"{spec}: {name}"
        assert set(steps[used:]) <= {(count - 1) * size}, f"{spec}: {name}"


@pytest.mark.parametrize("text", RUNS)
def test_the_run_after_the_last_is_the_next_images_first(machine_of_runs, text):
    spec, plan = plan_of(text)
    names, tiles = list(product.kernels.TILE), plan._run.tiles
    places = plan._runs[(plan._tiles[:, names.index("runs")] - plan._runs.ctypes.data) // 8]
    outs, first = plan._tiles[:, names.index("out_run")], plan._tiles[:, names.index("out")]
    for tile in range(len(first)):
        following = (tile // tiles + 1) * tiles
        if following < len(first):
            assert places[tile] == outs[tile] == first[following], str(spec)
        else:
            assert places[tile] == math.prod(spec.input_shape[1:]) * 4, str(spec)
            assert outs[tile] == math.prod(spec.output_shape[1:]) * 4, str(spec)


@pytest.mark.parametrize(
    ("text", "changes", "tiles"),
    [
        ("mb16ic192ih35oc64kh1", {}, 4),
        ("mb4ic192ih28oc96kh1", {}, None),  # 13 tiles are not almost whole runs of 4
        ("mb1ic256ih56oc64kh1", {}, None),  # in the caches, mostly
        ("mb8ic128ih56oc128kh1", {}, None),  # many outputs
        ("mb8ic1024ih14oc256kh1", {}, None),  # the cache does not hold two of them
        ("mb1ic128ih64oc128kh1", {}, None),  # planes that want the same sets
        ("mb1g2ic128ih56oc128kh1", {}, None),
        ("mb1ic64ih56oc8kh1", {}, None),  # read in place
        ("mb1ic64ih56oc128oh28kh1sh2", {}, None),
        ("mb16ic192ih35oc64kh1", {"multiplies": 1}, None),
        ("mb16ic192ih35oc64kh1", {"first_level": LARGE}, None),
        ("mb16ic192ih35oc64kh1", {"streams": True}, None),
    ],
)
def test_runs_are_for_copied_panels_that_the_cache_holds_twice(machine_of_runs, text, changes, tiles):
    machine = dataclasses.replace(target(), multiplies=changes.get("multiplies", 2))
    machine_of_runs.setattr(product, "target", lambda isa: machine)
    first_level = changes.get("first_level", SMALL)
    machine_of_runs.setattr(product_runs, "cache_bytes", lambda level=2: first_level if level == 1 else 1 << 20)
    machine_of_runs.setattr(product.ProductPlan, "_streams", lambda _: changes.get("streams", False))
    spec, plan = plan_of(text)
    assert (plan._run and plan._run.tiles) == tiles, str(spec)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 1), (2, 4)])
def test_rounds_of_a_run_ask_for_their_lines_once(inputs, outputs):
    """In 8 rounds so many lines of inputs and of outputs, in one that is left over a line; none all at once."""
    assert asks_of(lines=3, rounds=8, run=(inputs, outputs)) == inputs + outputs + 1 + weight_lines(8)
