"""Convolution by the FFT: products of spectra, on the whole image or on overlapping tiles.

    y = F⁻¹( sum over c of  F(x_c) · conj(F(w_oc)) )

With a transform at least as long as the padded input, the wrap-around falls on positions that are
thrown away, so only the valid part is kept (overlap-save, A. Oppenheim & R. Schafer, Discrete-Time
Signal Processing, §8.7).  Kernel spectra are made in the plan; the tile is the one with the least predicted time
(`fft_tiles`).  It wins where kernels are large.

Two families of code compute it, and `family` says which for a problem:

tiles  transforms generated as vector code (`jit.spectral`): float32 and float64, signals and images;
fftw   FFTW's transforms, through pyFFTW (`fft_fftw`): everything else.  Strides fold spectra before the inverse
       transform, and plans are shared (`fft_folding`, `fft_plans`).

A circular problem is also one transform of exactly the image: variant "circular".  FFTW transforms images of any size
(`fft_circular`), the generated code those whose sides are tiles' (`fft_tiles.is_tile`).
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib.util import find_spec

import numpy as np

from convbench import forks, settings
from convbench.engine import Engine, unit_roundoff
from convbench.machine import Machine, this_machine
from convbench.spec import ConvSpec

from . import fft_circular, fft_fftw, fft_sizes, fft_tiles

SPECTRA_LIMIT_BYTES = 2 << 30
# Times u·√log2(F), the growth of rounding errors (N. Higham, Accuracy and Stability of Numerical Algorithms, §24.1):
# over inputs and kernels with a dynamic range of 1e18, spikes, cancelling sums and denormals 3 to 5 u were measured.
ERROR_FACTOR = 8.0
TILE_DTYPES = ("float32", "float64")


class FFT(Engine):
    """Products of spectra, whole image or overlap-save tiles."""

    name = "fft"
    version = "4"
    summary = "products of spectra, whole image or overlap-save tiles: generated transforms, pyFFTW's where those end"
    error_measure = "l2"

    def circular(self, spec: ConvSpec) -> Engine | None:
        """One transform of the image's own size, where the outputs are no more than one period of it."""
        engine = CircularFFT()
        return engine if spec.is_one_period and engine.why_unsupported(spec) is None else None

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Real transforms of single and double precision, within `SPECTRA_LIMIT_BYTES`."""
        if family(spec) == "fftw":
            if spec.dtype not in fft_sizes.DTYPES:
                return f"fft computes {' and '.join(fft_sizes.DTYPES)}, not {spec.dtype}"
            if not _has_pyfftw():
                return "fft needs the package pyfftw for this problem, which is not installed"
        needed = self.workspace_bytes(spec)
        if needed > SPECTRA_LIMIT_BYTES:
            return f"fft would hold {needed:,} bytes of spectra; at most {SPECTRA_LIMIT_BYTES:,} bytes are accepted"
        return None

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Spectra of the kernels, and of one tile's inputs and outputs, with their real sides."""
        threads = settings.get_num_threads()
        cleaned = math.prod(spec.input_shape) * spec.itemsize if any(map(len, uncovered(spec))) else 0
        if family(spec) == "fftw":
            return cleaned + fft_sizes.workspace_bytes(spec, threads)
        return cleaned + fft_tiles.workspace_bytes(spec, _tiling(spec, this_machine(threads))[0], threads)

    def error_bound(self, spec: ConvSpec) -> float:
        """c·u·√log2(F) in the relative L2 norm (see `ERROR_FACTOR`).

        What is small beside the largest products of the same transform is rounded as they are.  So the bound
        holds against the norm of |x| ∗ |w| over every window that meets the input; it may exceed that over the outputs
        alone where the largest products lie in windows that the padding leaves out.
        """
        threads = settings.get_num_threads()
        if family(spec) == "fftw":
            length = math.prod(fft_sizes.choose_tiling(spec, threads).transform)
        else:
            length = math.prod(_tiling(spec, this_machine(threads))[0].tile.lengths)
        return ERROR_FACTOR * unit_roundoff(spec.dtype) * math.sqrt(max(math.log2(length), 1.0))

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Transforms, products per frequency, and the calls of each tile."""
        if family(spec) == "fftw":
            return fft_sizes.predict_seconds(spec, machine)
        return machine.call_seconds + _tiling(spec, machine)[1]

    def plan(self, spec: ConvSpec, weight: np.ndarray):
        """Transform the kernels; generate what transforms are not there yet, or plan FFTW's."""
        plan = self._plan(spec, weight)
        return _Cleaned(spec, plan) if any(map(len, uncovered(spec))) else plan

    @staticmethod
    def _plan(spec, weight):
        threads = settings.get_num_threads()
        circular = spec.padding_mode == "circular"
        if family(spec) == "fftw":
            return (fft_circular if circular else fft_fftw).plan(spec, weight, threads)
        with forks.held_off:
            from .jit.spectral import CircularSpectralPlan, SpectralPlan
            from .jit.target import target

        tiling = _tiling(spec, this_machine(threads), target().lanes(spec.dtype))[0]
        return (CircularSpectralPlan if circular else SpectralPlan)(spec, weight, tiling)


