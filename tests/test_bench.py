"""The harness: session, measuring, asv end to end, records, interrupts.  No test asserts a time."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import convbench
from convbench import problems, registry
from convbench.spec import ConvSpec

pytest.importorskip("asv")
from convbench import asvrun, harness, planning, timing
from convbench.benchmarks import contest, convolution, session

ROOT = Path(__file__).parents[1]
TINY = "mb1ic1ih9oc1oh9kh3ph1"


@pytest.fixture
def scratch():
    """A folder for temporary files, with a path as short as usual."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        yield Path(folder)


@pytest.fixture
def environment(tmp_path, scratch):
    """Variables for a command of its own: records and scratch folders in here."""
    return {**os.environ, "CONVBENCH_CACHE_DIR": str(tmp_path / "records"), "TMPDIR": str(scratch)}


def test_parameters_name_every_engine_that_auto_may_pick():
    builtin = [name for name, engine in registry.engines().items() if engine.automatic and _is_built_in(engine)]
    assert set(builtin) <= set(session.ENGINES)


def _is_built_in(engine):
    return type(engine).__module__.startswith("convbench.engines")


def test_without_a_session_file_everything_is_measured(monkeypatch):
    monkeypatch.delenv(session.VARIABLE, raising=False)
    everything = session.load()
    assert everything.problems == [[problem.name, problem.text] for problem in problems.PROBLEMS]
    assert everything.engines == list(session.ENGINES)


def test_a_session_file_says_what_is_measured(tmp_path, monkeypatch):
    written = session.Session([["tiny", TINY]], ["direct"], 0.5, "", "", {"CONVBENCH_TEST_HOME": "back"})
    written.write(tmp_path / "session.json")
    monkeypatch.setenv(session.VARIABLE, str(tmp_path / "session.json"))
    monkeypatch.setenv("CONVBENCH_TEST_HOME", "away")
    assert session.load() == written
    assert os.environ["CONVBENCH_TEST_HOME"] == "back"


def test_measuring_covers_refusals_errors_and_the_journal(tmp_path):
    asked = session.Session([["tiny", TINY]], ["direct", "not-there"], 0.0, journal=str(tmp_path / "journal"))
    result = contest.measure_all(asked)["tiny"]
    assert result["text"] == TINY
    assert result["engines"]["not-there"] == {"refused": "not-there is not installed"}
    entry = result["engines"]["direct"]
    assert entry["refused"] is None
    assert entry["agrees"]
    assert 0 <= entry["error"] <= entry["bound"]
    assert 0 < entry["q1"] <= entry["median"] <= entry["q3"]
    assert entry["median"] == min(one["median"] for one in entry["variants"].values())
    assert entry["variants"][entry["variant"]]["median"] == entry["median"]
    assert 0 < len(entry["times"]) <= min(entry["samples"], timing.KEPT_SAMPLES)
    assert entry["modelled"] == next(iter(entry["variants"].values()))["median"]
    assert result["auto"] in registry.engines()
    events = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [event["event"] for event in events] == ["begin", "problem", "done"]
    assert events[2]["engines"] == result["engines"]


def test_benchmarks_file_what_was_measured_and_skip_the_rest():
    from asv_runner.benchmarks.mark import SkipNotImplemented

    entry = {"refused": None, "median": 2.0, "modelled": 3.0, "error": 1e-7, "bound": 1e-6}
    engines = {"direct": entry, "fft": {**entry, "median": 1.0}, "toeplitz": {"refused": "too large"}}
    results = {"tiny": {"auto": "direct", "engines": engines}}
    rivals = convolution.Contest()
    assert rivals.track_time(results, "tiny", "direct") == 2.0
    assert rivals.track_regret(results, "tiny", "auto") == 3.0  # unmeasured, it takes what the model picks
    assert rivals.track_regret(results, "tiny", "fft") == 1.0
    assert rivals.track_error(results, "tiny", "fft") == pytest.approx(0.1)
    for name, reason in (("toeplitz", "too large"), ("winograd", "not measured")):
        with pytest.raises(SkipNotImplemented, match=reason):
            rivals.track_time(results, "tiny", name)


def test_peak_memory_skips_what_is_refused():
    from asv_runner.benchmarks.mark import SkipNotImplemented

    memory = convolution.Memory()
    memory.peakmem_call("photo-128-k3", "direct")
    with pytest.raises(SkipNotImplemented, match="not installed"):
        memory.peakmem_call("photo-128-k3", "not-there")


@pytest.mark.parametrize(("attribute", "value", "reason"), [
    ("workspace_bytes", 5 << 30, "5120 MiB of workspace"),
    ("predict_seconds", 60.0, "60.0 s a call"),
    ("why_unsupported", "greedy takes nothing", "takes nothing"),
])  # fmt: skip
def test_engines_that_are_too_much_do_not_take_part(attribute, value, reason, monkeypatch):
    monkeypatch.setattr(registry.get("direct"), attribute, lambda *_: value)
    with pytest.raises(contest.RefusedError, match=reason):
        contest.accepted("direct", ConvSpec.parse(TINY))


def test_an_engine_that_is_exact_for_some_weights_only_is_not_timed_on_integers():
    spec = ConvSpec.parse("--dt=s32 mb1ic1ih8oc1oh8kh3ph1")
    with pytest.raises(contest.RefusedError, match="separable may round, and int32 needs exact sums"):
        contest.accepted("separable", spec)


