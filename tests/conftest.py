"""What tests share: every engine of the registry, a second reference, and records out of the user's sight."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from fake_engines import Clock, Fake
from scipy import signal

import convbench
from convbench import conv, incremental, measuring, records, registry, selection, timing
from convbench.engine import UNROUNDED_GUARD, gamma

WIDER = {"f": np.longdouble, "c": np.clongdouble, "i": np.int64, "u": np.int64, "b": np.int64}


@pytest.fixture(autouse=True)
def records_directory(tmp_path, monkeypatch):
    """Every test keeps its records in a directory of its own, never in the user's."""
    directory = tmp_path / "records"
    monkeypatch.setenv("CONVBENCH_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(scope="session", params=list(registry.engines()))
def engine(request):
    """Each engine there is, built-in or plugged in."""
    return registry.get(request.param)


@pytest.fixture
def house(monkeypatch):
    """Adds fake engines to a registry that holds nothing else, timed by a fake clock."""
    clock = Clock()
    monkeypatch.setattr(registry, "_engines", {})
    monkeypatch.setattr(measuring, "within_limit", partial(timing.within_limit, clock=clock, rest=clock.rest))
    monkeypatch.setattr(conv, "IncrementalPlan", partial(incremental.IncrementalPlan, clock=clock))
    monkeypatch.setattr(records, "_warned", set())
    selection.forget()

    def add(name, *arguments, **keywords):
        return convbench.register(Fake(name, *arguments, clock=clock, **keywords))

    yield add
    monkeypatch.undo()
    registry._changed()
    selection.forget()


def skip_if_refused(engine, spec):
    """Skip with the engine's own sentence where it refuses `spec`; an empty problem reaches no engine."""
    reason = None if spec.is_empty else engine.why_unsupported(spec)
    if reason is not None:
        assert isinstance(reason, str), spec
        assert len(reason.split()) > 3, f"{spec}: {reason!r} is no sentence"
        pytest.skip(f"{spec}: {reason}")


def assert_refused(values, call, *arguments, error=ValueError, **keywords):
    """Expect `error` from the call, with every one of `values` in its message."""
    with pytest.raises(error) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    missing = [value for value in values if value not in message]
    assert not missing, f"{missing} not in {message!r}"


def sample(spec, seed=0, integers=False):
    """Random input, weight and bias of `spec`; small integer values on request."""
    rng = np.random.default_rng([seed, *spec.input_shape, *spec.weight_shape])

    def draw(shape):
        if integers or np.dtype(spec.dtype).kind in "iu":
            lowest = 0 if np.dtype(spec.dtype).kind == "u" else -3
            return rng.integers(lowest, 4, shape).astype(spec.dtype)
        if np.dtype(spec.dtype).kind == "c":
            return (rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape)).astype(spec.dtype)
        return rng.uniform(-1, 1, shape).astype(spec.dtype)

    return draw(spec.input_shape), draw(spec.weight_shape), draw(spec.out_channels)


def run(engine, spec, x, weight, bias=None, **keywords):
    """``convbench.conv1d/2d/3d`` of `spec` on `engine`, an engine or a name."""
    conv = getattr(convbench, f"conv{spec.ndim}d")
    name = engine if isinstance(engine, str) else engine.name
    return conv(x, weight, bias, spec.stride, spec.padding, spec.dilation, spec.groups, engine=name, **keywords)


def correlate(spec, x, weight, bias=None):
    """The output in the widest type of its kind, by scipy.signal, a pair of channels at a time."""
    wide = WIDER[np.dtype(spec.dtype).kind]
    x = np.pad(np.asarray(x, wide), ((0, 0), (0, 0), *spec.padding))
    kernel = np.zeros((*spec.weight_shape[:2], *spec.extents), wide)
    kernel[(..., *(slice(None, None, d) for d in spec.dilation))] = weight
    strides = tuple(slice(None, None, s) for s in spec.stride)
    out = np.zeros(spec.output_shape, wide)
    if bias is not None:
        out += np.asarray(bias, wide).reshape(-1, *(1,) * spec.ndim)
    per_group = spec.weight_shape[1]
    for n, o, c in np.ndindex(spec.batch, spec.out_channels, per_group):
        channel = o // (spec.out_channels // spec.groups) * per_group + c
        # SciPy's correlation conjugates its second argument.
        dense = signal.correlate(x[n, channel], kernel[o, c].conj(), mode="valid", method="direct")
        out[n, o] += dense[strides]
    return out


def assert_within_bound(engine, spec, result, x, weight, bias=None):
    """Hold `result` to the engine's own error rule, against `correlate`."""
    assert result.shape == spec.output_shape, spec
    assert result.dtype == spec.dtype, spec
    expected = correlate(spec, x, weight, bias)
    wide = expected.dtype.name
    if spec.is_empty:
        return
    scale = correlate(
        spec.replace(dtype="float64"), abs(x), abs(weight), None if bias is None else abs(np.asarray(bias))
    )
    # The expected values are rounded too, by the wide type's own bound.
    bound = engine.error_bound(spec) + gamma(spec.taps + UNROUNDED_GUARD, wide)
    error = abs(result.astype(wide) - expected)
    if engine.error_measure == "l2":
        assert np.linalg.norm(error) <= bound * np.linalg.norm(scale), f"{engine.name} on {spec}"
    else:
        worst = (error / np.where(scale > 0, scale, 1)).max()
        assert worst <= bound, f"{engine.name} on {spec}: error {worst:.3g} over the bound {bound:.3g}"
        assert not error[scale == 0].any(), f"{engine.name} on {spec}: not zero where nothing is summed"
