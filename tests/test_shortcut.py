"""Calls without Python: what takes the shortcut, what does not, and that nothing can be told from the results."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
from conftest import assert_within_bound, sample, skip_if_refused

import convbench
from convbench import conv
from convbench.engines.jit import shortcut
from convbench.spec import ConvSpec

#: Problems that engines of generated code compute on one thread and on several, and the engines that do.
SPECS = {
    "mb1ic1ih1iw500oc1kh1kw8": ("direct",),
    "mb2ic3ih17oc5kh3ph1": ("direct",),
    "mb1ic16ih20oc24kh1": ("direct",),
    "mb1ic32ih28oc32kh3ph1": ("direct", "winograd", "winograd4", "winograd8"),
    "mb1ic1ih40oc1kh9ph4": ("direct", "fft", "separable"),
    "mb2ic8id6ih7iw8oc4kd3kh3kw3": ("direct",),
}
CASES = [(text, name) for text, names in SPECS.items() for name in names]


def layer_of(spec, weight, **keywords):
    make = getattr(convbench, f"Conv{spec.ndim}d")
    return make(weight, None, spec.stride, spec.padding, spec.dilation, spec.groups, **keywords)


def drawn(text, name):
    """A spec, its input, and its layer on that engine after a first call; a rank-1 weight for a separable one."""
    spec = ConvSpec.parse(text)
    x, weight, _ = sample(spec)
    if name == "separable":
        weight[:] = weight[..., :1, :] * weight[..., :1]
    layer = layer_of(spec, weight, engine=name)
    layer(x)
    return spec, x, weight, layer


def by_shortcut(layer):
    """How many calls took one."""
    return sum(prepared.shortcut.calls for prepared in layer._prepared.values() if prepared.shortcut)


@pytest.fixture
def layer():
    """A small layer that has a shortcut, and its input."""
    _, x, _, layer = drawn("mb2ic3ih17oc5kh3ph1", "direct")
    return layer, x


@pytest.mark.parametrize("text", SPECS)
def test_every_engine_gives_the_same_again(engine, text):
    spec = ConvSpec.parse(text)
    skip_if_refused(engine, spec)
    _, x, weight, layer = drawn(text, engine.name)
    first, other = layer(x), np.ascontiguousarray(x[..., ::-1])
    assert_within_bound(engine, spec, first, x, weight)
    assert_within_bound(engine, spec, layer(other), other, weight)
    again = layer(x)
    assert np.array_equal(first, again), f"{spec} on {engine.name}"
    assert not np.may_share_memory(first, again), f"{spec} on {engine.name}"


@pytest.mark.parametrize(("text", "name"), CASES)
def test_calls_like_the_last_one_take_it(text, name):
    spec, x, _, layer = drawn(text, name)
    before, expected = convbench.cache_info().hits, layer._compute(x, None)
    for _ in range(3):
        assert np.array_equal(layer(x), expected), f"{spec} on {name}"
    assert by_shortcut(layer) == 3, f"{spec} on {name}"
    assert convbench.cache_info().hits == before + 4, f"{spec} on {name}"


@pytest.mark.parametrize(("text", "name"), CASES)
def test_nan_and_infinity_come_where_the_sum_has_them(text, name):
    spec, x, weight, layer = drawn(text, name)
    clean = layer(x)
    for value in (np.nan, np.inf, -np.inf):
        struck = x.copy()
        struck[(..., *(size // 2 for size in x.shape[2:]))] = value
        expected = layer_of(spec, weight, engine="direct")(struck)
        assert np.array_equal(np.isfinite(layer(struck)), np.isfinite(expected)), f"{spec} on {name}: {value}"
        assert np.array_equal(layer(x), clean), f"{spec} on {name} after {value}"


def test_the_layer_computes_what_is_not_alike(layer):
    layer, x = layer
    expected, computed = layer(x), by_shortcut(layer)
    wide = np.zeros((2, 3, 17, 18), np.float32)
    wide[..., :17] = x
    for name, same in {
        "a view": wide[..., :17],
        "a subclass": x.view(np.recarray),
        "other bytes": x.astype(">f4"),
    }.items():
        assert np.array_equal(layer(same), expected), name
        assert by_shortcut(layer) == computed, name
        layer._compute(x, None)
    assert np.array_equal(layer(x[0]), expected[0])
    assert layer(wide).shape == (2, 5, 17, 18)
    assert layer(x[:, :, :9]).shape == (2, 5, 9, 17)
    assert by_shortcut(layer) == computed
    layer(x)
    assert np.array_equal(layer(x), expected)
    assert by_shortcut(layer) == computed + 1


@pytest.mark.parametrize(
    "bad", [None, "x", 3, np.ones((2, 3, 17, 17)), np.ones((2, 4, 17, 17), "f4"), np.ones(17, "f4")]
)
def test_bad_input_is_refused_as_ever(layer, bad):
    layer, x = layer
    expected = layer(x)
    with pytest.raises((TypeError, ValueError)):
        layer(bad)
    assert np.array_equal(layer(x), expected)


@pytest.mark.parametrize(("text", "name"), [case for case in CASES if case[1] != "fft"])
def test_the_first_calls_scratch_is_the_shortcuts(text, name):
    spec, x, _, layer = drawn(text, name)
    (prepared,) = layer._prepared.values()
    plan = getattr(prepared.plan, "_fast", prepared.plan)
    made = []
    plan._new_frame = lambda *arguments: made.append(type(plan)._new_frame(plan, *arguments)) or made[-1]
    layer(x)
    assert not made, f"{spec} on {name}"
    layer(x, np.empty(spec.output_shape, spec.dtype))
    assert len(made) == 1, f"{spec} on {name}: what calls that need no shortcut compute with"


def test_a_second_plan_of_the_fft_is_counted():
    _, _, _, layer = drawn("mb1ic1ih40oc1kh9ph4", "fft")
    (prepared,) = layer._prepared.values()
    assert prepared.nbytes == 2 * prepared.plan._twin().nbytes


def test_calls_into_given_outputs_make_no_shortcut():
    spec = ConvSpec.parse("mb2ic3ih17oc5kh3ph1")
    x, weight, _ = sample(spec)
    layer, out = layer_of(spec, weight, engine="direct"), np.empty(spec.output_shape, spec.dtype)
    for _ in range(2):
        layer(x, out)
    (prepared,) = layer._prepared.values()
    assert prepared.shortcut is None, str(spec)
    assert np.array_equal(layer(x), out), str(spec)
    assert prepared.shortcut is not None, str(spec)


def test_a_given_output_is_filled(layer):
    layer, x = layer
    out = np.zeros((2, 5, 17, 17), np.float32)
    assert layer(x, out) is out
    assert np.array_equal(layer(x), out)


def test_settings_of_a_block_and_of_the_process_hold(layer):
    _, x = layer
    spec = ConvSpec.parse("mb2ic3ih17oc5kh3ph1")
    layer = layer_of(spec, sample(spec)[1])
    chosen = layer(x)
    layer(x)
    computed = by_shortcut(layer)
    with convbench.use_engine("reference"):
        layer(x)
    assert by_shortcut(layer) == computed
    assert {prepared.selection.engine for prepared in layer._prepared.values()} >= {"reference"}
    misses, threads = convbench.cache_info().misses, convbench.get_num_threads()
    try:
        convbench.set_num_threads(1)
        assert np.allclose(layer(x), chosen, atol=1e-5)
    finally:
        convbench.set_num_threads(threads)
    assert convbench.cache_info().misses == misses + 1


def test_a_cleared_cache_keeps_no_plan(layer):
    layer, x = layer
    layer(x)
    (prepared,) = layer._prepared.values()
    plan = weakref.ref(prepared.plan)
    del prepared
    convbench.clear_cache()
    gc.collect()
    assert plan() is None
    assert layer(x).shape == (2, 5, 17, 17)


def test_references_are_given_back(layer):
    layer, x = layer
    scope = convbench.settings.scope()
    layer(x)
    before = [sys.getrefcount(thing) for thing in (x, x.dtype, scope, layer)]
    for _ in range(1000):
        layer(x)
        layer._prepared.shortcut(x[:1])
    assert [sys.getrefcount(thing) for thing in (x, x.dtype, scope, layer)] == before


def test_outputs_are_given_back(monkeypatch):
    made = []

    def maker(shape, dtype):
        def make():
            array = np.empty(shape, dtype)
            made.append(weakref.ref(array))
            return array

        return make

    monkeypatch.setattr(conv, "maker", maker)
    spec, x, _, layer = drawn("mb1ic32ih28oc32kh3ph1", "winograd")
    for value in (np.nan, 1):  # the first makes an output in vain
        x[0, 0, 0, 0] = value
        layer(x)
    assert len(made) == 4, str(spec)
    assert [array() for array in made] == [None] * 4, str(spec)


def test_an_output_that_cannot_be_made_raises_and_frees_the_frames(monkeypatch):
    broken = [False]

    def maker(shape, dtype):
        def make():
            if broken[0]:
                raise MemoryError("no room")
            return np.empty(shape, dtype)

        return make

    monkeypatch.setattr(conv, "maker", maker)
    _, x, _, layer = drawn("mb2ic3ih17oc5kh3ph1", "direct")
    expected = layer(x)
    broken[0] = True
    with pytest.raises(MemoryError, match="no room"):
        layer(x)
    broken[0] = False
    computed = by_shortcut(layer)
    assert np.array_equal(layer(x), expected)
    assert by_shortcut(layer) == computed + 1


@pytest.mark.parametrize(("text", "name"), CASES)
def test_threads_that_share_a_layer(text, name):
    spec, x, _, layer = drawn(text, name)
    expected, wrong = layer(x), []

    def work():
        for _ in range(200):
            if not np.array_equal(layer(x), expected):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong, f"{spec} on {name}"


def test_a_long_call_lets_other_threads_run():
    """With switches forbidden, a thread runs only while a call lets go of the interpreter."""
    spec, x, _, layer = drawn("mb4ic64ih56oc64kh3ph1", "direct")
    assert spec.macs >= shortcut.LONG_MACS
    go, ran = threading.Lock(), []
    go.acquire()
    thread = threading.Thread(target=lambda: go.acquire() and ran.append(True))
    thread.start()
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1000)
        go.release()
        for _ in range(100):
            layer(x)
            if ran:
                break
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert by_shortcut(layer) < 100


def test_an_interpreter_of_another_kind_does_without(monkeypatch, layer):
    layer, x = layer
    expected = layer(x)
    monkeypatch.setattr(shortcut, "ARRAY_NDIM", shortcut.ARRAY_SIZES)
    assert not shortcut._is_as_read()
    monkeypatch.setattr(shortcut, "_is_possible", lambda: False)
    other = layer_of(ConvSpec.parse("mb2ic3ih17oc5kh3ph1"), layer.weight, engine="direct")
    assert np.array_equal(other(x), expected)
    assert np.array_equal(other(x), expected)
    assert other._prepared.shortcut is None
