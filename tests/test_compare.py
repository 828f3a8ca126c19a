"""The comparison with other libraries: rows, timing on a clock that calls move, peers' results, goals, page."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from convbench import cli, data, registry, settings
from convbench.compare import contest, crossover, goals, limits, memory, page, protocol, results, roofline, rows, table
from convbench.compare.crossover import Point
from convbench.compare.gauge import PATIENCE_SECONDS, RETRY_SECONDS, Gauge
from convbench.compare.limits import Limits
from convbench.compare.memory import Memory
from convbench.compare.peers import PEERS, Peer, installed
from convbench.compare.results import COPY, INTO, OURS, PEAK, Comparison, Result
from convbench.compare.rows import GROUPS, ROWS, Row
from convbench.spec import ConvSpec
from convbench.timing import Timing

TINY = "mb1ic1ih9oc1oh9kh3ph1"
# Each peer's ways to say a convolution: padding on one side, strides, groups, all dimensions, channels last.
PROBLEMS = (
    TINY,
    "--dt=f64 mb1ic1ih9oc1oh9kh3ph1",
    "mb1ic1ih12oc1oh10kh3ph0",
    "mb1ic1ih6iw9oc1oh8ow12kh3kw4ph2pw3",
    "mb2ic4ih11oc6oh5kh3sh2ph0",
    "g2mb1ic4ih9oc6oh9kh3ph2dh1",
    "g3mb1ic3ih8oc6oh4kh3sh2ph0",
    "mb1ic2ih9iw8oc3oh9ow9kh2kw4ph1pw2",
    "mb1ic2id5ih6iw7oc3od5oh6ow7kd3kh3kw3pd1ph1pw1",
    "g2mb2ic4iw20oc4ow20kw3pw1",
    "mb1ic1iw30oc1ow30kw5pw2",
    "mb1ic1iw30oc1ow30kw4pw2",
    "mb1ic1iw30oc1ow37kw8pw7",
    "mb1ic1iw30oc1ow30kw6pw5",
    "--stag=axb --dtag=axb mb1ic8ih9oc8oh9kh3ph1",
)


class Clock:
    """Seconds that pass in calls and pauses only, and a log of both."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.log.append("-")
        self.now += seconds

    def call(self, name, *durations):
        """A call that takes each of `durations` in turn, then the last one again and again."""
        remaining = list(durations)

        def run():
            self.log.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return run


class Fake(Peer):
    """A peer that gives back what it is made with."""

    modules = ("numpy",)

    def __init__(self, name, output):
        self.name, self._output = name, output

    def prepare(self, spec, x, weight, threads):
        return None if self._output is None else lambda: self._output


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def quiet_limits(monkeypatch):
    """Limits that take no time to measure."""
    found = Limits({"float32": 2e11, "float64": 1e11}, 4e10)
    monkeypatch.setattr(limits, "measure", lambda threads: found)
    return found


def _timing(seconds):
    return Timing(seconds, seconds, seconds, 5)


def _result(name, group, text, **seconds):
    timings = {INTO if key == "into" else key: _timing(value) for key, value in seconds.items()}
    return Result(Row(name, group, text, "here"), "direct", timings)


def _comparison(*found, missing=()):
    versions = {"torch": "2", **dict.fromkeys(missing)}
    bounds = Limits({"float32": 2e11, "float64": 1e11}, 4e10)
    return Comparison(
        found, bounds, bounds, "direct", 2, False, (5, 9), 0, True, "a processor", versions, "2026-11-21", "compare"
    )


def test_every_row_is_a_problem_that_direct_computes():
    for row in ROWS:
        spec = ConvSpec.parse(row.text)
        assert registry.get("direct").why_unsupported(spec) is None, row
        assert row.source, row
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.group for row in ROWS} == {group.key for group in GROUPS} - {"given"}


def test_the_rows_that_the_goals_name():
    names = {row.name for row in ROWS}
    assert rows.COPY_ROW in names
    assert sum(name.startswith("res") and name.endswith("-b8") for name in names) == 18
    for group in GROUPS:
        assert set(group.rivals) <= set(group.peers) <= {peer.name for peer in PEERS}


