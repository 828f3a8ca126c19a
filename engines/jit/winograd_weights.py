"""Winograd's weights: transformed, in the order in which products read them."""

from __future__ import annotations

import itertools

import numpy as np

from .records import aligned
from .winograd_matrices import matrices, numbers
from .winograd_strides import phased


def pack(weight, plane, form, filters, pieces, piecewise):
    """Transformed weights, and a record of `winograd_kernel.FILTERS` for each (group, piece, register block).

    Parameters
    ----------
    weight : ndarray, shape (out_channels, channels, taps, taps)
        In float64.
    plane : Plane
    form : Form
    filters : tuple of int
        Output channels of a group's register blocks.
    pieces : list of range
        Input channels that are transformed and multiplied before the others; each with all its phases.
    piecewise : bool
        Whether pieces stand one after the other, as [group][piece][register block][frequency][channel][filter].
        If not there is one piece, and frequencies stand before register blocks: each is read in one go.

    Returns
    -------
    packed : ndarray
    records : ndarray
    """
    weight = phased(weight, *plane.axes)
    both = np.kron(*(numbers(matrices(*axis).g) for axis in (form.down, form.across)))
    packed = aligned(len(both) * weight[..., 0, 0].size, form.dtype)
    kinds, records, start, size = sorted(set(filters)), [], 0, packed.itemsize
    per_group = sum(filters)
    firsts = list(itertools.accumulate(filters, initial=0))
    for group, piece in itertools.product(range(plane.groups), pieces):
        for first, count in zip(firsts, filters, strict=False):
            part = weight[group * per_group + first :][:count, :, piece.start : piece.stop]
            part = part.reshape(count, -1, both.shape[1])
            with np.errstate(all="ignore"):  # NaN and Inf are data here
                transformed = np.einsum("ft,kct->fck", both, part, optimize=True).reshape(len(both), -1)
            channels = part.shape[1]
            pitch = channels * (count if piecewise else per_group)
            at = start if piecewise else len(both) * group * pitch + channels * first
            rows = packed[at : at + (len(both) - 1) * pitch + transformed.shape[1]]
            np.lib.stride_tricks.as_strided(rows, transformed.shape, (pitch * size, size))[:] = transformed
            records.append((at * size, pitch * size, first, count, kinds.index(count)))
            start += transformed.size
    return packed, np.array(records, np.int64)
