"""Products of spectra by FFTW's transforms, through pyFFTW: what the generated code of `jit.spectral` does not compute.

Tiles are shared among threads, each transform runs on one: pyFFTW's own threads are OpenMP's, which
spin for a whole time slice when the system wakes them on one core with their caller (256², 11×11:
32 ms instead of 0.3 ms after a BLAS call, 2-core Zen 4 VM, 2026-11).  Strides sum aliases before the inverse
transform, and dilated kernels repeat the spectra of dense ones (`fft_folding`).  Inputs and kernels are multiplied by
powers of two, and outputs divided, so that the smallest numbers are not rounded as they are near zero; what
overflows is computed directly, like NaN and Inf.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from convbench import settings
from convbench.spec import ConvSpec

from . import fft_folding, fft_plans
from .direct import Direct
from .fft_sizes import SPECTRA, Tiling, choose_tiling, multiplies_matrices, sharing
from .reference import Reference
from .workers import run_all

#: Inputs are multiplied by 2 to this many bits more than a number has: sums near zero lose none of them.
GUARD_BITS = 9


def plan(spec: ConvSpec, weight: np.ndarray, threads: int):
    """Transform the kernels and plan the transforms."""
    tiling = choose_tiling(spec, threads)
    return FFTWPlan(spec, tiling, weight, sharing(spec, tiling, threads))


def kernel_exponent(weight: np.ndarray) -> int:
    """The power of two that kernels are multiplied by: it brings the largest weight near one.

    At most so many that the outputs' factor, which undoes it, stays a normal number.
    """
    largest = max(abs(weight.real).max(initial=0), abs(weight.imag).max(initial=0))
    if not np.isfinite(largest) or largest == 0:
        return 0
    return min(-int(np.frexp(largest)[1]), np.finfo(weight.dtype).maxexp // 2 - 4)


class FFTWPlan:
    """``plan(x, out)``: every tile of every batch item through the transforms, shared among threads."""

    def __init__(self, spec, tiling, weight, threads):
        self._spec, self._tiling = spec, tiling
        self._weight = np.array(weight)
        exponent = kernel_exponent(self._weight)
        self._kernels = self._kernel_spectra(exponent)
        self._workers = self._make_workers(threads, exponent)
        self._direct = None
        tasks = list(itertools.product(range(spec.batch), *map(range, tiling.tiles)))
        self._tasks = [tasks[first::threads] for first in range(threads)]
        # Transforms are counted in full, though other plans may share them.
        self.nbytes = self._kernels.nbytes + self._weight.nbytes + sum(worker.nbytes for worker in self._workers)

    def _kernel_spectra(self, exponent):
        """conj(F(w)) / F, as (G, bins, O/G, C/G) for matrix products or (G, O/G, C/G, bins)."""
        spec, tiling = self._spec, self._tiling
        filters, channels = spec.out_channels // spec.groups, spec.in_channels // spec.groups
        spectrum_dtype, wide = map(np.dtype, SPECTRA[spec.dtype])
        spectra = np.empty((spec.groups, filters, channels, tiling.bins), spectrum_dtype)
        result = spectra.reshape(-1, tiling.bins)
        one = wide.type(1).real
        raised, scale = np.ldexp(one, exponent), one / math.prod(tiling.transform)
        with np.errstate(all="ignore"):  # NaN and Inf are found by what they make of the outputs
            for index, kernel in enumerate(self._weight.reshape(-1, *spec.kernel)):
                # The conjugate spectrum belongs to a correlation, and to a kernel that is not conjugated.
                values = np.conj(kernel).astype(wide) * raised
                result[index] = (np.conj(self._kernel_spectrum(values)) * scale).reshape(-1)
        return np.ascontiguousarray(np.moveaxis(spectra, -1, 1)) if multiplies_matrices(spec) else spectra

    def _kernel_spectrum(self, values):
        """F(w) of one kernel in the tiling's positions."""
        tiling = self._tiling
        return fft_folding.kernel_spectrum(values, self._spec.dilation, tiling.transform, tiling.spectrum, tiling.real)

    def _make_workers(self, threads, exponent):
        spec, tiling, effort = self._spec, self._tiling, settings.planning_effort()
        complex_dtype = SPECTRA[spec.dtype][0]
        sides = (
            (spec.in_channels, tiling.transform, tiling.spectrum, True),
            (spec.out_channels, tiling.inverse, tiling.inverse_spectrum, False),
        )
        kinds = [
            fft_plans.Kind((planes, *positions), spec.dtype, (planes, *frequencies), complex_dtype, forward)
            for planes, positions, frequencies, forward in sides
        ]
        pairs = zip(*(fft_plans.shared(kind, effort, threads) for kind in kinds), strict=True)
        return [_Worker(spec, tiling, exponent, *pair) for pair in pairs]

    def __call__(self, x, out):
        struck = []
        shares = zip(self._workers, self._tasks, strict=True)
        run_all([partial(worker.run, self._kernels, tasks, x, out, struck) for worker, tasks in shares])
        for item in sorted({item for item, _ in struck}):
            whole = self._computed_directly(x[item])
            for targets in (targets for other, targets in struck if other == item):
                out[(item, slice(None), *targets)] = whole[(slice(None), *targets)]

    def _computed_directly(self, item):
        """A batch item in which a transform met a NaN or Inf, by the sum itself: only covered windows get it."""
        if self._direct is None:
            single = self._direct_spec().replace(batch=1)
            engine = Direct() if Direct().why_unsupported(single) is None else Reference()
            self._direct = (engine.plan(single, self._weight), np.empty(single.output_shape, single.dtype))
        plan, whole = self._direct
        plan(self._direct_input(item), whole)
        return whole[0]

    def _direct_spec(self):
        """The problem as it is computed directly."""
        return self._spec

    def _direct_input(self, item):
        """A batch of that one item, as the direct problem takes it."""
        return item[np.newaxis]


