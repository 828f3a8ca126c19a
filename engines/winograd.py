"""Winograd's minimal filtering: F(m, r) makes m outputs of r taps with m + r - 1 products instead of m · r.

    y = Aᵀ [ sum over c of (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A

on tiles of the input that overlap by r - 1 (A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural
Networks, 2016, §4); 3×3 taps on 4×4 outputs need 36 products instead of 144.  The sum over channels is a
matrix product per frequency.  It wins for 3×3 kernels of stride 1 with some 32 and more channels on both
sides; where planes are small and channels many, the transformed weights no longer fit the caches.
"""

from __future__ import annotations

import math

import numpy as np

from convbench.engine import UNROUNDED_GUARD, Engine, unit_roundoff
from convbench.machine import Machine
from convbench.spec import ConvSpec

from .jit.winograd_matrices import MOST_PRODUCTS, growth

DTYPES = ("float32", "float64")
MOST_TAPS = 7
#: Outputs per tile and dimension that are considered.
OUTPUTS = (2, 4, 6)
#: Rounding of sums of C products, in parts of `growth`: of both signs 0.15 from C = 8 on, of one sign √C / 6 (F(2, 3)) to
#: √C / 20 (F(4, 3)); a single product 0.8 at most (float32, 28×28, 2026-11).
SUM_GROWTH = 1 / 8
BLOCK_BYTES = 1 << 20


class Winograd(Engine):
    """F(m, r) in one or two dimensions, by code generated for the tile."""

    name = "winograd"
    summary = "minimal filtering F(m, r), fused in cache-sized blocks of tiles"
    error_measure = "l2"
    fuses_bias = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """One and two dimensions of stride and dilation 1 with 2 to 7 taps along at least one."""
        if spec.dtype not in DTYPES:
            return f"winograd computes {' and '.join(DTYPES)}, not {spec.dtype}"
        if spec.ndim > 2:
            return f"winograd computes one and two dimensions, not {spec.ndim}"
        if set(spec.stride) != {1}:
            return f"winograd computes stride 1, not {spec.stride}"
        if set(spec.dilation) != {1}:
            return f"winograd computes dilation 1, not {spec.dilation}"
        if max(spec.kernel) > MOST_TAPS or max(spec.kernel) < 2:
            return f"winograd computes kernels of 2 to {MOST_TAPS} taps, not {spec.kernel}"
        return None

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Transform the weight and generate what kernels are not there yet."""
        return _Plan(spec, weight, bias, self.outputs(spec))

    def outputs(self, spec):
        """m of F(m, r), per dimension."""
        return tuple(1 if k == 1 else min(4, MOST_PRODUCTS + 1 - k) for k in spec.kernel)

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Transformed weights, and each thread's block of transformed tiles, at most about the L2 cache."""
        products = math.prod(m + k - 1 for m, k in zip(self.outputs(spec), spec.kernel, strict=True))
        packed = math.prod(spec.weight_shape[:2]) * products * spec.itemsize
        return packed + math.prod(spec.weight_shape) * spec.itemsize + BLOCK_BYTES

    def error_bound(self, spec: ConvSpec) -> float:
        """u · growth · (1 + √C / 8) and two roundings, in the relative L2 norm, for data of even magnitude."""
        grown = math.prod(growth(m, k) for m, k in zip(self.outputs(spec), spec.kernel, strict=True))
        summed = 1 + math.sqrt(spec.weight_shape[1]) * SUM_GROWTH
        return unit_roundoff(spec.dtype) * (grown * summed + UNROUNDED_GUARD)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Products and transforms at the peak, or the arrays through memory."""
        return machine.call_seconds + 2 * spec.macs / machine.peak_flops(spec.dtype) / 1.5


class _Plan:
    """Winograd's plan, and the direct one for outputs that are not finite."""

    def __init__(self, spec, weight, bias, outputs):
        from .jit.winograd import WinogradPlan

        self._fast = WinogradPlan(spec, weight, bias, outputs=outputs)
        self._given = spec, np.array(weight), None if bias is None else np.array(bias)
        self._direct = None
        self.nbytes = self._fast.nbytes + weight.nbytes

    def __call__(self, x, out):
        if not self._fast(x, out):
            from .direct import Direct

            if self._direct is None:
                self._direct = Direct().plan(*self._given)
            self._direct(x, out)
