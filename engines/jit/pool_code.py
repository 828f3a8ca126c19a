"""The code of the thread pool: claiming tasks, waiting for them, and the life of a worker.

The caller publishes a job as one 64-bit word: its serial number above, the number of unclaimed tasks below.
Whoever takes part claims a task by decreasing the word with compare-and-swap, and then takes the next number
of its half of them (`_next`).  So a delayed worker holds nobody up, a claim can never fall into the wrong
job, and the job is over when as many tasks were finished as published.  Idle workers watch the word for a
short time and then sleep on a condition variable.  What a task computes must not depend on who runs it.
"""

import ctypes

from convbench.outputs import ARRAY_DATA

from . import scheduling, team, waking
from .atomics import add, get, put, swap_if
from .target import target
from .vector import Code

#: How long an idle worker watches for the next job before it sleeps: longer than the Python between two
#: layers of a network, shorter than anyone would notice on a busy machine.  Waking a sleeper costs 8 to 20
#: us: 256 x 256, k = 5 took 37 us with 50 us of watching and 20 us with 200 us or more (Zen 4, 2026-11).
SPIN_NANOSECONDS = 200_000
#: How long a worker that was summoned watches for the job, at least: longer than the Python between the two.
SUMMONED_NANOSECONDS = 50_000
#: How long a caller watches for the tasks of others before it gives up its processor, which they may need.
AWAIT_NANOSECONDS = 500_000
#: How often it looks, meanwhile, for one that has no processor.
LOOK_NANOSECONDS = 50_000
#: Looks at the job word between two looks at the clock; one pause takes 15-50 ns.
SPINS_PER_CLOCK = 64

# The pool's memory, in bytes; what several threads write has a cache line (or a pair of them) of its own.
JOB, DONE, OWNER, STOP, SLEEPERS, FUNCTION, FRAME, LIMIT, LOCK, WAKE, WOKEN, THREADS, PROCESSOR, GUEST = (
    128 * i for i in range(14)
)
FIRST_HALF, SECOND_HALF, SUMMONS, TEAM, LAST_ALONE, HANDLES = (128 * i for i in range(14, 20))
MAX_WORKERS = 1023
# A line for each thread, the caller's first: whether it has a task, its number in the system, the processor time that
# it had when a waiting caller last looked.
LINES, LINE_BYTES = HANDLES + 8 * (MAX_WORKERS + 1), 64
AT_WORK, THREAD, TIME = 0, 8, 16
POOL_BYTES = LINES + LINE_BYTES * (MAX_WORKERS + 1)
LOW = (1 << 32) - 1

# The head of a frame: what a call hands to its tasks, the number of this call, how many threads it has scratch for (0:
# none is needed), and the times of calls that found the workers asleep (`waking`); the rest belongs to the family.
FRAME_FUNCTION, FRAME_TASKS, FRAME_INPUT, FRAME_OUTPUT, FRAME_SERIAL, FRAME_THREADS = (8 * i for i in range(6))
FRAME_HELPED, FRAME_ALONE, _FRAME_DECISIONS = (8 * i for i in range(6, 9))
FRAME_HEAD = 9

# Who does a job with the caller: the workers that are awake, those that sleep, too, or the team.
AS_THEY_ARE, WOKEN_ONES, BY_TEAM = range(3)


def _no_task(pool):
    return (get(pool + JOB) & LOW).compare("==", 0)


def _next(code, pool, tasks, worker):
    """The number of the task that a thread does which has claimed one: the next of its half, or else of the other one.

    The caller and every second worker begin with the first half.  So neighbouring tasks are on one core, which has the
    lines of memory that both of them meet, and, of layer after layer, each core reads what it wrote.  Against the next
    task for whoever comes, two Zen 5 cores that are far from each other (2026-11; near 1.00 to 1.05): 64 -> 128
    channels at 56x56, 1x1, stride 2, 1.08; 256 -> 1024 at 14x14, batch 8, 1.05; 64 -> 64 at 224x224 by Winograd 1.09.
    """
    half, number = (tasks + 1) >> 1, code.stack(8)
    with code.either((worker & 1).compare("==", 0)) as (even, odd):
        with even:
            number.store(add(pool + FIRST_HALF, 1))
            with code.when(number.load().compare(">=", half)):
                number.store(add(pool + SECOND_HALF, 1) + half)
        with odd:
            number.store(add(pool + SECOND_HALF, 1) + half)
            with code.when(number.load().compare(">=", tasks)):
                number.store(add(pool + FIRST_HALF, 1))
    return number.load()


