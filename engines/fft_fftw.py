"""Products of spectra by FFTW's transforms, through pyFFTW: what the generated code of `jit.spectral` does not compute.

Tiles are shared among threads, each transform runs on one: pyFFTW's own threads are OpenMP's, which
spin for a whole time slice when the system wakes them on one core with their caller (256², 11×11:
32 ms instead of 0.3 ms after a BLAS call, 2-core Zen 4 VM, 2026-11).  Strides compute every position and keep some.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np

from convbench import forks
from convbench.machine import Machine
from convbench.spec import ConvSpec

from . import fft_wisdom
from .direct import Direct
from .reference import Reference
from .workers import run_all

# FFTW_MEASURE on a 2-core Zen 5 VM (2026-11): 35-38 GFLOP/s on one core by the count 2.5·N·log2 N of
# a real transform of 128² to 1024²; complex products and adds by NumPy run from the cache at:
TRANSFORM_FLOPS = 30e9
PRODUCT_FLOPS = 4e9
MATRIX_FLOPS = 2.5e9  # many channels on both sides: one small complex matrix-vector product per frequency
STEP_SECONDS = 2e-5  # NumPy and FFTW calls of one tile
PLANNING_SECONDS = 0.25  # that FFTW may spend on one transform before it takes the best so far
SHARED_SECONDS = 2e-4  # of predicted work; below it a second thread costs more than it saves
SLOWDOWN = {4: 1.0, 8: 2.0, 16: 30.0}  # by bytes of a real number; extended precision has no vector unit
#: dtype -> that of its spectrum, and of the numbers that kernels are transformed in.
SPECTRA = {
    "float32": ("complex64", "float64"),
    "float64": ("complex128", "float64"),
    np.dtype(np.longdouble).name: (np.dtype(np.clongdouble).name, np.dtype(np.longdouble).name),
}
SPECTRA |= {complex_name: (complex_name, complex_name) for complex_name, _ in SPECTRA.values()}
SPECTRA |= {"complex64": ("complex64", "complex128")}
DTYPES = tuple(SPECTRA)


@dataclass(frozen=True)
class Tiling:
    """Transform size, kept outputs per tile (stride 1), and tiles, per axis; and whether numbers are real."""

    transform: tuple[int, ...]
    step: tuple[int, ...]
    tiles: tuple[int, ...]
    real: bool = True

    @property
    def spectrum(self) -> tuple[int, ...]:
        """Complex frequencies of one transform, per axis: those of real numbers come in conjugate pairs."""
        *axes, last = self.transform
        return (*axes, last // 2 + 1 if self.real else last)

    @property
    def bins(self) -> int:
        """How many they are."""
        return math.prod(self.spectrum)


def workspace_bytes(spec: ConvSpec, threads: int) -> int:
    """Spectra of the kernels, and of one tile's inputs and outputs, with their real sides."""
    tiling = choose_tiling(spec, threads)
    planes = (spec.in_channels + spec.out_channels) * _sharing(spec, tiling, threads)
    kernels = spec.out_channels * spec.in_channels // spec.groups
    positions = planes * math.prod(tiling.transform) * spec.itemsize
    return positions + (planes + kernels) * tiling.bins * _real_bytes(spec) * 2


def predict_seconds(spec: ConvSpec, machine: Machine) -> float:
    """Transforms, products per frequency, and the calls of each tile."""
    return machine.call_seconds + _seconds(spec, choose_tiling(spec, machine.threads), machine.threads)


def plan(spec: ConvSpec, weight: np.ndarray, threads: int):
    """Transform the kernels and plan the transforms."""
    tiling = choose_tiling(spec, threads)
    return _Plan(spec, tiling, weight, _sharing(spec, tiling, threads))


