"""Layers and functions: what is planned when, kept how long, and shared with whom."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref

import numpy as np
import pytest

import convbench
from convbench import plans, registry
from convbench.spec import ConvSpec

RNG = np.random.default_rng(7)
X = RNG.uniform(-1, 1, (2, 3, 9, 8)).astype("float32")
WEIGHT = RNG.uniform(-1, 1, (4, 3, 3, 3)).astype("float32")
BIAS = RNG.uniform(-1, 1, 4).astype("float32")
SPEC = ConvSpec.from_shapes(X.shape, WEIGHT.shape, padding=1)
CHILD_SECONDS = 60  # a child that hangs is a failure, not a hanging test


class Spy(convbench.Engine):
    """The reference, with its plans and calls counted; its plans claim to hold `nbytes`."""

    name = "spy"

    def __init__(self):
        self.planned, self.nbytes, self.plans = [], 0, weakref.WeakSet()

    def why_unsupported(self, spec):
        return None

    def predict_seconds(self, spec, machine):
        return 1.0

    def plan(self, spec, weight):
        self.planned.append(spec)
        plan = _Counted(registry.get("reference").plan(spec, weight), self.nbytes)
        self.plans.add(plan)
        return plan


class _Counted:
    def __init__(self, plan, nbytes):
        self.plan, self.nbytes = plan, nbytes

    def __call__(self, x, out):
        assert x.flags.c_contiguous
        assert out.flags.c_contiguous
        self.plan(x, out)


@pytest.fixture
def spy():
    engine = convbench.register(Spy())
    convbench.clear_cache()
    yield engine
    convbench.unregister("spy")


@pytest.fixture
def cache_limit():
    """Sets the limit of the cache of plans, for this test."""
    before = convbench.cache_info().limit
    yield convbench.set_cache_limit
    convbench.set_cache_limit(before)
    convbench.clear_cache()


@pytest.fixture
def _threads_restored():
    before = convbench.get_num_threads()
    yield
    convbench.set_num_threads(before)


def _reference(x, weight=WEIGHT, bias=None, **options):
    return convbench.conv2d(np.ascontiguousarray(x), weight, bias, engine="reference", **options)


def _assert_close(result, expected, note=SPEC):
    assert result.shape == expected.shape, str(note)
    assert result.dtype == expected.dtype, str(note)
    assert np.allclose(result, expected, rtol=1e-4, atol=1e-5), str(note)


# Planned once.


def test_a_layer_plans_once_for_each_shape(spy):
    layer = convbench.Conv2d(WEIGHT, BIAS, padding=1, engine="spy")
    for _ in range(3):
        for batch in (1, 2):
            _assert_close(layer(X[:batch]), _reference(X[:batch], bias=BIAS, padding=1))
    assert [spec.batch for spec in spy.planned] == [1, 2], str(SPEC)


def test_nothing_is_planned_before_the_first_call(spy):
    layer = convbench.Conv2d(WEIGHT, engine="spy")
    layer.selection(X.shape)
    assert spy.planned == []


def test_what_a_layer_keeps_is_bounded_in_bytes(spy, cache_limit):
    cache_limit(4 * plans.LEAST_BYTES)
    layer = convbench.Conv2d(WEIGHT, engine="spy")
    sizes = range(3, 12)
    for size in sizes:
        layer(np.zeros((1, 3, size, 3), "float32"))
    assert len(spy.planned) == len(sizes)
    assert len(spy.plans) == 4
    layer(np.zeros((1, 3, sizes[-1], 3), "float32"))
    assert len(spy.planned) == len(sizes), "the latest shape is kept"
    layer(np.zeros((1, 3, sizes[0], 3), "float32"))
    assert len(spy.planned) == len(sizes) + 1, "the oldest is not"


def test_a_layer_does_not_follow_its_weight(spy):
    weight, bias = WEIGHT.copy(), BIAS.copy()
    layer = convbench.Conv2d(weight, bias, engine="spy")
    weight[...], bias[...] = 0, 0
    _assert_close(layer(X), _reference(X, bias=BIAS))
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[...] = 0


@pytest.mark.usefixtures("_threads_restored")
def test_another_number_of_threads_is_planned_anew(spy):
    layer = convbench.Conv2d(WEIGHT, engine="spy")
    layer(X)
    convbench.set_num_threads(convbench.get_num_threads() + 1)
    layer(X)
    layer(X)
    assert len(spy.planned) == 2, str(SPEC)


def test_a_default_engine_reaches_layers_that_were_planned(spy):
    layer = convbench.Conv2d(WEIGHT)
    layer(X)
    with convbench.use_engine("spy"):
        layer(X)
        assert layer.selection(X.shape).engine == "spy", str(SPEC)
    layer(X)
    assert len(spy.planned) == 1, str(SPEC)


# Behind the functions.


def test_a_function_plans_once(spy):
    for _ in range(3):
        _assert_close(convbench.conv2d(X, WEIGHT, BIAS, 1, 1, engine="spy"), _reference(X, bias=BIAS, padding=1))
    assert len(spy.planned) == 1, str(SPEC)


@pytest.mark.parametrize("changed", ["weight", "bias"])
def test_a_function_follows_changes_in_place(spy, changed):
    arrays = {"weight": WEIGHT.copy(), "bias": BIAS.copy()}
    convbench.conv2d(X, **arrays, engine="spy")
    arrays[changed].flat[1] += 1
    _assert_close(convbench.conv2d(X, **arrays, engine="spy"), _reference(X, **arrays))
    convbench.conv2d(X, **arrays, engine="spy")
    assert len(spy.planned) == 2, str(SPEC)


def test_a_function_tells_a_view_from_its_base(spy):
    weight = np.stack([WEIGHT, 2 * WEIGHT])
    turned = weight[0].swapaxes(2, 3)
    for one in (weight[0], weight[1], turned, weight[0, ..., ::-1]):
        _assert_close(convbench.conv2d(X, one, engine="spy"), _reference(X, np.ascontiguousarray(one)))


def test_a_function_tells_its_options_apart(spy):
    ways = [{}, {"stride": 2}, {"dilation": 2}, {"padding": 1}, {"padding": "same"}, {"flip": True}]
    ways += [{"padding": 1, "padding_mode": "reflect"}, {"padding": [(1, 0), [0, 1]]}]
    for _ in range(2):
        for way in ways:
            _assert_close(convbench.conv2d(X, WEIGHT, engine="spy", **way), _reference(X, **way), f"{SPEC} {way}")
    assert len(spy.planned) == len(ways), str(SPEC)


def test_a_cached_plan_does_not_let_a_dtype_mix_pass(spy):
    convbench.conv2d(X, WEIGHT, BIAS, engine="spy")
    for arguments in ((X.astype("f8"), WEIGHT, BIAS), (X, WEIGHT.astype("f8"), BIAS), (X, WEIGHT, BIAS.astype("f8"))):
        with pytest.raises(TypeError, match="must be equal"):
            convbench.conv2d(*arguments, engine="spy")


def test_what_the_functions_keep_is_bounded_in_bytes(spy, cache_limit):
    spy.nbytes = 2 * plans.LEAST_BYTES
    cache_limit(3 * (spy.nbytes + WEIGHT.nbytes))
    weights = [WEIGHT + number for number in range(6)]
    for weight in weights:
        convbench.conv2d(X, weight, engine="spy")
    assert len(spy.plans) == 3
    convbench.conv2d(X, weights[3], engine="spy")  # used again, so the next to go is another
    assert len(spy.planned) == 6, str(SPEC)
    convbench.conv2d(X, weights[0], engine="spy")
    convbench.conv2d(X, weights[3], engine="spy")
    assert len(spy.planned) == 7, str(SPEC)


def test_one_plan_over_the_limit_is_kept_alone(spy, cache_limit):
    spy.nbytes = 1 << 40
    cache_limit(10)
    for weight in (WEIGHT, WEIGHT, WEIGHT + 1):
        convbench.conv2d(X, weight, engine="spy")
    assert (len(spy.planned), len(spy.plans)) == (2, 1), str(SPEC)


def test_clear_cache_forgets_plans(spy):
    convbench.conv2d(X, WEIGHT, engine="spy")
    convbench.clear_cache()
    assert len(spy.plans) == 0
    convbench.conv2d(X, WEIGHT, engine="spy")
    assert len(spy.planned) == 2, str(SPEC)


def test_a_layer_says_what_it_holds(spy):
    spy.nbytes = 12345
    layer = convbench.Conv2d(WEIGHT, engine="spy")
    assert layer.plan_bytes() == WEIGHT.nbytes
    layer(X)
    assert layer.plan_bytes() == WEIGHT.nbytes + 12345


# Threads and processes.


def test_threads_may_share_a_layer(engine):
    layer = convbench.Conv2d(WEIGHT, padding=1, engine=engine.name)
    inputs = [RNG.uniform(-1, 1, (1 + number % 2, 3, 9, 8)).astype("float32") for number in range(6)]
    expected = [_reference(x, padding=1) for x in inputs]
    wrong, start = [], threading.Barrier(4)

    def work(offset):
        start.wait(CHILD_SECONDS)
        for turn in range(24):
            index = (turn + offset) % len(inputs)
            if not np.allclose(layer(inputs[index]), expected[index], rtol=1e-4, atol=1e-5):
                wrong.append(index)

    _in_threads(work, 4)
    assert wrong == [], f"{SPEC} on {engine.name}"


def _in_threads(work, count):
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CHILD_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_threads_may_call_the_functions():
    weights = [WEIGHT + number for number in range(4)]
    expected = [_reference(X, weight) for weight in weights]

    def work(offset):
        for turn in range(40):
            index = (turn + offset) % len(weights)
            _assert_close(convbench.conv2d(X, weights[index]), expected[index])

    _in_threads(work, 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes(engine):
    layer = convbench.Conv2d(WEIGHT, padding=1, engine=engine.name)
    x = np.concatenate([X] * 8)
    expected = layer(x)

    def child():
        same = np.array_equal(layer(x), expected)
        fresh = np.array_equal(convbench.conv2d(x, WEIGHT, padding=1, engine=engine.name), expected)
        return same and fresh

    assert _succeeds_in_a_fork(child), f"{SPEC} on {engine.name}"
    assert np.array_equal(layer(x), expected), f"{SPEC} on {engine.name}: the parent, afterwards"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_a_lock_is_held_computes():
    layer = convbench.Conv2d(WEIGHT)
    expected = layer(X)
    held = next(iter(layer._prepared.values())).lock
    with held, plans.cache._lock:  # as another thread may hold them at the moment of the fork
        assert _succeeds_in_a_fork(
            lambda: np.array_equal(layer(X), expected) and np.array_equal(convbench.conv2d(X, WEIGHT), expected)
        ), str(SPEC)


def _succeeds_in_a_fork(check):
    """Whether `check` is true in a forked child that ends within `CHILD_SECONDS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads
        child = os.fork()
    if child == 0:
        import signal

        signal.alarm(CHILD_SECONDS)
        done = False
        try:
            done = bool(check())
        finally:
            os._exit(0 if done else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_fork_in_a_process_of_its_own_leaves_both_alive():
    code = """
        import os, numpy as np, convbench
        x, w = np.ones((4, 8, 32, 32), "f4"), np.ones((8, 8, 3, 3), "f4")
        names = [name for name in convbench.engines() if name != "reference"]
        layers = [convbench.Conv2d(w, padding=1, engine=name) for name in names]
        before = [layer(x) for layer in layers]
        child = os.fork()
        assert all(np.array_equal(layer(x), y) for layer, y in zip(layers, before))
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    _python(code)


def _python(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_layer_goes_to_spawned_processes():
    layer = convbench.Conv2d(WEIGHT, BIAS, padding=1)
    expected = layer(X)  # computed already: the plan itself cannot travel
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        _assert_close(pool.apply(layer, (X,)), expected)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_of_a_layer_computes_alike(duplicate):
    layer = convbench.Conv2d(WEIGHT, BIAS, padding="same", padding_mode="wrap", flip=True, engine="im2col")
    expected = layer(X)
    other = duplicate(layer)
    assert repr(other) == repr(layer)
    assert np.array_equal(other(X), expected), str(SPEC)
    assert np.array_equal(layer(X), expected), str(SPEC)


# Arrays as they lie.


def _channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -3, -1)), -1, -3)


def _is_channels_last(y):
    return np.moveaxis(y, -3, -1).flags.c_contiguous


def test_channels_last_in_is_channels_last_out(engine):
    layer = convbench.Conv2d(WEIGHT, BIAS, padding=1, engine=engine.name)
    expected = _reference(X, bias=BIAS, padding=1)
    result = layer(_channels_last(X))
    _assert_close(result, expected, f"{SPEC} on {engine.name}")
    assert _is_channels_last(result), f"{SPEC} on {engine.name}"
    one = layer(_channels_last(X[0]))
    _assert_close(one, expected[0], f"{SPEC} on {engine.name}, unbatched")
    assert _is_channels_last(one), f"{SPEC} on {engine.name}, unbatched"
    assert layer(X).flags.c_contiguous, f"{SPEC} on {engine.name}"
    out = np.empty_like(expected)
    assert layer(_channels_last(X), out=out) is out
    _assert_close(out, expected, f"{SPEC} on {engine.name}, into channels-first")


def test_channels_last_with_another_padding_mode(engine):
    options = {"padding": ((2, 1), (0, 2)), "padding_mode": "reflect"}
    result = convbench.conv2d(_channels_last(X), WEIGHT, engine=engine.name, **options)
    _assert_close(result, _reference(X, **options), f"{SPEC} on {engine.name}")
    assert _is_channels_last(result), f"{SPEC} on {engine.name}"


LAYOUTS = {
    "every other row": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "fortran": np.asfortranarray,
    "wide batch": lambda x: np.concatenate([x, x], axis=1)[:, :3],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian channels-last": lambda x: _channels_last(x.astype(">f4")),
    "read-only": lambda x: np.frombuffer(x.tobytes(), "f4").reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b"." + x.tobytes(), "f4", offset=1).reshape(x.shape),
    "nested lists": lambda x: _FloatList(x),
}


class _FloatList:
    """Anything that NumPy takes for an array."""

    def __init__(self, x):
        self._x = x

    def __array__(self, dtype=None, copy=None):
        return self._x


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_may_lie_in_any_way(engine, layout):
    x = LAYOUTS[layout](X)
    expected = _reference(np.asarray(x).astype("f4"), padding=1)
    note = f"{SPEC} on {engine.name}, {layout}"
    _assert_close(convbench.conv2d(x, WEIGHT, padding=1, engine=engine.name), expected, note)
    _assert_close(convbench.Conv2d(WEIGHT, padding=1, engine=engine.name)(x), expected, note)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "nested lists"])
def test_weights_may_lie_in_any_way(engine, layout):
    weight, bias = LAYOUTS[layout](WEIGHT), LAYOUTS["backwards"](BIAS)
    expected = _reference(X, np.ascontiguousarray(weight).astype("f4"), BIAS)
    result = convbench.conv2d(X, weight, bias, engine=engine.name)
    _assert_close(result, expected, f"{SPEC} on {engine.name}, {layout}")


OUTPUTS = {
    "plain": lambda shape: np.empty(shape, "f4"),
    "strided": lambda shape: np.empty((*shape[:-1], 2 * shape[-1]), "f4")[..., ::2],
    "fortran": lambda shape: np.empty(shape, "f4", order="F"),
    "channels-last": lambda shape: _channels_last(np.empty(shape, "f4")),
    "big-endian": lambda shape: np.empty(shape, ">f4"),
    "one of a batch": lambda shape: np.empty((3, *shape), "f4")[1],
}


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_out_takes_the_result(engine, kind, unbatched):
    x = X[0] if unbatched else X
    expected = _reference(x, bias=BIAS, padding=1)
    out = OUTPUTS[kind](expected.shape)
    out[...] = np.nan
    layer = convbench.Conv2d(WEIGHT, BIAS, padding=1, engine=engine.name)
    assert layer(x, out=out) is out
    assert np.allclose(out, expected, rtol=1e-4, atol=1e-5), f"{SPEC} on {engine.name}, {kind}"


def test_out_may_overlap_the_input(engine):
    weight = np.ascontiguousarray(WEIGHT[:3])
    layer = convbench.Conv2d(weight, padding=1, engine=engine.name)
    expected = _reference(X, weight, padding=1)
    x = X.copy()
    assert layer(x, out=x) is x
    _assert_close(x, expected, f"{SPEC} on {engine.name}, in place")
    store = np.concatenate([X, X])
    layer(store[:2], out=store[1:3])
    _assert_close(store[1:3], expected, f"{SPEC} on {engine.name}, half over")


def test_out_may_be_the_weight():
    x = RNG.uniform(-1, 1, (2, 2, 3, 3)).astype("f4")
    weight = RNG.uniform(-1, 1, (2, 2, 3, 3)).astype("f4")
    expected = _reference(x, weight.copy(), padding=1)
    convbench.conv2d(x, weight, padding=1, out=weight)
    _assert_close(weight, expected)


@pytest.mark.parametrize(
    ("out", "error", "given"),
    [
        (np.empty((2, 4, 9, 8), "f8"), TypeError, "float64"),
        (np.empty((2, 4, 9, 9), "f4"), ValueError, "(2, 4, 9, 9)"),
        ([0.0], TypeError, "list"),
        (np.broadcast_to(np.float32(0), (2, 4, 9, 8)), ValueError, "read-only"),
    ],
)
def test_an_unusable_out_is_refused_before_and_after_planning(out, error, given):
    layer = convbench.Conv2d(WEIGHT, padding=1)
    for _ in range(2):
        with pytest.raises(error) as caught:
            layer(X, out=out)
        assert given in str(caught.value)
        layer(X)


@pytest.mark.parametrize(
    ("shape", "weight_shape", "padding"),
    [
        ((0, 2, 5, 5), (3, 2, 3, 3), 0),
        ((2, 2, 5, 5), (0, 2, 3, 3), 1),
        ((1, 2, 0, 5), (3, 2, 3, 3), 2),  # only padding: every output is the bias
    ],
)
def test_arrays_may_be_empty(engine, shape, weight_shape, padding):
    x, weight, bias = np.ones(shape, "f4"), np.ones(weight_shape, "f4"), np.arange(weight_shape[0], dtype="f4")
    spec = ConvSpec.from_shapes(shape, weight_shape, padding=padding)
    result = convbench.conv2d(x, weight, bias, padding=padding, engine=engine.name)
    expected = np.broadcast_to(bias.reshape(-1, 1, 1), spec.output_shape)
    assert np.array_equal(result, expected), f"{spec} on {engine.name}"
    assert result.dtype == x.dtype, f"{spec} on {engine.name}"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_integers_are_exact_and_stay_what_they_are(dtype):
    x, weight = np.arange(50).reshape(1, 2, 5, 5).astype(dtype) % 5, np.ones((1, 2, 3, 3), dtype)
    result = convbench.conv2d(x, weight)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype("i8"), (3, 3), axis=(2, 3))
    assert result.dtype == dtype
    assert np.array_equal(result[0, 0], windows.sum(axis=(1, 4, 5))[0])


def test_lists_of_integers_are_arrays():
    assert convbench.conv1d([[1, 2, 3, 4]], [[[1, 1]]]).tolist() == [[3, 5, 7]]


def test_booleans_are_refused():
    with pytest.raises(TypeError, match="bool"):
        convbench.Conv1d([[[True, False]]])


# What a layer says.


def test_a_selection_by_shape_batched_or_not():
    layer = convbench.Conv2d(WEIGHT, padding=1)
    batched, single = layer.selection(X.shape), layer.selection(X.shape[1:])
    assert (batched.spec, single.spec) == (SPEC, SPEC.replace(batch=1))
    assert layer.selection(list(X.shape)).engine == batched.engine, str(SPEC)
    for name in convbench.engines():
        assert name in str(batched)


def test_a_selection_is_of_the_problem_that_engines_see():
    layer = convbench.Conv2d(WEIGHT, padding=2, padding_mode="circular", engine="im2col")
    selected = layer.selection(X.shape)
    assert (selected.engine, selected.source) == ("im2col", "pinned")
    assert selected.spec.spatial == (13, 12), str(selected.spec)
    assert not any(map(any, selected.spec.padding)), str(selected.spec)


@pytest.mark.parametrize("shape", [(3,), (3, 9), (1, 1, 3, 9, 8), (2, 4, 9, 8), (3, 2, 8)])
def test_a_selection_of_an_impossible_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"input|kernel"):
        convbench.Conv2d(WEIGHT).selection(shape)


def test_a_layer_prints_its_options():
    text = repr(convbench.Conv2d(WEIGHT, stride=2, padding="same", engine="fft"))
    assert text == (
        "Conv2d(weight (4, 3, 3, 3) float32, stride=(2, 2), padding='same', dilation=(1, 1), groups=1, engine='fft')"
    )
