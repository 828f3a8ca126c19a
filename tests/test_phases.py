"""Dilated convolutions as batches of undilated ones: `phases`, and Winograd's engines on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_within_bound, run, sample
from hypothesis import given
from hypothesis import strategies as st

import convbench
from convbench import ConvSpec, registry
from convbench.engines import phases
from convbench.machine import this_machine

NAMES = ("winograd", "winograd4", "winograd8")
named = pytest.mark.parametrize("name", NAMES)


def problem(spatial, dilation, kernel=3, batch=2, channels=(6, 4), **rest):
    kernel = (kernel,) * len(spatial) if isinstance(kernel, int) else kernel
    return ConvSpec(batch, *channels, spatial=spatial, kernel=kernel, dilation=dilation, **rest)


PROBLEMS = [
    problem((40, 41), 2, padding=2),
    problem((33, 33), 6, padding=6),
    problem((20, 27), (2, 3), padding=0),
    problem((21, 19), (1, 3), padding=((0, 2), (5, 1))),
    problem((18, 23), (3, 1), padding=((4, 0), (1, 1)), groups=2),
    problem((5, 4), 6, padding=6),  # sizes below the dilation
    problem((3, 2), (6, 3), padding=9),  # more padding than dilation and size
    problem((13, 13), 6, padding=0),  # one output, one phase
    problem((14, 17), 6, padding=0),  # fewer outputs than phases
    problem((30, 31), (2, 5), (5, 2), padding=3, batch=1),
    problem((9, 50), (7, 2), (1, 3), padding=1),  # a single tap has no distance
    problem((301,), 2, padding=(2,)),
    problem((64,), 6, padding=((0, 12),), groups=2),
    problem((3,), 6, padding=6),
    problem((100,), 49, 3, padding=0, batch=1),
    problem((97,), 3, 7, padding=((11, 4),), batch=3),
]
problems = pytest.mark.parametrize("spec", PROBLEMS, ids=str)


def supporting(name, spec):
    engine = registry.get(name)
    if engine.why_unsupported(spec):
        pytest.skip(engine.why_unsupported(spec))
    return engine


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@problems
@named
def test_dilated_problems_within_the_bound(name, spec, dtype):
    spec = spec.replace(dtype=dtype)
    engine = supporting(name, spec)
    x, weight, bias = sample(spec)
    for given_bias in (None, bias):
        assert_within_bound(engine, spec, run(engine, spec, x, weight, given_bias), x, weight, given_bias)


class Exact:
    """A plan of the reference, as a `PhasedPlan` takes it."""

    nbytes = 0

    def __init__(self, spec, weight):
        self._plan = registry.get("reference").plan(spec, weight)

    def __call__(self, x, out):
        self._plan(x, out)
        return "finite"


def by_phases(spec, x, weight):
    inner = phases.undilated(spec)
    assert set(inner.dilation) == {1}, spec
    plan = phases.PhasedPlan(spec, Exact(inner, weight))
    out = np.full(spec.output_shape, np.nan, spec.dtype)
    for _ in range(2):  # the second call meets what the first one left
        assert plan(x, out) == "finite"
    assert plan.nbytes == phases.copies_bytes(spec), spec
    return out


@st.composite
def dilated(draw):
    ndim = draw(st.integers(1, 3))
    several = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(ndim))  # noqa: E731
    kernel, dilation, padding = several(1, 4), several(1, 7), tuple((draw(_pad), draw(_pad)) for _ in range(ndim))
    reached = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    spatial = tuple(
        draw(st.integers(max(1, r - low - high), r + 15)) for r, (low, high) in zip(reached, padding, strict=True)
    )
    return ConvSpec(draw(st.integers(1, 2)), 2, 2, spatial, kernel, 1, padding, dilation, draw(st.sampled_from([1, 2])))


_pad = st.integers(0, 9)


@given(dilated())
def test_phases_of_any_problem_are_exact(spec):
    x, weight, _ = sample(spec, integers=True)
    if not phases.is_dilated(spec):
        assert phases.undilated(spec) is spec
        assert not phases.copies_bytes(spec), spec
        assert all(d == 1 or k == 1 for k, d in zip(spec.kernel, spec.dilation, strict=True)), spec
        return
    np.testing.assert_array_equal(
        by_phases(spec, x, weight), run("reference", spec, x, weight), err_msg=f"phases of {spec}"
    )


@problems
def test_no_phase_multiplies_more_than_its_share(spec):
    """Padding aside, phases add at most one output each along an axis."""
    inner = phases.undilated(spec)
    outputs = zip(spec.output_spatial, spec.dilation, strict=True)
    assert inner.batch * math.prod(inner.output_spatial) <= spec.batch * math.prod(out + d for out, d in outputs), spec


@problems
@named
def test_workspace_and_time_contain_the_copies(name, spec):
    engine = supporting(name, spec)
    inner, machine = phases.undilated(spec), this_machine(2)
    copies = phases.copies_bytes(spec)
    assert copies == (math.prod(inner.input_shape) + math.prod(inner.output_shape)) * 4, spec
    assert engine.workspace_bytes(spec) == engine.workspace_bytes(inner) + copies, spec
    extra = engine.predict_seconds(spec, machine) - engine.predict_seconds(inner, machine)
    assert math.isclose(extra, phases.copies_seconds(spec, machine), rel_tol=1e-6), spec
    assert extra >= 2 * copies / machine.bandwidth, spec
    plan = engine.plan(spec, sample(spec)[1])
    assert plan.nbytes >= copies + spec.itemsize * math.prod(spec.weight_shape), spec


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@named
def test_nan_and_inf_reach_their_windows_only(name, value):
    spec = problem((17, 19), (2, 3), padding=2)
    x, weight, bias = sample(spec)
    for image, channel, row, column in ((0, 0, 0, 0), (1, 2, 9, 18), (1, 3, 16, 8)):
        x[image, channel, row, column] = value
    result, direct = (run(engine, spec, x, weight, bias) for engine in (name, "direct"))
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct), err_msg=str(spec))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(direct), err_msg=str(spec))


@named
def test_a_nan_that_no_window_covers_changes_nothing(name):
    spec = problem((15, 15), 6, padding=0)  # 3 × 3 outputs: windows step over rows and columns 3 to 5
    x, weight, _ = sample(spec)
    clean = run(name, spec, x, weight)
    x[..., 3:6, :] = np.nan
    x[..., 3:6] = np.nan
    np.testing.assert_array_equal(run(name, spec, x, weight), clean, err_msg=str(spec))


@named
def test_a_nan_leaves_nothing_behind(name):
    spec = problem((30, 30), 4, padding=4)
    x, weight, _ = sample(spec)
    layer = convbench.Conv2d(weight, padding=4, dilation=4, engine=name)
    clean = layer(x)
    struck = x.copy()
    struck[0, :, 5] = np.nan
    layer(struck)
    np.testing.assert_array_equal(layer(x), clean, err_msg=str(spec))


@named
def test_results_do_not_depend_on_the_number_of_threads(name):
    spec = problem((37, 29), (3, 2), padding=3, channels=(40, 24))
    x, weight, bias = sample(spec)
    results = []
    before = convbench.get_num_threads()
    try:
        for threads in (1, 2, 5):
            convbench.set_num_threads(threads)
            results.append(run(name, spec, x, weight, bias))
    finally:
        convbench.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other, err_msg=str(spec))


@named
def test_a_stride_is_still_refused(name):
    spec = problem((30, 30), 2, stride=2)
    assert "stride 1" in registry.get(name).why_unsupported(spec)
