"""A thread pool in generated code: fork-join in a microsecond or two, without OpenMP and without Python in the workers.

The workers' and the callers' code is written in `pool_code`.

Several Python threads may call at once: one gets the workers, the others run their tasks themselves.  A
forked child starts its own workers when it first needs them.  Where there are no POSIX threads, everything
runs on the calling thread.
"""

import atexit
import ctypes
import functools
import os
import threading
import warnings

import numpy as np

from convbench import settings

from . import team
from .compile import address
from .pool_code import (
    GUEST,
    HANDLES,
    LOCK,
    MAX_WORKERS,
    OWNER,
    POOL_BYTES,
    PROCESSOR,
    STOP,
    TEAM,
    THREADS,
    WAKE,
    posix_threads,
    write_call,
    write_member,
    write_seize,
    write_summon,
    write_worker,
)
from .target import target

_FUNCTION_OF_POOL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Pool:
    """The workers of this process, and the memory that they share with callers."""

    def __init__(self):
        raw = np.zeros(POOL_BYTES + 128, np.uint8)
        self.memory = raw[-raw.ctypes.data % 128 :][:POOL_BYTES].view(np.int64)
        self.ended = False
        self.team = None
        self.reset()

    def reset(self):
        """Forget all workers: at first, and in a forked child, which has none of its parent's."""
        self.memory[:] = 0
        self.workers = []
        self.lock = threading.Lock()
        self.wanted = None
        self.threads = 1

    def after_fork(self):
        """In a child, which has none of its parent's threads."""
        self.team = None
        self.reset()

    def before_fork(self):
        """Give up the team: a child's OpenMP would wait for threads that only its parent has."""
        if self.team and _in_main_thread():
            self.team.dissolve()
            self.team = None

    def join_team(self):
        """Find the main thread's team, once PyTorch is there."""
        if self.team or not _in_main_thread():
            return
        library = team.find()
        if library:
            member = address("member", (), target(), write_member)
            self.team = team.Team(library, self.memory[TEAM // 8 :], member)
            self.team.meet()

    def start(self, wanted):
        """Make `wanted` threads, the caller's included, out of those that are there."""
        with self.lock:
            if self.wanted == wanted:
                return
            self._stop()
            if not self.ended and wanted > 1:
                self._make(wanted - 1)
            self.threads = len(self.workers) + 1
            self.wanted = wanted

    def _make(self, count):
        base, system = self.memory.ctypes.data, posix_threads()
        if system is None:
            return warnings.warn(
                "convbench computes on one thread: this system has no POSIX threads", RuntimeWarning, stacklevel=4
            )
        worker = address("worker", (), target(), write_worker)
        system.pthread_mutex_init(ctypes.c_void_p(base + LOCK), None)
        system.pthread_cond_init(ctypes.c_void_p(base + WAKE), None)
        for number in range(min(count, MAX_WORKERS)):
            handle = ctypes.c_void_p.from_address(base + HANDLES + 8 * number)
            if system.pthread_create(ctypes.byref(handle), None, ctypes.c_void_p(worker), ctypes.c_void_p(base)):
                return warnings.warn(
                    f"convbench computes on {len(self.workers) + 1} threads: the system makes no more",
                    RuntimeWarning,
                    stacklevel=4,
                )
            self.workers.append(handle)

    def _stop(self):
        """End the workers, between two jobs: no caller may touch a thread that has ended."""
        if self.workers:
            system, base = ctypes.CDLL(None), self.memory.ctypes.data
            _FUNCTION_OF_POOL(address("seize", (), target(), write_seize))(base)
            self.memory[STOP // 8] = 1
            system.pthread_mutex_lock(ctypes.c_void_p(base + LOCK))
            system.pthread_cond_broadcast(ctypes.c_void_p(base + WAKE))
            system.pthread_mutex_unlock(ctypes.c_void_p(base + LOCK))
            for handle in self.workers:
                system.pthread_join(handle, None)
        for word in (STOP, THREADS, PROCESSOR, OWNER, GUEST):
            self.memory[word // 8] = 0
        self.workers = []

    def end(self):
        """At the interpreter's exit: no worker may run while it takes itself apart; later calls compute alone."""
        with self.lock:
            self.ended = True
            self._stop()


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()


def ready():
    """Make sure that as many workers as wanted wait for jobs, and return how many threads a job may meet.

    A plan calls this before it computes.
    """
    wanted = settings.get_num_threads()
    if _pool.wanted != wanted:
        _pool.start(wanted)
    return _pool.threads


def caller():
    """``call(frame_address, id(x), id(out))``: sets the frame's arrays and runs its tasks on the free threads."""
    _pool.join_team()
    return _caller()


@functools.cache
def _caller():
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    return kind(address("call", (), target(), lambda module: write_call(module, _pool.memory.ctypes.data)))


def summoner(tasks):
    """``summon()``: wakes the workers for a call that comes at once; None where it has but one task."""
    return _summon() if tasks > 1 and posix_threads() else None


@functools.cache
def _summon():
    kind = ctypes.CFUNCTYPE(None)
    return kind(address("summon", (), target(), lambda module: write_summon(module, _pool.memory.ctypes.data)))


_pool = _Pool()
atexit.register(_pool.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pool.before_fork, after_in_child=_pool.after_fork)
