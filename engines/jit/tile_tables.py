"""Tables and spectra for tiles of one size: what the code of `tile_code` reads besides images."""

import math

import numpy as np

from .. import fft_folding
from . import tile_code
from .target import target
from .tile_code import function
from .transform import Axis, order

#: Bytes of a cache line, and of the longest vector.
ALIGNMENT = 64
#: Complex numbers of kernels that are transformed at once.
KERNEL_CHUNK = 1 << 20

#: Inputs are multiplied by 2 to this, so that the smallest numbers of a type are not rounded as it rounds near zero.
#: Larger ones than about 2^90 (2^950) overflow therefore, and their tiles are computed directly.
RAISED = {"float32": 32, "float64": 64}
#: Kernels' largest weight is made about one, as far as this allows: outputs' factor, which undoes both, stays normal.
MOST_EXPONENT = {"float32": 60, "float64": 800}


def kernel_exponent(weight):
    """The power of two that kernels are multiplied by."""
    largest = np.abs(weight).max(initial=0)
    if not np.isfinite(largest) or largest == 0:
        return 0
    return min(-int(np.frexp(largest)[1]), MOST_EXPONENT[weight.dtype.name])


def aligned(shape, dtype):
    """Zeros that begin on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    return raw[-raw.ctypes.data % ALIGNMENT :][:size].view(dtype).reshape(shape)


def vectors(array, lanes):
    """Complex (..., rows, columns) as elements, one row per lane: (..., rows/lanes, columns, 2, lanes)."""
    *before, rows, columns = array.shape
    blocks = array.reshape(*before, rows // lanes, lanes, columns)
    return np.stack([np.moveaxis(blocks.real, -2, -1), np.moveaxis(blocks.imag, -2, -1)], -2)


def spectrum(kernels, tile, lanes, dtype):
    """What products need of real (count, height, width) kernels: the conjugate spectrum as the passes order it.

    Flat kernels have height 1, those of a cyclic tile its size.
    """
    rows, columns = tile.rows, tile.columns
    count = len(kernels)
    down, along = order(rows), order(columns)
    if tile.flat:
        half = rows * columns
        full = np.zeros((count, 2 * half))
        full[:, : kernels.shape[2]] = kernels[:, 0]
        z = (full[:, :half] + 1j * full[:, half:]) * np.exp(0.5j * np.pi * np.arange(half) / half)
        found = np.fft.fft(z)[:, down[:, None] + rows * along]
    elif tile.cyclic:
        found = np.fft.fft2(kernels)[:, down[:, None], along]
    else:
        full = np.zeros((count, 2 * rows, columns))
        full[:, : kernels.shape[1], : kernels.shape[2]] = kernels
        z = (full[:, :rows] + 1j * full[:, rows:]) * np.exp(0.5j * np.pi * np.arange(rows) / rows)[:, None]
        found = np.fft.fft2(z)[:, down[:, None], along]
    return vectors(np.conj(found), lanes).astype(dtype)


class Tables:
    """Everything about tiles of one size that a frame points at; `words` are its words, `task` the task's address.

    `exponent` is the `kernel_exponent` of the weight.
    """

    def __init__(self, dtype, tile, exponent, part="whole", strided=False):
        self.lanes = target().lanes(dtype)
        self._dtype, self._tile, self._part = dtype, tile, part
        self._arrays = []
        self.words = {
            "rows": tile.rows,
            "strips": tile.columns // self.lanes,
            "tile_bytes": 2 * tile.elements * np.dtype(dtype).itemsize,
            "zeros": self._kept(np.zeros(tile.columns, dtype)),
        }
        self._add_weights(exponent)
        self._add_transforms()
        self._add_functions(strided)
        if tile.flat:
            self._add_twiddles()
        key = dtype, part, tile.flat, strided
        self.task = self._function("task", key[1:], "pii", lambda code: tile_code.write_task(code, *key))

    def _kept(self, array):
        """The address of an array that lives as long as these tables."""
        self._arrays.append(array)
        return array.ctypes.data

    def _function(self, name, key, arguments, write):
        return function(target(), name, (name, self._dtype, *key), arguments, write)

    def _add_weights(self, exponent):
        """e^(iπh / 2M) for every row h, or 1, times the powers of two that keep numbers away from zero."""
        angles = np.pi * (0 if self._tile.cyclic else 0.5) * np.arange(self._tile.rows) / self._tile.rows
        turns, raised = np.stack([np.cos(angles), np.sin(angles)], -1), RAISED[self._dtype]
        back = np.ldexp(turns, -raised - exponent) / self._tile.elements
        self.words["weights"] = self._kept(np.ldexp(turns, raised).astype(self._dtype))
        self.words["weights_back"] = self._kept(back.astype(self._dtype))

    def _add_transforms(self):
        """Passes down the columns and along the rows, and what is between forward and inverse ones of a whole task."""
        down = Axis(target(), self._dtype, self._tile.rows, False)
        along = Axis(target(), self._dtype, self._tile.columns, self._part == "whole")
        self._axes = down, along
        steps = {"down": down.forward, "up": down.inverse, "along": along.forward, "back": along.inverse}
        for name, table in steps.items():
            self.words[name], self.words[f"{name}_count"] = table.ctypes.data, len(table)
        if self._part == "whole":
            self.words["middle"], self.words["middle_blocks"] = along.middle

    def _add_functions(self, strided):
        dtype, flat = self._dtype, self._tile.flat
        found = {
            "load": ((flat,), "ppiiiiiiiipp", lambda code: tile_code.write_load(code, dtype, flat)),
            "store": ((flat,), "ppiiiiiip", lambda code: tile_code.write_store(code, dtype, flat)),
            "turn": ((), "ppii", lambda code: tile_code.write_turn(code, dtype, False)),
            "turn_back": ((), "ppii", lambda code: tile_code.write_turn(code, dtype, True)),
        }
        if flat:
            found["scale"] = (), "piip", lambda code: tile_code.write_scale(code, dtype)
        if strided:
            found["pick"] = (), "piipiii", lambda code: tile_code.write_pick(code, dtype)
        self.words |= {name: self._function(name, *rest) for name, rest in found.items()}

    def _add_twiddles(self):
        """Of a flat tile, between its columns and rows, with the part of the weights that a row's columns differ in."""
        tile, column = self._tile, np.arange(self._tile.columns)
        turns = order(tile.rows)[:, None] * column % tile.elements
        angles = np.pi * (0.5 * column - 2 * turns) / tile.elements
        table = vectors(np.exp(1j * angles), self.lanes).astype(self._dtype)
        for name, sign in (("twiddles", 1), ("twiddles_back", -1)):
            copy = aligned(table.shape, self._dtype)
            copy[...] = table * np.array([1, sign], self._dtype)[:, None]
            self.words[name] = self._kept(copy)


def kernel_spectra(spec, weight, tile, lanes):
    """Yield (output channel, input channel of its group, spectrum as (vectors, 2 · lanes)) for every kernel."""
    lead = (1,) * (2 - spec.ndim)
    kernels = weight.reshape(-1, *lead, *spec.kernel)
    exponent = kernel_exponent(weight)
    spread = tuple(slice(None, None, d) for d in lead + spec.dilation)
    chunk = max(1, KERNEL_CHUNK // tile.elements)
    for first in range(0, len(kernels), chunk):
        some = kernels[first : first + chunk]
        some = np.ldexp(some.astype(np.float64), exponent)
        with np.errstate(all="ignore"):  # NaN and Inf are found by what they make of the outputs
            if tile.cyclic:
                dense = np.stack([fft_folding.wrapped(kernel, spec) for kernel in some])
            else:
                dense = np.zeros((len(some), *lead, *spec.extents))
                dense[(slice(None), *spread)] = some
            found = spectrum(dense, tile, lanes, spec.dtype).reshape(len(some), -1, 2 * lanes)
        for number, values in enumerate(found, first):
            yield *divmod(number, spec.weight_shape[1]), values
