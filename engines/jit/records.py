"""Tables of 64-bit records that plans hand to generated code, how it reads and writes them, and frames of calls."""

import numpy as np

from . import parallel, pool_code

#: Bytes of a cache line.
ALIGN = 64


def slots(names, first=0):
    """Byte offsets of consecutive 64-bit slots."""
    return {name: 8 * number for number, name in enumerate(names.split(), first)}


def size(slots):
    """Bytes of one record."""
    return 8 * len(slots)


def aligned(count, dtype):
    """Zeros that begin on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.zeros(count * itemsize + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + count * itemsize].view(dtype)


def table(slots, rows):
    """Records as a matrix; `rows` holds a dict of arrays or numbers, one entry per record."""
    columns = np.broadcast_arrays(*(np.asarray(rows[name], np.int64) for name in slots))
    return np.ascontiguousarray(np.stack(columns, axis=-1))


class Record:
    """A row of 64-bit slots in memory, by name, in the code being written."""

    def __init__(self, at, slots):
        self.at, self.slots = at, slots

    def __getitem__(self, name):
        return (self.at + self.slots[name]).load()

    def __setitem__(self, name, value):
        (self.at + self.slots[name]).store(value)

    def pointer(self, name):
        """The slot's value as a pointer."""
        return (self.at + self.slots[name]).load_pointer()


class Frame:
    """What one call owns: the constants and tables' addresses, and scratch for each of `threads` threads."""

    def __init__(self, slots, constants, function, tasks, scratch_bytes, threads):
        self.threads = threads
        self.scratch = aligned(scratch_bytes * threads // 8, np.int64)
        self.words = np.zeros(pool_code.FRAME_HEAD + len(slots), np.int64)
        self.words[pool_code.FRAME_FUNCTION // 8] = function
        self.words[pool_code.FRAME_TASKS // 8] = tasks
        self.words[pool_code.FRAME_THREADS // 8] = threads
        for name, value in {**constants, "scratch": self.scratch.ctypes.data, "scratch_bytes": scratch_bytes}.items():
            self.words[slots[name] // 8] = value
        self.address = self.words.ctypes.data


class Framed:
    """A plan that keeps its frames and takes one for each call, so concurrent calls never share scratch.

    A subclass makes frames in `_new_frame`, and puts the first into `_frames`, the pool's caller into `_call`, its
    summoner into `summon`.
    """

    def _frame(self):
        """One with scratch for all threads, that no other call has."""
        threads = parallel.ready()
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        return self._new_frame() if frame.threads < threads else frame

    def __call__(self, x, out):
        """Compute `out` from `x`, both C-contiguous in the spec's memory format; nothing is checked."""
        frame = self._frame()
        self._call(frame.address, id(x), id(out))
        self._frames.append(frame)
