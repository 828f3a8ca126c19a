"""Strides and dilations in the frequency domain.

Every s-th of N positions has the sum of s aliases as its spectrum, of N/s frequencies:

    y[s·m] = 1/N · sum over k < N/s of  ( sum over a < s of Y[k + a·N/s] ) · e^(2πi k m s / N)

so an inverse transform of N/s frequencies gives the outputs of a stride, and no others.  And a kernel with
d - 1 zeros between its taps has the spectrum of the dense one, repeated d times where d divides N:

    W[k] = sum over j of w[j] · e^(-2πi k j d / N)  =  V[k mod N/d],   V the transform of w in N/d positions

(A. Oppenheim & R. Schafer, Discrete-Time Signal Processing, §4.6).  A circular problem's kernel is wrapped around
the image and turned by the padding: the image's own transform then needs no other position.
"""

from __future__ import annotations

import math

import numpy as np

from convbench.spec import ConvSpec


def fold(spectrum: np.ndarray, transform, factors, real: bool, out: np.ndarray) -> None:
    """Sum aliases: the spectra of every s-th position.

    Parameters
    ----------
    spectrum : ndarray, (planes, *frequencies)
        Of `transform` positions; of real numbers the last axis ends at half.
    transform, factors : tuple of int
        Positions and s per axis; each s divides its positions.
    real : bool
    out : ndarray, (planes, *frequencies)
        Of ``transform / factors`` positions.
    """
    full = len(factors) - 1 if real else len(factors)
    for axis, factor in enumerate(factors[:full], start=1):
        if factor > 1:
            *before, length = spectrum.shape[: axis + 1]
            aliases = spectrum.reshape(*before, factor, length // factor, *spectrum.shape[axis + 1 :])
            spectrum = aliases.sum(axis)
    if real and factors[-1] > 1:
        _fold_half(spectrum, transform[-1], factors[-1], out)
    else:
        out[...] = spectrum


def _fold_half(spectrum, length, factor, out):
    """Aliases along the last axis, where frequencies over half are conjugates of those at the negated places."""
    short, bins = length // factor, out.shape[-1]
    out[...] = spectrum[..., :bins]
    for first in range(short, length, short):
        there = min(max(length // 2 + 1 - first, 0), bins)
        out[..., :there] += spectrum[..., first : first + there]
        if there < bins:
            mirrored = spectrum[..., length - first - bins + 1 : length - first - there + 1][..., ::-1]
            out[..., there:] += np.conj(_negated(mirrored))


def _negated(spectrum):
    """The values at the negated frequencies of all spatial axes but the last."""
    axes = tuple(range(1, spectrum.ndim - 1))
    return np.roll(np.flip(spectrum, axes), 1, axes)


def kernel_spectrum(kernel: np.ndarray, dilation, transform, frequencies, real: bool) -> np.ndarray:
    """The spectrum of a kernel with its dilation in `transform` positions.

    A dilation d and N positions with the common divisor g are a dilation d/g in N/g positions, repeated g times.

    Parameters
    ----------
    kernel : ndarray
        In the precision to transform it in.
    dilation, transform, frequencies : tuple of int
        Per axis; `frequencies` is the shape of the result.
    real : bool
        Whether frequencies over half of the last axis are left out.
    """
    common = tuple(map(math.gcd, dilation, transform))
    lengths = tuple(n // g for n, g in zip(transform, common, strict=True))
    spread = np.zeros(lengths, kernel.dtype)
    taps = zip(kernel.shape, dilation, common, strict=True)
    spread[tuple(slice(0, (k - 1) * (d // g) + 1, d // g) for k, d, g in taps)] = kernel
    half = real and common[-1] == 1  # else the last axis repeats frequencies over half, too
    found = np.fft.rfftn(spread) if half else np.fft.fftn(spread)
    if max(common) == 1:
        return found
    return found[np.ix_(*(np.arange(count) % n for count, n in zip(frequencies, lengths, strict=True)))]


def wrapped(kernel: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """The kernel in as many positions as the image has, turned by the low padding; taps that meet are summed."""
    axes = zip(spec.kernel, spec.dilation, spec.padding, spec.spatial, strict=True)
    places = [(np.arange(k) * d - low) % size for k, d, (low, _), size in axes]
    around = np.zeros(spec.spatial, kernel.dtype)
    np.add.at(around, np.ix_(*places), kernel)
    return around


def unturned(spec: ConvSpec) -> ConvSpec:
    """A circular problem as its wrapped kernel leaves it: the outputs begin where the image does."""
    return spec.replace(padding=[(0, low + high) for low, high in spec.padding], padding_mode="zeros")
