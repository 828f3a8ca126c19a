"""Memory for outputs: on a cache line where they are large, and kept for the next one where they are very large.

The system hands out a very large array page by page, clearing each when it is first written, and takes all of them
back when the array goes: 4096 × 4096 float32 values cost 2.9 ms so, where a filter of 3 × 3 takes 1.6 (2-core Zen 5 VM,
2026-11).  So the memory of an output that no array refers to any more is kept, up to `KEPT_BYTES` in all, for
the next output of that size.  What was kept last comes first, for the caches still hold it: with a few arrays kept,
call after call met another one that they did not (80 channels at 64 × 64, 3 × 3, batch 4: 214 instead of 113 µs).
What is still referred to, by the array itself or by any view of it, is never touched.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial

import numpy as np

LINE_BYTES = 64  # a cache line
#: A NumPy array object keeps the address of its data right behind the object's head.
ARRAY_DATA = object.__basicsize__
# Outputs from here on begin on a cache line, so that whole vectors are stored into one: 64 -> 256 channels at
# 56x56, 1x1, 194 -> 213 GFLOP/s (Cascade Lake, 2026-11). Smaller ones would lose more by the time that it takes.
ALIGNED_BYTES = 1 << 16
# From here on memory is kept: the C library gives larger ones back at once, at the latest from 32 MiB on.
RECYCLED_BYTES = 4 << 20
KEPT_BYTES = 256 << 20
MOST_WASTE = 1.25  # times the bytes that an output needs; larger memory waits for a larger output

_kept: dict[int, np.ndarray] = {}  # by address; the oldest first


class _Memory:
    """Owns the memory of an array and of all its views, and keeps it when the last of them is gone."""

    def __init__(self, room: np.ndarray, size: int):
        self._room, self._kept = room, _kept
        self._address = address = room.__array_interface__["data"][0]
        place = address + -address % LINE_BYTES
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (place, False)}

    def __del__(self):
        self._kept[self._address] = self._room
        while self._kept and kept_bytes() > KEPT_BYTES:
            self._kept.pop(next(iter(self._kept), None), None)


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """A new C-contiguous array, of memory that an earlier one may have had if it is very large."""
    return maker(shape, dtype)()


def maker(shape: tuple[int, ...], dtype) -> Callable[[], np.ndarray]:
    """What makes one such array after the other.

    It does little, for a layer's call does it, too: 128 x 28 x 28 takes 0.7 us, 1.7 if everything is asked anew and the
    address of `__array_interface__`, which is a dictionary (Zen 5, 2026-11; caches cold, about twenty times as much).
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < ALIGNED_BYTES:
        return partial(np.empty, shape, dtype)
    return partial(_aligned if size < RECYCLED_BYTES else _recycled, shape, dtype, size)


def _aligned(shape, dtype, size, address=ctypes.c_size_t.from_address):
    room = np.empty(size + LINE_BYTES, np.uint8)
    return np.ndarray(shape, dtype, room, -address(id(room) + ARRAY_DATA).value % LINE_BYTES)


def _recycled(shape, dtype, size):
    room = _taken(size + LINE_BYTES)
    return np.asarray(_Memory(room, size)).view(dtype).reshape(shape)


def forget() -> None:
    """Give the memory that is kept back to the system."""
    _kept.clear()


def kept_bytes() -> int:
    """Bytes of memory that wait for an output."""
    return sum(room.nbytes for room in list(_kept.values()))


def _taken(size):
    """Memory that is kept and fits, what was kept last first, for caches still hold it; or new memory."""
    for address, room in reversed(list(_kept.items())):
        if size <= room.nbytes <= MOST_WASTE * size and _kept.pop(address, None) is not None:
            return room
    return np.empty(size, np.uint8)