def _drain(code, pool, worker, limited=True):
    """Claim and run tasks until none is left unclaimed, or, if it is `limited`, none that this worker has scratch for.

    The limit is read between two looks at the job, so that it is this job's: another thread may have asked
    for more workers since the call took its frame.
    """
    at_work = pool + LINES + worker * LINE_BYTES + AT_WORK

    def claim():
        job = get(pool + JOB)
        left = job & LOW
        some = left.compare(">", 0)
        if limited:
            some = some & worker.compare("<", get(pool + LIMIT))
        with code.when(some), code.when(swap_if(pool + JOB, job, job - 1)):
            at_work.store(1)
            frame = (pool + FRAME).load_pointer()
            number = _next(code, pool, (frame + FRAME_TASKS).load(), worker)
            code.call((pool + FUNCTION).load_pointer(), [frame, number, worker])
            at_work.store(0)
            add(pool + DONE, 1)
        return some

    code.repeat(claim)


def _watch(code, pool, time, patience, summons, known):
    """Spin until there is a task, at most `patience` nanoseconds; then sleep until there is one, a summons, or the end.

    Who spins beside another library's spinning threads uses up its share of the core, and is not let in when
    there is work.  So a worker that lost its core since it was woken the last time is impatient: it sleeps at once next
    time, and watches a little longer every time that it is woken.
    """
    summoned = get(pool + SUMMONS)
    least = summoned.compare("!=", summons.load()).choose(SUMMONED_NANOSECONDS, 0)
    summons.store(summoned)
    deadline = scheduling.now(code, time) + patience.load().most(least)

    def spin(_):
        with code.when(_no_task(pool)):
            code.assembly(code.target.pause)

    def look():
        code.loop(SPINS_PER_CLOCK, spin)
        return _no_task(pool) & scheduling.now(code, time).compare("<", deadline)

    def idle():
        stays = get(pool + STOP).compare("==", 0) & get(pool + SUMMONS).compare("==", summons.load())
        asleep = _no_task(pool) & stays
        with code.when(asleep):
            code.external("pthread_cond_wait", [pool + WAKE, pool + LOCK])
        return asleep

    code.repeat(look)
    with code.when(_no_task(pool)):
        code.external("pthread_mutex_lock", [pool + LOCK])
        add(pool + SLEEPERS, 1)
        code.repeat(idle)
        add(pool + SLEEPERS, -1)
        code.external("pthread_mutex_unlock", [pool + LOCK])
        late = (scheduling.now(code, time) - (pool + WOKEN).load()).compare(">", waking.LATE_NANOSECONDS)
        lost = late
        if scheduling.knows_threads():
            losses = scheduling.times_lost(code)
            lost = losses.compare("!=", known.load())
            known.store(losses)
        waking.learn_patience(patience, late, lost, SPIN_NANOSECONDS)


def write_worker(module):
    """``void *worker(void *pool)``: the life of one worker thread."""
    code = Code(module, "worker", target(), "p", result=True)
    (pool,) = code.arguments
    scheduling.come_soon(code)
    time, patience, summons, known = code.stack(16), code.stack(8), code.stack(8), code.stack(8)
    patience.store(SPIN_NANOSECONDS)
    known.store(0)
    summons.store(get(pool + SUMMONS))
    number = add(pool + THREADS, 1) + 1
    if scheduling.knows_threads():
        (pool + LINES + number * LINE_BYTES + THREAD).store(scheduling.thread_number(code))

    def live():
        _watch(code, pool, time, patience, summons, known)
        _drain(code, pool, number)
        with code.when(get(pool + GUEST).compare("==", number)):  # of the caller's processor: leave it soon
            patience.store(0)
            put(pool + GUEST, 0)
        return get(pool + STOP).compare("==", 0)

    code.repeat(live)
    code.finish(pool)