def test_a_goal_of_its_own_for_one_peer():
    found = _result(
        "gaussian-512-k5",
        "separable",
        "mb1ic1ih9oc1oh9kh3ph1",
        convbench=1.0,
        **{"opencv separable": 3.0, "scipy separable": 9.0},
    )
    verdict = goals.verdicts(_comparison(found))[-1]
    assert (verdict.goal, verdict.reached, verdict.met) == ("geometric mean ≥ 8 over scipy separable", "9.00", True)


@pytest.mark.parametrize(("extra", "met"), [(25, True), (26, False)])
def test_memory_beside_the_arrays_has_a_goal(extra, met):
    found = replace(
        _comparison(_result("x", "given", "mb1ic1ih9oc1oh9kh3ph1", convbench=1.0)), memory=Memory("9²", 100, extra)
    )
    verdict = goals.verdicts(found)[-1]
    assert (verdict.group, verdict.met) == ("Memory", met)


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(memory, "SIZE", 700)
    found = memory.measure("direct")
    if found is None:
        pytest.skip("the system has no /proc")
    assert found.image_bytes == 4 * 700**2
    assert 0 <= found.extra_bytes < 1 << 30


def test_rows_are_chosen_by_name_group_and_quickness():
    assert {row.name for row in rows.chosen("mobilenet")} == {"mobilenet:conv2_2/dw"}
    assert {row.group for row in rows.chosen("signal")} == {"signal"}
    quick = rows.chosen(quick=True)
    assert {row.group for row in quick} == {row.group for row in ROWS}
    assert len(quick) < 24
    with pytest.raises(ValueError, match="nothing-like-it"):
        rows.chosen("nothing-like-it")


def test_blocks_pause_warm_up_and_rotate(clock):
    calls = {name: clock.call(name, 2 * protocol.BLOCK_SECONDS) for name in "ab"}
    found = protocol.blocks(calls, 2, clock=clock, sleep=clock.sleep)
    assert "".join(clock.log) == "-aa-bb" + "-aa-bb-" + "-bb-aa-"
    assert found["a"].median == pytest.approx(2 * protocol.BLOCK_SECONDS)
    assert found["a"].samples == 2


def test_close_contests_get_rounds_until_the_ratio_is_known(clock):
    block = 2 * protocol.BLOCK_SECONDS
    steady, slower = [block] * 2, [block, 1.2 * block]  # a call to warm up, and one that is timed; and the first look
    changing = (steady + slower) * 50
    calls = {
        "disturbed": clock.call("d", *steady, *(slower + steady) * 2, block),
        "near": clock.call("n", 1.1 * block),
        "far": clock.call("f", *(4 * seconds for seconds in changing)),
    }
    found = protocol.blocks(calls, 4, most=30, clock=clock, sleep=clock.sleep)
    assert 4 < found["disturbed"].samples < 30
    assert found["disturbed"].median == pytest.approx(block)
    unsure = {"never": clock.call("n", *changing), "near": clock.call("n", block)}
    assert protocol.blocks(unsure, 4, most=9, clock=clock, sleep=clock.sleep)["near"].samples == 9
    far = {"far": clock.call("f", *(4 * seconds for seconds in changing)), "best": clock.call("b", block)}
    assert protocol.blocks(far, 4, most=9, clock=clock, sleep=clock.sleep)["far"].samples == 4


def test_a_sample_is_the_median_of_a_block_without_its_first_calls(clock):
    calls = {"a": clock.call("a", 1.0, 1.0, 5.0, 1e-3, 1e-3, 1e-3, 9e-3, 1e-3, 1e-3, 1e-3)}
    assert protocol.blocks(calls, 1, clock=clock, sleep=clock.sleep)["a"].median == pytest.approx(1e-3)


def test_short_calls_are_repeated_in_a_sample(clock):
    found = protocol.blocks({"a": clock.call("a", 1e-6)}, 1, clock=clock, sleep=clock.sleep)
    assert found["a"].median == pytest.approx(1e-6)


def test_the_hopeless_keep_the_better_of_their_first_calls(clock):
    calls = {"slow": clock.call("slow", 10.0, 9.0, 10.0, 9.0), "best": clock.call("best", 1.0)}
    for found in (protocol.blocks(calls, 2, clock=clock, sleep=clock.sleep), protocol.strict(calls, 0, clock=clock)):
        assert found["slow"].median == pytest.approx(9.0)
        assert found["slow"].samples == 1
        assert found["best"].samples > 1
        assert list(found) == ["slow", "best"]


