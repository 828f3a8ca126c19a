"""Whether a job that finds the workers asleep wakes them, or is done before they would have come.

Waking costs the caller some 10 us, and the workers come 15 us later, or much later beside another library's threads.
So a job notes how long it takes both ways, with workers that it woke and alone, and goes the faster way.  But where
such jobs follow each other closely they wake the workers for the next ones.
"""

#: A job that takes longer with woken workers is not tried alone.
LONG_NANOSECONDS = 100_000
#: What a time counts for beside those before it, one in so many; it counts as at most twice those, for a caller may
#: lose its processor for milliseconds.
STEADY = 4
#: One in so many: by that the time of the way that is not taken gets shorter, so that it is tried again.
FORGETFUL = 256


def is_worth_it(code, woken, alone, last, now, close):
    """1 if the workers are to be woken `now`, else 0.

    `woken` and `alone` point to the job's times, 0 before the first; `last` to the time of the last job that was done
    alone, which was close by if less than `close` nanoseconds ago.
    """
    with_workers, by_itself = woken.load(), alone.load()
    faster = by_itself.compare("<", with_workers) & with_workers.compare("<", LONG_NANOSECONDS)
    apart = (now - last.load()).compare(">", close)
    with code.either(faster) as (yes, no):
        with yes:
            last.store(now)
            woken.store(with_workers - with_workers // FORGETFUL)
        with no:
            alone.store(by_itself - by_itself // FORGETFUL)
    return (faster & apart).choose(0, 1)


def note(code, usual, taken):
    """Take in how long a job has taken."""
    before = usual.load()
    after = before + ((before * 2).least(taken) - before) // STEADY
    usual.store(before.compare("==", 0).choose(taken, after))
