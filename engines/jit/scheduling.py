"""Where and when the system runs the pool's threads: code that asks it, beside other libraries' threads that spin."""

import ctypes
import platform
import sys

#: Bytes of a set of processors (glibc's ``cpu_set_t``).
PROCESSOR_SET_BYTES = 128
#: Numbers of Linux's sched_getattr and sched_setattr, bytes of their ``struct sched_attr``, where its turn's length
#: stands, and the shortest that there is.
SCHEDULING_CALLS = {"x86_64": (315, 314), "aarch64": (275, 274)}
SCHEDULING_BYTES, SCHEDULING_TURN, TURN_NANOSECONDS = 48, 24, 100_000

#: Linux's ``RUSAGE_THREAD``, bytes of a ``struct rusage``, and where ``ru_nivcsw`` stands.
USAGE_OF_THREAD, USAGE_BYTES, USAGE_LOST = 1, 144, 136

MONOTONIC_CLOCK = 6 if sys.platform == "darwin" else 1
#: A clock of Linux that counts a thread's own processor time is -8 times the thread's number and this.
THREAD_CLOCK = -2


def knows_threads():
    """Whether a thread can be told where to run, and asked how long it has."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gettid")


def make_way(code, processor_known, handles, workers):
    """Keep the workers off the caller's processor, by their affinity, whenever the caller turns up on another one.

    `processor_known` points to the processor of the last call, plus one; `handles` to the workers' threads.

    Linux likes to wake a thread on the processor that wakes it, where the caller keeps it waiting: on the
    two-core machine of November 2026 a call after 12 ms of sleep took twice as long, and so did the next
    ones.  The processors left are those of the caller's own affinity; where that is only one, setting the
    empty set fails, and nothing changes.
    """
    processor = code.widen(code.external("sched_getcpu", []))
    moved = processor_known.load().compare("!=", processor + 1)
    with code.when(moved & processor.compare("<", 8 * PROCESSOR_SET_BYTES)):
        processor_known.store(processor + 1)
        allowed = code.stack(PROCESSOR_SET_BYTES)
        code.external("sched_getaffinity", [code.int32(0), code.value(PROCESSOR_SET_BYTES), allowed])
        word = allowed + (processor >> 6) * 8
        word.store(word.load() & ((code.value(1) << (processor & 63)) * -1 - 1))

        def move(worker):
            code.external(
                "pthread_setaffinity_np",
                [(handles + worker * 8).load(), code.value(PROCESSOR_SET_BYTES), allowed],
            )

        code.loop(workers, move)


def come_soon(code):
    """Ask Linux (6.12 and newer) for short turns of the calling thread, so that it gets one soon after it wakes.

    Other libraries' idle threads spin for milliseconds, on the core that a worker wakes on; it would wait for the
    end of their turn.  A thread's share of a core stays what it was, and so do its policy and priority.
    """
    numbers = SCHEDULING_CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if numbers is None:
        return
    get, put = numbers
    attributes = code.stack(SCHEDULING_BYTES)
    found = code.external("syscall", [code.value(get), 0, attributes, SCHEDULING_BYTES, 0])
    ordinary = code.widen(found).compare("==", 0) & (attributes.load() >> 32).compare("==", 0)
    with code.when(ordinary):
        (attributes + SCHEDULING_TURN).store(TURN_NANOSECONDS)
        code.external("syscall", [code.value(put), 0, attributes, 0, 0])


def now(code, time=None):
    """Nanoseconds of a clock that only moves forward; `time` is scratch memory, its own if it is None."""
    time = code.stack(16) if time is None else time
    code.external("clock_gettime", [code.int32(MONOTONIC_CLOCK), time])
    return time.load() * 1_000_000_000 + (time + 8).load()


def thread_number(code):
    """The calling thread's number."""
    return code.widen(code.external("gettid", []))


def processor_time(code, thread, time):
    """Nanoseconds that the thread of that number has computed; `time` is scratch memory."""
    code.external("clock_gettime", [code.narrow(thread * -8 + THREAD_CLOCK), time])
    return time.load() * 1_000_000_000 + (time + 8).load()


def times_lost(code):
    """How often the calling thread lost its processor to another one while it computed."""
    usage = code.stack(USAGE_BYTES)
    code.external("getrusage", [code.int32(USAGE_OF_THREAD), usage])
    return (usage + USAGE_LOST).load()


def bring_here(code, thread):
    """Have the thread of that number run on the caller's processor, and nowhere else."""
    processor = code.widen(code.external("sched_getcpu", []))
    only = code.stack(PROCESSOR_SET_BYTES)
    for word in range(0, PROCESSOR_SET_BYTES, 8):
        (only + word).store(0)
    with code.when(processor.compare("<", 8 * PROCESSOR_SET_BYTES)):
        (only + (processor >> 6) * 8).store(code.value(1) << (processor & 63))
        code.external("sched_setaffinity", [code.narrow(thread), code.value(PROCESSOR_SET_BYTES), only])
