"""``convbench compare A B``: the statistics against SciPy's and simulation, reports, engines, exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import assert_refused
from scipy import stats

from convbench import registry
from convbench.compare import protocol, ratios, versus
from convbench.compare.gauge import Gauge
from convbench.problems import Problem
from convbench.report.results import Entry, Report, Row
from convbench.timing import Timing, summarise, thinned

pytest.importorskip("asv")
from convbench import cli

SPEC, OTHER = "mb1ic1ih9oc1oh9kh3ph1", "mb1ic1ih12oc1oh12kh3ph1"
STEADY = Gauge(None)


def samples(seed, scale=1.0, n=15, spread=0.02):
    return (scale * np.random.default_rng(seed).lognormal(0, spread, n)).tolist()


def entry(seconds, spread=0.01, count=50):
    return Entry(None, seconds, seconds * (1 - spread), seconds * (1 + spread), count)


def write(folder, name, times, machine="a processor"):
    """A report: by problem a dict of engines' entries."""
    rows = [Row(text, "given", text, "a test", next(iter(found)), found) for text, found in times.items()]
    path = folder / name / "report.json"
    path.parent.mkdir()
    Report({"processor": machine}, {}, rows).save(path)
    return str(path)


def test_the_interval_is_the_bootstraps():
    a, b = samples(1), samples(2, 1.3)
    found = ratios.from_samples("p", a, b)
    expected = stats.bootstrap(
        (np.array(a), np.array(b)),
        lambda a, b, axis: np.median(b, axis) / np.median(a, axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert found.interval.ratio == pytest.approx(np.median(b) / np.median(a), rel=1e-14)
    assert found.interval.low == pytest.approx(expected.low, rel=5e-3)
    assert found.interval.high == pytest.approx(expected.high, rel=5e-3)
    assert found.p == stats.mannwhitneyu(a, b).pvalue
    assert found.differs


def kept(values, count=20):
    """An entry of a report that keeps some of the samples."""
    timing = summarise(values)
    return Entry(None, timing.median, timing.q1, timing.q3, timing.samples, times=thinned(values, count))


def test_two_runs_are_drawn_each_by_itself():
    a, b = samples(1, n=20), samples(2, 1.3, n=17)
    found = ratios.from_runs("p", summarise(a), summarise(b), a, b, "direct")
    expected = stats.bootstrap(
        (np.array(a), np.array(b)),
        lambda a, b, axis: np.median(b, axis) / np.median(a, axis),
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert found.interval.ratio == pytest.approx(np.median(b) / np.median(a), rel=1e-14)
    assert found.interval.low == pytest.approx(expected.low, rel=5e-3)
    assert found.interval.high == pytest.approx(expected.high, rel=5e-3)
    assert found.p == stats.mannwhitneyu(a, b).pvalue
    assert_refused(("0 samples of A", "2 of B"), ratios.from_runs, "p", found.a, found.b, [], [1, 2])


def test_intervals_from_runs_hold_what_they_promise(monkeypatch):
    monkeypatch.setattr(ratios, "DRAWS", 1000)
    true, trials, hits, alarms = 1.1, 300, 0, 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, 7])
        a, b = rng.lognormal(0, 0.03, 60).tolist(), rng.lognormal(0, 0.03, 60).tolist()
        slower = [true * seconds for seconds in b]
        found = ratios.from_runs(f"{trial}", summarise(a), summarise(slower), thinned(a), thinned(slower)).interval
        hits += found.low <= true <= found.high
        alarms += ratios.from_runs(f"{trial}", summarise(a), summarise(b), thinned(a), thinned(b)).differs
    assert hits >= 0.9 * trials
    assert alarms <= 0.02 * trials


def test_reports_with_samples_are_tested_and_older_ones_are_not(tmp_path):
    values, more = samples(3, n=60), samples(4, 1.2, n=60)
    before = write(tmp_path, "a", {SPEC: {"direct": kept(values), "fft": kept(values), "im2col": kept(values)}})
    after = write(tmp_path, "b", {SPEC: {"direct": kept(more), "fft": entry(1.2), "im2col": kept(more, 3)}})
    found = {ratio.engine: ratio for ratio in versus.reports(before, after).ratios}
    assert found["direct"].p == stats.mannwhitneyu(thinned(values), thinned(more)).pvalue
    assert found["direct"].interval.ratio == pytest.approx(np.median(more) / np.median(values))
    assert found["direct"].interval.low <= found["direct"].interval.ratio <= found["direct"].interval.high
    assert (found["fft"].p, found["im2col"].p) == (None, None)  # no samples, and too few


@pytest.mark.parametrize(
    ("ours", "theirs", "words", "none"),
    [
        (kept(samples(3)), kept(samples(4)), ("p < 0.002.", "Mann and Whitney"), "quartiles"),
        (kept(samples(3)), entry(1.0), ("the interval leaves out 1.", "quartiles"), "Mann"),
    ],
)
def test_what_the_intervals_are_made_from_is_said(tmp_path, capsys, ours, theirs, words, none):
    files = [write(tmp_path, name, {SPEC: {"direct": found}}) for name, found in (("a", ours), ("b", theirs))]
    assert cli.main(["compare", *files]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(word in shown for word in words), shown
    assert none not in shown


def test_with_and_without_samples_in_one_comparison_both_rules_are_said(tmp_path, capsys):
    one, other = {"direct": kept(samples(3)), "fft": entry(1.0)}, {"direct": kept(samples(4)), "fft": entry(1.0)}
    assert cli.main(["compare", write(tmp_path, "a", {SPEC: one}), write(tmp_path, "b", {SPEC: other})]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "p < 0.002 or, without p, the interval leaves out 1" in shown
    assert "where they keep none" in shown


def test_equal_engines_do_not_differ():
    assert not ratios.from_samples("p", samples(1), samples(2)).differs


def test_a_disturbance_of_whole_rounds_leaves_the_ratio_alone():
    disturbed = np.random.default_rng(0).uniform(1, 3, 15)
    found = ratios.from_samples("p", disturbed, 1.2 * disturbed).interval
    assert (found.ratio, found.low, found.high) == pytest.approx((1.2, 1.2, 1.2))


@pytest.mark.parametrize("n", [versus.QUICK_ROUNDS, versus.ROUNDS])
@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_intervals_from_rounds_hold_what_they_promise(monkeypatch, n, shared):
    monkeypatch.setattr(ratios, "DRAWS", 1000)
    true, trials, hits, alarms = 1.1, 200, 0, 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, n])
        rounds = rng.lognormal(0, shared, n)  # what disturbs both
        a, b = rounds * rng.lognormal(0, 0.03, n), rounds * rng.lognormal(0, 0.03, n)
        found = ratios.from_samples(f"{trial}", a, true * b).interval
        hits += found.low <= true <= found.high
        alarms += ratios.from_samples(f"{trial}", a, b).differs
    assert hits >= 0.9 * trials
    assert alarms <= 0.02 * trials


@pytest.mark.parametrize("n", [20, 200])
def test_intervals_from_quartiles_hold_what_they_promise(n):
    true, rng, trials = 1.05, np.random.default_rng(n), 400
    hits = 0
    for trial in range(trials):
        a, b = rng.normal(1, 0.05, n), rng.normal(true, 0.05, n)
        found = ratios.from_timings(f"{trial}", summarise(a.tolist()), summarise(b.tolist())).interval
        hits += found.low <= true <= found.high
    assert 0.91 <= hits / trials <= 0.99


def test_the_geometric_mean_and_its_interval():
    found = [ratios.from_samples(f"{seed}", samples(seed), samples(50 + seed, 1.1 + seed / 10)) for seed in range(9)]
    mean = ratios.geometric_mean(found)
    assert mean.ratio == pytest.approx(stats.gmean([ratio.interval.ratio for ratio in found]))
    assert mean.low < mean.ratio < mean.high
    widths = [np.log(ratio.interval.high / ratio.interval.low) for ratio in found]
    expected = np.sqrt(np.square(widths).sum()) / len(widths)  # independent errors add up as squares
    assert np.log(mean.high / mean.low) == pytest.approx(expected, rel=0.25)
    assert_refused(("one at least",), ratios.geometric_mean, [])


def test_series_have_to_match():
    assert_refused(("2", "3"), ratios.from_samples, "p", [1, 2], [1, 2, 3])
    assert_refused(("0",), ratios.from_samples, "p", [], [])


def test_the_same_numbers_each_time():
    first, second = (ratios.from_timings("p", Timing(1, 0.9, 1.1, 9), Timing(2, 1.9, 2.1, 9)) for _ in range(2))
    assert first == second


def test_two_reports(tmp_path):
    before = write(tmp_path, "a", {SPEC: {"direct": entry(1.0), "fft": entry(4.0)}, OTHER: {"direct": entry(2.0)}})
    slower = {SPEC: {"direct": entry(1.5), "fft": entry(4.0), "im2col": entry(1.0)}, OTHER: {"direct": entry(3.0)}}
    found = versus.reports(before, write(tmp_path, "b", slower, "another processor"))
    values = {(ratio.problem, ratio.engine): ratio.interval.ratio for ratio in found.ratios}
    assert values == pytest.approx({(SPEC, "direct"): 1.5, (SPEC, "fft"): 1.0, (OTHER, "direct"): 1.5})
    assert found.mean.ratio == pytest.approx(1.5 ** (2 / 3))
    assert found.engines["direct"].ratio == pytest.approx(1.5)
    assert [ratio.differs for ratio in found.ratios] == [True, False, True]
    assert found.notes == ("processor: A a processor, B another processor",)


def test_what_two_reports_do_not_share_is_said(tmp_path):
    before = {SPEC: {"direct": entry(1.0), "fft": entry(2.0), "im2col": entry(3.0, count=1)}, OTHER: {"fft": entry(1)}}
    after = {SPEC: {"direct": entry(1.0), "fft": Entry("it has no way to"), "im2col": entry(3.0)}}
    a, b = write(tmp_path, "a", before), write(tmp_path, "b", after)
    found = versus.reports(a, b)
    assert [ratio.engine for ratio in found.ratios] == ["direct"]
    assert found.left_out[f"{SPEC} fft"] == f"only {a} has measured it"
    assert f"{a} has 1" in found.left_out[f"{SPEC} im2col"]
    assert found.left_out[OTHER] == f"{b} has no such problem"
    assert_refused((a, b, "winograd"), versus.reports, a, b, engine="winograd")
    assert_refused((a, b), versus.reports, a, b, only="resnet")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--fail-over", "1.3"], 1),
        (["--fail-over", "1.6"], 0),
        (["--fail-over", "1.6", "--each"], 1),
        (["--fail-over", "1.3", "--engine", "fft"], 0),
        (["--fail-over", "2.5", "--each"], 0),
    ],
)
def test_exit_codes(tmp_path, capsys, options, code):
    before = {SPEC: {"direct": entry(1.0), "fft": entry(1.0)}, OTHER: {"direct": entry(1.0)}}
    after = {SPEC: {"direct": entry(2.0), "fft": entry(1.0)}, OTHER: {"direct": entry(1.5)}}
    files = [write(tmp_path, "a", before), write(tmp_path, "b", after)]
    assert cli.main(["compare", *files, *options]) == code
    assert ("B takes over" in capsys.readouterr().err) == bool(code)


