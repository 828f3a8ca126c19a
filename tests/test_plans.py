"""The cache of plans: bounded in bytes, over layers and functions, and counted."""

import gc
import threading

import numpy as np
import pytest

import convbench
from convbench import plans, registry
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
WEIGHT = np.ones(SPEC.weight_shape, "float32")
LEAST = plans.LEAST_BYTES


def _x(width=9):
    return np.ones((1, 2, 9, width), "float32")


@pytest.fixture
def only(house):
    """One engine, an empty cache, and the limit restored afterwards."""
    before = convbench.cache_info().limit
    convbench.clear_cache()
    yield house("only")
    convbench.set_cache_limit(before)
    convbench.clear_cache()


def _layer(**options):
    return convbench.Conv2d(WEIGHT, padding=1, **options)


def test_hits_and_misses_of_layers_and_functions(only):
    layer = _layer()
    assert convbench.cache_info() == (0, 0, 0, 0, plans.LIMIT_BYTES)
    for width in (9, 9, 10, 9):
        layer(_x(width))
    convbench.conv2d(_x(), WEIGHT, padding=1)
    convbench.conv2d(_x(), WEIGHT, padding=1)
    info = convbench.cache_info()
    assert (info.hits, info.misses, info.plans) == (3, 3, 3), str(SPEC)
    assert info.bytes == 3 * LEAST + WEIGHT.nbytes, f"{SPEC}: the function's layer has a weight of its own"
    assert only.plans == 3, str(SPEC)


@pytest.mark.usefixtures("only")
def test_variable_sizes_do_not_grow_without_bound():
    convbench.set_cache_limit(10 * LEAST)
    layer = _layer()
    for width in range(3, 200):
        layer(_x(width))
    info = convbench.cache_info()
    assert (info.plans, info.bytes, info.misses, info.hits) == (10, 10 * LEAST, 197, 0), str(SPEC)
    assert len(layer._prepared) == 10, str(SPEC)


def test_the_least_recently_used_goes_first(only):
    convbench.set_cache_limit(3 * LEAST)
    layer = _layer()
    for width in (3, 4, 5, 3, 6, 3):
        layer(_x(width))
    assert only.plans == 4, str(SPEC)
    layer(_x(5))
    assert only.plans == 4, f"{SPEC}: 4 went, 5 is there"
    layer(_x(4))
    assert only.plans == 5, str(SPEC)


def test_every_layer_of_the_program_keeps_its_last_plan(only):
    convbench.set_cache_limit(0)
    layers = [_layer() for _ in range(5)]
    for _ in range(3):
        for layer in layers:
            layer(_x())
    assert only.plans == 5, f"{SPEC}: a network's layers do not push each other out"
    assert convbench.cache_info().plans == 5, str(SPEC)


def test_the_functions_keep_the_newest_only_where_nothing_fits(only):
    convbench.set_cache_limit(0)
    weights = [WEIGHT + number for number in range(4)]
    for weight in weights:
        convbench.conv2d(_x(), weight, padding=1)
    assert convbench.cache_info().plans == 1, str(SPEC)
    convbench.conv2d(_x(), weights[-1], padding=1)
    assert only.plans == 4, str(SPEC)


@pytest.mark.usefixtures("only")
def test_a_layer_that_is_gone_is_not_counted_but_its_calls_are():
    layer = _layer()
    for _ in range(5):
        layer(_x())
    del layer
    gc.collect()
    info = convbench.cache_info()
    assert (info.hits, info.misses, info.plans, info.bytes) == (4, 1, 0, 0), str(SPEC)


def test_clearing_reaches_every_layer(only):
    layer = _layer()
    layer(_x())
    convbench.conv2d(_x(), WEIGHT, padding=1)
    convbench.clear_cache()
    assert convbench.cache_info()[:4] == (0, 0, 0, 0), str(SPEC)
    assert layer.plan_bytes() == WEIGHT.nbytes, str(SPEC)
    layer(_x())
    assert only.plans == 3, str(SPEC)


def test_a_layer_of_several_threads_is_counted_exactly(only):
    layer, start = _layer(), threading.Barrier(4)

    def work():
        start.wait(10)
        for number in range(60):
            layer(_x(9 + number % 3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    info = convbench.cache_info()
    assert info.hits + info.misses == 240, str(SPEC)
    assert (info.plans, info.bytes) == (3, 3 * LEAST), str(SPEC)
    assert only.plans == info.misses, str(SPEC)


def test_threads_that_push_each_other_out_compute_right(only):
    convbench.unregister("only")
    reference = convbench.register(type(registry._builtin()["reference"]))
    assert reference.name == "reference"
    convbench.set_cache_limit(2 * LEAST)
    rng, failures = np.random.default_rng(2), []
    weights = [rng.standard_normal(SPEC.weight_shape).astype("float32") for _ in range(5)]
    x = rng.standard_normal(SPEC.input_shape).astype("float32")
    options = {"padding": 1, "engine": "reference"}
    expected = [convbench.Conv2d(weight, **options)(x) for weight in weights]

    def work(offset):
        for number in range(30):
            index = (number + offset) % 5
            if not np.array_equal(convbench.conv2d(x, weights[index], **options), expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == [], str(SPEC)
    assert convbench.cache_info().plans <= 4, str(SPEC)


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)])
def test_a_bad_limit_is_refused(limit, error):
    with pytest.raises(error, match="at least 0") as caught:
        convbench.set_cache_limit(limit)
    assert repr(limit) in str(caught.value)


def test_measured_sizes_are_not_timed_again_when_their_plans_went(only):
    convbench.set_cache_limit(2 * LEAST)
    layer = _layer(tuning="measure")
    for width in (9, 10, 11, 12, 13):
        layer(_x(width))
    before, planned = only.calls, only.plans
    layer(_x(9))
    assert (only.calls, only.plans) == (before + 1, planned + 1), f"{SPEC}: planned again, not timed"
