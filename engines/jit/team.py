"""The team: the threads of another library's OpenMP, PyTorch's, on which jobs run while they spin.

After each of its calls PyTorch's threads spin for some milliseconds, and a worker that wakes then has to share its core
with one of them.  So, in the thread that PyTorch's calls come from, a job is one more parallel region of the same
OpenMP while they do: nobody has to wake, and nothing is in the way.  Who spins is told by the processor time of one of
them, which goes on.

The team is GNU's OpenMP's (libgomp, ``GOMP_parallel``), which keeps one for each thread that has had regions; only the
main thread's is used, where it has about as many threads as the pool.  A forked child has none of the threads,
and libgomp does not know: so the team is dissolved before a fork (``omp_pause_resource_all``), and a child never uses
one.
"""

import ctypes
import functools
import os
import sys
import threading
from pathlib import Path

from convbench import settings

from . import scheduling
from .atomics import add, get, put

#: What every loaded library is listed in.
LOADED = Path("/proc/self/maps")
#: What Linux tells of a process, the place of its flags behind its name, and ``PF_FORKNOEXEC`` of them.
STATE, STATE_FLAGS, FORKED = Path("/proc/self/stat"), 6, 0x40
#: OpenMP's ``omp_pause_hard``: give everything back.
PAUSE_HARD = 2

#: Of a region's time a member computes at least so many percent, or it shares its processor with a third library's
#: spinning thread.  The workers do better then, and no region is tried again for a while.
FREE_PERCENT = 75
#: How long, in times that the main thread had work in that region: at first and at most, twice as long as the last time
#: each time, and less by one in `FORGETFUL` after every other region; in nanoseconds at most.  A thread of another
#: library gets a processor back for 3 ms every now and then, which a short region meets by chance and a long one often;
#: one that stays meets each.  64 -> 64 channels at 32x32, 1x1, in turn with PyTorch, ONNX Runtime and OpenVINO: one
#: region in 250 took 2 ms, and a third of the calls were held up by 100 ms each (Zen 4, November 2026).
LEAST_HOLD, MOST_HOLD, FORGETFUL, HOLD_NANOSECONDS = 32, 1024, 32, 128_000_000
#: For so many nanoseconds who was seen to spin is taken to do so still: each look takes two times of 1.1 us.
FRESH_NANOSECONDS = 50_000

# The words of the team, in bytes: GOMP_parallel, or 0 where there is no team, what a member does, how many members a
# region gets, the numbers in the system of the main thread and of another member; whether there is a job, and how many
# members have come; the time until which jobs are not the team's, and how long that was, in regions; when the other
# member was seen to spin, its number and its processor time then; of the last region when the last other member had
# come, and when the main thread had nothing left to do.
REGION, MEMBER, MOST, MAIN, OTHER, HAS_JOB, COUNT = (8 * i for i in range(7))
HOLD, HELD, SEEN, WATCHED, COMPUTED, CAME, LEFT = (8 * i for i in range(7, 14))


def find():
    """The OpenMP of a PyTorch in this process, or None: also where the user wants it left alone."""
    able = "torch" in sys.modules and scheduling.knows_threads() and settings.shares_threads()
    library = _library() if able else None
    return library if library and not is_fork() else None


def is_fork():
    """Whether this process was forked off, and is still the same program: its OpenMP may wait for its parent's threads.

    Linux tells; who is told of forks does not know of one before this module was imported.
    """
    _, _, rest = STATE.read_text().rpartition(")")
    return bool(int(rest.split()[STATE_FLAGS]) & FORKED)


