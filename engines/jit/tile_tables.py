"""Tables and spectra for tiles of one size: what the code of `tile_code` reads besides images."""

import math

import numpy as np

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

    Flat kernels have height 1.
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
    else:
        full = np.zeros((count, 2 * rows, columns))
        full[:, : kernels.shape[1], : kernels.shape[2]] = kernels
        z = (full[:, :rows] + 1j * full[:, rows:]) * np.exp(0.5j * np.pi * np.arange(rows) / rows)[:, None]
        found = np.fft.fft2(z)[:, down[:, None], along]
    return vectors(np.conj(found), lanes).astype(dtype)


class Tables:
    """Everything about tiles of one size that a frame points at; `words` are its words.

    `exponent` is the `kernel_exponent` of the weight.
    """

    def __init__(self, dtype, tile, exponent, part="whole", strided=False):
        machine = target()
        self.lanes, self.tile = machine.lanes(dtype), tile
        rows, columns = tile.rows, tile.columns
        around = part == "whole"
        down, along = Axis(machine, dtype, rows, False), Axis(machine, dtype, columns, around)
        angles = 0.5 * np.pi * np.arange(rows) / rows
        turns = np.stack([np.cos(angles), np.sin(angles)], -1)
        raised = RAISED[dtype]
        self.weights = np.ldexp(turns, raised).astype(dtype)
        self.weights_back = (np.ldexp(turns, -raised - exponent) / tile.elements).astype(dtype)
        self.zeros = np.zeros(columns, dtype)
        self._kept = [down, along]

        def code(name, key, arguments, write):
            return function(machine, name, (name, dtype, *key), arguments, write)

        self.words = {
            "rows": rows,
            "strips": columns // self.lanes,
            "tile_bytes": tile.elements * 2 * self.lanes_bytes // self.lanes,
            "weights": self.weights.ctypes.data,
            "weights_back": self.weights_back.ctypes.data,
            "zeros": self.zeros.ctypes.data,
            "load": code("load", (tile.flat,), "ppiiiiiiiipp", lambda c: tile_code.write_load(c, dtype, tile.flat)),
            "store": code("store", (tile.flat,), "ppiiiiiip", lambda c: tile_code.write_store(c, dtype, tile.flat)),
            "turn": code("turn", (), "ppii", lambda c: tile_code.write_turn(c, dtype, False)),
            "turn_back": code("turn", (1,), "ppii", lambda c: tile_code.write_turn(c, dtype, True)),
        }
        for name, steps in (("down", down.forward), ("up", down.inverse), ("along", along.forward), ("back", along.inverse)):
            self.words[name], self.words[f"{name}_count"] = steps.ctypes.data, len(steps)
        if around:
            self.words["middle"], self.words["middle_blocks"] = along.middle
        if strided:
            self.words["pick"] = code("pick", (), "piipiii", lambda c: tile_code.write_pick(c, dtype))
        if tile.flat:
            n2 = np.arange(columns)
            angles = -2 * np.pi * (order(rows)[:, None] * n2 % tile.elements) / tile.elements + 0.5 * np.pi * n2 / tile.elements
            table = vectors(np.exp(1j * angles), self.lanes).astype(dtype)
            self.twiddles, self.back = aligned(table.shape, dtype), aligned(table.shape, dtype)
            self.twiddles[...] = table
            self.back[...] = table * np.array([1, -1], dtype)[:, None]
            self.words["twiddles"], self.words["twiddles_back"] = self.twiddles.ctypes.data, self.back.ctypes.data
            self.words["scale"] = code("scale", (), "piip", lambda c: tile_code.write_scale(c, dtype))
        self.task = code(
            "task", (part, tile.flat, strided), "pii", lambda c: tile_code.write_task(c, dtype, part, tile.flat, strided)
        )

    @property
    def lanes_bytes(self):
        """Bytes of one vector."""
        return self.lanes * self.weights.itemsize


def kernel_spectra(spec, weight, tile, lanes):
    """Yield (output channel, input channel of its group, spectrum as (vectors, 2 · lanes)) for every kernel."""
    lead = (1,) * (2 - spec.ndim)
    kernels = weight.reshape(-1, *lead, *spec.kernel)
    exponent = kernel_exponent(weight)
    spread = tuple(slice(None, None, d) for d in lead + spec.dilation)
    chunk = max(1, KERNEL_CHUNK // tile.elements)
    for first in range(0, len(kernels), chunk):
        some = kernels[first : first + chunk]
        dense = np.zeros((len(some), *lead, *spec.extents))
        dense[(slice(None), *spread)] = np.ldexp(some.astype(np.float64), exponent)
        with np.errstate(all="ignore"):  # NaN and Inf are found by what they make of the outputs
            found = spectrum(dense, tile, lanes, spec.dtype).reshape(len(some), -1, 2 * lanes)
        for number, values in enumerate(found, first):
            yield *divmod(number, spec.weight_shape[1]), values
