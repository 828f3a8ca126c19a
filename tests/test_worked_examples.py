"""The worked examples of course notes, on every engine."""

from __future__ import annotations

import numpy as np
import pytest

import convbench
from convbench import ConvSpec

SIGNAL = [3, 6, 5, 4, 8, 9, 1, 7, 9, 10, 10]
IMAGE = [[3, 6, 5, 4, 8], [9, 1, 7, 9, 6], [8, 0, 5, 0, 9], [6, 2, 0, 5, 2], [6, 3, 7, 0, 9]]
SHARPEN = [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]

EXAMPLES = {
    "valid": (SIGNAL, [-1, 0, 1], {}, [2, -2, 3, 5, -7, -2, 8, 3, 1]),
    "padded": (SIGNAL, [-1, 0, 1], {"padding": 1}, [6, 2, -2, 3, 5, -7, -2, 8, 3, 1, -10]),
    "strided": (SIGNAL, [-1, 0, 1], {"stride": 2}, [2, 3, -7, 8, 1]),
    "dilated": (SIGNAL, [-1, 1, 1], {"dilation": 2}, [10, 7, 4, 12, 2, 8, 18]),
    "true convolution": ([1, 2, 3, 4, 5], [3, 2, 1], {"padding": "full", "flip": True}, [3, 8, 14, 20, 26, 14, 5]),
    "image": (IMAGE, [[-1, 1], [-1, 1]], {"padding": 1, "stride": 2}, [[3, -1, 4], [17, 11, 6], [12, 2, 6]]),
    "sharpen": ([[10, 20, 30], [40, 50, 60], [70, 80, 90]], SHARPEN, {}, [[50]]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "complex128"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(engine, name, dtype):
    x, kernel, keywords, expected = EXAMPLES[name]
    x, kernel = np.array(x, dtype)[None, None], np.array(kernel, dtype)[None, None]
    steps = {key: keywords[key] for key in ("stride", "dilation") if key in keywords}
    spec = ConvSpec.from_shapes(x.shape, kernel.shape, dtype=dtype, padding=2, **steps)
    reason = engine.why_unsupported(spec)
    if np.dtype(dtype).kind == "i" and not engine.exact_integers:
        reason = reason or f"{engine.name} is not exact on integers"
    if reason is not None:
        pytest.skip(reason)
    conv = convbench.conv1d if x.ndim == 3 else convbench.conv2d
    result = conv(x, kernel, engine=engine.name, **keywords)
    assert result.dtype == dtype
    # Small whole numbers: exact, but for an engine that transforms and so rounds.
    exact = engine.exact_integers and engine.error_measure == "componentwise"
    tolerance = 0 if exact else 50 * max(np.max(np.abs(expected)), 1) * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(result[0, 0], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "exact"),
    [("float32", False), ("float64", False), ("int64", True)],
)
def test_the_automatic_choice(dtype, exact):
    for x, kernel, keywords, expected in EXAMPLES.values():
        x, kernel = np.array(x, dtype)[None, None], np.array(kernel, dtype)[None, None]
        conv = convbench.conv1d if x.ndim == 3 else convbench.conv2d
        result = conv(x, kernel, **keywords)
        if exact:
            np.testing.assert_array_equal(result[0, 0], expected)
        else:
            np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "keywords", "expected"),
    [
        ((3, 32, 32), (6, 3, 5, 5), {}, (6, 28, 28)),
        ((3, 100, 100), (32, 3, 5, 5), {"padding": "same"}, (32, 100, 100)),
        ((1, 100, 100), (32, 1, 5, 5), {"padding": "same", "stride": 2}, (32, 50, 50)),
        ((3, 100, 100), (32, 3, 5, 5), {"padding": "valid"}, (32, 96, 96)),
        ((3, 224, 224), (64, 3, 3, 3), {"stride": 2, "padding": 1}, (64, 112, 112)),
    ],
)
def test_shapes(input_shape, weight_shape, keywords, expected):
    assert convbench.output_shape(input_shape, weight_shape, **keywords) == expected
    result = convbench.conv2d(np.zeros(input_shape, "float32"), np.zeros(weight_shape, "float32"), **keywords)
    assert result.shape == expected


def test_parameters():
    # 5·5·3·32 = 2,400 weights and 32 biases; a note that prints 2,430 miscounts.
    assert convbench.parameter_count((32, 3, 5, 5)) == 2432
    assert convbench.parameter_count((6, 3, 5, 5)) == 456


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (3, 3), (5, 5), (10, 7)])
def test_receptive_field_of_dense_layers(layers, kernel):
    assert convbench.receptive_field([kernel] * layers) == 1 + layers * (kernel - 1)