def _single(seconds):
    return Timing(seconds, seconds, seconds, 1)


def test_rounds_in_which_the_peak_falls_do_not_count(clock):
    peaks = iter([236.0, 118.0, 118.0, 235.0, 230.0])  # before; after a round; while waiting twice; after its repeat
    gauge = Gauge(lambda: next(peaks), clock.sleep)
    slow = protocol.BLOCK_SECONDS * 2
    call = clock.call("a", slow, slow, slow, 2 * slow, slow)  # the probe, a disturbed round, its repeat
    found = protocol.blocks({"a": call}, 1, gauge, clock=clock, sleep=clock.sleep)
    assert found["a"] == _single(pytest.approx(slow))
    assert (gauge.repeated, gauge.patience) == (1, pytest.approx(PATIENCE_SECONDS - 2 * RETRY_SECONDS))


def test_patience_ends(clock):
    peaks = iter([236.0])
    gauge = Gauge(lambda: next(peaks, 118.0), clock.sleep)
    assert gauge.settle()
    assert not gauge.keep()
    assert clock.now == pytest.approx(PATIENCE_SECONDS, abs=RETRY_SECONDS)  # whole retries
    assert gauge.keep()
    assert gauge.repeated == 1


def test_strict_alternates_call_by_call_without_pauses(clock):
    calls = {name: clock.call(name, 1.0) for name in "abc"}
    protocol.strict(calls, 0.0, clock=clock)
    assert "".join(clock.log) == "aabbcc" + "abcbcacababcbca"


def test_a_short_call_gets_a_second_first_look(clock):
    calls = {"a": clock.call("a", 1e-3, 9e-3, 1e-3), "best": clock.call("best", 1e-3)}
    assert protocol.blocks(calls, 2, clock=clock, sleep=clock.sleep)["a"].samples == 2


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("text", PROBLEMS)
def test_peers_compute_the_same(peer, text):
    for module in peer.modules:
        pytest.importorskip(module)
    spec = ConvSpec.parse(text)
    x, weight = data.sample(spec)
    with peer.session(1):
        call = contest._prepared(peer, spec, x, weight, 1)
        if call is None:
            pytest.skip(f"{peer.name} has no such convolution")
        found = np.asarray(call()).copy()
    expected = np.empty(spec.output_shape, spec.dtype)
    registry.get("reference").plan(spec, weight)(x, expected)
    assert found.shape == spec.output_shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if spec.dtype == "float32" else 1e-12)


@pytest.mark.parametrize("peer", [peer for peer in PEERS if "separable" in peer.name], ids=lambda peer: peer.name)
@pytest.mark.parametrize("k", [(5, 5), (3, 9)])
def test_peers_of_separable_kernels_compute_the_same(peer, k):
    pytest.importorskip(peer.modules[0])
    rng = np.random.default_rng(1)
    spec = ConvSpec(1, 1, 1, spatial=(20, 30), kernel=k, padding=tuple(size // 2 for size in k))
    x, weight = data.sample(spec)
    assert contest._prepared(peer, spec, x, weight, 1) is None
    weight[0, 0] = np.outer(rng.uniform(-1, 1, k[0]), rng.uniform(-1, 1, k[1]))
    expected = np.empty(spec.output_shape, spec.dtype)
    registry.get("reference").plan(spec, weight)(x, expected)
    found = np.asarray(contest._prepared(peer, spec, x, weight, 1)())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_group_may_name_its_engine():
    row = next(row for row in ROWS if row.name == "gaussian-512-k15")
    found = contest.compare([row], "direct", peers=(), rounds=(1, 1)).results[0]
    assert found.engine == "separable"


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("torch", PROBLEMS),
        ("torch channels-last", [TINY]),
        ("onnxruntime", [TINY, PROBLEMS[8], PROBLEMS[9]]),
        ("openvino", [TINY, PROBLEMS[8]]),
        ("opencv", [TINY, PROBLEMS[1]]),
        ("numpy", PROBLEMS[10:13]),
        ("scipy convolve", [TINY, PROBLEMS[2], PROBLEMS[3], *PROBLEMS[10:13]]),
        ("scipy ndimage", [TINY, *PROBLEMS[10:12]]),
    ],
)
def test_peers_take_what_they_can(name, texts):
    peer = next(peer for peer in PEERS if peer.name == name)
    for module in peer.modules:
        pytest.importorskip(module)
    for text in texts:
        spec = ConvSpec.parse(text)
        assert contest._prepared(peer, spec, *data.sample(spec), 1) is not None, text


