"""Calls of generated tasks: a frame of words that says what to compute, and scratch for every thread.

A plan keeps its frames and takes one for each call, so that concurrent calls never share scratch.
"""

import numpy as np

from . import parallel, pool_code, shortcut
from .records import ALIGN, aligned, slots


class Frame:
    """What one call owns: the constants and tables' addresses, and scratch for each of `threads` threads.

    The scratch is zero at first, because wide tiles multiply what lies between staged rows, too, and drop it: with
    denormal numbers there, 14x14 layers of 3x3 took 564 instead of 16 us (Cascade Lake, 2026-11).
    """

    def __init__(self, slots, constants, function, tasks, scratch_bytes, threads):
        self.threads = threads
        self.scratch = aligned(scratch_bytes * threads // 8, np.int64)
        self.words = np.zeros(pool_code.FRAME_HEAD + len(slots), np.int64)
        self.words[pool_code.FRAME_FUNCTION // 8] = function
        self.words[pool_code.FRAME_TASKS // 8] = tasks
        self.words[pool_code.FRAME_THREADS // 8] = threads
        for name, value in {**constants, "scratch": self.scratch.ctypes.data, "scratch_bytes": scratch_bytes}.items():
            self.words[slots[name] // 8] = value
        self.addresses = [self.words.ctypes.data]


class Framed:
    """A plan that keeps its frames and takes one for each call, so concurrent calls never share scratch.

    A subclass makes frames in `_new_frame`, and puts the first into `_frames`, the pool's caller into `_call`, its
    summoner into `summon`.
    """

    def _frame(self):
        """One with scratch for all threads, that no other call has."""
        threads = self._wanted_threads()
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        return self._new_frame() if frame.threads < threads else frame

    def _wanted_threads(self):
        """How many threads a call may meet."""
        return parallel.ready()

    def shortcut(self, known):
        """See `convbench.engine.Plan`."""
        frame = self._frame()
        return shortcut.make(known, frame.addresses, self._call, self.summon, kept=(self, frame))

    def __call__(self, x, out):
        """Compute `out` from `x`, both C-contiguous in the spec's memory format; nothing is checked."""
        frame = self._frame()
        self._call(frame.addresses[0], id(x), id(out))
        self._frames.append(frame)


class FramePlan(Framed):
    """A plan that runs the tasks of one generated function.

    Parameters
    ----------
    function : int
        Address of ``task(frame, index, worker)``.
    names : sequence of str
        Words of a frame behind its head, in order; "tasks", "scratch" and "scratch_bytes" are filled in here.
    words : dict of str to int
        The others.
    arrays : dict of str to ndarray
        Arrays whose addresses are words, too; kept here.
    tasks : int
        With one task the calling thread computes alone.
    scratch_bytes : int
        Scratch of one thread.

    Attributes
    ----------
    nbytes : int
        Bytes of arrays and scratch.
    summon : callable or None
        See `convbench.engine.Plan`.
    """

    def __init__(self, function, names, words, arrays, tasks, scratch_bytes):
        self._arrays, self._tasks = arrays, tasks
        known = {name: array.ctypes.data for name, array in arrays.items()} | words | {"tasks": tasks}
        self._slots = slots(" ".join(names), pool_code.FRAME_HEAD)
        self._constants = {name: value for name, value in known.items() if name in names}
        self._made = function, tasks, (-(-scratch_bytes // ALIGN) + 2) * ALIGN
        self._call, self.summon = parallel.caller(), parallel.summoner(tasks)
        self._frames = [self._new_frame(1)]
        self._frame_bytes = self._frames[0].words.nbytes + self._frames[0].scratch.nbytes

    def _wanted_threads(self):
        return parallel.ready() if self._tasks > 1 else 1

    def _new_frame(self, threads=None):
        return Frame(self._slots, self._constants, *self._made, threads or self._wanted_threads())

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        return sum(array.nbytes for array in self._arrays.values()) + self._frame_bytes
