"""Thread scaling: which problems, which numbers of threads, what the report keeps and draws."""

import json
import subprocess
import sys

import pytest

from convbench import scaling, settings
from convbench.report.results import Entry, Point, Report, Row, Scaling

TEXT = "mb1ic1ih32oc1oh32kh3ph1"
TWO = [Point(1, 4e-3, 3.9e-3, 4.2e-3, 9), Point(2, 2e-3, 1.9e-3, 2.5e-3, 9)]


def _row(name, median, suite="given", engine="direct"):
    return Row(
        name,
        suite,
        TEXT,
        "",
        "direct",
        {engine: Entry(None, median, median, median, 5, regret=1.0, variant="wide"), "fft": Entry("no")},
    )


def test_the_process_takes_the_installed_package_whatever_folder_it_runs_in(tmp_path, monkeypatch):
    (tmp_path / "convbench").mkdir()
    (tmp_path / "convbench" / "__init__.py").write_text("raise ImportError('the folder that it runs in')")
    monkeypatch.chdir(tmp_path)
    found, why = scaling.measure([_row("a", 1e-3)], 2, seconds=2.0, grace=60.0)
    assert (len(found), why) == (1, "")


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_threads_double_up_to_all(most, counts):
    assert scaling.thread_counts(most) == counts


def test_the_longest_of_each_suite_are_taken_but_no_other_library_and_nothing_endless():
    rows = [_row("a", 1e-3), _row("b", 3e-3), _row("c", 2e-3), _row("endless", 9.0), _row("d", 1e-3, "cnn"),
            _row("theirs", 4e-3, engine="torch")]  # fmt: skip
    assert [(task.problem, task.engine, task.variant) for task in scaling.chosen(rows, 2)] == [
        ("b", "direct", "wide"), ("c", "direct", "wide"), ("d", "direct", "wide")]  # fmt: skip
    assert [task.problem for task in scaling.chosen(rows, 20)] == ["c", "a", "d"]  # 3 ms x 20 are too long


def test_a_problem_is_timed_at_every_number_of_threads_and_leaves_the_setting():
    before = settings.get_num_threads()
    found = scaling.measure_one(scaling.Task("a", TEXT, "direct"), 3, "", 2.0)
    assert (found.problem, found.engine, [point.threads for point in found.points]) == ("a", "direct", [1, 2, 3]), TEXT
    assert all(0 < point.q1 <= point.median <= point.q3 for point in found.points), TEXT
    assert settings.get_num_threads() == before


def test_a_call_runs_on_the_threads_that_it_is_timed_for(monkeypatch):
    used = []

    def planned(*_):
        at = settings.get_num_threads()
        return lambda: used.append((at, settings.get_num_threads()))

    monkeypatch.setattr(scaling, "planned", planned)
    scaling.measure_one(scaling.Task("a", TEXT, "direct"), 4, "", 0.5)
    assert set(used) == {(1, 1), (2, 2), (4, 4)}


def test_the_fastest_variant_is_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(scaling.planning, "variant_of", lambda engine, spec, variant: asked.append(variant) or engine)
    scaling.measure_one(scaling.Task("a", TEXT, "direct", "wide"), 2, "", 0.01)
    assert asked == ["wide"], TEXT


def test_the_process_measures_and_says_so():
    found, why = scaling.measure([_row("a", 1e-3)], 2, seconds=2.0, grace=60.0)
    assert why == ""
    assert [(one.problem, [point.threads for point in one.points]) for one in found] == [("a", [1, 2])], TEXT
    assert scaling.measure([_row("a", 1e-3)], 1) == ([], "")
    assert scaling.measure([], 2) == ([], "")


DONE = json.dumps({"problem": "a", "engine": "direct", "points": [vars(point) for point in TWO]})


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (f"print({DONE!r}, flush=True); raise MemoryError('no room')", "1 of 2 problems: MemoryError: no room"),
        (f"print({DONE!r}, flush=True); import os; os.abort()", "1 of 2 problems: exit code -6"),
        (f"print({DONE!r}, flush=True); print('half', end='', flush=True); import time; time.sleep(600)",
         "1 of 2 problems: it took over 3 s"),
        (f"print({DONE!r})", "1 of 2 problems: 1 s were not enough"),
    ],
)  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="ends a process by a signal")
def test_whatever_becomes_of_the_process_what_it_has_done_stays(code, why, monkeypatch):
    run = scaling._run
    monkeypatch.setattr(scaling, "_run", lambda command, limit: run([sys.executable, "-c", code], limit))
    found = scaling.measure([_row("a", 1e-3), _row("b", 1e-3)], 2, seconds=1.0, grace=2.0)
    assert found == ([Scaling("a", "direct", TWO)], why)


def test_ctrl_c_ends_the_step_alone(monkeypatch):
    class Interrupted(subprocess.Popen):
        def communicate(self, *_, timeout=None):
            if timeout is not None:
                raise KeyboardInterrupt
            return super().communicate()

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    found, why = scaling.measure([_row("a", 1e-3)], 2)
    assert (found, why) == ([], "0 of 1 problems: interrupted")


def test_the_report_keeps_it_and_refuses_what_is_none(tmp_path):
    report = Report({}, {}, [_row("a", 2e-3)], scaling=[Scaling("a", "direct", TWO)])
    path = tmp_path / "report.json"
    report.save(path)
    assert Report.load(path) == report
    content = json.loads(path.read_text())
    content["scaling"][0]["points"][0]["extra"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is no report of a run"):
        Report.load(path)


def test_the_figure_has_the_ideal_and_a_line_for_each_problem():
    pytest.importorskip("matplotlib")
    from convbench.report import bands, plots, texts, threads

    report = Report({}, {}, [_row("a", 2e-3)], scaling=[Scaling("a", "direct", TWO)])
    found = threads.speedups(report.scaling[0], bands.Bands(TWO))
    assert found == {1: pytest.approx((1, 4 / 4.2, 4 / 3.9)), 2: pytest.approx((2, 1.6, 4 / 1.9))}
    drawn = plots.plots(report, "direct")["scaling"][0].svg
    for text in ("ideal", "a, direct", "speed-up over one thread", "2×", "bands: quartiles"):
        assert text in drawn
    assert not any("Thread scaling" in note for note in texts.absent(report))
    without = Report({}, {}, report.rows)
    assert plots.plots(without, "direct")["scaling"] == []
    assert any("Thread scaling" in note for note in texts.absent(without))
