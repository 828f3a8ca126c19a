"""Sizes of FFTW's transforms: which there are for a problem, what they cost, and which one it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from convbench.machine import Machine
from convbench.spec import ConvSpec

# FFTW_MEASURE on a 2-core Zen 5 VM (2026-11): 35-38 GFLOP/s on one core by the count 2.5·N·log2 N of
# a real transform of 128² to 1024²; complex products and adds by NumPy run from the cache at:
TRANSFORM_FLOPS = 30e9
PRODUCT_FLOPS = 4e9
MATRIX_FLOPS = 2.5e9  # many channels on both sides: one small complex matrix-vector product per frequency
STEP_SECONDS = 2e-5  # NumPy and FFTW calls of one tile
SHARED_SECONDS = 2e-4  # of predicted work; below it a second thread costs more than it saves
SLOWDOWN = {4: 1.0, 8: 2.0, 16: 30.0}  # by bytes of a real number; extended precision has no vector unit
PRIMES = (2, 3, 5, 7)  # that FFTW is fast at
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
    """Transform size, kept outputs per tile (stride 1), tiles, and every which output is transformed back, per axis.

    `real` says whether numbers are.
    """

    transform: tuple[int, ...]
    step: tuple[int, ...]
    tiles: tuple[int, ...]
    fold: tuple[int, ...]
    real: bool = True

    @property
    def spectrum(self) -> tuple[int, ...]:
        """Complex frequencies of one transform, per axis: those of real numbers come in conjugate pairs."""
        return self._frequencies(self.transform)

    @property
    def bins(self) -> int:
        """How many they are."""
        return math.prod(self.spectrum)

    @property
    def folds(self) -> bool:
        """Whether the inverse transform is smaller than the forward one."""
        return max(self.fold) > 1

    @property
    def inverse(self) -> tuple[int, ...]:
        """Positions of the inverse transform, per axis."""
        return tuple(length // factor for length, factor in zip(self.transform, self.fold, strict=True))

    @property
    def inverse_spectrum(self) -> tuple[int, ...]:
        """Its frequencies."""
        return self._frequencies(self.inverse)

    def _frequencies(self, positions):
        *axes, last = positions
        return (*axes, last // 2 + 1 if self.real else last)


def workspace_bytes(spec: ConvSpec, threads: int) -> int:
    """Spectra of the kernels, and of one tile's inputs and outputs, with their real sides."""
    tiling = choose_tiling(spec, threads)
    each = spec.in_channels * math.prod(tiling.transform) + spec.out_channels * math.prod(tiling.inverse)
    frequencies = spec.in_channels * tiling.bins + spec.out_channels * math.prod(tiling.inverse_spectrum)
    if tiling.folds:
        frequencies += spec.out_channels * tiling.bins
    kernels = spec.out_channels * spec.in_channels // spec.groups * tiling.bins
    workers = sharing(spec, tiling, threads)
    return workers * each * spec.itemsize + (workers * frequencies + kernels) * _real_bytes(spec) * 2


def predict_seconds(spec: ConvSpec, machine: Machine) -> float:
    """Transforms, products per frequency, sums of aliases, and the calls of each tile."""
    return machine.call_seconds + _seconds(spec, choose_tiling(spec, machine.threads), machine.threads)