def test_a_missing_library_is_left_out_and_said(quiet_limits):
    absent = Fake("torch", None)
    absent.modules = ("convbench_has_no_such_module",)
    assert installed((absent,)) == ((), {"torch": None})
    found = contest.compare([Row("r", "dense", TINY, "")], "reference", peers=(absent,), rounds=(1, 1))
    assert found.missing == ["torch"]
    assert list(found.results[0].timings) == [OURS]
    assert "Not installed, left out: torch." in page.page(found)


def test_a_peer_that_differs_is_not_timed(quiet_limits):
    right = np.empty((1, 1, 9, 9), np.float32)
    spec = ConvSpec.parse(TINY)
    x, weight = data.sample(spec)
    registry.get("reference").plan(spec, weight)(x, right)
    peers = (Fake("torch", right), Fake("torch channels-last", right + 1), Fake("onnxruntime", right[0]))
    found = contest.compare([Row("r", "dense", TINY, "")], "reference", peers=peers, rounds=(1, 1)).results[0]
    assert list(found.timings) == [OURS, "torch"]
    assert [note.split(" differs")[0] for note in found.notes] == ["torch channels-last", "onnxruntime"]


def test_progress_hears_of_every_row_and_limits_surround_every_group(monkeypatch):
    heard, measured = [], []
    monkeypatch.setattr(limits, "measure", lambda threads: measured.append(threads) or Limits({}, 1.0))
    given = [Row("a", "dense", TINY, ""), Row("b", "dense", TINY, ""), Row("c", "image", TINY, "")]
    contest.compare(given, "reference", peers=(), strict=True, progress=heard.append)
    assert heard == ["a", "b", "c", ""]
    assert measured == [settings.get_num_threads()] * 3


@pytest.mark.parametrize("dtype", limits.DTYPES)
def test_the_peak_is_a_contender_of_its_rows_and_makes_as_much_as_asked(dtype):
    row = Row("small", "peak", f"--dt=f{dtype[5:]} mb1ic16ih14oc16oh14kh3ph1", "")
    timed = {}

    def timer(calls):
        timed.update(calls)
        return {name: _timing(1.0 + number) for number, name in enumerate(calls)}

    found = contest.run(row, "direct", (), 1, timer)
    if limits.peak_call(dtype) is None:
        pytest.skip("the generators do not know this processor")
    assert list(timed) == [OURS, PEAK]
    timed[PEAK]()
    assert found.peak_share(Limits({}, 1.0)) == 2.0
    assert list(contest.run(replace(row, group="dense"), "direct", (), 1, timer).timings) == [OURS]
    for flops in (10**7, 10**9):
        assert limits.peak_call(dtype, flops)[1] == pytest.approx(flops, rel=1e-2)


def test_limits_are_positive_and_the_copy_copies():
    found = limits.measure(1)
    assert found.bandwidth > 0
    assert all(flops > 0 for flops in found.peaks.values())
    source = np.arange(60.0).reshape(3, 5, 4)
    target = np.zeros_like(source)
    with limits.copier(source, target, 2) as copy:
        copy()
    assert np.array_equal(source, target)


def test_the_highest_and_the_lowest_limits():
    found = [Limits({"float32": 1.0}, 5.0), Limits({"float32": 2.0}, 4.0)]
    assert limits.highest(found) == Limits({"float32": 2.0}, 5.0)
    assert limits.lowest(found) == Limits({"float32": 1.0}, 4.0)
    assert limits.highest(found).share(1.0, "float32") == 0.5
    assert limits.highest(found).share(1.0, "float64") is None


