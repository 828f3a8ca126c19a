"""Separable convolution: kernels of low rank as passes along one axis after the other.

    K = sum over r of u_r ⊗ v_r    =>    K ∗ x = sum over r of  u_r ∗ (v_r ∗ x)

(the separability of filters: W. Pratt, Digital Image Processing, §7; any rank: S. Treitel & J. Shanks,
The design of multistage separable planar filters, 1971).  A kernel of k × k and rank r costs 2 r k multiply-adds
instead of k².  It wins on images, wherever the kernel is a Gaussian, a box, a Sobel or any other of low rank
(`lowrank`), which it finds out from the weight's elements: `for_weight` gives the judge estimates for the very
weight.  Two axes run fused in the cache (`jit.separable`), a third goes through memory.  Integers are computed
exactly or not at all (`separable_integers`).
"""

from __future__ import annotations

import math

import numpy as np

from convbench import settings
from convbench.engine import UNROUNDED_GUARD, Engine, gamma, unit_roundoff
from convbench.machine import Machine
from convbench.spec import ConvSpec

from .direct import Direct, generates_code
from .lowrank import factorise, factorise_integers
from .separable_integers import IntegerSeparable

DTYPES = ("float32", "float64")
#: What a kernel may lose where no `rtol` allows more, in units of roundoff: its elements are rounded themselves.
STORED_ROUNDINGS = 4
SEPARATING_ROUNDINGS = 16  # of float64, which factors are computed in
#: Share of `rtol` that the terms left out may take; the rest is for rounding.
TRUNCATED_SHARE = 0.5
FACTOR_ROUNDINGS = 2  # of a product's two factors
LANE_BYTES = 64
# What passes cost, in multiply-adds of whole vectors at the processor's peak, on the scale of `direct`'s model: both
# are 2.7 times too fast on the machine of the fit (550 random problems, 2-core Cascade Lake VM, 2026-11).
ROW = 4.5  # a vector of a filtered line, besides its products
ROW_TAP = 1.75  # a product along a row: the inputs must be shifted
COLUMN_TAP = 1.07
CALL_SECONDS = 1e-6
SPREAD = 16.5  # a vector of a line whose columns have a stride: they are sorted first
MEMORY = 0.42  # of the time that the arrays take through memory, the part that nothing else hides
SWEPT_TAPS = 12  # 3×3: `direct` sweeps them at the speed of memory, in 0.5 to 0.8 of the time that two passes take


class Separable(Engine):
    """Passes along one axis after the other, for kernels that are sums of few products."""

    name = "separable"
    summary = "kernels of low rank, found by their elements: passes along one axis after the other"
    error_measure = "l2"
    fuses_bias = True

    def __init__(self, factors=None):
        self._factors = factors
        if factors is not None:
            self.variant = f"{factors.terms} terms" if factors.terms > 1 else "1 term"

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Two axes at least, in single and double precision and in integers."""
        if spec.dtype not in DTYPES and not _is_integer(spec):
            return f"separable computes {', '.join(DTYPES)} and integers, not {spec.dtype}"
        if sum(k > 1 for k in spec.kernel) < 2:
            return f"a kernel of {'×'.join(map(str, spec.kernel))} has nothing to separate: it lies along one axis"
        return None

    def for_weight(self, spec: ConvSpec, weight: np.ndarray, rtol: float | None = None) -> Engine:
        """The engine with the factors of this weight, where they are few enough to be worth it.

        Integers need a single term for each pair of channels.  The engine that has it is exact (`exact_integers`);
        this one is not, as it rounds factors of floating-point numbers, so the judge gives it no integers.
        """
        most = (math.prod(spec.kernel) - 1) // sum(spec.kernel)
        if _is_integer(spec):
            vectors = factorise_integers(weight) if most else None
            return self if vectors is None else IntegerSeparable(spec, vectors)
        factors = factorise(weight, _tolerance(spec, rtol), most) if most else None
        return self if factors is None else Separable(factors)

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Lines of every thread, and of three axes the planes between the second and the third."""
        if _is_integer(spec):
            return Direct().workspace_bytes(spec)
        terms = self._terms(spec)
        lines = settings.get_num_threads() * (1 << 20)
        if spec.ndim < 3:
            return lines
        planes = spec.batch * spec.out_channels * terms * spec.spatial[0]
        return lines + planes * math.prod(spec.output_spatial[1:]) * spec.itemsize

    def error_bound(self, spec: ConvSpec) -> float:
        """γ of both passes, times what cancels between terms, and the terms left out; for data of even magnitude."""
        terms = self._terms(spec)
        rounded = gamma(sum(spec.kernel) + terms + FACTOR_ROUNDINGS + UNROUNDED_GUARD, spec.dtype)
        if self._factors is None:  # Σ σ ≤ √r · ‖K‖ for r singular values
            return rounded * math.sqrt(terms) + STORED_ROUNDINGS * unit_roundoff(spec.dtype)
        return rounded * self._factors.growth + self._factors.truncation

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Vectors of all passes at the peak, and a part of the arrays' way through memory."""
        if _is_integer(spec):  # this engine plans them directly
            return Direct().predict_seconds(spec, machine)
        lanes = LANE_BYTES // spec.itemsize
        rows, width = spec.output_spatial[-2], -(-spec.output_spatial[-1] // lanes)
        terms = spec.batch * spec.out_channels * self._terms(spec)
        lines = spec.spatial[-2] + sum(spec.padding[-2])
        row_pass = ROW + ROW_TAP * spec.kernel[-1] + (SPREAD if spec.stride[-1] > 1 else 0)
        work = terms * width * (lines * row_pass + rows * COLUMN_TAP * spec.kernel[-2])
        moved = spec.data_bytes
        if spec.ndim == 3:
            depth = spec.spatial[0]
            work = depth * work + terms * rows * width * (depth * ROW + spec.output_spatial[0] * spec.kernel[0])
            moved += 2 * terms * depth * math.prod(spec.output_spatial[1:]) * spec.itemsize
        share = MEMORY if math.prod(spec.kernel) > SWEPT_TAPS else 1
        seconds = 2 * lanes * work / machine.peak_flops(spec.dtype) + share * moved / machine.bandwidth
        return CALL_SECONDS + seconds

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Factors, unless the judge had them; tiles generated where they are not there yet."""
        if _is_integer(spec):
            known = self.for_weight(spec, weight)
            return (Direct() if known is self else known).plan(spec, weight, bias)
        factors = self._factors or factorise(weight, _tolerance(spec, None))
        if factors is None or not generates_code():  # NaN and Inf have no factors
            return Direct().plan(spec, weight, bias)
        from .jit.separable import plan

        return plan(spec, factors.axes, bias)

    def _terms(self, spec):
        """Products summed into one output: of the weight, or of any weight."""
        if self._factors is not None:
            return spec.in_channels // spec.groups * self._factors.terms
        first, *rest = spec.kernel
        ranks = min(first, math.prod(rest)) * (min(rest) if len(rest) > 1 else 1)
        return spec.in_channels // spec.groups * ranks


def _is_integer(spec):
    return np.dtype(spec.dtype).kind in "iu"


def _tolerance(spec, rtol):
    stored = STORED_ROUNDINGS * unit_roundoff(spec.dtype) + SEPARATING_ROUNDINGS * unit_roundoff("float64")
    return stored if rtol is None else max(stored, TRUNCATED_SHARE * rtol)
