"""From an engine's plan to one that does all a call needs: bias, memory format, circular padding, empty outputs."""

from __future__ import annotations

import math

import numpy as np

from convbench.data import as_memory_format
from convbench.engine import Engine, Plan
from convbench.padding import pad
from convbench.spec import ConvSpec


def engine_spec(engine: Engine, spec: ConvSpec) -> ConvSpec:
    """The spec that `engine` plans for `spec`: padded, and channels-first, where it knows nothing else."""
    spec = spec if engine.takes_circular else spec.padded()
    if spec.memory_format == "channels_last" and not engine.takes_channels_last(spec):
        return spec.replace(memory_format="channels_first")
    return spec


def for_weight(engine: Engine, spec: ConvSpec, weight: np.ndarray, rtol: float | None = None) -> Engine:
    """`engine` as it computes `spec` with this very weight; itself where it does not compute it at all."""
    inner = engine_spec(engine, spec)
    if spec.is_empty or engine.why_unsupported(inner) is not None:
        return engine
    return engine.for_weight(inner, weight, rtol)


def why_unsupported(engine: Engine, spec: ConvSpec) -> str | None:
    """Why `engine` computes `spec` in none of its ways, as a sentence; None where it does."""
    return None if _circular(engine, spec) else engine.why_unsupported(engine_spec(engine, spec))


def why_inexact(engine: Engine, spec: ConvSpec) -> str | None:
    """Why integers are not given to `engine`, which computes them; None where it is exact, or they are none."""
    if np.dtype(spec.dtype).kind in "iu" and not engine.exact_integers:
        return f"{engine.name} may round, and {spec.dtype} needs exact sums"
    return None


def variants(engine: Engine, spec: ConvSpec) -> tuple[Engine, ...]:
    """The ways in which `engine` may compute `spec`, see `Engine.variants` and `Engine.circular`."""
    inner, circular = engine_spec(engine, spec), _circular(engine, spec)
    if circular is None:
        return engine.variants(inner)
    return (circular, *(engine.variants(inner) if engine.why_unsupported(inner) is None else ()))


def _circular(engine, spec):
    return engine.circular(spec) if spec.padding_mode == "circular" and not engine.takes_circular else None


def variant_of(engine: Engine, spec: ConvSpec, variant: str) -> Engine:
    """`engine` in that variant; itself where it has none of that name."""
    if engine.variant == variant:
        return engine
    return next((way for way in variants(engine, spec) if way.variant == variant), engine)


def workspace_bytes(engine: Engine, spec: ConvSpec) -> int:
    """What a plan of `engine` needs beside input, weight and output, extended and transposed copies included."""
    inner = engine_spec(engine, spec)
    copies = 0 if inner.memory_format == spec.memory_format else _copies_bytes(inner)
    return int(engine.workspace_bytes(inner)) + copies + extended_bytes(engine, spec)


def extended_bytes(engine: Engine, spec: ConvSpec) -> int:
    """Bytes of the input that is extended for `engine`; 0 where none is."""
    if spec.padding_mode == "zeros" or engine.takes_circular:
        return 0
    return math.prod(spec.padded().input_shape) * spec.itemsize


def make_plan(engine: Engine, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None) -> Plan:
    """Plan `spec` on `engine`, with what the engine leaves to others done around it.

    Parameters
    ----------
    engine : Engine
    spec : ConvSpec
    weight : ndarray, ``spec.weight_shape``
    bias : ndarray, (out_channels,), optional

    Returns
    -------
    callable
        ``plan(x, out)``, with an attribute ``nbytes``.
    """
    if spec.is_empty:
        return _Nothing()
    inner = engine_spec(engine, spec)
    weight = np.ascontiguousarray(weight)
    if engine.fuses_bias:
        plan = engine.plan(inner, weight, bias)
    else:
        plan = engine.plan(inner, weight)
        if bias is not None:
            plan = _AddBias(plan, bias, spec.ndim)
    if inner.memory_format != spec.memory_format:
        plan = _Transposed(plan, inner)
    return plan if inner.padding_mode == spec.padding_mode else _Extended(plan, spec)


def _copies_bytes(spec):
    return (math.prod(spec.input_shape) + math.prod(spec.output_shape)) * spec.itemsize


class _Nothing:
    nbytes = 0

    def __call__(self, x, out):
        return None


class _AddBias:
    def __init__(self, plan, bias, ndim):
        self._plan = plan
        self._bias = np.array(bias).reshape(-1, *(1,) * ndim)
        self.nbytes = getattr(plan, "nbytes", 0) + self._bias.nbytes
        self.summon = getattr(plan, "summon", None)

    def __call__(self, x, out):
        self._plan(x, out)
        with np.errstate(all="ignore"):  # NaN and Inf are data here
            out += self._bias


class _Transposed:
    """Channels-last arrays for an engine that computes channels-first."""

    def __init__(self, plan, inner):
        self._plan = plan
        self._out = np.empty(inner.output_shape, inner.dtype)
        self.nbytes = getattr(plan, "nbytes", 0) + _copies_bytes(inner)

    def __call__(self, x, out):
        self._plan(as_memory_format(x, "channels_first"), self._out)
        out[...] = self._out


class _Extended:
    """A circular input, extended for an engine that knows zero padding only."""

    def __init__(self, plan, spec):
        self._plan, self._spec = plan, spec
        self.nbytes = getattr(plan, "nbytes", 0)

    def __call__(self, x, out):
        extended = pad(x, self._spec.padding, self._spec.padding_mode)
        self._plan(as_memory_format(extended, self._spec.memory_format), out)
