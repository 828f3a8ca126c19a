"""The report: its data, the table, the plots, the pages; nothing is measured."""

import json
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


def test_reports_of_earlier_versions_are_read_and_other_files_refused(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    content = json.loads(path.read_text())
    for field in ("peaks", "bandwidth"):
        del content[field]
    for row in content["rows"]:
        for entry in row["engines"].values():
            del entry["plan_seconds"]
    path.write_text(json.dumps(content))
    assert Report.load(path) == report
    for text in ("", "[]", "{}", '{"rows": [{}]}', '{"rows": [], "machine": {}, "settings": {}, "more": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"is no report of a run .* `convbench bench` writes is accepted"):
            Report.load(path)


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
    assert [path.name for path in files[:4]] == ["report.html", "report.md", "report.json", "report.csv"]
    assert all(path.exists() for path in files)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*', html) == []
    assert "@import" not in html
    assert re.findall(r"url\((?!#)[^)]*", html) == []
    assert "a &lt;processor&gt;" in html
    assert "a <processor>" not in html
    markdown = (tmp_path / "report.md").read_text()
    assert "| photo-128-k3 | quick | 2.00× | 2.00 ms | 1.00 ms | 10% | yes | slow 2.00× | quick |" in markdown
    pictures = re.findall(r"\]\((.*\.svg)\)", markdown)
    assert pictures
    for picture in pictures:
        assert (tmp_path / picture).exists()


def test_ids_on_a_page_are_unique_and_what_they_refer_to_exists(report, tmp_path):
    from convbench.report import pages

    html = pages.write(report, tmp_path)[0].read_text()
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert referred
    assert set(referred) <= set(ids)


def test_figures_follow_the_pages_colour_scheme(report):
    from convbench.report import style
    from convbench.report.plots import plots

    plot = plots(report, "slow")["maps"][0]
    assert style.INK in plot.svg
    for ink in (style.INK, style.SOFT, style.LINE, style.PAPER):
        assert ink not in plot.inline
        assert ink not in style.PALETTE
    assert "var(--ink)" in plot.inline
    assert ElementTree.fromstring(plot.inline.replace("xlink:", "")).attrib["role"] == "img"


def test_refusals_show_their_reason(report, tmp_path):
    from convbench.report import pages

    refusing = _row("room-4801", slow=Entry("slow takes <2-D> problems only"))
    pages.write(Report(report.machine, report.settings, [report.rows[0], refusing]), tmp_path)
    assert "slow takes &lt;2-D&gt; problems only" in (tmp_path / "report.html").read_text()
    assert "| room-4801 | slow | slow takes <2-D> problems only |" in (tmp_path / "report.md").read_text()


def test_plots_are_svg_and_the_same_for_the_same_report(report):
    from convbench.report.plots import fronts, plots

    drawn = plots(report, "slow")
    names = [plot.name for plot in drawn["maps"]]
    assert names[:3] == ["winner-map-one-channel", "speedup-map-one-channel", "regret-map-one-channel"]
    assert [plot.name for plot in drawn["suites"]] == ["cnn-times", "signal-times"]
    assert [drawn["roofline"], drawn["curves"]] == [[], []]  # no peak, and two kernels make no curve
    for plot in [*(plot for found in drawn.values() for plot in found), *fronts(report)]:
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
    assert plots(report, "slow") == drawn


def test_what_was_not_measured_is_left_out_and_said(report, tmp_path):
    from convbench.report import pages

    html = pages.write(report, tmp_path)[0].read_text()
    assert "Roofline: this run&#39;s data have no measured peak and bandwidth." in html
    assert "Amortisation: this run&#39;s data have no planning times." in html
    assert 'id="amortisation"' not in html


def test_a_single_given_problem_makes_a_report(tmp_path):
    from convbench.report import pages

    text = "mb1ic1iw8oc1ow8kw3pw1"
    lone = Row(text, "given", text, "given", "quick", {"quick": _row().engines["quick"]})
    report = Report({"processor": "p", "threads": "1"}, {"date": "d"}, [lone])
    pages.write(report, tmp_path)
    assert "–" in _printed(report)


@pytest.mark.parametrize("error", [0.0, float("inf"), float("nan")])
def test_errors_that_a_logarithm_cannot_show_make_a_report(report, tmp_path, error):
    from convbench.report import pages

    odd = Entry(None, 3e-3, 3e-3, 3e-3, 3, error, 1e-6, error == 0, 0, 3.0, "1")
    pages.write(Report(report.machine, report.settings, [_row(slow=odd)]), tmp_path)
    assert 'data-value="nan"' not in (tmp_path / "report.html").read_text()


def test_a_run_that_every_engine_refused_makes_a_report(tmp_path):
    from convbench.report import pages

    row = Row("x", "given", "mb1ic1iw8oc1ow8kw3pw1", "", "", {"picky": Entry("no")})
    pages.write(Report({"processor": "p", "threads": "1"}, {"date": "d"}, [row]), tmp_path)
    assert "| x | picky | no |" in (tmp_path / "report.md").read_text()