def _seconds(spec, tiling, threads):
    length = math.prod(tiling.transform)
    planes = spec.in_channels + spec.out_channels
    flops = (2.5 if tiling.real else 5) * length * math.log2(max(length, 2)) * planes
    products = 8 * tiling.bins * spec.out_channels * spec.in_channels // spec.groups
    rate = MATRIX_FLOPS if _multiplies_matrices(spec) else PRODUCT_FLOPS
    flops, products = flops * SLOWDOWN[_real_bytes(spec)], products * SLOWDOWN[_real_bytes(spec)]
    copies = 4 * length * planes * spec.itemsize / 1e10
    tile = STEP_SECONDS + flops / TRANSFORM_FLOPS + products / rate + copies
    tiles = spec.batch * math.prod(tiling.tiles)
    return tile * (tiles if tile * tiles < SHARED_SECONDS else -(-tiles // threads))


def _is_real(spec):
    return np.dtype(spec.dtype).kind == "f"


def _real_bytes(spec):
    """Bytes of a real number, or of a complex one's real part."""
    return spec.itemsize if _is_real(spec) else spec.itemsize // 2


def _multiplies_matrices(spec):
    """Whether channels are summed by a matrix product per frequency, rather than elementwise."""
    return min(spec.in_channels, spec.out_channels) // spec.groups >= 4


def _sharing(spec, tiling, threads):
    """Threads that share the tiles."""
    tiles = spec.batch * math.prod(tiling.tiles)
    return min(threads, tiles) if _seconds(spec, tiling, 1) >= SHARED_SECONDS else 1


@lru_cache(maxsize=1024)
def choose_tiling(spec: ConvSpec, threads: int) -> Tiling:
    """The whole image, an equal part of it for each thread, or smaller tiles: the least predicted seconds."""
    options = []
    for size, span, s in zip(spec.output_spatial, spec.extents, spec.stride, strict=True):
        outputs = (size - 1) * s + 1  # positions at stride 1
        whole = fast_length(outputs + span - 1)
        tiles = {whole, fast_length(-(-outputs // threads) + span - 1)}
        length = fast_length(max(2 * span, 16))
        while length < whole:
            tiles.add(length)
            length = fast_length(2 * length)
        options.append([(f, min(f - span + 1, outputs), -(-outputs // (f - span + 1))) for f in sorted(tiles)])
    real = _is_real(spec)
    candidates = (Tiling(*map(tuple, zip(*axes, strict=True)), real) for axes in itertools.product(*options))
    return min(candidates, key=lambda tiling: _seconds(spec, tiling, threads))


@cache
def fast_length(length: int) -> int:
    """The smallest length >= `length` that has no prime factor over 7, which FFTW is fast at."""
    while True:
        rest = length
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


class _Plan:
    """``plan(x, out)``: every tile of every batch item through the transforms, shared among threads."""

    def __init__(self, spec, tiling, weight, threads):
        self._spec, self._tiling = spec, tiling
        self._workers = [_Worker(spec, tiling) for _ in range(threads)]
        self._kernels = self._kernel_spectra(weight)
        self._direct = None
        self._weight = np.array(weight)
        tasks = list(itertools.product(range(spec.batch), *map(range, tiling.tiles)))
        self._tasks = [tasks[first::threads] for first in range(threads)]
        held = (self._kernels, self._weight, *(array for worker in self._workers for array in worker.arrays))
        self.nbytes = sum(array.nbytes for array in held)

    def _kernel_spectra(self, weight):
        """conj(F(w)) / F, as (G, bins, O/G, C/G) for matrix products or (G, O/G, C/G, bins)."""
        spec, tiling = self._spec, self._tiling
        filters, channels = spec.out_channels // spec.groups, spec.in_channels // spec.groups
        grouped = weight.reshape(spec.groups, filters, channels, *spec.kernel)
        complex_dtype = self._workers[0].spectrum_in.dtype
        spectra = np.empty((spec.groups, filters, channels, tiling.bins), complex_dtype)
        dilated = tuple(slice(0, span, d) for span, d in zip(spec.extents, spec.dilation, strict=True))
        axes = tuple(range(-spec.ndim, 0))
        flat = grouped.reshape(-1, *spec.kernel)
        result = spectra.reshape(len(flat), tiling.bins)
        scale = np.dtype(spec.dtype).type(1) / math.prod(tiling.transform)
        transform = np.fft.rfftn if tiling.real else np.fft.fftn
        for index, kernel in enumerate(flat):
            spread = np.zeros(tiling.transform, SPECTRA[spec.dtype][1])
            spread[dilated] = np.conj(
                kernel
            )  # and the spectrum's conjugate: of a correlation, without a conjugate kernel
            with np.errstate(all="ignore"):  # NaN and Inf are found by what they make of the outputs
                result[index] = (np.conj(transform(spread, axes=axes)) * scale).reshape(-1)
        if not _multiplies_matrices(spec):
            return spectra
        return np.ascontiguousarray(np.moveaxis(spectra, -1, 1))

    def __call__(self, x, out):
        struck = []
        shares = zip(self._workers, self._tasks, strict=True)
        run_all([partial(worker.run, self._kernels, tasks, x, out, struck) for worker, tasks in shares])
        for item, targets in struck:
            self._compute_directly(x[item], out[item], targets)

    def _compute_directly(self, item, result, targets):
        """A tile whose transform met a NaN or Inf, by the sum itself: only covered windows get it."""
        if self._direct is None:
            single = self._spec.replace(batch=1)
            engine = Direct() if Direct().why_unsupported(single) is None else Reference()
            self._direct = (engine.plan(single, self._weight), np.empty(single.output_shape, single.dtype))
        plan, whole = self._direct
        plan(item[np.newaxis], whole)
        result[(slice(None), *targets)] = whole[(0, slice(None), *targets)]


class _Worker:
    """One thread's arrays and transforms, and what it does with them."""

    def __init__(self, spec, tiling):
        self._spec, self._tiling = spec, tiling
        self._real_in, self.spectrum_in, self._forward = _transform(spec, tiling, spec.in_channels, "forward")
        self._real_out, self._spectrum_out, self._backward = _transform(spec, tiling, spec.out_channels, "backward")
        self.arrays = (self._real_in, self.spectrum_in, self._real_out, self._spectrum_out)

    def run(self, kernels, tasks, x, out, struck):
        """Compute the tiles `tasks`; those that met a NaN or Inf are added to `struck` instead."""
        for item, *tile in tasks:
            self._load(x[item], [index * step for index, step in zip(tile, self._tiling.step, strict=True)])
            self._forward()
            self._multiply(kernels)
            self._backward()
            kept, targets = self._kept(tile)
            # A NaN or Inf, or an overflow, spreads over its whole transform: one element per channel tells.
            if np.isfinite(kept[(slice(None), *(slice(0, 1),) * self._spec.ndim)]).all():
                out[(item, slice(None), *targets)] = kept
            else:
                struck.append((item, targets))

    def _kept(self, tile):
        """The valid outputs of a tile at the stride, and where they belong; none where a stride steps over it."""
        sources, targets = [], []
        spec = self._spec
        for index, step, s, size in zip(tile, self._tiling.step, spec.stride, spec.output_spatial, strict=True):
            first = -(-index * step // s)  # the first output at or after this tile's start
            last = max(min(-(-(index + 1) * step // s), size), first)
            sources.append(slice(first * s - index * step, max((last - 1) * s - index * step + 1, 0), s))
            targets.append(slice(first, last))
        return self._real_out[(slice(None), *sources)], targets

    def _load(self, item, start):
        """The tile's part of the zero-padded input, zeros elsewhere."""
        spec, tiling = self._spec, self._tiling
        self._real_in[...] = 0
        sources, targets = [], []
        for begin, length, size, (low, _) in zip(start, tiling.transform, spec.spatial, spec.padding, strict=True):
            first, last = max(begin - low, 0), min(begin - low + length, size)
            sources.append(slice(first, max(last, first)))
            targets.append(slice(first - begin + low, max(last, first) - begin + low))
        self._real_in[(slice(None), *targets)] = item[(slice(None), *sources)]

    def _multiply(self, kernels):
        spec, groups, bins = self._spec, self._spec.groups, self._tiling.bins
        inputs = self.spectrum_in.reshape(groups, -1, bins)
        outputs = self._spectrum_out.reshape(groups, -1, bins)
        with np.errstate(all="ignore"):  # NaN and Inf are looked for afterwards
            if _multiplies_matrices(spec):
                columns = np.ascontiguousarray(inputs.transpose(0, 2, 1))[..., np.newaxis]
                outputs[...] = np.matmul(kernels, columns)[..., 0].transpose(0, 2, 1)
            elif inputs.shape[1] == 1:
                np.multiply(kernels[:, :, 0], inputs, out=outputs)
            else:
                np.einsum("gocf,gcf->gof", kernels, inputs, out=outputs)


def _transform(spec, tiling, planes, direction):
    """Aligned real and complex arrays of `planes` transforms, and FFTW's plan between them."""
    with forks.held_off:
        import pyfftw

    real = pyfftw.empty_aligned((planes, *tiling.transform), spec.dtype)
    spectrum = pyfftw.empty_aligned((planes, *tiling.spectrum), SPECTRA[spec.dtype][0])
    source, target = (real, spectrum) if direction == "forward" else (spectrum, real)
    with fft_wisdom.kept():
        transform = pyfftw.FFTW(
            source,
            target,
            axes=tuple(range(1, spec.ndim + 1)),
            direction="FFTW_FORWARD" if direction == "forward" else "FFTW_BACKWARD",
            flags=("FFTW_MEASURE", "FFTW_DESTROY_INPUT"),
            threads=1,
            planning_timelimit=PLANNING_SECONDS,
            **({} if direction == "forward" else {"normalise_idft": False}),
        )
    real[...] = 0
    return real, spectrum, transform.execute
