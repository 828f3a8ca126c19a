"""The report: its data, the table, the plots, the pages; nothing is measured."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from convbench.problems import PROBLEMS
from convbench.report.results import Entry, Report, Row, duration, error_part, ratio, size

pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def _row(name="photo-128-k3", **changes):
    problem = next(problem for problem in PROBLEMS if problem.name == name)
    engines = {
        "slow": Entry(None, 2e-3, 1.9e-3, 2.1e-3, 10, 1e-7, 1e-6, True, 4096, 2.0, "1"),
        "quick": Entry(None, 1e-3, 0.9e-3, 1.1e-3, 10, 0.0, 1e-6, True, 0, 1.0, "1"),
        "picky": Entry("picky takes <3-D> problems only"),
    }
    return Row(problem.name, problem.suite, problem.text, problem.source, "slow", {**engines, **changes})


@pytest.fixture
def report():
    rows = [_row(), _row("photo-128-k5"), _row("photo-256-k3"), _row("resnet50-stem"), _row("room-4801")]
    return Report({"processor": "a <processor>", "threads": "2"}, {"date": "2026-01-02"}, rows)


def test_a_row_knows_its_winner_and_lead(report):
    row = report.rows[0]
    assert list(row.measured) == ["quick", "slow"]
    assert (row.best, row.speedup) == ("quick", 2.0)
    assert row.worst_error == pytest.approx(0.1)
    assert report.engines == ["slow", "quick"]
    assert report.wins == {"slow": 0, "quick": 5}
    assert report.agree
    assert row.auto_regret == 2.0
    assert report.prediction.startswith("Prediction alone would take 2.00× the fastest's time")


def test_a_row_that_all_engines_refuse_has_no_winner():
    row = Row("x", "given", "x", "", "slow", {"picky": Entry("no")})
    assert (row.best, row.speedup, row.worst_error, row.agree) == (None, None, 0.0, True)


def test_an_error_without_a_bound_is_wrong_unless_zero():
    assert error_part(Entry(error=0.0, bound=0.0)) == 0
    assert error_part(Entry(error=1e-9, bound=0.0)) == float("inf")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5e-9, "2.50 ns"),
        (1.234e-5, "12.3 µs"),
        (0.5, "500 ms"),
        (0.1234, "123 ms"),
        (12.3, "12.3 s"),
        (1234, "1234 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sizes_and_ratios():
    assert [size(0), size(1536), size(3 << 20), size(5 << 30)] == ["0 B", "1.50 KiB", "3.00 MiB", "5.00 GiB"]
    assert [ratio(None), ratio(1.234), ratio(12.6)] == ["–", "1.23×", "13×"]


def test_reports_come_back_from_json(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def _printed(report):
    from rich.console import Console

    from convbench.report.table import table

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(report))
    return console.export_text()


def test_the_table_shows_winner_lead_times_and_agreement(report):
    text = _printed(report)
    line = next(line for line in text.splitlines() if line.startswith(" photo-128-k3") or "photo-128-k3 " in line)
    assert line.split() == ["photo-128-k3", "quick", "2.00×", "2.00", "ms", "1.00", "ms", "10%", "yes"]
    assert "All engines agree" in text
    assert "picky" not in text


def test_the_table_says_so_when_an_engine_is_wrong(report):
    wrong = Entry(None, 3e-3, 3e-3, 3e-3, 3, 5e-6, 1e-6, False, 0, 3.0, "1")
    text = _printed(Report(report.machine, report.settings, [*report.rows[:1], _row("room-4801", slow=wrong)]))
    assert "DISAGREE with the reference on room-4801" in text
    assert "NO" in text


def test_pages_are_written_whole_and_self_contained(report, tmp_path):
    from convbench.report import pages

    files = pages.write(report, tmp_path)
    assert [path.name for path in files[:3]] == ["report.html", "report.md", "report.json"]
    assert all(path.exists() for path in files)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "a &lt;processor&gt;" in html
    assert "picky takes &lt;3-D&gt; problems only" not in html  # picky was never measured: no column
    markdown = (tmp_path / "report.md").read_text()
    assert "| photo-128-k3 | quick | 2.00× | 2.00 ms | 1.00 ms | 10% | yes | slow 2.00× |" in markdown
    for picture in re.findall(r"\]\((.*\.svg)\)", markdown):
        assert (tmp_path / picture).exists()


def test_refusals_show_their_reason(report, tmp_path):
    from convbench.report import pages

    refusing = _row("room-4801", slow=Entry("slow takes <2-D> problems only"))
    pages.write(Report(report.machine, report.settings, [report.rows[0], refusing]), tmp_path)
    assert "slow takes &lt;2-D&gt; problems only" in (tmp_path / "report.html").read_text()


def test_plots_are_svg_and_the_same_for_the_same_report(report):
    from convbench.report.plots import plots

    drawn = plots(report)
    assert list(drawn) == ["winner-map", "image-times", "cnn-times", "signal-times", "errors"]
    for text in drawn.values():
        assert ElementTree.fromstring(text).tag.endswith("svg")
    assert plots(report) == drawn


def test_a_single_given_problem_makes_a_report(tmp_path):
    from convbench.report import pages

    text = "mb1ic1iw8oc1ow8kw3pw1"
    lone = Row(text, "given", text, "given", "quick", {"quick": _row().engines["quick"]})
    report = Report({"processor": "p", "threads": "1"}, {"date": "d"}, [lone])
    pages.write(report, tmp_path)
    assert "–" in _printed(report)
