"""Bands around medians: order statistics against SciPy's quantile test and simulation; quartiles without samples."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from scipy import stats

from convbench.report import bands, curves
from convbench.report.results import Entry, Report, Row


def _entry(median, times=()):
    return Entry(None, median, 0.9 * median, 1.1 * median, 20, times=list(times))


@pytest.mark.parametrize("count", [6, 7, 8, 9, 17, 20, 40, 101])
def test_order_statistics_are_scipys(count):
    samples = np.random.default_rng(count).lognormal(size=count)
    expected = stats.quantile_test(samples, p=0.5).confidence_interval(bands.CONFIDENCE)
    assert bands.median_interval(samples.tolist()) == (expected.low, expected.high)


@pytest.mark.parametrize("count", range(6))
def test_too_few_samples_have_no_interval(count):
    assert bands.median_interval(list(range(count))) is None


@pytest.mark.parametrize("count", [6, 11, 20])
def test_intervals_hold_what_they_promise(count):
    random = np.random.default_rng(count)
    trials = 2000
    found = [bands.median_interval(random.exponential(size=count)) for _ in range(trials)]
    hits = sum(low <= math.log(2) <= high for low, high in found)  # the median of the exponential distribution
    assert hits / trials >= bands.CONFIDENCE - 0.015  # three standard errors


def test_bands_of_one_figure_span_one_thing():
    sampled, few, old = _entry(7.0, range(1, 14)), _entry(2.0, [2.0]), _entry(1.0)
    assert bands.Bands([old]).limits([old]) == ([0.9], [pytest.approx(1.1)])
    (low, *lows), (high, *highs) = bands.Bands([sampled, few, old]).limits([sampled, few, old])
    assert (low, high) == (3, 11)  # of 13: the third and the third last, P = 0.978
    assert all(map(math.isnan, [*lows, *highs]))
    assert bands.Bands([old]).title == "bands: quartiles"
    assert bands.Bands([old, few]).title == "bands: 95% confidence of the median"


def test_a_curves_legend_says_what_its_bands_are():
    def drawn(times):
        rows = {
            k: Row(f"k{k}", "image", "mb1ic1ih64oc1oh64kh3ph1", "", "a", {"a": _entry(k, times)}) for k in (3, 5, 7)
        }
        figure = curves.curve(Report({}, {}, list(rows.values())), rows, "64²")
        return figure.legends[0].get_title().get_text()

    assert drawn([]) == "bands: quartiles"
    assert drawn(range(1, 9)) == "bands: 95% confidence of the median"
