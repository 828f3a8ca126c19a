"""``convbench bench --publish``: asv's pages, a point for each run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("asv")
from convbench import cli, dashboard, harness
from convbench.asvrun import AsvError
from convbench.benchmarks import convolution
from convbench.commands import FAILED
from convbench.report.results import Entry, Report, Row

TINY, OTHER = "mb1ic1ih9oc1oh9kh3ph1", "mb1ic1ih8oc1oh8kh3ph1"


@pytest.mark.skipif(shutil.which("git") is None, reason="asv needs git, which is not on the PATH")
def test_two_runs_with_a_problem_each_are_two_points(tmp_path):
    site = tmp_path / "site"
    argv = [sys.executable, "-m", "convbench", "bench", "--quick", "--engines", "direct", "--json"]
    with tempfile.TemporaryDirectory(prefix="cb-") as scratch:
        environment = {**os.environ, "CONVBENCH_CACHE_DIR": str(tmp_path / "records"), "TMPDIR": scratch}
        for problem in (TINY, OTHER):
            command = [*argv, "--problem", problem, "--publish", str(site)]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{problem}: {done.stderr}"
    assert json.loads(done.stdout)["dashboard"] == str(site / "html" / "index.html")
    index = json.loads((site / "html" / "index.json").read_text())
    assert len(index["revision_to_hash"]) == 2
    graphs = (site / "html" / "graphs").rglob("convolution.Contest.track_time.json")
    (points,) = [json.loads(path.read_text()) for path in graphs if "summary" not in path.parts]
    known = [[value is not None for value in values] for _, values in points]
    assert len(known) == 2, (TINY, OTHER)
    problems = index["benchmarks"]["convolution.Contest.track_time"]["params"][0]
    assert problems == [f"'{TINY}'", f"'{OTHER}'"], (TINY, OTHER)
    half = len(known[0]) // 2
    assert all(known[0][:half]), TINY
    assert not any(known[0][half:]), OTHER
    assert not any(known[1][:half]), TINY
    assert all(known[1][half:]), OTHER


def test_a_reworded_benchmark_keeps_its_history():
    for suite in (convolution.Contest, convolution.Memory):
        for name, benchmark in vars(suite).items():
            if name.startswith(("track_", "peakmem_")):
                assert benchmark.version == "1", name  # asv's default is a hash of the code


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """`bench` without its measuring."""
    entry = Entry(median=1e-3, q1=1e-3, q3=1e-3, samples=3, error=0.0, bound=1e-6, regret=1.0, version="1")
    row = Row(TINY, "given", TINY, "a test", "direct", {"direct": entry})

    def run(plan, _):
        return Report(harness.describe_machine(), harness._describe_run(plan), [row])

    monkeypatch.setattr(harness, "run", run)
    monkeypatch.setattr(dashboard, "keep", lambda results, folder: None)
    monkeypatch.chdir(tmp_path)
    return ["bench", "--problem", TINY, "--publish", "site"]


@pytest.mark.parametrize("error", [AsvError("asv publish ended"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", ["keep", "publish"])
def test_a_dashboard_that_fails_leaves_the_report(step, error, measured, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(dashboard, "publish", lambda folder: folder / "html" / "index.html")
    monkeypatch.setattr(dashboard, step, fail)
    assert cli.main(measured) == FAILED
    captured = capsys.readouterr()
    assert TINY in captured.out
    assert captured.err == f"convbench: the dashboard in {tmp_path / 'site'} is not up to date: {error}\n"
    assert len(list(tmp_path.glob("reports/*/report.html"))) == 1
    assert cli.main([*measured, "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["dashboard"] is None


def test_a_damaged_history_is_named(tmp_path):
    (tmp_path / "benchmarks.json").write_text("{")
    with pytest.raises(AsvError, match=r"benchmarks\.json is damaged"):
        dashboard._read(tmp_path / "benchmarks.json")


def test_another_place_of_the_interpreter_goes_on_with_the_same_line():
    def placed(path):
        saved = {"commit_hash": "0" * 40, "env_name": f"existing-{path}", "python": path, "params": {"python": path}}
        return dashboard._placed({**saved, "results": {"a": [1.0]}}, "1" * 40)

    first, second = placed("/one/bin/python"), placed("/two/bin/python")
    assert first["params"] == second["params"] == {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    assert "/one" not in json.dumps(first)
    assert (first["commit_hash"], first["results"]) == ("1" * 40, {"a": [1.0]})


def test_an_earlier_runs_problems_stay():
    def described(problem):
        return {"version": 2, "a": {"params": [[problem], ["'direct'"]]}}

    assert dashboard.merged(described("'x'"), described("'y'"))["a"]["params"] == [["'x'", "'y'"], ["'direct'"]]


def test_a_folder_with_other_files_is_refused_and_left(tmp_path):
    (tmp_path / "html").mkdir()
    with pytest.raises(ValueError, match="holds other files"):
        dashboard.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["html"]
    assert dashboard.prepare(tmp_path / "new") == dashboard.prepare(tmp_path / "new") == tmp_path / "new"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written.*--publish DIR"):
        dashboard.prepare(tmp_path / "file" / "site")
