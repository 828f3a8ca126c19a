"""Sizes on paper: output shapes, parameters, receptive fields, products."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_refused

import convbench
from convbench import ConvSpec, output_shape, parameter_count, receptive_field
from convbench.shapes import products_inside


@pytest.mark.parametrize("size", [5, 6, 7, 8, 11])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_named_padding(size, kernel, stride, dilation):
    keywords = {"stride": stride, "dilation": dilation}
    span = dilation * (kernel - 1) + 1
    assert output_shape((1, size), (1, 1, kernel), padding="same", **keywords) == (1, -(-size // stride))
    assert output_shape((1, size), (1, 1, kernel), padding="full", **keywords) == (1, (size + span - 2) // stride + 1)
    if span <= size:
        assert output_shape((1, size), (1, 1, kernel), padding="valid", **keywords) == (1, (size - span) // stride + 1)


def test_same_puts_the_extra_element_on_the_high_side():
    ones = np.ones((1, 1, 4))
    result = convbench.conv1d(np.arange(1.0, 6.0)[None, None], ones, padding="same", engine="reference")
    np.testing.assert_array_equal(result[0, 0], [6, 10, 14, 12, 9])  # 1 low, 2 high


def test_output_shape_of_groups_and_pairs():
    assert output_shape((2, 8, 9, 10), (12, 4, 3, 3), (2, 1), ((1, 0), (2, 2)), (1, 2), 2) == (2, 12, 4, 10)
    assert output_shape((8, 9, 10), (8, 1, 3, 3), groups=8, padding=1) == (8, 9, 10)
    assert output_shape((1, 2, 5, 6, 7), (3, 2, 2, 3, 2)) == (1, 3, 4, 4, 6)
    assert output_shape((0, 1, 5), (1, 1, 5)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (((3, 32, 32), (6, 4, 5, 5)), ["4 input channels", "3"]),
        (((32, 32), (6, 3, 5, 5)), ["(32, 32)", "(6, 3, 5, 5)"]),
        (((3, 32, 32), (6, 3)), ["(6, 3)", "2 dimensions"]),
        (((1, 3), (1, 1, 5)), ["5", "3"]),
        (((1, 9), (1, 1, 5), -1), ["stride", "-1", "1"]),
        (((1, 9), (1, 1, 5), 1, "half"), ["'half'", "same"]),
        (((3, 9), (4, 1, 5), 1, 0, 1, 2), ["1 input channels", "3", "2 groups"]),
    ],
)
def test_output_shape_refuses_with_both_values(arguments, values):
    assert_refused(values, output_shape, *arguments)


def test_parameter_count():
    assert parameter_count((32, 3, 5, 5), bias=False) == 2400
    assert parameter_count((32, 1, 3, 3)) == 32 * 10  # depthwise
    assert parameter_count((10, 4)) == 50  # dense
    with pytest.raises(ValueError, match="1 dimensions"):
        parameter_count((10,))
    with pytest.raises(ValueError, match="-3"):
        parameter_count((10, -3))


RESNET_STEM = [(7, 2), (3, 2)]
VGG16 = [3, 3, (2, 2), 3, 3, (2, 2), 3, 3, 3, (2, 2), 3, 3, 3, (2, 2), 3, 3, 3, (2, 2)]
WAVENET = [(2, 1, 2**level) for level in range(10)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [([], 1), ([1, (1, 2), 1], 1), (RESNET_STEM, 11), (VGG16, 212), (WAVENET, 1024), ([(3, 1, 12)], 25)],
)
def test_known_receptive_fields(layers, expected):
    assert receptive_field(layers) == expected


def test_receptive_field_takes_every_form_of_layer():
    spec = ConvSpec(1, 1, 1, spatial=(9, 9), kernel=(3, 5), stride=(2, 1), dilation=(1, 2))
    expected = (1 + 2 + 2 * 2, 1 + 8 + 4)
    layer = {"kernel": (3, 5)}
    assert receptive_field([spec, (3, 1)])[0] == expected[0]
    assert receptive_field([((3, 5), (2, 1), (1, 2)), layer]) == expected
    assert receptive_field([{"kernel": (3, 5), "stride": (2, 1), "dilation": (1, 2)}, layer]) == expected
    assert receptive_field([[(3, 5), (2, 1), (1, 2)], layer]) == expected


def test_receptive_field_of_layers():
    weight = np.zeros((1, 1, 3, 5))
    layer = convbench.Conv2d(weight, stride=(2, 1), dilation=(1, 2))
    assert receptive_field([layer, convbench.Conv2d(weight)]) == (7, 13)


def test_the_receptive_field_is_what_an_output_depends_on():
    layers = [(3, 2, 1), (2, 1, 3), (3, 1, 2)]
    position = np.zeros(60)
    for index in range(len(position)):
        x = np.zeros((1, 1, 60))
        x[0, 0, index] = 1
        for kernel, stride, dilation in layers:
            x = convbench.conv1d(x, np.ones((1, 1, kernel)), None, stride, 0, dilation, engine="reference")
        position[index] = x[0, 0, 3]
    reached = np.flatnonzero(position)
    assert reached[-1] - reached[0] + 1 == receptive_field(layers)


@pytest.mark.parametrize(
    ("layers", "values"),
    [
        ([(3, 1, 1, 1)], ["4 entries"]),
        ([()], ["0 entries"]),
        ([{"size": 3}], ["size", "kernel"]),
        ([{"kernel": 3, "padding": 1}], ["padding", "kernel"]),
        ([((3, 3), 1), ((3, 3, 3), 1)], ["2 and 3"]),
        ([0], ["0", "1"]),
        ([(3, 0)], ["stride", "0", "1"]),
    ],
)
def test_receptive_field_refuses(layers, values):
    assert_refused(values, receptive_field, layers)


def test_products_inside():
    assert products_inside(ConvSpec(1, 1, 1, spatial=5, kernel=3)) == 9
    assert products_inside(ConvSpec(4, 1, 1, spatial=5, kernel=3, padding=1)) == 13
    assert products_inside(ConvSpec(1, 2, 3, spatial=(5, 5), kernel=3, padding=1)) == 6 * 13 * 13
    assert products_inside(ConvSpec(1, 1, 1, spatial=2, kernel=5, padding=4, stride=3)) == 3