def test_figures_of_a_result():
    found = _result("r", "dense", TINY, convbench=2e-6, torch=4e-6, onnxruntime=1e-6, into=2e-6, copy=1e-6)
    assert found.best() == "onnxruntime"
    assert found.ratio() == pytest.approx(0.5)
    assert found.ratio(("torch",)) == pytest.approx(2.0)
    assert found.ratio(("opencv",)) is None
    assert found.flops == pytest.approx(2 * 81 * 9 / 2e-6)
    assert found.intensity == pytest.approx(2 * 81 * 9 / (4 * (81 + 81 + 9)))
    assert found.copy_share == pytest.approx(0.5)
    bounds = Limits({"float32": 4 * found.flops}, 1.0)
    assert found.peak_share(bounds) == pytest.approx(0.25)
    assert found.peak_share(Limits({}, 1.0)) is None
    beside = _result("r", "peak", TINY, convbench=2e-6, torch=4e-6, peak=1.5e-6)
    assert beside.peak_share(bounds) == pytest.approx(0.75)  # of the peak in the same rounds
    assert beside.best() == "torch"
    assert results.mean_ratio([found, found]) == pytest.approx(0.5)
    assert results.mean_ratio([]) is None


@pytest.mark.parametrize(
    ("text", "family"),
    [
        (TINY, "image"),
        ("mb1ic4ih9oc4oh9kh1ph0", "1×1"),
        ("mb1ic4ih9oc4oh9kh3ph1", "3×3 and larger"),
        ("g4mb1ic4ih9oc4oh9kh3ph1", "depthwise, grouped"),
        (PROBLEMS[8], "3-D"),
        (PROBLEMS[9], "1-D"),
    ],
)
def test_families(text, family):
    assert _result("r", "dense", text, convbench=1.0).family == family
    assert family in results.FAMILIES


def test_goals_that_are_met_and_missed():
    layer, signal = "mb1ic64ih56oc64oh56kh3ph1", PROBLEMS[10]
    macs = ConvSpec.parse(layer).macs
    found = _comparison(
        _result("fast", "dense", layer, convbench=1e-3, torch=2e-3, onnxruntime=1e-4),
        _result("slow", "dense", layer, convbench=1e-3, torch=9e-4),
        _result(rows.COPY_ROW, "image", TINY, convbench=1e-3, opencv=4e-3, into=1e-3, copy=6e-4),
        _result("peak", "peak", layer, convbench=2 * macs / 1.8e11),
        _result("near", "signal", signal, convbench=6e-6, numpy=4e-6),
        _result("behind", "signal", signal, convbench=9e-6, numpy=8e-6),
    )
    met = {verdict.goal.split(" ")[0] + verdict.group[0]: verdict for verdict in goals.verdicts(found)}
    assert met["geometricD"].met  # onnxruntime is no rival of that goal
    assert not met["noD"].met
    assert "1 of 2 under; least 0.90 (slow)" in met["noD"].reached
    assert met["geometricS"].met
    assert not met[rows.COPY_ROW + "S"].met
    assert met["float32S"].met
    assert met["aheadS"].reached.startswith("behind on behind (0.89)")
    near, mean = goals.ceiling(found.results[:2], found.limits)
    assert near == 1  # slow: 2e11 leaves torch no room
    assert mean == pytest.approx(2e11 / (2 * macs) * np.sqrt(2e-3 * 9e-4))


def test_page_table_and_plot_hold_every_row(tmp_path):
    found = _comparison(
        _result("layer", "dense", "mb1ic64ih56oc64oh56kh3ph1", convbench=1e-3, torch=2e-3),
        _result("double", "peak", "--dt=f64 mb1ic64ih56oc64oh56kh3ph1", convbench=3e-3, torch=2e-3, peak=2.4e-3),
        _result(rows.COPY_ROW, "image", TINY, convbench=3e-6, opencv=4e-6, into=2e-6, copy=1e-6),
        _result("alone", "given", TINY, convbench=1e-6),
        missing=("openvino",),
    )
    written = page.write(found, tmp_path / "new")
    text = written[0].read_text()
    assert [path.name for path in written] == [page.NAME, roofline.NAME]
    for result in found.results:
        assert text.count(f"| `{result.row.name}` |") == 2, result
        assert result.row.text in text
    assert re.search(r"`double` \| 3 ms \| [\d.]+ \| 80% \| torch", text)
    assert "of as many multiply-adds" in text
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in lines.splitlines()}) == 1, lines
    assert written[1].read_text().lstrip().startswith("<?xml")
    drawn = _printed(table.table(found))
    assert "missed" in drawn
    assert "openvino" in drawn
    assert COPY not in drawn.split("multiply-add")[0]


