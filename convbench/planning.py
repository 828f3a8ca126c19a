"""From an engine's plan to one that does all a call needs: bias, memory format, empty outputs."""

from __future__ import annotations

import math

import numpy as np

from convbench.data import as_memory_format
from convbench.engine import Engine, Plan
from convbench.spec import ConvSpec


def engine_spec(engine: Engine, spec: ConvSpec) -> ConvSpec:
    """The spec that `engine` plans for `spec`: channels-first where it knows no other format."""
    if spec.memory_format == "channels_last" and not engine.takes_channels_last(spec):
        return spec.replace(memory_format="channels_first")
    return spec


def for_weight(engine: Engine, spec: ConvSpec, weight: np.ndarray, rtol: float | None = None) -> Engine:
    """`engine` as it computes `spec` with this very weight; itself where it does not compute it at all."""
    inner = engine_spec(engine, spec)
    if spec.is_empty or engine.why_unsupported(inner) is not None:
        return engine
    return engine.for_weight(inner, weight, rtol)


def why_inexact(engine: Engine, spec: ConvSpec) -> str | None:
    """Why integers are not given to `engine`, which computes them; None where it is exact, or they are none."""
    if np.dtype(spec.dtype).kind in "iu" and not engine.exact_integers:
        return f"{engine.name} may round, and {spec.dtype} needs exact sums"
    return None


def variants(engine: Engine, spec: ConvSpec) -> tuple[Engine, ...]:
    """The ways in which `engine` may compute `spec`, see `Engine.variants`."""
    return engine.variants(engine_spec(engine, spec))


def variant_of(engine: Engine, spec: ConvSpec, variant: str) -> Engine:
    """`engine` in that variant; itself where it has none of that name."""
    if engine.variant == variant:
        return engine
    return next((way for way in variants(engine, spec) if way.variant == variant), engine)


def workspace_bytes(engine: Engine, spec: ConvSpec) -> int:
    """What a plan of `engine` needs beside input, weight and output, transposed copies included."""
    inner = engine_spec(engine, spec)
    copies = 0 if inner is spec else _copies_bytes(spec)
    return int(engine.workspace_bytes(inner)) + copies


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
    return plan if inner is spec else _Transposed(plan, inner, spec)


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

    def __call__(self, x, out):
        self._plan(x, out)
        with np.errstate(all="ignore"):  # NaN and Inf are data here
            out += self._bias


class _Transposed:
    """Channels-last arrays for an engine that computes channels-first."""

    def __init__(self, plan, inner, spec):
        self._plan = plan
        self._out = np.empty(inner.output_shape, inner.dtype)
        self.nbytes = getattr(plan, "nbytes", 0) + _copies_bytes(spec)

    def __call__(self, x, out):
        self._plan(as_memory_format(x, "channels_first"), self._out)
        out[...] = self._out
