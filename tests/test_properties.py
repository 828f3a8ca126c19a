"""What holds for every problem: Hypothesis looks for one where it does not.

The data are small whole numbers in floats, so that every property is an equality: an engine that
transforms is exact once its result is rounded.
"""

from __future__ import annotations

import numpy as np
from conftest import correlate, run, sample
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import convbench
from convbench import ConvSpec
from convbench.matrices import correlation_matrix
from convbench.text import DTYPES

LARGEST = {1: 14, 2: 8, 3: 5}

# Engines that take few of the problems leave many examples out.
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
seeds = st.integers(0, 1000)


@st.composite
def specs(draw, min_batch=1, dtypes=("float64",)):
    """Problems of one to three dimensions, every parameter drawn, all small."""
    ndim = draw(st.integers(1, 3))
    axes = []
    for _ in range(ndim):
        kernel, dilation, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
        low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        smallest = max(0, dilation * (kernel - 1) + 1 - low - high)
        size = draw(st.integers(smallest, max(smallest, LARGEST[ndim])))
        axes.append((size, kernel, stride, dilation, (low, high)))
    spatial, kernel, stride, dilation, padding = zip(*axes, strict=True)
    groups = draw(st.integers(1, 3))
    return ConvSpec(
        batch=draw(st.integers(min_batch, 2)),
        in_channels=groups * draw(st.integers(1, 2)),
        out_channels=groups * draw(st.integers(1, 2)),
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        dtype=draw(st.sampled_from(dtypes)),
    )


def whole(engine, spec, seed):
    """Whole-numbered input and weight, of a problem that the engine takes."""
    assume(engine.why_unsupported(spec) is None)
    return sample(spec, seed, integers=True)[:2]


def exact(engine, result):
    return result if engine.error_measure == "componentwise" else np.rint(result)


@few
@given(specs(), seeds)
def test_the_definition(engine, spec, seed):
    x, weight = whole(engine, spec, seed)
    np.testing.assert_array_equal(exact(engine, run(engine, spec, x, weight)), correlate(spec, x, weight), str(spec))


@few
@given(specs(), seeds, st.integers(-3, 3), st.integers(-3, 3))
def test_linear_in_the_input_and_the_weight(engine, spec, seed, a, b):
    x, weight = whole(engine, spec, seed)
    x2, weight2 = whole(engine, spec, seed + 1)

    def conv(x, weight):
        return exact(engine, run(engine, spec, x, weight))

    np.testing.assert_array_equal(conv(a * x + b * x2, weight), a * conv(x, weight) + b * conv(x2, weight), str(spec))
    np.testing.assert_array_equal(
        conv(x, a * weight + b * weight2), a * conv(x, weight) + b * conv(x, weight2), str(spec)
    )


@few
@given(specs(), seeds, st.data())
def test_a_delta_kernel_picks_and_shifts(engine, spec, seed, data):
    x, weight = whole(engine, spec, seed)
    tap = tuple(data.draw(st.integers(0, k - 1)) for k in spec.kernel)
    o = data.draw(st.integers(0, spec.out_channels - 1))
    c = data.draw(st.integers(0, spec.weight_shape[1] - 1))
    delta = np.zeros_like(weight)
    delta[(o, c, *tap)] = 1
    expected = np.zeros(spec.output_shape)
    padded = np.pad(x, ((0, 0), (0, 0), *spec.padding))
    channel = o // (spec.out_channels // spec.groups) * spec.weight_shape[1] + c
    window = tuple(
        slice(t * d, t * d + (out - 1) * s + 1, s)
        for t, d, s, out in zip(tap, spec.dilation, spec.stride, spec.output_spatial, strict=True)
    )
    expected[:, o] = padded[(slice(None), channel, *window)]
    np.testing.assert_array_equal(exact(engine, run(engine, spec, x, delta)), expected, str(spec))


@few
@given(specs(), seeds, st.integers(1, 3), st.data())
def test_zeros_before_the_input_shift_the_output(engine, spec, seed, steps, data):
    x, weight = whole(engine, spec, seed)
    axis = data.draw(st.integers(0, spec.ndim - 1))
    spatial = list(spec.spatial)
    spatial[axis] += steps * spec.stride[axis]
    longer = spec.replace(spatial=tuple(spatial))
    assume(engine.why_unsupported(longer) is None)
    widths = [(0, 0)] * x.ndim
    widths[2 + axis] = (steps * spec.stride[axis], 0)
    shifted = run(engine, longer, np.pad(x, widths), weight)
    tail = np.take(shifted, range(steps, longer.output_spatial[axis]), axis=2 + axis)
    np.testing.assert_array_equal(exact(engine, tail), exact(engine, run(engine, spec, x, weight)), str(spec))


@few
@given(specs(), seeds)
def test_the_adjoint_is_the_transposed_matrix(engine, spec, seed):
    x, weight = whole(engine, spec, seed)
    y = np.random.default_rng(seed).integers(-3, 4, spec.output_shape).astype(spec.dtype)
    adjoint = (correlation_matrix(spec, weight).T @ y.reshape(spec.batch, -1).T).T.reshape(spec.input_shape)
    assert np.vdot(exact(engine, run(engine, spec, x, weight)), y) == np.vdot(x, adjoint), str(spec)


@few
@given(specs(min_batch=0), seeds)
def test_inputs_are_left_alone(engine, spec, seed):
    assume(spec.is_empty or engine.why_unsupported(spec) is None)
    arrays = sample(spec, seed)
    before = [array.tobytes() for array in arrays]
    result = run(engine, spec, *arrays)
    assert [array.tobytes() for array in arrays] == before, str(spec)
    assert not any(np.shares_memory(result, array) for array in arrays), str(spec)


@few
@given(specs(dtypes=("float32", "float64")), seeds)
def test_a_plan_gives_the_same_bits_again(engine, spec, seed):
    assume(engine.why_unsupported(spec) is None)
    x, weight, bias = sample(spec, seed)
    layer = getattr(convbench, f"Conv{spec.ndim}d")(
        weight, bias, spec.stride, spec.padding, spec.dilation, spec.groups, engine=engine.name
    )
    first = layer(x).copy()
    layer(sample(spec, seed + 1)[0])
    assert layer(x).tobytes() == first.tobytes(), str(spec)
    assert run(engine, spec, x, weight, bias).tobytes() == first.tobytes(), str(spec)


@few
@given(specs(), seeds)
def test_an_engines_own_plan(engine, spec, seed):
    x, weight = whole(engine, spec, seed)
    given_weight = weight.copy()
    plan = engine.plan(spec, given_weight)
    given_weight[...] = 0  # the contract: the caller may change it
    out = np.full(spec.output_shape, np.nan)
    for _ in range(2):
        plan(x, out)
        np.testing.assert_array_equal(exact(engine, out), correlate(spec, x, weight), str(spec))


@settings(max_examples=100, deadline=None)
@given(
    specs(min_batch=0, dtypes=[name for name in DTYPES.values() if name != "bfloat16"]),
    st.sampled_from(["channels_first", "channels_last"]),
)
def test_a_spec_is_its_text(spec, memory_format):
    spec = spec.replace(memory_format=memory_format)
    assert ConvSpec.parse(str(spec)) == spec