def test_names_in_the_plot_do_not_lie_on_each_other():
    name = "x" * 90  # wider than the dots are apart
    figure = roofline.draw(
        _comparison(
            _result(f"a{name}", "dense", "mb1ic64ih56oc64oh56kh3ph1", convbench=9e-3, torch=2e-3),
            _result(f"b{name}", "dense", "mb1ic64ih56oc64oh56kh1", convbench=9e-4, torch=2e-3),
            _result(f"c{name}", "dense", "mb1g64ic64ih56oc64oh56kh3ph1", convbench=1.4e-4, torch=2e-3),
        )
    )
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text().endswith(name)]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def _points(**engines):
    kernels = (3, 9, 27)
    series = {name: dict(zip(kernels, values, strict=True)) for name, values in engines.items()}
    return [Point(64, k, {name: _timing(values[k]) for name, values in series.items() if values[k]}) for k in kernels]


def test_crossing_is_interpolated_between_logarithms():
    points = _points(direct=(1e-6, 9e-6, 81e-6), fft=(27e-6, 27e-6, 27e-6))
    assert crossover.crossing(points, "direct", "fft") == pytest.approx(9 * 3**0.5)
    assert crossover.crossing(points, "fft", "direct") is None  # it is overtaken, and overtakes nothing
    assert crossover.crossing(points, "direct", "toeplitz") is None


def test_crossovers_are_timed_together_until_they_take_too_long():
    taken = {"direct": 1e-3, "toeplitz": 2 * crossover.LONG_SECONDS}
    seen, told = [], []

    def timer(calls):
        seen.append(set(calls))
        for call in calls.values():
            call()
        return {name: _timing(taken[name]) for name in calls}

    points = crossover.measure((8, 16), (3, 5, 9), tuple(taken), timer=timer, progress=told.append)
    assert [(point.size, point.kernel) for point in points] == [(8, 3), (8, 5), (16, 3), (16, 5), (16, 9)]
    both, alone = {"direct", "toeplitz"}, {"direct"}
    assert seen == [both, alone, both, alone, alone]
    assert len(told) == len(points)


def test_the_crossovers_have_a_plot_and_a_section(tmp_path):
    found = _comparison(_result("layer", "dense", "mb1ic64ih56oc64oh56kh3ph1", convbench=1e-3, torch=2e-3))
    points = tuple(_points(direct=(1e-6, 9e-6, 81e-6), fft=(27e-6, 27e-6, 27e-6), toeplitz=(5e-6, None, None)))
    written = page.write(found, tmp_path, points)
    assert [path.name for path in written] == [page.NAME, roofline.NAME, crossover.NAME]
    text = written[0].read_text()
    assert crossover.NAME in text
    assert "| 64² | 16 |" in text
    drawn = written[2].read_text()
    assert drawn.lstrip().startswith("<?xml")
    assert "Crossovers" not in page.page(found)


def _printed(renderable):
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_the_command(capsys, tmp_path, monkeypatch, quiet_limits):
    monkeypatch.setattr(contest, "installed", lambda peers: ((), {"torch": None}))
    monkeypatch.setattr(protocol, "STRICT_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "--problem", TINY, "--strict"]) == 0
    assert "Given problems" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.md"))
    assert cli.main(["compare", "--problem", TINY, "--strict", "--engine", "auto", "--output", "out"]) == 0
    assert "convbench" in (tmp_path / "out" / page.NAME).read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--only", "nothing-like-it"], "nothing-like-it"),
        (["--engine", "nope", "--only", "mobilenet"], "nope"),
        (["--problem", "gibberish"], "gibberish"),
        (["--problem", TINY, "--quick"], "--problem"),
        (["--problem", "--dt=s8 mb1ic1ih9oc1oh9kh3ph1", "--engine", "fft"], "int8"),
    ],
)
def test_the_command_refuses(argv, words, capsys):
    assert cli.main(["compare", *argv]) == cli.BAD_INPUT
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    assert words in message


def test_without_arguments_the_page_goes_to_a_checkouts_docs(tmp_path, monkeypatch):
    from convbench.compare import command

    monkeypatch.chdir(tmp_path)
    assert command.folder(None, partial=True) is None
    assert str(command.folder(None, partial=False)) == "."
    (tmp_path / "docs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert str(command.folder(None, partial=False)) == "docs"
