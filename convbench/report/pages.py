"""The report on disk: ``report.html`` (one file, everything inside), ``report.md``, its plots and the raw numbers."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from convbench.report.plots import plots
from convbench.report.results import CLOSE, Report, duration, error_part, ratio, size
from convbench.report.style import colours

RAW = "report.json"
CAPTIONS = {
    "winner-map": (
        "Which engine is fastest",
        "The colour is the fastest engine, the number its lead: the time of the runner-up divided by its own. "
        f"Pale cells are too close to call (below {CLOSE:.2f}×).",
    ),
    "image-times": ("Time over kernel size", "Medians; the shade spans the quartiles. Both axes are logarithmic."),
    "cnn-times": ("Layers of real networks", "Medians of one call on a logarithmic axis."),
    "signal-times": ("Signals", "Medians of one call on a logarithmic axis."),
    "given-times": ("Given problems", "Medians of one call on a logarithmic axis."),
    "errors": (
        "Errors",
        "A dot for each problem: the error against the float64 reference as a part of what rounding may cost "
        "that engine. Exact results are drawn at the left edge.",
    ),
}


def write(report: Report, folder: Path) -> list[Path]:
    """Write everything into `folder`, which exists; returns the files, the page to open first."""
    drawn = plots(report)
    for name in CAPTIONS:  # an earlier run may have drawn other suites
        (folder / f"{name}.svg").unlink(missing_ok=True)
    pictures = {name: folder / f"{name}.svg" for name in drawn}
    for name, path in pictures.items():
        path.write_text(drawn[name], encoding="utf-8")
    environment = _environment()
    context = {
        "report": report,
        "captions": CAPTIONS,
        "colours": colours(report.engines),
        "summary": summary(report),
        "pictures": {name: path.name for name, path in pictures.items()},
        "embedded": {name: _data_uri(svg) for name, svg in drawn.items()},
    }
    pages = []
    for kind in ("html", "md"):
        page = folder / f"report.{kind}"
        page.write_text(environment.get_template(f"report.{kind}.jinja").render(context), encoding="utf-8")
        pages.append(page)
    raw = folder / RAW
    report.save(raw)
    return [*pages, raw, *pictures.values()]


def summary(report: Report) -> str:
    """A sentence: how many problems, who wins how many, and whether all agree."""
    wins = sorted(report.wins.items(), key=lambda item: -item[1])
    won = ", ".join(f"{name} {count}" for name, count in wins if count)
    verdict = "all engines agree with the reference on every one"
    if not report.agree:
        verdict = f"engines disagree with the reference on {', '.join(r.name for r in report.rows if not r.agree)}"
    return f"{len(report.rows)} problems, fastest on: {won or 'none'}; {verdict}."


def _environment():
    environment = Environment(
        loader=PackageLoader("convbench", "report"),
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(duration=duration, ratio=ratio, size=size, part=lambda entry: f"{error_part(entry):.1%}")
    return environment


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
