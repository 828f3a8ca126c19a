"""Bands around curves of medians: confidence intervals from the samples, or the quartiles where none were kept.

Between which order statistics of n samples does the median lie?  As many samples fall below it as heads in n throws,
whatever they are distributed like, so (x_(k), x_(n+1-k)) holds it with probability 1 - 2 P(Bin(n, 1/2) < k):
W. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, §3.2.  Fewer than six samples have none of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convbench.report.results import Entry, Point

CONFIDENCE = 0.95
ALPHA = 0.22


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The order statistics between which the median lies with `CONFIDENCE`, None where there are too few."""
    ordered, count = sorted(samples), len(samples)
    tail, below = 0, 0  # of the 2^n equally likely falls, those with less than `below` samples under the median
    while 2 * (tail + math.comb(count, below)) <= (1 - CONFIDENCE) * 2**count:
        tail += math.comb(count, below)
        below += 1
    return (ordered[below - 1], ordered[count - below]) if below else None


class Bands:
    """What the bands of one figure span: one thing, for all its curves."""

    def __init__(self, timed: Sequence[Entry | Point]):
        self._sampled = any(one.times for one in timed)

    def limits(self, timed: Sequence[Entry | Point]) -> tuple[list[float], list[float]]:
        """Lower and upper edge along a curve; no number where there are too few samples."""
        if not self._sampled:
            return [one.q1 for one in timed], [one.q3 for one in timed]
        found = [median_interval(one.times) or (math.nan, math.nan) for one in timed]
        return [low for low, _ in found], [high for _, high in found]

    @property
    def title(self) -> str:
        """What the legend says of them."""
        return f"bands: {f'{CONFIDENCE:.0%} confidence of the median' if self._sampled else 'quartiles'}"