class CircularFFT(FFT):
    """Circular problems as such: one transform of exactly the image."""

    takes_circular = True
    variant = "circular"


def family(spec: ConvSpec) -> str:
    """Which code computes `spec`: "tiles" or "fftw"."""
    generated = spec.dtype in TILE_DTYPES and spec.ndim <= 2 and _generates_code()
    if generated and spec.padding_mode == "circular":
        generated = _is_faster_by_tiles(spec, this_machine(settings.get_num_threads()))
    return "tiles" if generated else "fftw"


def _is_faster_by_tiles(spec, machine):
    """Whether the image of a circular problem is a tile, and FFTW is predicted to take longer, or is not there."""
    if not fft_tiles.is_tile(spec):
        return False
    return not _has_pyfftw() or _tiling(spec, machine)[1] < fft_sizes.predict_seconds(spec, machine)


def _tiling(spec, machine, lanes=None):
    """The tiling of the generated code, and its predicted seconds."""
    lanes = lanes or machine.vector_bytes // spec.itemsize
    halves = fft_tiles.FMA_PIPES / machine.fma_pipes
    return fft_tiles.choose(spec, lanes, machine.threads, halves / machine.hertz, 1 / machine.bandwidth)


@lru_cache(maxsize=1024)
def uncovered(spec: ConvSpec) -> tuple[np.ndarray, ...]:
    """Per axis the input positions that no window covers: strides and dilations may step over some."""
    found = []
    sizes = zip(spec.output_spatial, spec.kernel, spec.stride, spec.dilation, spec.spatial, spec.padding, strict=True)
    for outputs, k, s, d, size, (low, _) in sizes:
        reached = (outputs - 1) * s + (k - 1) * d + 1
        covered = np.zeros(max(reached, low + size), bool)
        if s == 1 and outputs >= d:
            covered[: outputs + (k - 1) * d] = True
        else:
            for first in range(0, k * d, d):
                covered[first : first + (outputs - 1) * s + 1 : s] = True
        if spec.padding_mode == "circular":
            turn = -low % size
            around = np.zeros(-(-(turn + reached) // size) * size, bool)
            around[turn : turn + reached] = covered[:reached]
            found.append(np.flatnonzero(~around.reshape(-1, size).any(axis=0)))
        else:
            found.append(np.flatnonzero(~covered[low : low + size]))
    return tuple(found)


class _Cleaned:
    """``plan(x, out)`` of an input without what no window covers: it must not round outputs it has no part in."""

    def __init__(self, spec, plan):
        self._plan, self._places = plan, uncovered(spec)
        self._input = np.empty(spec.input_shape, spec.dtype)
        self.nbytes = plan.nbytes + self._input.nbytes

    def __call__(self, x, out):
        self._input[...] = x
        for axis, places in enumerate(self._places, start=2):
            self._input[(slice(None),) * axis + (places,)] = 0
        self._plan(self._input, out)


@cache
def _has_pyfftw():
    return find_spec("pyfftw") is not None


@cache
def _generates_code():
    """Whether the generators know this processor: not asked of LLVM, which would have to be imported."""
    import platform

    return platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64") and find_spec("llvmlite") is not None
