"""Every engine on one grid of problems, held to its own error bound against scipy.signal."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_within_bound, run, sample, skip_if_refused

import convbench
from convbench import ConvSpec


def problem(spatial, kernel, batch=2, channels=(3, 4), **rest):
    return ConvSpec(batch, *channels, spatial=spatial, kernel=kernel, **rest)


GRID = (
    # one dimension: odd and even kernels, one tap, prime sizes
    problem((11,), (3,)),
    problem((12,), (4,), padding=2),
    problem((13,), (1,)),
    problem((31,), (7,), padding=3, stride=2),
    problem((17,), (3,), dilation=5, padding=((4, 1),)),
    problem((5,), (9,), padding=4),
    problem((257,), (65,), batch=1, channels=(1, 1), padding=64),
    problem((40,), (3,), channels=(6, 9), groups=3, padding=1, stride=3),
    # two dimensions: odd and even kernels, 1×1, prime sizes
    problem((8, 9), (3, 3), padding=1),
    problem((9, 8), (2, 4)),
    problem((7, 5), (1, 1)),
    problem((7, 7), (1, 1), padding=1, stride=2),
    problem((23, 19), (5, 3), padding=(2, 1)),
    problem((37, 41), (11, 13), batch=1, channels=(1, 1), padding=(5, 6)),
    problem((1, 1), (1, 1), batch=1, channels=(1, 1)),
    # padding: the kernel larger than the image, asymmetric, more than the kernel
    problem((3, 4), (5, 7), padding=(2, 3)),
    problem((2, 2), (6, 6), padding=((3, 4), (5, 2))),
    problem((6, 7), (3, 3), padding=((0, 2), (3, 1))),
    problem((4, 4), (2, 2), padding=5),
    problem((0, 3), (2, 2), padding=1),
    # strides, also longer than the kernel, and dilations
    problem((13, 11), (3, 3), stride=2, padding=1),
    problem((13, 11), (2, 3), stride=(3, 5)),
    problem((12, 16), (3, 3), stride=(1, 2), padding=1),
    problem((15, 14), (3, 3), dilation=(2, 3), padding=(2, 3)),
    problem((15, 14), (3, 2), dilation=(4, 1), stride=(2, 3), padding=((4, 3), (0, 1))),
    problem((9, 9), (4, 4), dilation=2, stride=2, padding=3),
    # channels and groups, also depthwise
    problem((6, 6), (3, 3), channels=(1, 7), padding=1),
    problem((6, 6), (3, 3), channels=(5, 1), padding=1),
    problem((6, 7), (3, 3), channels=(8, 12), groups=4, padding=1),
    problem((9, 7), (3, 3), channels=(5, 5), groups=5, padding=1, stride=2),
    problem((9, 7), (3, 3), channels=(4, 8), groups=4, padding=2, dilation=2),
    problem((7, 7), (3, 3), batch=9, channels=(17, 33), padding=1),
    problem((5, 5), (1, 1), batch=1, channels=(67, 19)),
    # three dimensions
    problem((5, 6, 7), (3, 3, 3), padding=1),
    problem((4, 5, 6), (2, 1, 3), stride=(2, 1, 2), padding=((1, 0), (0, 0), (2, 1))),
    problem((7, 6, 8), (2, 3, 2), dilation=(3, 2, 1), channels=(4, 6), groups=2),
    problem((2, 3, 2), (3, 5, 4), batch=1, padding=2),
    # three, of which some are only passed through
    problem((3, 9, 10), (1, 3, 3), channels=(4, 6), groups=2, padding=(0, 1, 1)),
    problem((4, 13, 9), (1, 5, 3), stride=(1, 2, 1), padding=((0, 0), (3, 1), (0, 2))),
    problem((3, 4, 5), (1, 1, 1), channels=(18, 20), padding=((1, 2), (0, 0), (0, 0))),
    problem((3, 4, 5), (1, 3, 3), channels=(18, 20), padding=1),
    problem((6, 5, 7), (3, 1, 1), channels=(18, 20), padding=((2, 1), (0, 0), (0, 0))),
    problem((9, 3, 4), (2, 1, 1), stride=(3, 1, 1), dilation=(2, 1, 1), padding=((0, 1), (0, 0), (0, 0))),
    # nothing to do
    problem((6, 6), (3, 3), batch=0),
    problem((5,), (2,), channels=(3, 0)),
    problem((4, 4, 4), (2, 2, 2), batch=0),
)

SOME = (GRID[3], GRID[24], GRID[28], GRID[34])

grid = pytest.mark.parametrize("spec", GRID, ids=str)
some = pytest.mark.parametrize("spec", SOME, ids=str)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@grid
@dtypes
def test_the_grid(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    assert_within_bound(engine, spec, run(engine, spec, x, weight), x, weight)


@some
@dtypes
def test_bias(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    assert_within_bound(engine, spec, run(engine, spec, x, weight, bias), x, weight, bias)


@some
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    assert_within_bound(engine, spec, run(engine, spec, x, weight, bias), x, weight, bias)


@some
def test_channels_last(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    assert last.strides != x.strides
    assert_within_bound(engine, spec, run(engine, spec, last, weight, bias), x, weight, bias)


@some
def test_arrays_with_gaps(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    spread = np.repeat(np.flip(x, -1), 3, axis=-1)[..., ::-3]
    transposed = np.asfortranarray(weight)
    np.testing.assert_array_equal(spread, x)
    assert_within_bound(engine, spec, run(engine, spec, spread, transposed), x, weight)


@some
def test_read_only_arrays(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    for array in (x, weight, bias):
        array.setflags(write=False)
    assert_within_bound(engine, spec, run(engine, spec, x, weight, bias), x, weight, bias)


@some
def test_unbatched(engine, spec):
    spec = spec.replace(batch=1)
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    result = run(engine, spec, x[0], weight, bias)
    assert result.shape == spec.output_shape[1:]
    assert_within_bound(engine, spec, result[None], x, weight, bias)


@some
def test_out_is_filled_and_returned(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    out = np.full(spec.output_shape, np.nan, spec.dtype)
    assert run(engine, spec, x, weight, bias, out=out) is out
    assert_within_bound(engine, spec, out, x, weight, bias)


@some
def test_out_with_gaps(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    whole = np.full((*spec.output_shape, 2), 7, spec.dtype)
    run(engine, spec, x, weight, out=whole[..., 0])
    assert_within_bound(engine, spec, whole[..., 0], x, weight)
    assert (whole[..., 1] == 7).all(), spec


@some
def test_true_convolution(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    flipped = np.flip(weight, tuple(range(2, 2 + spec.ndim)))
    assert_within_bound(engine, spec, run(engine, spec, x, weight, bias, flip=True), x, flipped, bias)


@some
def test_a_layer_is_the_function(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, bias = sample(spec)
    layer = getattr(convbench, f"Conv{spec.ndim}d")(
        weight,
        bias,
        stride=spec.stride,
        padding=spec.padding,
        dilation=spec.dilation,
        groups=spec.groups,
        engine=engine.name,
    )
    np.testing.assert_array_equal(layer(x), run(engine, spec, x, weight, bias), err_msg=str(spec))


@some
def test_a_layer_keeps_its_weight(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    given = weight.copy()
    layer = getattr(convbench, f"Conv{spec.ndim}d")(
        given, None, spec.stride, spec.padding, spec.dilation, spec.groups, engine=engine.name
    )
    first = layer(x)
    given[...] = 0
    np.testing.assert_array_equal(layer(x), first, err_msg=str(spec))


def test_one_layer_takes_many_shapes(engine):
    weight = np.random.default_rng(1).uniform(-1, 1, (4, 3, 3, 3))
    layer = convbench.Conv2d(weight, padding=1, engine=engine.name)
    for shape in ((1, 3, 5, 6), (2, 3, 9, 4), (0, 3, 5, 5), (1, 3, 5, 6)):
        spec = ConvSpec.from_shapes(shape, weight.shape, padding=1, dtype="float64")
        x, _, _ = sample(spec)
        assert_within_bound(engine, spec, layer(x), x, weight)


@some
def test_verify_agrees(spec):
    report = convbench.verify(spec)
    assert report.ok, f"{spec}: {report}"


def test_estimates_come_from_the_spec_alone(engine):
    from convbench.machine import Machine

    machine = Machine("a processor", ("AVX2",), 2, 2, 32)
    for spec in GRID:
        if spec.is_empty or engine.why_unsupported(spec):
            continue
        assert 0 < engine.predict_seconds(spec, machine) < 10, spec
        assert 0 <= engine.workspace_bytes(spec) < 1 << 28, spec
        assert 0 <= engine.error_bound(spec) < 1, spec
