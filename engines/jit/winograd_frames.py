"""Winograd's calls: rounds of tasks, and what one call at a time owns."""

import numpy as np

from . import parallel, pool_code, shortcut
from .frames import Framed
from .records import ALIGN, aligned

#: In front of a thread's scratch: the key of what its V holds.
SCRATCH_HEAD = 64


class RoundsPlan(Framed):
    """A plan whose call is rounds of tasks, one after the other.

    A subclass has its tables in `_arrays`, makes frames in `_new_frame`, and calls `_begin` when it can.

    Attributes
    ----------
    nbytes : int
        Bytes that the plan holds.
    summon : callable or None
        See `convbench.engine.Plan`.
    """

    def _begin(self, most_tasks):
        self._call, self.summon = parallel.caller(), parallel.summoner(most_tasks)
        self._frames = [self._new_frame()]
        self._scratch_bytes = self._frames[0].nbytes

    def shortcut(self, known):
        """See `convbench.engine.Plan`."""
        frame = self._frame()
        struck = frame.flags.view(np.int64)
        return shortcut.make(known, frame.addresses, self._call, self.summon, struck, kept=(self, frame))

    def __call__(self, x, out):
        """Compute `out` from `x`, both C-contiguous; true if all outputs are finite (others may be wrong)."""
        frame = self._frame()
        for address in frame.addresses:
            self._call(address, id(x), id(out))
        finite = not frame.flags.any()
        self._frames.append(frame)
        return finite

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        return sum(array.nbytes for array in self._arrays.values()) + self._scratch_bytes


class Frame:
    """Scratch, flags, and the words of every round of tasks.

    Parameters
    ----------
    slots : dict of str to int
        Of a frame; "tasks", "scratch", "scratch_bytes", "v", "m", "worker_bytes" and "flags" are filled in here.
    constants : dict of str to int
        The others.
    steps : list of (int, ndarray)
        Of each round the function's address and its table of tasks.
    row_bytes : int
        Scratch of a thread beside V and M.
    sizes : dict of str to int
        Bytes of "v" and "m".
    threads : int
    each_its_own : bool
        Whether each thread has its V and M.
    """

    def __init__(self, slots, constants, steps, row_bytes, sizes, threads, each_its_own):
        self.threads = threads
        sizes = {name: -(-size // ALIGN) * ALIGN for name, size in sizes.items()}
        head = SCRATCH_HEAD + -(-row_bytes // ALIGN) * ALIGN
        each = head + (sum(sizes.values()) if each_its_own else 0) + ALIGN
        whole = each * threads + (0 if each_its_own else sum(sizes.values()))
        self._scratch = aligned(whole // 8, np.int64)
        self.flags = aligned(max(len(tasks) for _, tasks in steps) * len(steps) * ALIGN // 4, np.float32)
        start = self._scratch.ctypes.data
        v = start + (head if each_its_own else each * threads)
        constants = {
            **constants,
            "scratch": start,
            "scratch_bytes": each,
            "v": v,
            "m": v + sizes["v"],
            "worker_bytes": each if each_its_own else 0,
        }
        self._words = np.zeros((len(steps), pool_code.FRAME_HEAD + len(slots)), np.int64)
        for number, (words, (function, tasks)) in enumerate(zip(self._words, steps, strict=True)):
            words[pool_code.FRAME_FUNCTION // 8], words[pool_code.FRAME_TASKS // 8] = function, len(tasks)
            words[pool_code.FRAME_THREADS // 8] = threads
            flags = self.flags.ctypes.data + number * (self.flags.nbytes // len(steps))
            for name, value in {**constants, "tasks": tasks.ctypes.data, "flags": flags}.items():
                words[slots[name] // 8] = value
        self.addresses = [words.ctypes.data for words in self._words]

    @property
    def nbytes(self):
        """Bytes of scratch, flags and words."""
        return self._scratch.nbytes + self.flags.nbytes + self._words.nbytes
