"""Tables of 64-bit records that plans hand to generated code, and how it reads and writes them."""

import numpy as np

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
