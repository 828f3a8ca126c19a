"""Outputs that are written past the caches where their memory is in none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from convbench.engines.jit import product, residence, wide, winograd
from convbench.engines.jit.target import target
from convbench.spec import ConvSpec

FEW = ConvSpec.parse("mb2ic16ih128oc64kh1")  # 8 MiB of outputs of 16 products
LEAST, MOST = 1, 1 << 62  # cycles that any line takes, and none

whole_lines = pytest.mark.skipif(target().vector_bytes != 64, reason="only vectors of a whole line go past the caches")


def outputs(plan, x, spec, offset=0):
    """What `plan` computes into memory that begins so many elements behind a cache line."""
    size = int(np.prod(spec.output_shape))
    room = np.full(size + 32, np.nan, spec.dtype)
    first = -room.ctypes.data % 64 // room.itemsize + offset
    plan(x, room[first : first + size].reshape(spec.output_shape))
    assert np.isnan(room[:first]).all()
    assert np.isnan(room[first + size :]).all()
    return room[first : first + size]


def winograd_plan(spec, weight, bias):
    return winograd.WinogradPlan(spec, weight, bias, outputs=(4, 4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (str(FEW), product.ProductPlan),
        (str(FEW), wide.WidePlan),
        ("mb1ic3ih128oc64kh3ph1", wide.WidePlan),
        ("mb1ic3ih128oc64kh3ph1", winograd_plan),
    ],
)
def test_outputs_are_the_same_past_the_caches(monkeypatch, text, plan, dtype, offset):
    spec, rng = ConvSpec.parse(text).replace(dtype=dtype), np.random.default_rng(7)
    x, w, bias = (rng.uniform(-1, 1, shape).astype(dtype) for shape in (spec.input_shape, spec.weight_shape, (64,)))
    found = []
    for cycles in (LEAST, MOST):
        monkeypatch.setattr(residence, "far_cycles", lambda _, cycles=cycles: cycles)
        found.append(outputs(plan(spec, w, bias), x, spec, offset))
    np.testing.assert_array_equal(*found, err_msg=str(spec))


@whole_lines
@pytest.mark.parametrize(
    ("text", "streams"),
    [
        (str(FEW), True),
        ("mb1ic16ih128oc8kh1", False),  # the second-level caches hold it
        ("mb1ic512ih128oc64kh1", False),  # many products for each output
        ("mb1ic16ih129oc64kh1", False),  # planes are not whole lines
    ],
)
def test_large_outputs_of_few_products_go_past_the_caches(text, streams):
    spec = ConvSpec.parse(text)
    plan = product.ProductPlan(spec, np.ones(spec.weight_shape, spec.dtype))
    assert plan._streams() == streams, str(spec)
    word = product.kernels.FRAME["far_cycles"] // 8
    assert (plan._frames[0].words[word] > 0) == (streams and target().pause == "pause"), str(spec)


@whole_lines
@pytest.mark.parametrize(
    ("text", "streams"),
    [
        ("mb1ic3ih128oc64kh3ph1", True),
        ("mb1ic3ih128oc8kh3ph1", False),  # the second-level caches hold it
        ("mb1ic3ih130oc64kh3ph1", False),  # rows begin anywhere
        ("mb8ic3ih48oc64kh3ph1", False),  # blocks begin anywhere
        ("mb1ic256ih128oc64kh3ph1", False),  # many products for each output
    ],
)
def test_winograd_writes_rows_of_whole_lines_past_the_caches(text, streams):
    spec = ConvSpec.parse(text)
    plan = winograd_plan(spec, np.ones(spec.weight_shape, spec.dtype), None)
    assert plan._streams() == streams, str(spec)


def test_processors_without_such_a_clock_write_through_the_caches():
    assert residence.far_cycles(dataclasses.replace(target(), pause="yield")) == 0
