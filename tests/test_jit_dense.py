"""Dense kernels: what is read in place, and that kernels at the borders leave out exactly what is padding."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from convbench import ConvSpec, registry, settings
from convbench.engines.jit import dense, dense_tiling
from convbench.engines.jit.dense import DensePlan
from convbench.engines.jit.dense_order import LEAST_INPUTS, PARTS, in_turns
from convbench.engines.jit.dense_tiling import Run, runs
from convbench.engines.jit.target import target
from convbench.machine import Machine


@pytest.mark.parametrize("columns", [(5,), (3, 3), (7, 1), (2, 2, 2, 1)])
@pytest.mark.parametrize(("taps", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 3), (2, 3, 2), (11, 1, 1)])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("width", [2, 9, 14])
def test_inputs_of_a_row_of_tiles_are_those_that_exist(columns, taps, stride, dilation, padding, width):
    run, first, found = Run(taps, stride, dilation), 0, []
    for count, (low, high) in zip(columns, run.beyond(columns, width, padding), strict=True):
        for place, products in run.inputs(count, low, high).items():
            x = first * stride - padding + place
            assert 0 <= x < width
            found += [(first + column, tap, x) for column, tap in products]
        first += count
    pairs = itertools.product(range(sum(columns)), range(taps))
    seen = [(column, tap, column * stride + tap * dilation - padding) for column, tap in pairs]
    assert sorted(found) == [each for each in seen if 0 <= each[2] < width]


@pytest.mark.parametrize("run", [Run(3, 1, 1), Run(3, 2, 1), Run(7, 2, 1), Run(11, 1, 1)])
@pytest.mark.parametrize("columns", [7, 10, 16, 28])
@pytest.mark.parametrize("beyond", [(0, 0), (1, 2)])
def test_parts_of_a_row_take_turns(run, columns, beyond):
    """Nothing is lost, and within a part inputs come in order; with one multiply-add per cycle all do."""
    inputs = run.inputs(columns, *beyond)
    order = in_turns(inputs, run, 2)
    assert sorted(order) == list(inputs.items()) == in_turns(inputs, run, 1)
    numbers = [list(inputs).index(place) for place, _ in order]
    if len(numbers) < LEAST_INPUTS:
        assert numbers == sorted(numbers)
        return
    assert all(numbers[turn::PARTS] == sorted(numbers[turn::PARTS]) for turn in range(PARTS))
    assert min(abs(later - sooner) for sooner, later in itertools.pairwise(numbers)) >= len(numbers) // PARTS


def test_dilated_runs_keep_their_order():
    """Neighbouring taps of a pixel are far from each other there."""
    run = Run(3, 1, 6)
    assert in_turns(run.inputs(7), run, 2) == list(run.inputs(7).items())


@pytest.mark.parametrize(
    "text",
    [
        "mb1ic512ih7oc512oh7kh3ph1",
        "mb1ic64ih56oc80oh56kh3ph1",
        "mb2ic48ih28oc112oh28kh5ph2",
        "mb1ic3ih112oc24oh56kh7sh2ph3",
        "g4mb1ic128ih28oc128oh14kh3sh2ph1",
    ],
)
def test_the_order_of_a_sum_does_not_depend_on_the_number_of_threads(monkeypatch, text):
    """Even if threads waited for each other so long that few blocks of channels were all that counts."""
    spec, found = ConvSpec.parse(text), set()
    monkeypatch.setattr(dense_tiling, "_waiting", lambda blocks, threads: blocks**2 if threads > 1 else 1.0)
    monkeypatch.setattr(dense, "choose", dense_tiling.choose.__wrapped__)
    for threads in (1, 2):
        monkeypatch.setattr(settings, "_threads", threads)
        found.add(DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))._tiling.order)
    assert len(found) == 1, (str(spec), found)


@pytest.mark.parametrize(
    ("multiplies", "first_level", "cycles"),
    [
        (1, 32, dense_tiling.WEIGHT_CYCLES),
        (2, 48, dense_tiling.WEIGHT_CYCLES),
        (2, 32, dense_tiling.NEAR_WEIGHT_CYCLES),
    ],
)
def test_weights_are_waited_for_less_beside_a_small_cache(monkeypatch, multiplies, first_level, cycles):
    seen = []
    monkeypatch.setattr(dense, "target", lambda isa: replace(target(), multiplies=multiplies))
    monkeypatch.setattr(dense, "cache_bytes", lambda level=2: first_level << 10 if level == 1 else 1 << 20)
    monkeypatch.setattr(dense, "choose", lambda *given: seen.append(given[4]) or dense_tiling.choose(*given))
    spec = ConvSpec(1, 16, 32, spatial=(14, 14), kernel=(3, 3))
    DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert seen[0].weight_cycles == cycles


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_runs_cut_a_row_evenly_or_take_it_whole(stride, last):
    for taps in range(1, 30):
        sizes = [run.taps for run in runs(taps, stride, 1, last)]
        assert sizes[0] == 1
        assert all(taps % size == 0 for size in sizes)
        most = 5 if last else 11
        assert (taps in sizes) == (taps == 1 or taps <= (most if stride == 1 else 1 if last else 7)), taps


@pytest.mark.parametrize(
    ("text", "copying"),
    [
        ("mb1ic24ih30oc40kh3ph1", False),
        ("mb1ic24ih32oc40kh3ph1", False),  # planes of 4 KiB
        ("mb1ic24ih30oc40oh15kh3sh2ph1", False),
        ("mb1ic24ih19oc40kh3dh5ph6", False),  # columns in parts
        ("mb1ic24ih30oc40kh5ph2", False),
        ("mb1ic24iw100ih1oc40kw3kh1pw1", False),
        ("mb1ic24id4ih10iw12oc40kd3kh3kw3pd1ph1pw1", False),
        ("g3mb1ic72ih14oc120kh3ph1", False),
        ("mb1ic24ih30oc40kh1", False),
        ("mb1ic24ih32oc40kh1", True),  # planes of 4 KiB
        ("mb1ic24ih30oc40kh13ph6", True),  # more taps than a run has
        ("mb1ic24ih30oc40oh14kh9sh2ph3", True),
    ],
)
def test_inputs_are_read_in_place_where_kernels_leave_out_the_padding(text, copying):
    spec = ConvSpec.parse(text)
    plan = DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert plan._layout.copying is copying, str(spec)
    assert copying or plan._frames[0].scratch.nbytes < spec.data_bytes, str(spec)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "mb2ic17ih7oc40kh3ph1",
        "mb1ic17ih57oc40kh3ph1",
        "mb1ic17ih30oc40oh15kh3sh2ph1",
        "mb1ic20ih19oc40kh3dh5ph6",
        "mb1ic20ih8oc40kh3dh6ph7",  # a tile and rows that only one tap reaches
        "mb1ic5ih3iw40oc40kh7kw11ph3pw5",
        "mb1ic5ih4iw2oc40kh5kw5ph4pw4",  # most of the outputs see padding
        "mb1ic6id3ih9iw14oc40kd3kh3kw3pd2ph2pw2",
        "mb1ic2id1ih4iw5oc1od2oh1ow8kd1kh3kw1pd1ph0pw0dd0dh1dw0",  # slices, rows and columns of padding
        "mb1ic2id6ih6iw7oc3od3oh6ow9kd3kh2kw1pd0ph2pw2dd2dh2dw1",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_is_left_out_and_nothing_else(text, last, dtype):
    """Ones sum to how many inputs each output sees; what lies beyond the input in memory is not finite."""
    spec = ConvSpec.parse(text).replace(dtype=dtype, memory_format="channels_last" if last else "channels_first")
    size = int(np.prod(spec.input_shape))
    room = np.full(size + 4000, np.nan, dtype)
    x = room[2000 : 2000 + size].reshape(spec.input_shape)
    x[...] = 1
    shape = (spec.batch, *spec.output_spatial, spec.out_channels) if last else spec.output_shape  # as it lies
    weight, out = np.ones(spec.weight_shape, dtype), np.empty(shape, dtype)
    DensePlan(spec, weight)(x, out)
    counts = np.ones(())
    for size, n, k, s, d, (low, _) in zip(
        spec.spatial, spec.output_spatial, spec.kernel, spec.stride, spec.dilation, spec.padding, strict=True
    ):
        at = np.arange(n)[:, None] * s + np.arange(k) * d - low
        counts = np.multiply.outer(counts, ((at >= 0) & (at < size)).sum(1))
    expected = spec.weight_shape[1] * counts
    expected = expected[..., None] if last else expected
    np.testing.assert_array_equal(out, np.broadcast_to(expected, out.shape), err_msg=str(spec))


@pytest.mark.parametrize(
    "text",  # weights that are far, and that are not
    ["g32mb1ic1024ih56oc1024oh28kh3sh2ph1", "g16mb2ic512ih28oc512oh28kh3ph1", "g32mb1ic256ih56oc256oh56kh3ph1"],
)
def test_grouped_layers_are_computed_group_after_group(text, monkeypatch):
    """A task that had a row of all groups read all their weights again for each row."""
    from convbench.engines.jit.dense_kernel import TASK

    monkeypatch.setattr("convbench.engines.jit.dense_tasks.cache_bytes", lambda level=2: 1 << 20)
    monkeypatch.setattr(settings, "_threads", 2)
    spec = ConvSpec.parse(text)
    plan = DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert not plan._layout.copying, text
    first, end = plan._tasks[:, [list(TASK).index(name) for name in ("position", "position_end")]].T
    rows = len(plan._positions) // spec.output_spatial[0]
    assert (end - first).min() >= len(plan._positions) // 2 - rows, text  # a group's inputs take up to half the cache


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tasks_cover_every_tile_and_block_once(monkeypatch, threads):
    from convbench.engines.jit.dense_kernel import TASK

    monkeypatch.setattr(settings, "_threads", threads)
    for text in ("mb2ic64ih30oc40kh3ph1", "mb1ic512ih7oc512kh3ph1", "mb1ic24ih40oc400kh13ph6", "mb3ic16ih9oc16kh1"):
        spec = ConvSpec.parse(text)
        plan = DensePlan(spec, np.ones(spec.weight_shape, spec.dtype))
        names = ("out", "position", "position_end", "block", "block_end")
        done = np.zeros((spec.batch, len(plan._positions), len(plan._blocks)), int)
        for out, begin, end, block, block_end in plan._tasks[:, [list(TASK).index(name) for name in names]]:
            done[out // (spec.itemsize * np.prod(spec.output_shape[1:])), begin:end, block:block_end] += 1
        assert np.all(done == 1), str(spec)


def test_predictions_halve_only_what_is_multiplied_where_vectors_are_halved():
    """One multiply-add of whole vectors a cycle instead of two takes twice as long; copies and stores do not."""
    direct = registry.get("direct")
    one = Machine("another", ("AVX512F",), 2, 2, 64, fma_pipes=1, bandwidth=1e12)
    for text, least, most in [("mb1ic256ih56oc256kh3ph1", 1.8, 2), ("mb1ic1ih995oc1oh497kh2sh2ph0", 1, 1.3)]:
        spec = ConvSpec.parse(text)
        times = direct.predict_seconds(spec, one) / direct.predict_seconds(spec, replace(one, fma_pipes=2))
        assert least < times <= most, f"{spec}: {times}"
