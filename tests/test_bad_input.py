"""What is refused: with both values in the message, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_refused

import convbench
from convbench import ConvSpec, images, registry

X = np.ones((2, 6, 8, 9), "float32")
W = np.ones((4, 6, 3, 3), "float32")
GROUPED = np.ones((4, 3, 3, 3), "float32")


class Spy(convbench.Engine):
    """The definition, which remembers what it was asked to plan and to compute."""

    name = "spy"
    summary = "remembers its calls"

    def __init__(self):
        self.calls = []

    def why_unsupported(self, spec):
        return None

    def plan(self, spec, weight):
        self.calls.append("plan")
        plan = registry.get("reference").plan(spec, weight)

        def watched(x, out):
            self.calls.append("compute")
            plan(x, out)

        return watched


@pytest.fixture
def spy():
    engine = Spy()
    convbench.register(engine)
    yield engine
    registry.unregister("spy")


CASES = {
    "input of a wrong rank": ((np.ones((8, 9)), W), {}, ["(8, 9)", "2"]),
    "input of too high a rank": ((np.ones((1, 1, 6, 8, 9)), W), {}, ["(1, 1, 6, 8, 9)", "5"]),
    "weight of a wrong rank": ((X, np.ones((4, 6, 3), "float32")), {}, ["(4, 6, 3)", "3"]),
    "channels": ((X, np.ones((4, 5, 3, 3), "float32")), {}, ["5 input channels", "6"]),
    "channels in groups": ((X, W), {"groups": 2}, ["6 input channels", "6 in 2 groups"]),
    "groups of output channels": ((X, np.ones((5, 3, 3, 3), "float32")), {"groups": 2}, ["5", "groups 2"]),
    "groups of input channels": ((X, GROUPED), {"groups": 4}, ["3 input channels", "6 in 4 groups"]),
    "no groups": ((X, W), {"groups": 0}, ["groups 0", "at least 1"]),
    "no stride": ((X, W), {"stride": 0}, ["stride 0", "at least 1"]),
    "a negative stride": ((X, W), {"stride": (1, -2)}, ["-2", "at least 1"]),
    "half a stride": ((X, W), {"stride": 1.5}, ["1.5", "int"]),
    "too many strides": ((X, W), {"stride": (1, 1, 1)}, ["3 entries", "2 spatial"]),
    "no dilation": ((X, W), {"dilation": 0}, ["dilation 0", "at least 1"]),
    "a kernel over the padded input": ((X, np.ones((4, 6, 11, 3), "float32")), {"padding": 1}, ["kernel 11", "10"]),
    "a dilated kernel over it": ((X, W), {"dilation": 4}, ["spans 9", "8"]),
    "negative padding": ((X, W), {"padding": -1}, ["-1", "at least 0"]),
    "negative padding in a pair": ((X, W), {"padding": ((0, 0), (0, -3))}, ["-3", "at least 0"]),
    "padding of three": ((X, W), {"padding": (1, 1, 1)}, ["3 entries", "2 spatial"]),
    "unknown padding": ((X, W), {"padding": "half"}, ["'half'", "same"]),
    "unknown padding mode": ((X, W), {"padding": 1, "padding_mode": "moebius"}, ["'moebius'", "reflect"]),
    "two dtypes": ((X, W.astype("float64")), {}, ["float32", "float64"]),
    "integers and floats": ((X, W.astype("int32")), {}, ["float32", "int32"]),
    "a bias of another dtype": ((X, W, np.ones(4)), {}, ["float32", "float64"]),
    "a bias of a wrong length": ((X, W, np.ones(6, "float32")), {}, ["(6,)", "4"]),
    "a bias of a wrong rank": ((X, W, np.ones((4, 1), "float32")), {}, ["(4, 1)", "4"]),
    "out of a wrong shape": ((X, W), {"out": np.ones((2, 4, 6, 6), "float32")}, ["(2, 4, 6, 6)", "(2, 4, 6, 7)"]),
    "out of a wrong dtype": ((X, W), {"out": np.ones((2, 4, 6, 7))}, ["float64", "float32"]),
    "rtol is NaN": ((X, W), {"rtol": float("nan")}, ["nan", "0"]),
    "rtol is negative": ((X, W), {"rtol": -1e-3}, ["-0.001", "0"]),
    "rtol is a text": ((X, W), {"rtol": "small"}, ["'small'", "0"]),
    "a negative workspace": ((X, W), {"max_workspace": -1}, ["-1", "0"]),
    "unknown tuning": ((X, W), {"tuning": "guess"}, ["'guess'", "measure"]),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_both_values_and_nothing_computed(spy, name):
    arguments, keywords, values = CASES[name]
    out = keywords.get("out", np.ones((2, 4, 6, 7), "float32"))
    keywords = {"engine": "spy", "out": out, **keywords}
    assert_refused(values, convbench.conv2d, *arguments, error=(ValueError, TypeError), **keywords)
    assert spy.calls == []
    assert (out == 1).all()


def test_the_spy_would_see_a_computation(spy):
    out = np.zeros((2, 4, 6, 7), "float32")
    convbench.conv2d(X, W, engine="spy", out=out)
    assert spy.calls == ["plan", "compute"]
    assert (out == 54).all()


@pytest.mark.parametrize("name", ["nothing", "", "FFT", 3, None])
def test_unknown_engine(name):
    out = np.ones((2, 4, 6, 7), "float32")
    values = [repr(name), "direct"]
    assert_refused(values, convbench.conv2d, X, W, error=(ValueError, TypeError), engine=name, out=out)
    assert (out == 1).all()


def test_unknown_engine_elsewhere():
    assert_refused(["'nothing'", "direct"], convbench.set_default_engine, "nothing")
    assert_refused(["'nothing'", "direct"], convbench.use_engine("nothing").__enter__)


def test_out_that_overlaps_the_input():
    x = np.ones((1, 1, 6, 6), "float32")
    expected = convbench.conv2d(x, np.full((1, 1, 3, 3), 2, "float32"), padding=1, engine="reference")
    try:
        convbench.conv2d(x, np.full((1, 1, 3, 3), 2, "float32"), padding=1, engine="direct", out=x)
    except ValueError as refusal:
        assert "out" in str(refusal)  # noqa: PT017  (either a refusal that says so, or the right result)
        assert (x == 1).all()
    else:
        np.testing.assert_array_equal(x, expected)


def test_a_pinned_engine_says_why_it_cannot():
    class Never(convbench.Engine):
        name = "never"

        def why_unsupported(self, spec):
            return f"never computes nothing, {spec} neither"

        def plan(self, spec, weight):
            raise AssertionError("planned what was refused")

    convbench.register(Never)
    try:
        with pytest.raises(ValueError, match="never computes nothing, mb2ic6ih8iw9oc4oh6ow7kh3kw3ph0pw0 neither"):
            convbench.conv2d(X, W, engine="never")
    finally:
        registry.unregister("never")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("resnet", ["'resnet'", "mb1ic64"]),
        ("mb1ic3ih5oc4kh9ph0", ["kernel 9", "5"]),
        ("g2mb1ic3ih5oc4oh3kh3ph0", ["in_channels 3", "groups 2"]),
        ("--dt=x mb1ic1ih1oc1kh1", ["'x'", "f32"]),
    ],
)
def test_malformed_problem_text(text, values):
    assert_refused(values, ConvSpec.parse, text)


def test_unreadable_image(tmp_path):
    assert_refused(["missing.png"], images.load, tmp_path / "missing.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    assert_refused(["broken.png"], images.load, broken)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_threads(threads):
    assert_refused(["threads", str(threads)], convbench.set_num_threads, threads, error=(ValueError, TypeError))


def test_layers_refuse_too(spy):
    def layer(x, weight=W, **keywords):
        return convbench.Conv2d(weight, engine="spy", **keywords)(x)

    assert_refused(["stride 0", "1"], layer, X, stride=0)
    assert_refused(["6 input channels", "5"], layer, X[:, :5])
    assert_refused(["float64", "float32"], layer, X.astype("float64"), error=(ValueError, TypeError))
    assert_refused(["(4, 6, 3)", "3"], layer, X, W[..., 0])
    assert spy.calls == []
