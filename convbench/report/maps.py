"""Maps of sizes × kernels: the fastest engine, its speed-up over a baseline, the prediction's regret."""

from __future__ import annotations

import math
from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from convbench.report.layout import Grid
from convbench.report.results import CLOSE, Report, Row, ratio
from convbench.report.style import DARK, INK, LINE, colours, markers, upon

WIDTH, CELL_HEIGHT = 4.2, 0.43  # inches
CLOSE_SHADE = 0.4  # opacity of a cell whose lead is within the noise
SPEEDUP, REGRET = "#0072b2", "#d55e00"
DEEPEST = {SPEEDUP: 20.0, REGRET: 2.0}  # the ratio that gets the full colour


def winner_map(report: Report, grid: Grid) -> Figure:
    """The colour and the marker tell the fastest engine, the number its lead over the next."""
    paint = colours(report.engines)

    def cell(row):
        close = row.speedup is not None and row.speedup < CLOSE
        shade = CLOSE_SHADE if close else 1.0
        return paint[row.best], shade, INK if close else upon(paint[row.best]), row.best, ratio(row.speedup)

    figure, used = _map(report, grid, cell)
    _legend(figure, report, used)
    return figure


def speedup_map(report: Report, grid: Grid, baseline: str) -> Figure:
    """The number is the baseline's time / the fastest's; the deeper the colour, the larger."""

    def cell(row):
        entry = row.measured.get(baseline)
        return _deep(SPEEDUP, entry.regret if entry else None, row.best)

    figure, used = _map(report, grid, cell)
    _legend(figure, report, used)
    return figure


def regret_map(report: Report, grid: Grid) -> Figure:
    """The number is the time of the predicted engine / the fastest's, the marker that engine."""
    figure, used = _map(report, grid, lambda row: _deep(REGRET, row.auto_regret, row.auto))
    _legend(figure, report, used)
    return figure


def cell_name(row: Row) -> str:
    """The id of a cell's text in the SVG."""
    return f"cell-{row.name}"


def _deep(colour, value, engine):
    """A cell whose colour deepens with the logarithm of `value`, from 1 on."""
    if value is None:
        return LINE, 1.0, INK, "", "–"
    depth = min(max(math.log(value) / math.log(DEEPEST[colour]), 0.0), 1.0)
    shade = 0.06 + 0.94 * depth
    return colour, shade, INK if shade < 0.6 else upon(colour), engine, ratio(value)


def _map(report: Report, grid: Grid, cell: Callable[[Row], tuple]) -> tuple[Figure, set[str]]:
    sizes, kernels = grid.sizes, grid.kernels
    figure = Figure(figsize=(WIDTH, 1.15 + CELL_HEIGHT * len(sizes)), layout="constrained")
    axes = figure.add_subplot()
    shapes, used = markers(report.engines), set()
    for (size, kernel), row in grid.cells.items():
        colour, shade, ink, engine, number = cell(row)
        x, y = kernels.index(kernel), sizes.index(size)
        axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, color=colour, alpha=shade, linewidth=0))
        if engine in shapes:
            used.add(engine)
            axes.plot(x, y + 0.2, shapes[engine], color=ink, markersize=5.5, markeredgewidth=0)
        axes.text(x, y - 0.2, number, ha="center", va="center", color=ink, fontsize=7.5, gid=cell_name(row))
    axes.set_xlim(-0.55, max(len(kernels), 3) - 0.45)
    axes.set_ylim(-0.55, len(sizes) - 0.45)
    axes.set_xticks(range(len(kernels)), kernels)
    axes.set_yticks(range(len(sizes)), sizes)
    axes.set_xlabel("kernel", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, used


def _legend(figure, report, used):
    paint, shapes = colours(report.engines), markers(report.engines)
    handles = [
        Line2D([], [], marker=shapes[name], color=paint[name], linestyle="", markersize=6, label=name,
               markeredgecolor=DARK, markeredgewidth=0.3)
        for name in report.engines
        if name in used
    ]  # fmt: skip
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=4)