def test_a_wide_interval_fails_nothing(tmp_path):
    noisy = write(tmp_path, "b", {SPEC: {"direct": entry(1.15, spread=0.4, count=5)}})
    before = write(tmp_path, "a", {SPEC: {"direct": entry(1.0)}})
    assert versus.reports(before, noisy).over(1.1, each=True) == []


def test_folders_and_json(tmp_path, capsys):
    for name, seconds in (("a", 1.0), ("b", 1.2)):
        write(tmp_path, name, {SPEC: {"direct": entry(seconds)}})
    code = cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--fail-over", "1.1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1
    assert found["failed"] == ["the geometric mean"]
    assert found["geometric_mean"]["ratio"] == pytest.approx(1.2)
    assert found["ratios"][0]["low"] < 1.2 < found["ratios"][0]["high"]
    assert found["ratios"][0]["differs"]


class Clock:
    """Time that passes when calls and sleeps say so."""

    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def call(self, seconds):
        return lambda: self.sleep(seconds)


def test_blocks_give_a_sample_of_each_in_every_round():
    clock = Clock()
    calls = {"a": clock.call(1e-3), "b": clock.call(20e-3)}
    found = protocol.block_samples(calls, 5, hopeless=float("inf"), clock=clock, sleep=clock.sleep)
    assert found["a"] == pytest.approx([1e-3] * 5)
    assert found["b"] == pytest.approx([20e-3] * 5)


