"""The report's plots, as SVG texts: winner map, times over kernel size, times and errors per problem."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from convbench.problems import Problem, image_grid
from convbench.report.results import CLOSE, Report, Row, duration, error_part, ratio
from convbench.report.style import colours

CLEAR_SHADE, CLOSE_SHADE = 1.0, 0.45  # a cell's opacity: a clear lead, and one within the noise
SMALLEST_ERROR = 1e-6  # of the bound: where exact results are drawn on a logarithmic axis
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa1a9",
    "axes.labelcolor": "#3c434b",
    "xtick.color": "#3c434b",
    "ytick.color": "#3c434b",
    "axes.axisbelow": True,
    "svg.hashsalt": "convbench",  # the same report gives the same file
}


def plots(report: Report) -> dict[str, str]:
    """SVG by name: ``winner-map`` and ``image-times`` where images were measured, ``SUITE-times``, ``errors``."""
    drawn = {}
    with matplotlib.rc_context(_STYLE):
        grid = image_cells(report)
        if grid:
            drawn["winner-map"] = _svg(winner_map(report, grid))
            drawn["image-times"] = _svg(image_times(report, grid))
        for suite in dict.fromkeys(row.suite for row in report.rows):
            if suite != "image":
                drawn[f"{suite}-times"] = _svg(suite_times(report, suite))
        drawn["errors"] = _svg(errors(report))
    return drawn


def image_cells(report: Report) -> dict[tuple[int, int], Row]:
    """The image suite's rows by (image size, kernel size)."""
    cells = {}
    for row in report.suite("image"):
        cells[image_grid(Problem(row.name, row.suite, row.text, row.source))] = row
    return {key: row for key, row in cells.items() if row.best}


def winner_map(report: Report, cells: dict[tuple[int, int], Row]) -> Figure:
    """Image size × kernel size: the colour is the fastest engine, the number its lead over the next."""
    sizes, kernels = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    paint = colours(report.engines)
    figure = Figure(figsize=(1.9 + 0.78 * len(kernels), 1.35 + 0.62 * len(sizes)), layout="constrained")
    axes = figure.add_subplot()
    for (size, kernel), row in cells.items():
        lead = row.speedup
        shade = CLOSE_SHADE if lead is not None and lead < CLOSE else CLEAR_SHADE
        x, y = kernels.index(kernel), sizes.index(size)
        axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, color=paint[row.best], alpha=shade, linewidth=0))
        ink = "white" if shade == CLEAR_SHADE else "#22262a"
        axes.text(x, y, ratio(lead), ha="center", va="center", color=ink, fontsize=10, fontweight="bold")
    axes.set_xlim(-0.55, len(kernels) - 0.45)
    axes.set_ylim(-0.55, len(sizes) - 0.45)
    axes.set_xticks(range(len(kernels)), [f"{k}×{k}" for k in kernels])
    axes.set_yticks(range(len(sizes)), [f"{s}²" for s in sizes])
    axes.set_xlabel("kernel size")
    axes.set_ylabel("image size")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    winners = [name for name in report.engines if any(row.best == name for row in cells.values())]
    handles = [Patch(color=paint[name], label=name) for name in winners]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return figure


def image_times(report: Report, cells: dict[tuple[int, int], Row]) -> Figure:
    """A panel for each image size: every engine's time over the kernel size, both logarithmic."""
    sizes = sorted({size for size, _ in cells})
    columns = min(len(sizes), 2)
    rows = -(-len(sizes) // columns)
    figure = Figure(figsize=(4.3 * columns, 0.4 + 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(sizes) :]:
        axes.set_visible(False)
    paint = colours(report.engines)
    for axes, size in zip(grid.flat, sizes, strict=False):
        kernels = sorted(kernel for at, kernel in cells if at == size)
        for name in report.engines:
            _line(axes, name, paint[name], {k: cells[size, k] for k in kernels if name in cells[size, k].measured})
        _logarithmic_time(axes, "y")
        axes.set_xscale("log")
        axes.set_xticks(kernels, [str(k) for k in kernels])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_title(f"{size} × {size} pixels", loc="left", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("kernel size")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    return figure


def suite_times(report: Report, suite: str) -> Figure:
    """Every engine's time on each problem of a suite: dots on a logarithmic axis."""
    rows = [row for row in report.suite(suite) if row.best]
    figure, axes = _dots(rows)
    paint = colours(report.engines)
    for name in report.engines:
        found = [(row.engines[name].median, y) for y, row in enumerate(rows) if name in row.measured]
        if found:
            axes.scatter(*zip(*found, strict=True), s=46, color=paint[name], label=name, zorder=3)
    _logarithmic_time(axes, "x")
    axes.set_xlabel("time of one call")
    _legend(figure, axes, report.engines)
    return figure


def errors(report: Report) -> Figure:
    """Every engine's error as a part of its bound, over all problems: a dot each, wrong right of the line."""
    figure = Figure(figsize=(8.6, 0.9 + 0.42 * len(report.engines)), layout="constrained")
    axes = figure.add_subplot()
    paint = colours(report.engines)
    jitter = np.random.default_rng(0)
    for y, name in enumerate(report.engines):
        parts = [error_part(row.engines[name]) for row in report.rows if name in row.measured]
        drawn = np.clip(parts, SMALLEST_ERROR, 1e3)
        axes.scatter(drawn, y + jitter.uniform(-0.22, 0.22, len(drawn)), s=22, color=paint[name], alpha=0.7, lw=0)
    axes.axvline(1, color="#c0392b", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(SMALLEST_ERROR / 2, 10)
    axes.set_ylim(len(report.engines) - 0.5, -0.5)
    axes.set_yticks(range(len(report.engines)), report.engines)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e6e9")
    axes.set_xlabel("error against the reference / the engine's bound   (right of the red line: wrong)")
    return figure


def _line(axes, name, colour, rows):
    if not rows:
        return
    entries = [row.engines[name] for row in rows.values()]
    axes.fill_between(list(rows), [e.q1 for e in entries], [e.q3 for e in entries], color=colour, alpha=0.2, lw=0)
    axes.plot(list(rows), [e.median for e in entries], "o-", color=colour, label=name, markersize=3.5, linewidth=1.6)


def _dots(rows: list[Row]):
    figure = Figure(figsize=(8.6, 1.0 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for y, row in enumerate(rows):
        times = [entry.median for entry in row.measured.values()]
        axes.plot([min(times), max(times)], [y, y], color="#cfd4d9", linewidth=2, zorder=1)
    return figure, axes


def _legend(figure, axes, engines):
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=len(engines), frameon=False)


def _logarithmic_time(axes, which):
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())
    axes.grid(axis=which, which="major", color="#e3e6e9")


def _tick(seconds, _position):
    number, unit = duration(seconds).split()
    return f"{float(number):g} {unit}"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
