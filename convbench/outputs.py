"""Memory for outputs: on a cache line where they are large, and kept for the next one where the system takes it back.

The system hands out new memory page by page, clearing each when it is first written.  The C library keeps what is freed
for whoever asks next, but gives back what is much, or lies at its end: of arrays made and freed one by one, none is
new, and of two at a time each is, which costs 0.4 ms for 1 MiB, 1.5 for 3, 2 for 12 and 6 for 49; in a chain, where an
output is the next input, 0.2 ms for 1 MiB (2-core Zen 4 VM, 2026-11).  So memory that turns out to be new again and
again is kept here when no array refers to it any more, up to `KEPT_BYTES` in all, for the next output of that size,
which then costs 10 us and less.  What was kept last comes first, for the caches still hold it: with a few arrays kept,
call after call met another one that they did not (80 channels at 64 x 64, 3 x 3, batch 4: 214 instead of 113 us).
As long as the C library's memory is not new it is better, for the caches may hold what another library had there:
16 -> 96 channels at 128 x 128, 1 x 1, in turn with four others, 0.51 to 0.67 ms in its memory, 0.84 to 0.99 in our own.
What is still referred to, by the array itself or by any view of it, is never touched.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable
from functools import partial

import numpy as np

LINE_BYTES = 64  # a cache line
#: A NumPy array object keeps the address of its data right behind the object's head.
ARRAY_DATA = object.__basicsize__
# Outputs from here on begin on a cache line, so that whole vectors are stored into one: 64 -> 256 channels at
# 56x56, 1x1, 194 -> 213 GFLOP/s (Cascade Lake, 2026-11). Smaller ones would lose more by the time that it takes.
ALIGNED_BYTES = 1 << 16
RECYCLED_BYTES = 1 << 20  # from here on memory is kept if it is new too often
# A new one counts two, another one minus one, for all outputs between two powers of two; over so much is too often.
PATIENCE = 4
MAPPED_BYTES = 32 << 20  # the C library gives larger ones back at once
KEPT_BYTES = 256 << 20
MOST_WASTE = 1.25  # times the bytes that an output needs; larger memory waits for a larger output

_kept: dict[int, np.ndarray] = {}  # by address; the oldest first
_news: dict[int, int] = {}  # by the logarithm of the size


def _residency():
    """The C library's ``mincore``, or None."""
    try:
        found = ctypes.PyDLL(None).mincore
    except (AttributeError, TypeError, OSError):
        return None
    found.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    return found


_mincore, _answer = _residency(), ctypes.create_string_buffer(1)  # the interpreter is held meanwhile


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


def _aligned(shape, dtype, size):
    return _placed(shape, dtype, np.empty(size + LINE_BYTES, np.uint8))


def _placed(shape, dtype, room, address=ctypes.c_size_t.from_address):
    return np.ndarray(shape, dtype, room, -address(id(room) + ARRAY_DATA).value % LINE_BYTES)


def _recycled(shape, dtype, size):
    room = _taken(size + LINE_BYTES) if _kept else None
    if room is None:
        room = np.empty(size + LINE_BYTES, np.uint8)
        kind = size.bit_length()
        news = _news[kind] = max(0, _news.get(kind, 0) + (2 if _is_new(room, size) else -1))
        if news <= PATIENCE and size < MAPPED_BYTES:
            return _placed(shape, dtype, room)
    return np.asarray(_Memory(room, size)).view(dtype).reshape(shape)


def _is_new(room, size, page=mmap.PAGESIZE, address=ctypes.c_size_t.from_address):
    """Whether the system has yet to hand out the page in the middle of an array's memory, as far as it tells."""
    middle = address(id(room) + ARRAY_DATA).value + size // 2
    return _mincore is None or _mincore(middle - middle % page, page, _answer) != 0 or _answer.raw == b"\0"


def forget() -> None:
    """Give the memory that is kept back to the system, and begin anew to find out what has to be."""
    _kept.clear()
    _news.clear()


def kept_bytes() -> int:
    """Bytes of memory that wait for an output."""
    return sum(room.nbytes for room in list(_kept.values()))


def _taken(size):
    """Memory that is kept and fits, what was kept last first, for caches still hold it; or None."""
    for address, room in reversed(list(_kept.items())):
        if size <= room.nbytes <= MOST_WASTE * size and _kept.pop(address, None) is not None:
            return room
    return None