class _Worker:
    """What one thread does with its two transforms, which may be others', too: it holds their locks while it runs."""

    def __init__(self, spec, tiling: Tiling, exponent, forward, inverse):
        self._spec, self._tiling = spec, tiling
        self._forward, self._inverse = forward, inverse
        for transform in (forward, inverse):
            transform.users.add(self)
        real = np.finfo(spec.dtype)
        bits = real.nmant + GUARD_BITS
        self._raised, self._lowered = (np.ldexp(real.dtype.type(1), power) for power in (bits, -bits - exponent))
        # Products of all frequencies, where the inverse transform takes their folded sums.
        shape = (spec.out_channels, *tiling.spectrum)
        self._products = np.empty(shape, inverse.spectrum.dtype) if tiling.folds else None
        self.nbytes = forward.nbytes + inverse.nbytes + (self._products.nbytes if tiling.folds else 0)

    def run(self, kernels, tasks, x, out, struck):
        """Compute the tiles `tasks`; those that met a NaN or Inf are added to `struck` instead."""
        forward, inverse = self._forward, self._inverse
        with forward.lock, inverse.lock, np.errstate(all="ignore"):  # NaN, Inf and overflows are looked for afterwards
            for item, *tile in tasks:
                self._load(x[item], tile, forward.positions)
                forward.execute()
                self._multiply(kernels, forward.spectrum, inverse.spectrum)
                inverse.execute()
                sources, targets = self._places(tile)
                kept = inverse.positions[(slice(None), *sources)]
                # A NaN or Inf spreads over its whole transform, but a last pass may overflow in some places only.
                if np.isfinite(kept.sum()):
                    np.multiply(kept, self._lowered, out=out[(item, slice(None), *targets)])
                else:
                    struck.append((item, targets))

    def _places(self, tile):
        """The valid outputs of a tile at the stride, and where they belong; none where a stride steps over it."""
        sources, targets = [], []
        spec, tiling = self._spec, self._tiling
        axes = zip(tile, tiling.step, tiling.fold, spec.stride, spec.output_spatial, strict=True)
        for index, step, fold, s, size in axes:
            begin = index * step
            first = -(-begin // s)  # the first output at or after this tile's start
            last = max(min(-(-(begin + step) // s), size), first)
            places = [(output * s - begin) // fold for output in (first, last - 1)]
            sources.append(slice(places[0], max(places[1] + 1, 0) if last > first else places[0], s // fold))
            targets.append(slice(first, last))
        return sources, targets

    def _load(self, item, tile, positions):
        """The tile's part of the zero-padded input, zeros elsewhere."""
        spec, tiling = self._spec, self._tiling
        positions[...] = 0
        sources, targets = [], []
        axes = zip(tile, tiling.step, tiling.transform, spec.spatial, spec.padding, strict=True)
        for index, step, length, size, (low, _) in axes:
            begin = index * step
            first, last = max(begin - low, 0), min(begin - low + length, size)
            sources.append(slice(first, max(last, first)))
            targets.append(slice(first - begin + low, max(last, first) - begin + low))
        np.multiply(item[(slice(None), *sources)], self._raised, out=positions[(slice(None), *targets)])

    def _multiply(self, kernels, inputs, result):
        """Products of spectra, summed over channels, and over aliases."""
        spec, tiling, groups = self._spec, self._tiling, self._spec.groups
        products = self._products if tiling.folds else result
        inputs = inputs.reshape(groups, -1, tiling.bins)
        outputs = products.reshape(groups, -1, tiling.bins)
        if multiplies_matrices(spec):
            columns = np.ascontiguousarray(inputs.transpose(0, 2, 1))[..., np.newaxis]
            outputs[...] = np.matmul(kernels, columns)[..., 0].transpose(0, 2, 1)
        elif inputs.shape[1] == 1:
            np.multiply(kernels[:, :, 0], inputs, out=outputs)
        else:
            np.einsum("gocf,gcf->gof", kernels, inputs, out=outputs)
        if tiling.folds:
            fft_folding.fold(products, tiling.transform, tiling.fold, tiling.real, result)