@pytest.fixture
def no_pauses(monkeypatch):
    """Blocks without rests: the times are of no interest here."""
    for name in ("PAUSE_SECONDS", "WARM_SECONDS", "BLOCK_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.0)


def test_two_engines(no_pauses):
    tall = "mb1ic1ih9iw20oc1oh9ow20kh3ph1kw3pw1"
    problems = [Problem(text, "given", text, "a test") for text in (SPEC, f"--dt=s32 {SPEC}", tall)]
    heard = []
    found = versus.engines("direct", "fft", problems, 6, gauge=STEADY, progress=heard.append)
    assert heard == [problem.name for problem in problems]
    assert [ratio.problem for ratio in found.ratios] == [SPEC, tall]
    assert list(found.left_out) == [problems[1].name]
    for ratio in found.ratios:
        assert ratio.a.samples == ratio.b.samples == 6
        assert ratio.interval.low <= ratio.interval.ratio <= ratio.interval.high


def test_an_engine_that_is_wrong_is_not_timed(no_pauses):
    import convbench

    class Wrong(convbench.Engine):
        name = "wrong"

        def why_unsupported(self, spec):
            return None

        def plan(self, spec, weight):
            return lambda x, out: out.fill(1)

    convbench.register(Wrong)
    try:
        given = [Problem(SPEC, "given", SPEC, "a test")]
        assert_refused(("wrong is wrong",), versus.engines, "direct", "wrong", given, gauge=STEADY)
    finally:
        convbench.unregister("wrong")


def test_the_command_times_engines_and_enables_a_library(no_pauses, monkeypatch, capsys):
    from convbench import peers

    monkeypatch.setattr(versus, "machine_gauge", lambda: STEADY)
    try:
        assert cli.main(["compare", "direct", "scipy", "--problem", SPEC]) == 0
        assert "scipy" in registry.engines()
    finally:
        peers.disable()
    shown = capsys.readouterr().out
    assert "geometric mean of B / A" in shown
    assert "Mann and Whitney's" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["direct"], ("'direct'", "B is missing")),
        (["direct", "direct"], ("both 'direct'",)),
        (["direct", "nothing"], ("'nothing'", "report.json", "torch")),
        (["direct", "fft", "--strict"], ("--strict", "with A and B")),
        (["direct", "fft", "--output", "x"], ("--output",)),
        (["direct", "fft", "--only", "no-such-name"], ("'no-such-name'",)),
        (["direct", "fft", "--engine", "direct"], ("--engine direct",)),
        (["direct", "fft", "--quick", "--problem", SPEC], ("--problem", "--quick")),
        (["--fail-over", "1.1"], ("--fail-over", "without A and B")),
        (["direct", "fft", "--each"], ("--each", "--fail-over")),
    ],
)
def test_bad_arguments(arguments, words, capsys):
    assert cli.main(["compare", *arguments]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "much"])
def test_bad_limits(given, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", "direct", "fft", f"--fail-over={given}"])
    assert stopped.value.code == 2
    assert given in capsys.readouterr().err


def test_a_report_and_an_engine_do_not_compare(tmp_path, capsys):
    path = write(tmp_path, "a", {SPEC: {"direct": entry(1.0)}})
    for pair in ((path, "direct"), ("direct", path)):
        assert cli.main(["compare", *pair]) == 2
        assert "two reports or two engines" in capsys.readouterr().err