def _seconds(spec, tiling, threads):
    positions, outputs = math.prod(tiling.transform), math.prod(tiling.inverse)
    per_log = 2.5 if tiling.real else 5
    flops = per_log * positions * _logs(tiling.transform) * spec.in_channels
    flops += per_log * outputs * _logs(tiling.inverse) * spec.out_channels
    products = 8 * tiling.bins * spec.out_channels * spec.in_channels // spec.groups
    rate = MATRIX_FLOPS if multiplies_matrices(spec) else PRODUCT_FLOPS
    work = flops / TRANSFORM_FLOPS + products / rate
    if tiling.folds:
        work += 2 * tiling.bins * spec.out_channels / PRODUCT_FLOPS
    copies = 4 * (positions * spec.in_channels + outputs * spec.out_channels) * spec.itemsize / 1e10
    tile = STEP_SECONDS + work * SLOWDOWN[_real_bytes(spec)] + copies
    tiles = spec.batch * math.prod(tiling.tiles)
    return tile * (tiles if tile * tiles < SHARED_SECONDS else -(-tiles // threads))


def _logs(lengths):
    """log2 of a transform's positions, large primes weighted; at least 1."""
    return max(1.0, sum(map(_weighted_log, lengths)))


@cache
def _weighted_log(length):
    """log2 of a length's factors that FFTW is fast at, and what its large primes count as by their operations.

    A prime p is summed by its definition, 4p flops for each output, those of symmetric outputs shared (a factor of p
    has 5·log2 p where it is fast), or by Rader's convolution of p - 1 positions, at worst two transforms of 2p.
    """
    total, rest, prime = math.log2(smooth_part(length)), length // smooth_part(length), PRIMES[-1] + 4
    while rest > 1:
        if prime * prime > rest:
            prime = rest
        while rest % prime == 0:
            total += min(0.8 * prime, 4 * math.log2(2 * prime))
            rest //= prime
        prime += 2
    return total


def _is_real(spec):
    return np.dtype(spec.dtype).kind == "f"


def _real_bytes(spec):
    """Bytes of a real number, or of a complex one's real part."""
    return spec.itemsize if _is_real(spec) else spec.itemsize // 2


def multiplies_matrices(spec: ConvSpec) -> bool:
    """Whether channels are summed by a matrix product per frequency, rather than elementwise."""
    return min(spec.in_channels, spec.out_channels) // spec.groups >= 4


def sharing(spec: ConvSpec, tiling: Tiling, threads: int) -> int:
    """Threads that share the tiles."""
    tiles = spec.batch * math.prod(tiling.tiles)
    return min(threads, tiles) if _seconds(spec, tiling, 1) >= SHARED_SECONDS else 1


@lru_cache(maxsize=1024)
def choose_tiling(spec: ConvSpec, threads: int) -> Tiling:
    """The tiling of the least predicted seconds."""
    return min(tilings(spec, threads), key=lambda tiling: _seconds(spec, tiling, threads))


def tilings(spec: ConvSpec, threads: int) -> Iterator[Tiling]:
    """The whole image, an equal part of it for each thread, or smaller tiles, along each axis.

    A circular problem has one: a transform of exactly the image, folded as far as its size allows.
    """
    if spec.padding_mode == "circular":
        outputs = tuple((size - 1) * s + 1 for size, s in zip(spec.output_spatial, spec.stride, strict=True))
        yield Tiling(
            spec.spatial, outputs, (1,) * spec.ndim, tuple(map(math.gcd, spec.spatial, spec.stride)), _is_real(spec)
        )
        return
    sizes = zip(spec.output_spatial, spec.extents, spec.stride, strict=True)
    # One output has nothing to fold, and would only make its transform a multiple of the stride.
    options = [
        _options((size - 1) * s + 1, span, smooth_part(s) if size > 1 else 1, threads) for size, span, s in sizes
    ]
    for axes in itertools.product(*options):
        yield Tiling(*map(tuple, zip(*axes, strict=True)), _is_real(spec))


def _options(outputs, span, fold, threads):
    """Along one axis: (transform, outputs at stride 1, tiles, fold).

    The transform, and where a tile begins, are multiples of `fold`.
    """
    whole = fast_length(outputs + span - 1, fold)
    part = -(-outputs // threads)
    lengths = {whole, fast_length(part + -part % fold + span - 1, fold)}
    length = fast_length(max(2 * span, span - 1 + fold, 16), fold)
    while length < whole:
        lengths.add(length)
        length = fast_length(2 * length, fold)
    found = []
    for length in sorted(lengths):
        step = length - span + 1
        step = outputs if step >= outputs else step - step % fold
        found.append((length, step, -(-outputs // step), fold))
    return found


@cache
def fast_length(length: int, multiple: int = 1) -> int:
    """The smallest multiple >= `length` of a number without prime factors over 7 that has none itself."""
    length = -(-length // multiple)
    while smooth_part(length) != length:
        length += 1
    return length * multiple


@cache
def smooth_part(number: int) -> int:
    """The largest divisor without a prime factor over 7."""
    rest = number
    for prime in PRIMES:
        while rest % prime == 0:
            rest //= prime
    return number // rest
