"""How much slower B is than A, with the interval that the measurements allow.

Of one problem the figure is the ratio of medians, B / A: above 1, B is slower.  Its interval is a bootstrap's
(B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, §13.3, percentiles):

- where the samples are at hand, they were taken in rounds, one of A and one of B in each, so rounds are drawn
  with replacement: what disturbs a whole round disturbs both (simulated, 8 and 15 rounds: the interval holds the true
  ratio in 93 to 99 % of all cases);
- where the samples of two runs are at hand, each run's are drawn with replacement by themselves; the ratio is that of
  all samples' medians, and the draws of those that were kept are laid around it.  A run's samples
  follow each other closely, and what was wrong with a whole run is not in them;
- where only a median, quartiles and a number of samples are known, a median is drawn from the normal distribution with
  the standard error of a sample median, 1.2533 σ / √n, and σ = (q3 - q1) / 1.349, to first order in the logarithm:
  nor is it in these.

Over several problems the figure is the geometric mean of their ratios.  Its interval comes from the same draws, so
it tells how well these problems were measured, not how other problems would turn out.

Mann and Whitney's U test answers whether the samples differ at all, with asv's threshold: whether one of B is as
often above one of A as below.  Of samples in two heaps the medians may differ where that does not.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from convbench.timing import Timing, summarise

DRAWS = 4000
CONFIDENCE = 0.95
DIFFERENT = 0.002  # the p-value below which ``asv compare`` calls two results different
MEDIAN_ERROR = 1.2533 / 1.349  # of a normal sample's median, in interquartile ranges / √n


@dataclass(frozen=True)
class Interval:
    """A ratio B / A and the limits between which it lies with `CONFIDENCE`."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """One problem, or one engine's on one problem.

    Attributes
    ----------
    problem, engine : str
        `engine` is empty where A and B are engines.
    a, b : Timing
    interval : Interval
    p : float or None
        Of the Mann-Whitney test, two-sided; None without samples.
    draws : ndarray
        The bootstrap's logarithms of the ratio.
    """

    problem: str
    engine: str
    a: Timing
    b: Timing
    interval: Interval
    p: float | None = None
    draws: np.ndarray = field(repr=False, compare=False, default=None)

    @property
    def differs(self) -> bool:
        """Whether the difference is one: by the test where there are samples, else the interval leaves out 1."""
        if self.p is not None:
            return self.p < DIFFERENT
        return self.interval.low > 1 or self.interval.high < 1


def from_samples(problem: str, a: Sequence[float], b: Sequence[float], engine: str = "") -> Ratio:
    """The ratio of two series of samples that were taken round by round.

    Raises
    ------
    ValueError
        The series are empty, or not as long as each other.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{problem}: {len(a)} samples of A and {len(b)} of B; as many of both, and one at least, are")
    from scipy.stats import mannwhitneyu

    a, b = np.asarray(a, float), np.asarray(b, float)
    rounds = _generator(problem, engine).integers(0, len(a), (DRAWS, len(a)))
    draws = np.log(np.median(b[rounds], axis=1)) - np.log(np.median(a[rounds], axis=1))
    ratio = np.median(b) / np.median(a)
    p = float(mannwhitneyu(a, b, alternative="two-sided").pvalue)
    return Ratio(problem, engine, summarise(list(a)), summarise(list(b)), _interval(ratio, draws), p, draws)


def from_runs(
    problem: str, a: Timing, b: Timing, times_a: Sequence[float], times_b: Sequence[float], engine: str = ""
) -> Ratio:
    """The ratio of two results of different runs, of which some samples are known too.

    Raises
    ------
    ValueError
        A run has no sample.
    """
    if not len(times_a) or not len(times_b):
        raise ValueError(f"{problem}: {len(times_a)} samples of A and {len(times_b)} of B; one at least of both is")
    from scipy.stats import mannwhitneyu

    generator = _generator(problem, engine)
    medians = []
    for times in (np.asarray(times_a, float), np.asarray(times_b, float)):
        drawn = times[generator.integers(0, len(times), (DRAWS, len(times)))]
        medians.append(np.log(np.median(drawn, axis=1)) - np.log(np.median(times)))
    middle = np.log(b.median / a.median)
    draws = middle + medians[1] - medians[0]
    p = float(mannwhitneyu(times_a, times_b, alternative="two-sided").pvalue)
    return Ratio(problem, engine, a, b, _interval(np.exp(middle), draws), p, draws)


def from_timings(problem: str, a: Timing, b: Timing, engine: str = "") -> Ratio:
    """The ratio of two results of which median, quartiles and number of samples are known."""
    middle = np.log(b.median / a.median)
    error = np.hypot(_relative_error(a), _relative_error(b))
    draws = middle + error * _generator(problem, engine).standard_normal(DRAWS)
    return Ratio(problem, engine, a, b, _interval(np.exp(middle), draws), None, draws)


def geometric_mean(ratios: Sequence[Ratio]) -> Interval:
    """The geometric mean of some ratios, with its interval.

    Raises
    ------
    ValueError
        There are none.
    """
    if not ratios:
        raise ValueError("there is no ratio to take the mean of; one at least is accepted")
    mean = np.exp(np.mean([np.log(ratio.interval.ratio) for ratio in ratios]))
    return _interval(mean, np.mean([ratio.draws for ratio in ratios], axis=0))


def _interval(ratio, draws) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.exp(np.percentile(draws, (tail, 100 - tail)))
    return Interval(float(ratio), float(low), float(high))


def _relative_error(timing: Timing) -> float:
    """Standard error of the median / the median."""
    return MEDIAN_ERROR * (timing.q3 - timing.q1) / np.sqrt(max(timing.samples, 1)) / timing.median


def _generator(problem, engine):
    """The same draws each time, and others for each problem: their errors have nothing to do with each other."""
    return np.random.default_rng(zlib.crc32(f"{problem} {engine}".encode()))
