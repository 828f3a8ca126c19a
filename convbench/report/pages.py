"""The report on disk: ``report.html`` (one file, everything inside), ``report.md``, its plots and the raw numbers."""

from __future__ import annotations

import base64
import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from convbench.report import amortise, export, layout, texts
from convbench.report.front import front
from convbench.report.plots import Plot, baseline, fronts, plots
from convbench.report.results import Report, duration, error_part, ratio, size
from convbench.report.style import colours

RAW, TABLE, PICTURES = "report.json", "report.csv", "report-plots"


def write(report: Report, folder: Path, base: str | None = None) -> list[Path]:
    """Write everything into `folder`, which exists; returns the files, the page to open first.

    Parameters
    ----------
    report : Report
    folder : Path
    base : str, optional
        The engine that speed-ups are over; im2col, or the first that was measured.
    """
    base = baseline(report, base)
    sections = plots(report, base)
    pictures = _write_pictures([plot for found in sections.values() for plot in found], folder / PICTURES)
    context = {
        "report": report,
        "base": base,
        "sections": sections,
        "summary": summary(report),
        "texts": texts.sections(base),
        "absent": texts.absent(report),
        "amortised": amortise.known(report),
        "folder": PICTURES,
    }
    environment = _environment()
    page, markdown = folder / "report.html", folder / "report.md"
    markdown.write_text(environment.get_template("report.md.jinja").render(context), encoding="utf-8")
    page.write_text(environment.get_template("report.html.jinja").render(context | _inside(report)), encoding="utf-8")
    raw, table = folder / RAW, folder / TABLE
    report.save(raw)
    table.write_text(export.csv_text(report), encoding="utf-8")
    return [page, markdown, raw, table, *pictures]


def _inside(report: Report) -> dict:
    """What only the page needs, which carries everything inside."""
    return {
        "fronts": fronts(report),
        "colours": colours(report.engines),
        "downloads": {
            TABLE: _data_uri("text/csv", export.csv_text(report)),
            RAW: _data_uri("application/json", export.json_text(report)),
        },
    }


def summary(report: Report) -> str:
    """A sentence: how many problems, who wins how many, and whether all agree."""
    wins = sorted(report.wins.items(), key=lambda item: -item[1])
    won = ", ".join(f"{name} {count}" for name, count in wins if count)
    verdict = "all engines agree with the reference on every one"
    if not report.agree:
        verdict = f"engines disagree with the reference on {', '.join(r.name for r in report.rows if not r.agree)}"
    return f"{len(report.rows)} problems, fastest on: {won or 'none'}; {verdict}."


def _write_pictures(drawn: list[Plot], folder: Path) -> list[Path]:
    """The figures as files; those of an earlier run go."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    paths = []
    for plot in drawn:
        path = folder / f"{plot.name}.svg"
        path.write_text(plot.svg, encoding="utf-8")
        paths.append(path)
    return paths


def _environment():
    loader = PackageLoader("convbench", "report")
    environment = Environment(
        loader=loader,
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(
        asset=lambda name: Markup(loader.get_source(environment, name)[0]),  # our own files
        calls=amortise.CALLS,
        cheapest=amortise.cheapest,
        front=front,
        pays_from=amortise.pays_from,
        label=lambda row: layout.size_label(layout.parsed(row.text)),
        part=error_part,
    )
    environment.filters.update(
        duration=duration, ratio=ratio, size=size, sortable=_sortable, part=lambda entry: f"{error_part(entry):.1%}"
    )
    return environment


def _sortable(value: float | None) -> str:
    """A number for the page's script: empty for none, and what is no number sorts as if it were endless."""
    if value is None:
        return ""
    return str(value) if math.isfinite(value) else "Infinity"


def _data_uri(kind: str, text: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(text.encode()).decode()