@functools.cache
def _library():
    """The loaded OpenMP.  Other wheels bring theirs in a folder ``*.libs``; PyTorch's is elsewhere, or the system's."""
    try:
        lines = [line for line in LOADED.read_text().splitlines() if "libgomp" in line]
        paths = {Path(line.split(maxsplit=5)[-1]) for line in lines}
        others = (path for path in paths if path.parent.suffix != ".libs")
        shared = sorted(others, key=lambda path: "torch" not in str(path))
        library = ctypes.CDLL(str(shared[0]), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        return library if all((library.GOMP_parallel, library.omp_pause_resource_all)) else None
    except (IndexError, OSError, AttributeError):
        return None


class Team:
    """A library's team, and the words that generated code finds it by.

    Parameters
    ----------
    library : ctypes.CDLL
    words : ndarray of int64
    member : int
        Address of `write_member`'s function.
    """

    def __init__(self, library, words, member):
        self._library, self._words, self._member = library, words, member

    def meet(self):
        """Have a first region, in the main thread, in which another member tells its number; then jobs come."""
        words = self._words
        words[MAIN // 8] = threading.main_thread().native_id
        words[MEMBER // 8] = self._member
        words[MOST // 8] = ctypes.cast(self._library.omp_get_max_threads, ctypes.c_void_p).value
        region = self._library.GOMP_parallel
        region(ctypes.c_void_p(self._member), ctypes.c_void_p(words.ctypes.data), 0, 0)
        words[REGION // 8] = ctypes.cast(region, ctypes.c_void_p).value

    def dissolve(self):
        """Let the calling thread's team end; no more jobs come."""
        self._words[REGION // 8] = 0
        self._library.omp_pause_resource_all(PAUSE_HARD)


def take_part(code, words, work):
    """What a member does: ``work(number)`` where there is a job, its number 0 if it is the main thread.

    The first region has none: there another member tells who it is.
    """
    thread, number = scheduling.thread_number(code), code.stack(8)
    number.store(0)
    with code.when(thread.compare("!=", (words + MAIN).load())):
        (words + OTHER).store(thread)
        number.store(add(words + COUNT, 1) + 1)
        put(words + CAME, scheduling.now(code))
    with code.when(get(words + HAS_JOB).compare("!=", 0)):
        work(number.load())
    with code.when(number.load().compare("==", 0)):
        (words + LEFT).store(scheduling.now(code))


def run(code, words):
    """Do the job that is up, in a region.

    A region ends when every member has come, be there something left to do for him or not: who has lost his processor
    to a third library's spinning thread makes a job of 0.1 ms take 2 to 4.
    """
    put(words + COUNT, 0)
    put(words + HAS_JOB, 1)
    begin = scheduling.now(code)
    put(words + CAME, begin)
    code.call((words + REGION).load_pointer(), [(words + MEMBER).load_pointer(), words, 0, 0])
    put(words + HAS_JOB, 0)
    end = scheduling.now(code)
    lost = (get(words + CAME) - begin) + (end - (words + LEFT).load())
    held = words + HELD
    held.store((held.load() - held.load() // FORGETFUL).most(LEAST_HOLD))
    with code.when((lost * 100).compare(">", (end - begin) * (100 - FREE_PERCENT))):
        _hold_if_shared(code, words, begin, end)


def _hold_if_shared(code, words, begin, end):
    """Keep jobs from the team for a while if the other member has not computed since it was seen to spin."""
    computed = _processor_time(code, (words + WATCHED).load()) - (words + COMPUTED).load()
    with code.when((computed * 100).compare("<", (end - (words + SEEN).load()) * FREE_PERCENT)):
        work, held = (words + LEFT).load() - begin, words + HELD
        (words + HOLD).store(end + (work * held.load()).least(HOLD_NANOSECONDS))
        held.store((held.load() * 2).least(MOST_HOLD))
        (words + SEEN).store(0)


def takes(code, words, threads):
    """1 if a job of this thread for at most so many threads is better done by the team now, else 0.

    In the main thread, while its members spin and are at least half as many: with fewer the workers do better.  Not for
    a while after another thread had one's processor.
    """
    found = code.stack(8)
    found.store(0)
    if not scheduling.knows_threads():
        return found.load()
    with code.when((words + REGION).load().compare("!=", 0)), code.when(_is_main(code, words)):
        members = code.call((words + MOST).load_pointer(), [], "i")
        fits = members.compare(">", 1) & members.compare("<=", threads) & (members * 2).compare(">=", threads)
        now = scheduling.now(code)
        with code.when(fits & now.compare(">", (words + HOLD).load())):
            found.store((now - (words + SEEN).load()).compare("<", FRESH_NANOSECONDS).choose(1, 0))
            with code.when(found.load().compare("==", 0)), code.when(_spins(code, words)):
                (words + SEEN).store(scheduling.now(code))
                found.store(1)
    return found.load()


def _is_main(code, words):
    return scheduling.thread_number(code).compare("==", (words + MAIN).load())


def _spins(code, words):
    """Whether the other member computes, though there is no region: its processor time goes on."""
    thread = (words + OTHER).load()
    before, after = _processor_time(code, thread), _processor_time(code, thread)
    (words + WATCHED).store(thread)
    (words + COMPUTED).store(after)
    return thread.compare("!=", 0) & after.compare(">", before)


def _processor_time(code, thread):
    """Nanoseconds that the thread of that number has computed."""
    return scheduling.processor_time(code, thread, code.stack(16))
