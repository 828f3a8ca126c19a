"""What a dense plan hands to generated code: tables of 64-bit records, and the frame of one call with its scratch."""

import numpy as np

from . import dense_kernel, parallel

#: Bytes of a cache line.
ALIGN = 64


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


class Frame:
    """What one call owns: the constants and tables' addresses, and scratch for each of `threads` threads."""

    def __init__(self, constants, function, tasks, scratch_bytes, threads):
        self.threads = threads
        self.scratch = aligned(scratch_bytes * threads // 8, np.int64)
        self.words = np.zeros(parallel.FRAME_HEAD + len(dense_kernel.FRAME), np.int64)
        self.words[parallel.FRAME_FUNCTION // 8] = function
        self.words[parallel.FRAME_TASKS // 8] = tasks
        self.words[parallel.FRAME_THREADS // 8] = threads
        for name, value in {**constants, "scratch": self.scratch.ctypes.data, "scratch_bytes": scratch_bytes}.items():
            self.words[dense_kernel.FRAME[name] // 8] = value
        self.address = self.words.ctypes.data
