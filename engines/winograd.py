"""Winograd's minimal filtering: F(m, r) makes m outputs of r taps with m + r - 1 products instead of m · r.

    y = Aᵀ [ sum over c of (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A

on tiles of the input that overlap by r - 1 (A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural
Networks, 2016, §4); 3×3 taps on 4×4 outputs need 36 products instead of 144.  The sum over channels is a
matrix product per frequency.  It wins for 3×3 kernels with some 32 and more channels on both sides, and for 5×5 to
11×11 of stride 2 to 4 also from few channels to many; where planes are small and channels many, transformed weights no
longer fit the caches.

The larger the tile, the fewer products and the larger the error.  An engine has one error bound, so there are
three of them, by the most products that a tile has along a dimension: ``winograd4`` with F(2, 3), hardly less exact
than the direct sum; ``winograd`` with F(4, 3), also beside F(2, 3), and F(2, 5); ``winograd8`` with F(6, 3), F(4, 5)
and F(2, 7).  Each takes its tile with the least predicted time, and `rtol` decides which of them may be chosen.

A strided convolution is computed as one of stride 1 and smaller kernels, with its phases as channels
(`jit.winograd_strides`).  The lanes of vectors are tiles, or, for dilated and long kernels, volumes, channels-last
memory and wherever else it is faster, channels (`winograd_lanes`).
"""

from __future__ import annotations

import itertools
import math
import platform
from dataclasses import replace

import numpy as np

from convbench.engine import UNROUNDED_GUARD, Engine, unit_roundoff
from convbench.machine import Machine, this_machine, usable_cores
from convbench.settings import get_num_threads
from convbench.spec import ConvSpec

from .direct import PROCESSORS
from .jit.winograd_matrices import growth
from .winograd_lanes import fastest, options, taps

DTYPES = ("float32", "float64")
#: Where lanes are tiles, a run of them is stride · m vectors of a row; with channels as lanes more was not tried.
MOST_STRIDE = 4
TABLE_LIMIT_BYTES = 64 << 20
#: What rounding sums of C products adds, in parts of `growth` and √C: of data of both signs nothing (0.15 in all from
#: C = 8 on), of one sign 1/6 with F(2, 3), 1/20 with F(4, 3); a single product 0.8 in all at most (28×28, 2026-11).
SUM_GROWTH = 1 / 8


class Winograd(Engine):
    """F(m, r) with m + r - 1 = 5 or 6 along at least one dimension, by code generated for the tile."""

    name = "winograd"
    version = "7"
    summary = "minimal filtering, tiles of 5 or 6 products along a dimension"
    products = (5, 6)
    error_measure = "l2"
    fuses_bias = True

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Strides to `MOST_STRIDE`, and two taps or more that see inputs a stride apart along a dimension of planes."""
        if spec.dtype not in DTYPES:
            return f"{self.name} computes {' and '.join(DTYPES)}, not {spec.dtype}"
        if max(spec.stride) > MOST_STRIDE:
            return f"{self.name} computes strides to {MOST_STRIDE}, not {spec.stride}"
        strided = "" if set(spec.stride) == {1} else f" of stride {spec.stride}"
        if max(taps(spec)[-2:]) < 2:
            of_planes = " along the last two dimensions" if spec.ndim > 2 else ""
            return f"{self.name} computes kernels of 2 and more taps per phase{of_planes}, not {spec.kernel}{strided}"
        if not options(spec, self.products):
            least, most = self.products
            return (
                f"{self.name} has tiles of {least} to {most} products along a dimension, none fits taps "
                f"{spec.kernel}{strided}"
            )
        tables = self._tiling(spec).table_bytes()
        if tables > TABLE_LIMIT_BYTES:
            return f"{self.name} would make tables of {tables:,} bytes; at most {TABLE_LIMIT_BYTES:,} are accepted"
        if platform.machine().lower() not in PROCESSORS:
            return f"{self.name} generates code for {', '.join(PROCESSORS)}, not {platform.machine()}"
        return None

    def takes_channels_last(self, spec: ConvSpec) -> bool:
        """Where channels can be the lanes; larger planes are transposed for tiles as lanes."""
        return bool(options(spec, self.products))

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Transformed and plain weights, tables, transformed tiles."""
        plain = math.prod(spec.weight_shape) * spec.itemsize
        return plain + self._tiling(spec).workspace_bytes(get_num_threads())

    def error_bound(self, spec: ConvSpec) -> float:
        """u · growth · (1 + √C / 8) and two roundings, in the relative L2 norm, for data of even magnitude.

        C counts every part of the kernel that a channel is multiplied with.
        """
        tiling = self._tiling(spec)
        per_axis = zip(tiling.outputs, tiling.taps, map(tuple, tiling.parts), strict=True)
        grown = math.prod(itertools.starmap(growth, per_axis))
        summed = 1 + math.sqrt(spec.weight_shape[1] * tiling.kinds) * SUM_GROWTH
        return unit_roundoff(spec.dtype) * (grown * summed + UNROUNDED_GUARD)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Products in registers and both transforms, or weights and arrays through memory."""
        tiling = fastest(spec, self.products, replace(machine, threads=machine.cores))
        return machine.call_seconds + tiling.seconds(machine)

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Transform the weight and generate what kernels are not there yet."""
        return _Plan(self._tiling(spec), weight, bias)

    def _tiling(self, spec):
        """The tile, whatever the number of threads that are used: results do not depend on it."""
        return fastest(spec, self.products, this_machine(usable_cores()))


class Winograd4(Winograd):
    """At most four products: F(2, 3), F(2, 2)."""

    name = "winograd4"
    summary = "minimal filtering, tiles of at most 4 products along a dimension: the most exact ones"
    products = (3, 4)


class Winograd8(Winograd):
    """Seven or eight products along at least one dimension: F(6, 3), F(4, 5), F(2, 7)."""

    name = "winograd8"
    summary = "minimal filtering, tiles of 7 or 8 products along a dimension: the least exact ones"
    products = (7, 8)


class _Plan:
    """Winograd's plan, and the direct one for calls whose results are not all finite.

    A NaN or Inf spreads over its tile, and numbers near the largest overflow in a transform though the sum would not.
    """

    def __init__(self, tiling, weight, bias):
        self._fast = tiling.plan(weight, bias)
        self._given = tiling.spec, np.array(weight), None if bias is None else np.array(bias)
        self._direct = None
        self.nbytes = self._fast.nbytes + weight.nbytes
        self.summon, self.shortcut = self._fast.summon, self._fast.shortcut

    def __call__(self, x, out):
        if not self._fast(x, out):
            from .direct import Direct

            if self._direct is None:
                self._direct = Direct().plan(*self._given)
            self._direct(x, out)
