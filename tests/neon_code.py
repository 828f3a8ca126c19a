"""Every family's code for a processor that is not here: 64-bit Arm with NEON, as LLVM's assembly text.

``python tests/neon_code.py`` plans a problem of each family, and prints a line of JSON for each function that the
plan needs: the family, the function's name, its text.  Nothing is run: what plans take for addresses are numbers.
"""

from __future__ import annotations

import json
import os

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from convbench import ConvSpec, set_num_threads
from convbench.engines import fft_tiles
from convbench.engines.jit import compile as compiler
from convbench.engines.jit import separable
from convbench.engines.jit import target as targets
from convbench.engines.jit.dense import DensePlan
from convbench.engines.jit.depthwise import DepthwisePlan
from convbench.engines.jit.patches import PatchPlan
from convbench.engines.jit.product import ProductPlan
from convbench.engines.jit.spectral import SpectralPlan
from convbench.engines.jit.wide import WidePlan
from convbench.engines.jit.winograd import WinogradPlan
from convbench.engines.jit.winograd_cells import CellPlan
from convbench.engines.lowrank import factorise

TRIPLE = "aarch64-unknown-linux-gnu"
LAST = {"memory_format": "channels_last"}
PROBLEMS = {
    "dense": ConvSpec(1, 16, 40, spatial=(14, 14), kernel=3, padding=1),
    "dense channels-last": ConvSpec(1, 16, 40, spatial=(14, 14), kernel=3, padding=1, stride=2, **LAST),
    "product": ConvSpec(1, 32, 48, spatial=(14, 14), kernel=1),
    "wide rows": ConvSpec(1, 2, 2, spatial=(40, 53), kernel=(5, 7), padding=2),
    "wide rows, strided": ConvSpec(1, 2, 2, spatial=(40, 53), kernel=(5, 7), padding=2, stride=2),
    "wide signals": ConvSpec(1, 1, 1, spatial=(900,), kernel=31),
    "wide planes": ConvSpec(1, 32, 32, spatial=(7, 7), kernel=3, padding=1, groups=32),
    "wide rolling": ConvSpec(1, 8, 8, spatial=(60, 60), kernel=3, padding=1, groups=8),
    "wide rolling, strided": ConvSpec(1, 8, 8, spatial=(60, 60), kernel=5, padding=2, stride=2, groups=8),
    "wide sweeps": ConvSpec(1, 1, 1, spatial=(60, 700), kernel=3, padding=1),
    "depthwise": ConvSpec(1, 33, 33, spatial=(14, 14), kernel=3, padding=1, groups=33, **LAST),
    "depthwise, looped": ConvSpec(1, 33, 33, spatial=(14, 30), kernel=(3, 11), padding=1, groups=33, **LAST),
    "depthwise, masked": ConvSpec(1, 1, 1, spatial=(14, 14), kernel=3, padding=1, **LAST),
    "separable": ConvSpec(1, 1, 1, spatial=(60, 60), kernel=9, padding=4),
    "winograd": ConvSpec(1, 16, 16, spatial=(20, 20), kernel=3, padding=1),
    "winograd of channels": ConvSpec(1, 16, 16, spatial=(20, 20), kernel=3, padding=2, dilation=2),
    "patches": ConvSpec(1, 16, 40, spatial=(14, 14), kernel=3, padding=1),
    "spectral": ConvSpec(1, 1, 1, spatial=(70, 70), kernel=9),
    "spectral channels": ConvSpec(1, 3, 4, spatial=(70, 70), kernel=9),
}


def neon():
    """The target that an Arm machine would find."""
    ((level, row),) = targets._host_levels(TRIPLE, {}).items()
    cpu, features, vector_bytes, registers, fma, _ = row
    pause = ""  # llvmlite reads instructions as text for its own processor only
    return targets.Target(level, vector_bytes, registers, fma, cpu, features, pause, 2)


def text_of(target, write):
    """What LLVM makes of a function for that processor."""
    module = ir.Module()
    module.triple = TRIPLE
    write(module)
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=target.cpu, features=target.features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return machine.emit_assembly(parsed)


def make(family, spec):
    """Plan `spec` as `family` does."""
    weight = np.ones(spec.weight_shape, spec.dtype)
    kind = family.replace(",", "").split()[0]
    if kind == "winograd":
        if family.endswith("channels"):
            return CellPlan(spec, weight, outputs=(3, 3), taps=(3, 3))
        return WinogradPlan(spec, weight, outputs=(4, 4), way="fused")
    if kind == "separable":
        return separable.plan(spec, factorise(weight, 0.0).axes)
    if kind == "patches":
        return PatchPlan(spec, weight, wide=False)
    if kind == "spectral":
        return SpectralPlan(spec, weight, next(iter(fft_tiles.tilings(spec, targets.target().lanes(spec.dtype)))))
    plans = {"dense": DensePlan, "product": ProductPlan, "wide": WidePlan, "depthwise": DepthwisePlan}
    return plans[kind](spec, weight)


def main():
    """Plan every problem in both dtypes, with a compiler that only writes down what it is given."""
    os.environ.pop("CONVBENCH_ISA", None)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    arm, written = neon(), []
    targets._resolve = lambda level: arm

    def write_down(name, target, write):
        written.append((name, text_of(target, write)))
        return 4096 * len(written)

    compiler._compile = write_down
    set_num_threads(1)  # no workers: they would run
    for family, spec in PROBLEMS.items():
        for dtype in ("float32", "float64"):
            compiler._addresses.clear()
            written.clear()
            make(family, spec.replace(dtype=dtype))
            for name, text in written:
                print(json.dumps([f"{family} {dtype}", name, text]))


if __name__ == "__main__":
    main()
