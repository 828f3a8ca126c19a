"""The report's arithmetic: maps, crossovers, fronts, amortisation, CSV; the command."""

import csv
import io
import itertools
import math

import numpy as np
import pytest

from convbench.cli import main
from convbench.report.results import Entry, Point, Report, Row, Scaling
from convbench.spec import ConvSpec

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from convbench.report import amortise, curves, export, front, layout, pages, roof, style
from convbench.report.plots import baseline, plots


def _entry(median, error=1e-7, workspace=0, plan=None, spread=0.01):
    quartiles = median * (1 - spread), median * (1 + spread)
    return Entry(None, median, *quartiles, 5, error, 1e-6, True, workspace, 1.0, "1", None, plan)


def _row(name, text, **engines):
    return Row(name, "given", text, "", next(iter(engines), ""), engines)


def _image(kernel, **engines):
    return _row(f"k{kernel}", f"mb1ic1ih64oc1oh64kh{kernel}ph{kernel // 2}", **engines)


def _report(*rows, **more):
    return Report({"processor": "p", "threads": "2"}, {"date": "2026-01-02"}, list(rows), **more)


def test_every_measured_problem_is_in_one_cell_of_one_map():
    texts = [
        "mb1ic1ih8oc1oh8kh3ph1", "mb1ic1ih8oc1oh8kh3ph1", "mb1ic3ih8oc4oh4kh3sh2ph1", "mb2ic64ih8oc64oh8kh3ph1",
        "mb1ic256ih8oc8oh8kh3ph1", "g8mb1ic8ih8oc8oh8kh3ph1", "g2mb1ic8ih8oc8oh8kh3ph1", "mb1ic1iw8oc1ow8kw3pw1",
        "mb1ic1id8oc1od8kd3pd1", "mb1ic1ih8iw9oc1oh8ow9kh1kw3ph0pw1",
    ]  # fmt: skip
    rows = [_row(f"r{at}", text, a=_entry(1.0)) for at, text in enumerate(texts)]
    refused = _row("none", texts[0], a=Entry("no"))
    found = layout.grids(_report(*rows, refused))
    placed = [row.name for grid in found for row in grid.cells.values()]
    assert sorted(placed) == sorted(row.name for row in rows)
    titles = [grid.title for grid in found]
    assert titles == ["One channel", "2 to 4 channels", "5 to 128 channels", "More than 128 channels", "Depthwise",
                      "Signals", "Volumes"]  # fmt: skip
    assert found[0].sizes == ["8²", "8² r1", "8×9"]
    assert found[0].kernels == ["1×3", "3×3"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("mb1ic1ih8oc1oh8kh3ph1", "8²"),
        ("mb1ic3ih8oc4oh4kh3sh2ph1", "3→4 8² /2"),
        ("g2mb4ic8ih8oc8oh8kh3ph2dh1", "8→8 8² g2 d2 b4"),
        ("mb1ic1iw100oc1ow100kw3pw1", "100"),
    ],
)
def test_labels_of_sizes(text, label):
    assert layout.size_label(ConvSpec.parse(text)) == label


def test_a_crossover_lies_where_two_power_laws_meet():
    # times a·k² and b·k meet at k = b / a; a straight line in logarithms finds it exactly
    line = {k: _image(k, square=_entry(1e-6 * k**2), linear=_entry(7e-6 * k)) for k in (3, 5, 9, 15)}
    (crossing,) = curves.crossovers(line)
    assert (crossing.before, crossing.after, crossing.clear) == ("square", "linear", True)
    assert crossing.width == pytest.approx(7)


def test_a_crossover_with_overlapping_quartiles_is_not_clear_and_a_missing_rival_is_midway():
    line = {k: _image(k, square=_entry(1e-6 * k**2, spread=0.5), linear=_entry(7e-6 * k)) for k in (5, 9)}
    assert [crossing.clear for crossing in curves.crossovers(line)] == [False]
    line = {4: _image(4, a=_entry(1.0)), 9: _image(9, b=_entry(1.0))}
    (crossing,) = curves.crossovers(line)
    assert (crossing.width, crossing.clear) == (pytest.approx(6), False)


def test_the_front_is_what_no_one_beats():
    random = np.random.default_rng(0)
    for _ in range(20):
        points = {f"e{at}": tuple(random.integers(1, 5, 3)) for at in range(7)}
        row = _image(3, **{name: _entry(float(t), float(e), int(w)) for name, (t, e, w) in points.items()})
        beaten = {
            name
            for (name, point), (_, other) in itertools.permutations(points.items(), 2)
            if np.all(np.less_equal(other, point)) and np.any(np.less(other, point))
        }
        assert set(front.front(row)) == set(points) - beaten, points


def test_an_engine_that_is_wrong_is_on_no_front():
    wrong = Entry(None, 0.1, 0.1, 0.1, 5, 0.0, 1e-6, False, 0, 1.0, "1")
    assert front.front(_image(3, wrong=wrong, right=_entry(1.0))) == ["right"]


def test_amortisation_agrees_with_counting():
    row = _image(3, slow=_entry(5e-3, plan=0.0), middle=_entry(2e-3, plan=0.1), fast=_entry(1e-3, plan=0.75))
    assert [amortise.cheapest(row, calls) for calls in (1, 100, 1000)] == ["slow", "middle", "fast"]
    total = {name: lambda n, e=entry: e.plan_seconds + n * e.median for name, entry in row.engines.items()}
    counted = next(n for n in itertools.count(1) if total["fast"](n) <= min(total["slow"](n), total["middle"](n)))
    assert amortise.pays_from(row) == counted
    assert not amortise.known(_report(_image(3, a=_entry(1.0, plan=1.0), b=_entry(1.0))))


