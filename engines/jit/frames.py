"""Calls of generated tasks: a frame of words that says what to compute, and scratch for every thread.

A plan keeps its frames and takes one for each call, so that concurrent calls never share scratch.
"""

import numpy as np

from . import parallel, pool_code

#: Bytes; scratch of two threads does not share one.
CACHE_LINE = 64


class FramePlan:
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
        self._scratch_bytes = -(-scratch_bytes // CACHE_LINE) * CACHE_LINE + 2 * CACHE_LINE
        known = {name: array.ctypes.data for name, array in arrays.items()}
        known.update(words, tasks=tasks, scratch_bytes=self._scratch_bytes, scratch=0)
        self._words = np.array([0] * pool_code.FRAME_HEAD + [known[name] for name in names], np.int64)
        self._words[[pool_code.FRAME_FUNCTION // 8, pool_code.FRAME_TASKS // 8]] = function, tasks
        self._scratch_word = pool_code.FRAME_HEAD + names.index("scratch")
        self._call, self.summon = parallel.caller(), parallel.summoner(tasks)
        self._frames = [self._new_frame(1)]

    def _new_frame(self, threads):
        """What one call at a time owns: its words' address, threads it has scratch for, words and scratch."""
        # Zeros, because wide tiles multiply what lies between staged rows, too, and drop it: with denormal numbers
        # there, 14x14 layers of 3x3 took 564 instead of 16 us (Cascade Lake, 2026-11).
        scratch = np.zeros(self._scratch_bytes * threads + CACHE_LINE, np.uint8)
        words = self._words.copy()
        words[pool_code.FRAME_THREADS // 8] = threads
        words[self._scratch_word] = scratch.ctypes.data + -scratch.ctypes.data % CACHE_LINE
        return words.ctypes.data, threads, words, scratch

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        frames = (array for frame in self._frames for array in frame[2:])
        return sum(array.nbytes for array in (*self._arrays.values(), *frames))

    def __call__(self, x, out):
        """Compute from `x` into `out`, both C-contiguous in NC... order; nothing is checked."""
        threads = parallel.ready() if self._tasks > 1 else 1
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame(threads)
        if frame[1] < threads:
            frame = self._new_frame(threads)
        self._call(frame[0], id(x), id(out))
        self._frames.append(frame)
