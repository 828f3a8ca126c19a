"""Direct convolution: the sum itself, in compiled loops.

No transform, no patch matrix: every product is made once, from the arrays as they lie.  It wins
on small kernels, few channels, depthwise and grouped problems, and wherever a copy would cost more
than the arithmetic.
"""

from __future__ import annotations

import numpy as np

from convbench.engine import Engine
from convbench.machine import Machine
from convbench.spec import ConvSpec

from .loops import LoopPlan, computed_dtype

LOOP_SHARE = 0.06  # of the FMA peak: 9 to 20 of 285 GFLOP/s on one core of a Zen 5 VM (2026-11)
SHORT_ROW = 24  # outputs per row at which the loop's start-up costs as much as its products


class Direct(Engine):
    """The sum itself, in compiled loops."""

    name = "direct"
    summary = "compiled loops over the arrays as they lie"
    exact_integers = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Every numeric dtype."""
        if np.dtype(spec.dtype).kind in "iufc" and np.dtype(spec.dtype).itemsize <= 16 or spec.dtype == "bfloat16":
            if spec.dtype in (np.dtype(np.longdouble).name,) and spec.dtype != "float64":
                return f"direct computes the types that processors do, not {spec.dtype}"
            return None
        return f"direct computes the types that processors do, not {spec.dtype}"

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """A copy of the weight."""
        return int(np.prod(spec.weight_shape)) * np.dtype(computed_dtype(spec.dtype)).itemsize

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Vectorised along rows, slower where rows are short."""
        width = spec.output_spatial[-1]
        rate = machine.peak_flops("float32") * LOOP_SHARE * width / (width + SHORT_ROW)
        return machine.call_seconds + 2 * spec.macs / rate

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Lift to three dimensions."""
        return LoopPlan(spec, weight)
