"""Whether the machine is still the one that was measured a moment ago.

A virtual machine's cores may for seconds be two threads of one real core: both run all the time, as the
system sees it, at half the speed.  Code near the multiply-add peak then takes twice as long, code far from
it takes as long as before, and a ratio of the two says nothing about either (seen on a 2-core VM, 2026-11:
the peak itself fell from 236 to 118 GFLOP/s).  So rounds are kept only where the peak before and after
them is the one that the machine has shown; the others are repeated, as long as the patience lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from convbench.compare import limits

STEADY = 0.9  # of the highest peak seen
GLANCE_CALLS = 2  # some 3 ms each
RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 120.0  # for a whole comparison, of a quarter of an hour; then what comes is kept, and said


class Gauge:
    """Looks at the peak between rounds.

    Parameters
    ----------
    peak : callable or None
        FLOP/s, measured when called; None where nothing measures it: the machine then counts as steady.
    sleep : callable
        Tests pass their own.
    highest : float
        What is known of the peak.

    Attributes
    ----------
    repeated : int
        Rounds that were not kept.
    patience : float
        Seconds of waiting that are left.
    """

    def __init__(
        self,
        peak: Callable[[], float] | None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        highest: float = 0.0,
    ):
        self._peak, self._sleep, self._highest = peak, sleep, highest
        self.repeated, self.patience = 0, PATIENCE_SECONDS

    def settle(self) -> bool:
        """Wait until the machine is steady; whether it was at once (or no patience is left)."""
        at_once = True
        while self.patience > 0 and not self._steady():
            at_once = False
            self._sleep(RETRY_SECONDS)
            self.patience -= RETRY_SECONDS
        return at_once

    def keep(self) -> bool:
        """After a round: whether it counts."""
        kept = self.settle()
        self.repeated += not kept
        return kept

    def _steady(self):
        if self._peak is None:
            return True
        now = self._peak()
        self._highest = max(self._highest, now)
        return now >= STEADY * self._highest


def machine_gauge() -> Gauge:
    """The gauge of this machine's float32 peak."""
    highest = limits.peak("float32")
    return Gauge(lambda: limits.peak("float32", GLANCE_CALLS), highest=highest) if highest else Gauge(None)
