"""Circular problems by one transform of exactly the image: nothing is extended, nothing overlaps.

    y[p] = sum over t of  x[(p·s + t·d - l) mod N] · w[t]  =  every s-th of  F⁻¹( F(x) · conj(F(v)) ),
    v[n] = sum of the w[t] with  t·d - l ≡ n  (mod N)

A product of spectra of N positions is a circular convolution by itself (A. Oppenheim & R. Schafer, Discrete-Time
Signal Processing, §8.6): the low padding l turns the kernel, and a kernel longer than the image is wrapped around it.
Padding that would make the transform much longer, of a kernel nearly as large as the image, is saved; sizes with large
prime factors are slow (`fft_sizes`), and extending the image is better there.  FFTW's transforms are of any size;
images whose sides are those of tiles have generated ones, too (`jit.spectral.CircularSpectralPlan`).
"""

from __future__ import annotations

import numpy as np

from convbench.padding import pad
from convbench.spec import ConvSpec

from .fft_fftw import FFTWPlan
from .fft_folding import unturned, wrapped
from .fft_sizes import choose_tiling, sharing


def plan(spec: ConvSpec, weight: np.ndarray, threads: int) -> CircularPlan:
    """Transform the wrapped kernels and plan the transforms."""
    tiling = choose_tiling(spec, threads)
    return CircularPlan(spec, tiling, weight, sharing(spec, tiling, threads))


class CircularPlan(FFTWPlan):
    """``plan(x, out)``: every batch item through one transform of its size."""

    def __init__(self, spec, tiling, weight, threads):
        self._circular = spec
        super().__init__(unturned(spec), tiling, weight, threads)

    def _kernel_spectrum(self, values):
        around = wrapped(values, self._circular)
        return np.fft.rfftn(around) if self._tiling.real else np.fft.fftn(around)

    def _direct_spec(self):
        return self._circular.padded()

    def _direct_input(self, item):
        return pad(item[np.newaxis], self._circular.padding, "circular")