def test_amortisation_and_roofline_are_shown_where_measured(tmp_path):
    row = _image(3, slow=_entry(5e-3, plan=0.0), fast=_entry(1e-3, plan=0.75))
    scaling = [Scaling(row.name, "fast", [Point(1, 2e-3, 2e-3, 2e-3, 5), Point(2, 1e-3, 1e-3, 1e-3, 5)])]
    report = _report(row, peaks={"float32": 1e11, "float64": 5e10}, bandwidth=2e10, scaling=scaling)
    html = pages.write(report, tmp_path)[0].read_text()
    assert 'id="amortisation"' in html
    assert 'data-value="188"' in html  # 0.75 s / 4 ms, rounded up
    assert "float32: 100 GFLOP/s" in html
    assert "float64: " not in html  # no problem of that dtype
    assert "have no" not in html
    spec = ConvSpec.parse(row.text)
    assert roof.point(row) == (pytest.approx(2 * spec.macs / spec.data_bytes), pytest.approx(2 * spec.macs / 1e-3))


def test_bench_takes_the_seconds_of_planning():
    from convbench.benchmarks.contest import measure
    from convbench.benchmarks.session import Session

    text = "mb1ic1ih9oc1oh9kh3ph1"
    found = measure(ConvSpec.parse(text), Session([["tiny", text]], ["direct", "toeplitz", "winograd4"], 0.01, ""))
    timed = {name: entry for name, entry in found["engines"].items() if entry["refused"] is None}
    assert {"direct", "toeplitz"} <= set(timed)
    for name, entry in timed.items():
        assert 0 < entry["plan_seconds"] < found["wall"], name
        assert all("plan_seconds" not in timing for timing in entry["variants"].values()), name  # records have none


def test_curves_are_drawn_from_three_kernels_on():
    rows = [_image(k, a=_entry(1e-6 * k**2), b=_entry(7e-6 * k)) for k in (3, 9, 15)]
    (plot,) = plots(_report(*rows), "a")["curves"]
    assert plot.note == "a → b at 7"
    assert ">7<" in plot.svg
    assert plots(_report(*rows[:2]), "a")["curves"] == []


def test_the_csv_has_a_line_for_every_measurement_and_refusal():
    report = _report(_image(3, a=_entry(1.5e-3, plan=0.25), b=Entry('no, "never"')))
    lines = list(csv.DictReader(io.StringIO(export.csv_text(report))))
    assert tuple(lines[0]) == export.COLUMNS
    assert [line["engine"] for line in lines] == ["a", "b"]
    assert (float(lines[0]["median_s"]), float(lines[0]["plan_s"]), lines[0]["fastest"]) == (1.5e-3, 0.25, "True")
    assert (lines[1]["refused"], lines[1]["median_s"]) == ('no, "never"', "")


def test_the_baseline_is_im2col_the_first_or_the_wanted():
    report = _report(_image(3, a=_entry(1.0), im2col=_entry(2.0)))
    assert [baseline(report), baseline(report, "a")] == ["im2col", "a"]
    assert baseline(_report(_image(3, a=_entry(1.0)))) == "a"
    with pytest.raises(ValueError, match="baseline 'b' was not measured; a, im2col are accepted"):
        baseline(report, "b")


def _luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", style.PALETTE)
def test_texts_upon_colours_have_the_contrast_that_wcag_asks_for(colour):
    bright, dim = sorted((_luminance(colour), _luminance(style.upon(colour))), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_engines_differ_by_colour_and_marker_together():
    names = [f"e{at}" for at in range(math.lcm(len(style.PALETTE), len(style.MARKERS)))]
    pairs = set(zip(style.colours(names).values(), style.markers(names).values(), strict=True))
    assert len(pairs) == len(names)


def test_the_command_makes_the_pages_of_the_newest_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, date in (("old", "2026-01-01"), ("new", "2026-03-01"), ("middle", "2026-02-01")):
        (tmp_path / "reports" / name).mkdir(parents=True)
        report = _report(_image(3, a=_entry(1.0)))
        report.settings["date"] = date
        report.save(tmp_path / "reports" / name / "report.json")
    assert main(["report"]) == 0
    assert capsys.readouterr().out.endswith("new/report.html\n")
    assert not (tmp_path / "reports" / "old" / "report.html").exists()
    assert main(["report", "reports/old/report.json", "-o", "out/deep", "--baseline", "a"]) == 0
    written = {path.name for path in (tmp_path / "out" / "deep").iterdir()}
    assert written == {"report.html", "report.md", "report.json", "report.csv", "report-plots"}
    assert Report.load(tmp_path / "out" / "deep" / "report.json") == Report.load(tmp_path / "reports/old/report.json")


def test_the_command_replaces_the_plots_of_an_earlier_run(tmp_path):
    rows = [_image(k, a=_entry(1e-6 * k**2)) for k in (3, 9, 15)]
    first = set(pages.write(_report(*rows), tmp_path))
    second = set(pages.write(_report(*rows[:1]), tmp_path))
    assert {path for path in first - second if path.exists()} == set()
    assert any("curve" in path.name for path in first - second)


def test_the_command_says_what_it_cannot_use(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    _report(_image(3, a=_entry(1.0))).save(tmp_path / "report.json")
    for argv, message in (
        ([], "no */report.json lies in 'reports'; give REPORT.json, or measure with: convbench bench"),
        (["missing.json"], "missing.json"),
        (["other.json"], "'other.json' is no report of a run"),
        (["report.json", "--baseline", "b"], "baseline 'b' was not measured; a are accepted"),
        (["report.json", "-o", "other.json"], "other.json"),
    ):
        assert main(["report", *argv]) == 2, argv
        error = capsys.readouterr().err
        assert error.startswith("convbench: ")
        assert message in error
        assert error.count("\n") == 1