def test_images_get_pixels_and_layers_get_numbers():
    x, weight = contest.arrays(ConvSpec.parse("mb2ic1ih32oc1oh32kh3ph1"))
    assert x.shape == (2, 1, 32, 32)
    assert x.min() >= -0.2
    assert np.array_equal(x[0], x[1])
    assert weight.min() < 0
    assert contest.arrays(ConvSpec.parse("mb1ic4ih32oc1oh32kh3ph1"))[0].min() < -0.5
    assert contest.photograph("", 3, 8, 8).shape == (3, 8, 8)


def test_asvs_results_are_read_with_skips_and_failures():
    params = [["'tiny'"], ["'direct'", "'fft'", "'auto'"]]
    saved = {
        "result_columns": ["result", "params", "version", "started_at"],
        "results": {
            "convolution.Contest.track_time": [[1.5, math.nan, 1.5], params, "v"],
            "convolution.Contest.track_error": [None, params],
            "convolution.Memory.peakmem_call": [[1], [["'tiny'"], ["'direct'"]]],
        },
    }
    assert asvrun.read_results(saved) == {
        ("tiny", "direct"): {"time": 1.5, "error": None},
        ("tiny", "fft"): {"error": None},
        ("tiny", "auto"): {"time": 1.5, "error": None},
    }


def test_wrong_engines_are_not_recorded(monkeypatch):
    saved = {}
    monkeypatch.setattr("convbench.records.save", lambda spec, timings: saved.update(timings))
    timing = {"median": 1.0, "q1": 1.0, "q3": 1.0, "samples": 3}
    entry = {**timing, "workspace_bytes": 0, "error": 0.0, "version": "1"}
    two = {"dense": timing, "wide": {**timing, "median": 2.0}}
    engines = {
        "direct": {**entry, "refused": None, "agrees": True, "variants": two},
        "fft": {**entry, "refused": None, "agrees": False, "variants": {"": timing}},
        "toeplitz": {"refused": "too large"},
    }
    harness.record({"text": TINY, "engines": engines})
    assert {name: timing.median for name, timing in saved.items()} == {"direct, dense": 1.0, "direct, wide": 2.0}


class _Progress:
    def add_task(self, *_, **__):
        return 0

    def update(self, *_, **__):
        pass

    advance = update


def test_an_interrupt_says_how_much_is_recorded(monkeypatch):
    class Stopped:
        def __init__(self, *_):
            pass

        def events(self):
            yield {"event": "problem", "name": "a"}
            yield {"event": "done", "name": "a", "text": TINY, "engines": {}}
            raise KeyboardInterrupt

    monkeypatch.setattr(harness, "AsvRun", Stopped)
    pair = tuple(problems.Problem(name, "given", TINY, "") for name in "ab")
    with pytest.raises(KeyboardInterrupt, match="1 of 2 problems"):
        harness.run(harness.Bench(pair, ("direct",)), _Progress())


def test_bench_end_to_end_outside_any_checkout(environment, scratch, tmp_path):
    argv = [sys.executable, "-m", "convbench", "bench", "--quick", "--engines", "direct", "--problem", TINY]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "All engines agree" in done.stdout
    folder = next((tmp_path / "reports").iterdir())
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in folder.iterdir()}
    saved = harness.Report.load(folder / "report.json")
    assert [(row.name, row.best, row.agree) for row in saved.rows] == [(TINY, "direct", True)]
    assert saved.rows[0].engines["direct"].plan_seconds > 0
    assert saved.rows[0].engines["direct"].times
    assert saved.bandwidth > 0
    assert all(peak > 0 for peak in saved.peaks.values())
    assert list(scratch.iterdir()) == []
    # By records only: a busy machine's times may be so long that an engine without any is expected to be faster.
    choice = f"convbench.select(convbench.ConvSpec.parse({TINY!r}), tuning='replay')"
    code = f"import convbench; s = {choice}; print(s.engine, s.source)"
    after = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert after.stdout.split() == ["direct", "record"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for left processes in /proc")
def test_an_interrupted_bench_leaves_whole_records_and_no_process(environment, scratch, tmp_path):
    argv = [sys.executable, "-m", "convbench", "bench", "--suite", "image", "--engines", "direct"]
    running = subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "records"
    for _ in range(600):
        if running.poll() is not None or list(records.rglob("*.json")):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    message = running.communicate()[1]
    assert running.returncode == 130
    assert message.splitlines()[-1].startswith("convbench: interrupted: ")
    found = list(records.rglob("*.json"))
    assert found
    for path in found:
        json.loads(path.read_text())
    assert list(scratch.iterdir()) == []
    assert _processes_with(str(scratch)) == []


def _processes_with(text):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(words)
    return found


def test_asv_finds_and_checks_the_suite_in_the_checkout(environment):
    if not (ROOT / "asv.conf.json").exists():
        pytest.skip("not a checkout")
    argv = [sys.executable, "-m", "asv", "check", "--python=same"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workspace_counts_what_the_plan_needs():
    spec = ConvSpec.parse(TINY)
    call = contest.planned(registry.get("direct"), spec, *convbench.data.sample(spec))
    call()
    assert planning.workspace_bytes(registry.get("direct"), spec) >= 0