def posix_threads():
    """The C library, or None where it has no POSIX threads."""
    try:
        system = ctypes.CDLL(None)
        return system if system.pthread_create else None
    except (AttributeError, TypeError, OSError):
        return None


def _publish(code, pool, frame, tasks, timed, begin):
    """Put up a job, and have the team do it or wake the workers that sleep, if that is worth it.

    `timed` gets the place for the job's time then, and `begin` when it began.
    """
    threads = (frame + FRAME_THREADS).load()
    limit = threads.compare(">", 0).choose(threads, MAX_WORKERS + 1)
    way = code.stack(8)
    way.store(AS_THEY_ARE)
    with code.when(get(pool + SLEEPERS).compare(">", 0)):
        _find_way(code, pool, frame, limit, way, timed, begin)
    by_team = way.load().compare("==", BY_TEAM)
    (pool + FUNCTION).store((frame + FRAME_FUNCTION).load())
    (pool + FRAME).store(frame)
    put(pool + LIMIT, by_team.choose(0, limit))
    for counter in (DONE, FIRST_HALF, SECOND_HALF):
        put(pool + counter, 0)
    serial = (get(pool + JOB) >> 32) + 1
    put(pool + JOB, (serial << 32) + tasks)
    with code.either(by_team) as (yes, no):
        with yes:
            team.run(code, pool + TEAM)
        with no:
            _make_way(code, pool)
            with code.when(way.load().compare("==", WOKEN_ONES)):
                _wake(code, pool)


def _find_way(code, pool, frame, limit, way, timed, begin):
    """How a job for at most `limit` threads is done while workers sleep."""
    now, helped, alone = scheduling.now(code), frame + FRAME_HELPED, frame + FRAME_ALONE
    worth = waking.is_worth_it(code, helped, alone, pool + LAST_ALONE, pool + WOKEN, now, SPIN_NANOSECONDS)
    begin.store(now)
    timed.store(alone)
    with code.when(worth.compare("==", 1)):
        timed.store(helped)
        by_team = team.takes(code, pool + TEAM, ((pool + THREADS).load() + 1).least(limit))
        way.store(by_team.compare("!=", 0).choose(BY_TEAM, WOKEN_ONES))


def write_member(module):
    """``void member(void *words)``: what each thread of the team does in a region; its own workers keep out."""
    code = Code(module, "member", target(), "p")
    (words,) = code.arguments
    pool = words + -TEAM
    team.take_part(code, words, lambda number: _drain(code, pool, number, limited=False))
    code.finish()


def _make_way(code, pool):
    if hasattr(ctypes.CDLL(None), "sched_getcpu"):
        scheduling.make_way(code, pool + PROCESSOR, pool + HANDLES, (pool + THREADS).load())


def _wake(code, pool):
    """Wake the workers that sleep, without the lock: they need it then.  Who is about to sleep has it until he does."""
    (pool + WOKEN).store(scheduling.now(code))
    code.external("pthread_mutex_lock", [pool + LOCK])
    code.external("pthread_mutex_unlock", [pool + LOCK])
    code.external("pthread_cond_broadcast", [pool + WAKE])


def write_summon(module, memory):
    """``void summon(void)``: a job comes in some microseconds, in which the workers that sleep wake up.

    Nothing where another caller has them, or the team spins.  `memory` is the pool's address.
    """
    code = Code(module, "summon", target(), "")
    pool = code.pointer(memory)
    with code.when(get(pool + SLEEPERS).compare(">", 0)):
        by_team = team.takes(code, pool + TEAM, (pool + THREADS).load() + 1)
        with code.when(by_team.compare("==", 0)), code.when(swap_if(pool + OWNER, 0, 1)):
            _make_way(code, pool)
            add(pool + SUMMONS, 1)
            _wake(code, pool)
            put(pool + OWNER, 0)
    code.finish()


