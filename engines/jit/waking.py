"""Whether a job that finds the workers asleep has others' help, or is done before they would have come.

Waking the workers costs the caller some 10 us, and they come 15 us later, or much later beside another library's
threads.  So a job notes how long it takes both ways, with others and alone, and goes the faster way.  But where
such jobs follow each other closely they wake the workers for the next ones, if those stay awake: how long they watch
for a next job before they sleep, they learn, too.
"""

#: A job that takes longer with others is not tried alone.
LONG_NANOSECONDS = 100_000
#: So many calls go either way in turn at first, for the first of them bring code and data into the caches; unless alone
#: they take twice as long.
TRIALS = 8
#: What a time counts for beside those before it, one in so many; it counts as at most twice those, for a caller may
#: lose its processor for milliseconds.
STEADY = 4
#: One in so many: by that the time of the way that is not taken gets shorter, so that it is tried again.
FORGETFUL = 128
#: How long no jobs wake workers for the next ones after some that were woken did not stay awake: another library's
#: threads have their cores.  1025 samples, k = 256, in turn with ONNX Runtime, 16 us without this and 8 with it (Zen 4,
#: 2026-11).
HOLD_NANOSECONDS = 10_000_000
#: A worker that begins later than this after it was woken is late; an idle virtual processor may take 45 to 60 us to
#: wake (Zen 4, 2026-11).  What a worker that comes in time, or late, watches longer than before, besides one part in so
#: many.
LATE_NANOSECONDS, PATIENCE_STEP, LATE_STEP, PATIENCE_GROWTH = 40_000, 2_000, 500, 8


def is_worth_it(code, helped, alone, last, awake, now, close):
    """1 if others are to help `now`, else 0.

    `helped` and `alone` point to the job's times, 0 before the first, and behind the latter to how many calls were
    decided; `last` to the time of the last job that was done alone, which was close by if less than `close` nanoseconds
    ago, and behind it to the time until which that does not matter; `awake` to when the workers were woken.
    """
    with_others, by_itself, calls, hold = helped.load(), alone.load(), alone + 8, last + 8
    count = calls.load()
    calls.store(count + 1)
    trial = count.compare("<", TRIALS) & by_itself.compare("<", with_others * 2)
    better = trial.choose(count & 1, by_itself.compare("<", with_others).choose(1, 0))
    alone_now = better.compare("==", 1) & with_others.compare("<", LONG_NANOSECONDS)
    with code.when((now - awake.load()).compare("<", close)):
        hold.store(now + HOLD_NANOSECONDS)
    follows = (now - last.load()).compare("<", close) & now.compare(">", hold.load())
    with code.either(alone_now) as (yes, no):
        with yes:
            last.store(now)
            helped.store(with_others - with_others // FORGETFUL)
        with no:
            alone.store(by_itself - by_itself // FORGETFUL)
    return alone_now.choose(follows.choose(1, 0), 1)


def note(code, usual, taken):
    """Take in how long a job has taken."""
    before = usual.load()
    after = before + ((before * 2).least(taken) - before) // STEADY
    usual.store(before.compare("==", 0).choose(taken, after))


def learn_patience(patience, late, lost, most):
    """How long a worker that was woken watches for a job the next time, `most` nanoseconds at most.

    Not at all if it `lost` its processor to another thread since it was woken the last time.
    """
    before = patience.load()
    longer = before + before // PATIENCE_GROWTH + late.choose(LATE_STEP, PATIENCE_STEP)
    patience.store(lost.choose(0, longer.least(most)))
