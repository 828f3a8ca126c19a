"""Direct convolution: the sum itself, by kernels generated for the shape and the processor.

Three families of code compute it, and `family` says which for a problem:

dense  vectors along the output channels, pixels broadcast (`jit.dense`): many output channels;
wide   vectors along the output width (`jit.wide`): images, depthwise and few output channels;
loops  compiled plain loops (`loops`): every other dtype.

No transform, no patch matrix: every product is made once, from the arrays as they lie.  It wins
wherever a transform does not save arithmetic.
"""

from __future__ import annotations

import math

import numpy as np

from convbench.engine import Engine
from convbench.machine import Machine
from convbench.spec import ConvSpec

from .loops import LoopPlan, computed_dtype

GENERATED_DTYPES = ("float32", "float64")
LOOP_DTYPES = ("float16", "bfloat16", "complex64", "complex128")

# Shares of the FMA peak that the families reach when no lane is wasted, by kernel rows for the wide
# one, which loads an input vector once per that many products (2-core Zen 4 VM, 2026-11).
DENSE_SHARE = 0.93
WIDE_SHARES = {1: 0.35, 2: 0.5, 3: 0.62, 4: 0.75}
WIDE_SHARE = 0.88
FOLDED_TAPS = 16  # kernels of one row are folded to a height of taps / 16
LOOP_SHARE = 0.04
LANE_BYTES = 64
PLANES_WIDTH = 32  # depthwise planes up to this wide go along the channels instead
CALL_SECONDS = 1e-6
BAND_BYTES = 1 << 20  # scratch per thread, at most about the L2 cache


def family(spec: ConvSpec) -> str:
    """Which code computes `spec`: "dense", "wide" or "loops"."""
    if spec.dtype not in GENERATED_DTYPES:
        return "loops"
    return "wide" if _wide_share(spec) > _dense_share(spec) else "dense"


def _lanes_used(count, spec):
    lanes = LANE_BYTES // spec.itemsize
    return count / (-(-count // lanes) * lanes)


def _dense_share(spec):
    """Share of the peak with vectors along the output channels of one group."""
    return DENSE_SHARE * _lanes_used(spec.out_channels // spec.groups, spec)


def _wide_share(spec):
    """Share of the peak with vectors along the width, or along the channels of small depthwise planes."""
    width, rows = spec.output_spatial[-1], spec.kernel[-2] if spec.ndim > 1 else 1
    if spec.weight_shape[1] == 1 == spec.out_channels // spec.groups and width <= PLANES_WIDTH:
        return max(WIDE_SHARE * _lanes_used(width, spec), WIDE_SHARES[3])
    if rows == 1:
        rows = max(1, spec.kernel[-1] // FOLDED_TAPS)
    return WIDE_SHARES.get(rows, WIDE_SHARE) * _lanes_used(width, spec)


class Direct(Engine):
    """The sum itself, by kernels generated for the shape and the processor."""

    name = "direct"
    version = "2"
    summary = "the sum itself, by vector code generated for the shape and the processor"
    exact_integers = True
    fuses_bias = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Every numeric dtype that processors compute."""
        if spec.dtype in GENERATED_DTYPES + LOOP_DTYPES or np.dtype(spec.dtype).kind in "iu":
            return None
        return f"direct computes floating, complex and integer types that processors have, not {spec.dtype}"

    def takes_channels_last(self, spec: ConvSpec) -> bool:
        """The dense kernels read and write both formats."""
        return family(spec) == "dense"

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Packed weights, with lanes filled up, and each thread's band of the input."""
        packed = math.prod(spec.weight_shape) * np.dtype(computed_dtype(spec.dtype)).itemsize
        if family(spec) == "loops":
            return packed
        lanes = LANE_BYTES // spec.itemsize
        filters = spec.out_channels // spec.groups
        return packed * -(-filters // lanes) * lanes // filters + min(BAND_BYTES, spec.data_bytes)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Products at the family's share of the peak, or the arrays through memory."""
        if family(spec) == "loops":
            share = LOOP_SHARE
            peak = machine.peak_flops("float32")
        else:
            share = max(_dense_share(spec), _wide_share(spec))
            peak = machine.peak_flops(spec.dtype)
        return CALL_SECONDS + max(2 * spec.macs / (peak * share), spec.data_bytes / machine.bandwidth)

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Generate what kernels are not there yet, and pack the weight."""
        chosen = family(spec)
        if chosen == "loops" or not _generates_code():
            return LoopPlan(spec, weight, bias)
        if chosen == "dense":
            from .jit.dense import DensePlan

            return DensePlan(spec, weight, bias)
        from .jit.wide import WidePlan

        return WidePlan(spec, weight, bias)

    def measure_peak(self, dtype: str) -> float | None:
        """FLOP/s of multiply-adds of "float32" or "float64" on all threads, measured now (`jit.peak`).

        None where the generators do not know this processor.
        """
        if not _generates_code():
            return None
        from .jit.peak import measure

        return measure(dtype)


def _generates_code() -> bool:
    """Whether the generators know this processor's architecture; the plain loops run on any."""
    from .jit.target import target

    try:
        target()
    except NotImplementedError:
        return False
    return True
