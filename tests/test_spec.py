"""ConvSpec: what it derives, what makes two of them equal, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import assert_refused

from convbench import ConvSpec
from convbench.spec import extent, output_size


def spec_of(**changes):
    fields = {"batch": 2, "in_channels": 4, "out_channels": 6, "spatial": (9, 8), "kernel": (3, 2)}
    return ConvSpec(**{**fields, **changes})


def test_derived_sizes():
    spec = spec_of(stride=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 3), groups=2, dtype="float64")
    assert spec.ndim == 2
    assert spec.extents == (3, 4)
    assert spec.output_spatial == (5, 6)
    assert spec.input_shape == (2, 4, 9, 8)
    assert spec.weight_shape == (6, 2, 3, 2)
    assert spec.output_shape == (2, 6, 5, 6)
    assert spec.taps == 2 * 3 * 2
    assert spec.macs == 2 * 6 * 5 * 6 * 12
    assert spec.itemsize == 8
    assert spec.data_bytes == 8 * (2 * 4 * 9 * 8 + 6 * 2 * 3 * 2 + 2 * 6 * 5 * 6)
    assert not spec.is_empty


@pytest.mark.parametrize(("kernel", "dilation", "expected"), [(1, 1, 1), (1, 9, 1), (3, 1, 3), (3, 2, 5), (2, 5, 6)])
def test_extent(kernel, dilation, expected):
    assert extent(kernel, dilation) == expected


def test_output_size():
    assert output_size(224, 3, 2, 1, 1, 1) == 112
    assert output_size(5, 2, 1, 4, 0, 0) == 1


def test_ints_spread_over_the_dimensions():
    assert spec_of(kernel=3, stride=2, padding=1, dilation=1) == spec_of(
        kernel=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1)
    )
    assert spec_of(padding=(1, 2)) == spec_of(padding=((1, 1), (2, 2)))
    assert spec_of(padding=(1, (2, 2))) == spec_of(padding=((1, 1), (2, 2)))
    assert ConvSpec(1, 1, 1, spatial=5, kernel=3) == ConvSpec(1, 1, 1, spatial=(5,), kernel=(3,))


def test_numpy_integers_are_integers():
    spec = ConvSpec(np.int64(2), np.int32(4), 6, spatial=np.array([9, 8]), kernel=np.uint8(2), stride=np.int16(1))
    assert spec == spec_of(kernel=2)
    assert all(type(value) is int for value in (*spec.spatial, *spec.kernel, *spec.stride, spec.batch))


def test_high_padding_that_no_window_reaches_is_dropped():
    assert spec_of(stride=2, padding=((0, 1), (0, 1))).padding == ((0, 0), (0, 0))
    # 9 + 0 + 1 holds four windows, of which the last ends at 9; 8 + 0 + 1 holds four, ending at 8.
    assert spec_of(stride=2, padding=((0, 1), (0, 1))) == spec_of(stride=2)
    assert hash(spec_of(stride=2, padding=((0, 1), (0, 1)))) == hash(spec_of(stride=2))
    assert spec_of(padding=((0, 1), (0, 1))).padding == ((0, 1), (0, 1))


def test_fields_are_frozen_and_pickle():
    spec = spec_of()
    with pytest.raises(AttributeError):
        spec.batch = 3
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.replace(batch=3) == spec_of(batch=3)
    with pytest.raises(ValueError, match="groups 3"):
        spec.replace(groups=3)


def test_from_shapes():
    spec = ConvSpec.from_shapes((2, 4, 9, 8), (6, 2, 3, 2), groups=2, stride=2, dtype=np.float64)
    assert spec == spec_of(groups=2, stride=2, dtype="float64")
    assert (spec.input_shape, spec.weight_shape) == ((2, 4, 9, 8), (6, 2, 3, 2))


@pytest.mark.parametrize(
    "changes", [{"batch": 0}, {"out_channels": 0}, {"spatial": (0, 8), "padding": 2}, {"spatial": (3, 2)}]
)
def test_empty_and_tiny_problems_are_problems(changes):
    spec = spec_of(**changes)
    assert spec.is_empty == (0 in spec.output_shape)


@pytest.mark.parametrize(
    ("changes", "error", "values"),
    [
        ({"spatial": ()}, ValueError, ["0 dimensions", "1 to 3"]),
        ({"spatial": (4, 4, 4, 4)}, ValueError, ["4 dimensions", "1 to 3"]),
        ({"spatial": (9, -8)}, ValueError, ["-8", "at least 0"]),
        ({"spatial": (9, 8.0)}, TypeError, ["8.0", "float"]),
        ({"kernel": (3, 3, 3)}, ValueError, ["3 entries", "2 spatial"]),
        ({"kernel": 0}, ValueError, ["kernel 0", "at least 1"]),
        ({"kernel": True}, TypeError, ["True", "bool"]),
        ({"stride": 0}, ValueError, ["stride 0", "at least 1"]),
        ({"stride": (1, -2)}, ValueError, ["-2", "at least 1"]),
        ({"dilation": 0}, ValueError, ["dilation 0", "at least 1"]),
        ({"padding": -1}, ValueError, ["-1", "at least 0"]),
        ({"padding": ((0, 1), (0, -1))}, ValueError, ["-1", "at least 0"]),
        ({"padding": ((0, 1), -1)}, ValueError, ["-1", "at least 0"]),
        ({"padding": ((0, 1), 1.5)}, TypeError, ["1.5", "float"]),
        ({"padding": ((0, 1),)}, ValueError, ["1 entries", "2 spatial"]),
        ({"padding": ((0, 1, 2), (0, 1))}, ValueError, ["3 entries"]),
        ({"batch": -1}, ValueError, ["batch -1", "at least 0"]),
        ({"in_channels": 0}, ValueError, ["in_channels 0", "at least 1"]),
        ({"groups": 0}, ValueError, ["groups 0", "at least 1"]),
        ({"groups": 3}, ValueError, ["in_channels 4", "groups 3"]),
        ({"groups": 4}, ValueError, ["out_channels 6", "groups 4"]),
        ({"kernel": (10, 2)}, ValueError, ["kernel 10", "spans 10", "9 + 0 + 0 = 9"]),
        ({"dilation": (5, 1)}, ValueError, ["dilation 5", "spans 11", "9"]),
        ({"dtype": "float31"}, TypeError, ["float31", "float32"]),
        ({"memory_format": "nhwc"}, ValueError, ["nhwc", "channels_last"]),
    ],
)
def test_refusals_state_both_values(changes, error, values):
    assert_refused(values, spec_of, error=error, **changes)


@pytest.mark.parametrize(
    ("shapes", "groups", "values"),
    [
        (((1, 8, 5, 5), (4, 3, 3, 3)), 2, ["3 input channels", "8 in 2 groups"]),
        (((1, 8, 5, 5), (4, 8, 3)), 1, ["2 spatial", "1"]),
        (((8,), (4,)), 1, ["(8,)", "(4,)"]),
    ],
)
def test_from_shapes_refuses(shapes, groups, values):
    assert_refused(values, ConvSpec.from_shapes, *shapes, groups=groups)
