"""The equality check: every engine against the definition, in higher precision, by one rule.

With r the reference's result in a wider type and s = |x| ∗ |w| (the same sum of magnitudes), the
error of an engine's y is, in the measure that the engine declares,

    componentwise:  max |y - r| / s            (direct sums, GEMM, Toeplitz)
    l2:             ‖y - r‖₂ / ‖s‖₂            (FFT, Winograd, which mix elements)

and must not be above the engine's `error_bound`.  Elements with s = 0 must be 0.  A result that is
not finite where r is, or the other way round, is an infinite error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convbench import display, planning, registry
from convbench.data import as_memory_format, sample
from convbench.padding import pad
from convbench.spec import ConvSpec

REFERENCE = "reference"


@dataclass(frozen=True)
class EngineCheck:
    """One engine's result: its error (the largest of its variants') and bound in `measure`, or why it was refused."""

    engine: str
    ok: bool
    error: float | None = None
    bound: float | None = None
    measure: str = ""
    refused: str | None = None

    def cells(self) -> tuple[str, ...]:
        """The row of a printed table."""
        if self.refused:
            return (self.engine, "-", "-", "", self.refused)
        return (self.engine, f"{self.error:.2e}", f"{self.bound:.2e}", self.measure, "ok" if self.ok else "WRONG")


@dataclass(frozen=True)
class Verification:
    """The answer of `verify`: ``.ok`` in all, ``.results`` by engine; it prints as a table."""

    spec: ConvSpec
    results: tuple[EngineCheck, ...]

    @property
    def ok(self) -> bool:
        """True when no engine that can compute the problem is off."""
        return all(result.ok for result in self.results)

    def __str__(self):
        rows = [check.cells() for check in self.results]
        verdict = "all agree" if self.ok else "ENGINES DISAGREE"
        return f"{self.spec}: {verdict}\n{display.table(('engine', 'error', 'bound', 'measure', ''), rows)}"


def verify(spec: ConvSpec, engines: Sequence[str] | None = None, seed: int = 0, *, data=None) -> Verification:
    """Hold engines to the reference on one problem.

    Parameters
    ----------
    spec : ConvSpec
    engines : sequence of str, optional
        Names; all of the registry by default.
    seed : int
        Of the sample data: uniform in [-1, 1), small integers for integer dtypes.
    data : (x, weight), optional
        Arrays to use instead.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        An unknown engine.
    """
    chosen = [registry.get(name) for name in (registry.engines() if engines is None else engines)]
    x, weight = sample(spec, seed) if data is None else data
    exact, scale = expected(spec, x, weight)
    return Verification(spec, tuple(_check(engine, spec, x, weight, exact, scale) for engine in chosen))


def expected(spec: ConvSpec, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference's sums in a wider type, and the scale ``|x| ∗ |w|`` of their errors."""
    definition = registry.get(REFERENCE)
    if spec.padding_mode != "zeros":
        x, spec = pad(x, spec.padding, spec.padding_mode), spec.padded()
    return definition.sums(spec, x, weight), definition.sums(spec, np.abs(x), np.abs(weight)).real


def measured_error(measure: str, y: np.ndarray, exact: np.ndarray, scale: np.ndarray) -> float:
    """The error of `y` by the rule at the top of this module."""
    if not y.size:
        return 0.0
    if exact.dtype.kind in "iu":  # sums in a narrower type wrap, as the reference's do once cast
        return 0.0 if np.array_equal(y, exact.astype(y.dtype)) else float("inf")
    finite = np.isfinite(exact)
    if (np.isfinite(y) != finite).any():
        return float("inf")
    if not finite.all():
        return measured_error(measure, y[finite], exact[finite], scale[finite])
    off = np.abs(y.astype(exact.dtype) - exact)
    if measure == "l2":
        whole = np.linalg.norm(scale.ravel().astype("float64"))
        return float(np.linalg.norm(off.ravel().astype("float64")) / whole) if whole else float(off.max() > 0)
    outside = np.where(off > 0, np.inf, 0.0)
    return float(np.max(np.divide(off, scale, out=outside, where=scale > 0, casting="unsafe")))


def _check(engine, spec, x, weight, exact, scale) -> EngineCheck:
    reason = planning.why_unsupported(engine, spec) or planning.why_inexact(engine, spec)
    if reason is not None:
        return EngineCheck(engine.name, ok=True, refused=reason)
    errors, bounds = [], []
    supported = engine.why_unsupported(planning.engine_spec(engine, spec)) is None
    for way in {*((engine,) if supported else ()), *planning.variants(engine, spec)}:
        out = as_memory_format(np.full(spec.output_shape, 77, spec.dtype), spec.memory_format)
        planning.make_plan(way, spec, weight)(x, out)
        errors.append(measured_error(engine.error_measure, out, exact, scale))
        bounds.append(float(way.error_bound(planning.engine_spec(way, spec))))
    error, bound = max(errors), max(bounds)
    return EngineCheck(engine.name, error <= bound, error, bound, engine.error_measure)