def _await(code, pool, tasks):
    """Wait for the tasks that others claimed; when it takes long give up the processor: they may need it.

    Not soon: beside another library's spinning threads, who gives up a processor gets it back after milliseconds.
    But at once for a worker that lost its own to such a thread in the middle of a task.
    """
    time, looks = code.stack(16), code.stack(8)

    def unfinished():
        return get(pool + DONE).compare("<", tasks)

    def spin(_):
        with code.when(unfinished()):
            code.assembly(code.target.pause)

    def look():
        code.loop(SPINS_PER_CLOCK, spin)
        waited = scheduling.now(code, time) - begin
        if scheduling.knows_threads():
            due = waited.compare(">", looks.load() * LOOK_NANOSECONDS)
            with code.when(unfinished() & due & get(pool + GUEST).compare("==", 0)):
                looks.store(looks.load() + 1)
                _find_guest(code, pool, time)
        patience = get(pool + GUEST).compare("!=", 0).choose(0, AWAIT_NANOSECONDS)
        with code.when(unfinished() & waited.compare(">", patience)):
            code.external("sched_yield", [])
        return unfinished()

    with code.when(unfinished()):
        begin = scheduling.now(code, time)
        looks.store(1)
        code.repeat(look)


def _find_guest(code, pool, time):
    """Bring a worker here that has a task and has not computed since the last look: another thread has its processor.

    One at a time, for the caller's processor can do no more.  The next call sends it away again (`make_way`).
    """

    def each(number):
        line = pool + LINES + (number + 1) * LINE_BYTES
        with code.when((line + AT_WORK).load().compare("!=", 0)):
            thread = (line + THREAD).load()
            computed = scheduling.processor_time(code, thread, time)
            still = computed.compare("==", (line + TIME).load())
            (line + TIME).store(computed)
            with code.when(still & get(pool + GUEST).compare("==", 0)):
                put(pool + GUEST, number + 1)
                (pool + PROCESSOR).store(0)
                scheduling.bring_here(code, thread)

    code.loop((pool + THREADS).load(), each)


def write_call(module, memory):
    """``void call(frame, x, out)``: take the arrays' addresses from the array objects and run the frame's tasks.

    `memory` is the pool's address.
    """
    code = Code(module, "call", target(), "ppp")
    frame, x, out = code.arguments
    pool = code.pointer(memory)
    (frame + FRAME_INPUT).store((x + ARRAY_DATA).load())
    (frame + FRAME_OUTPUT).store((out + ARRAY_DATA).load())
    (frame + FRAME_SERIAL).store((frame + FRAME_SERIAL).load() + 1)
    tasks = (frame + FRAME_TASKS).load()
    function = (frame + FRAME_FUNCTION).load_pointer()

    def alone(task):
        code.call(function, [frame, task, 0])

    if posix_threads() is None:
        code.loop(tasks, alone)
        return code.finish()
    shared = tasks.compare(">", 1) & (pool + THREADS).load().compare(">", 0)
    owned = code.stack(8)
    owned.store(0)
    with code.when(shared), code.when(swap_if(pool + OWNER, 0, 1)):
        owned.store(1)
    with code.either(owned.load().compare("==", 1)) as (yes, no):
        with yes:
            timed, begin = code.stack(8), code.stack(8)
            timed.store(0)
            _publish(code, pool, frame, tasks, timed, begin)
            _drain(code, pool, code.value(0))
            _await(code, pool, tasks)
            put(pool + OWNER, 0)
            with code.when(timed.load().compare("!=", 0)):
                waking.note(code, timed.load_pointer(), scheduling.now(code) - begin.load())
        with no:
            code.loop(tasks, alone)
    code.finish()


def write_seize(module):
    """``void seize(void *pool)``: wait until no caller has the workers, and keep callers from them."""
    code = Code(module, "seize", target(), "p")
    (pool,) = code.arguments

    def taken():
        code.external("sched_yield", [])
        return swap_if(pool + OWNER, 0, 1).compare("==", 0)

    code.repeat(taken)
    code.finish()
