"""The report's figures: which there are for a run, and what each of them says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from convbench.report import maps, roof, svg, threads
from convbench.report.curves import FEWEST, crossovers, curve, logarithmic_time
from convbench.report.front import front_plot
from convbench.report.layout import Grid, grids
from convbench.report.results import Report, Row, error_part, ratio
from convbench.report.style import DARK, INK, LINE, colours, markers

BASELINE = "im2col"  # the textbook's fast way: what everything else is compared with
SMALLEST_ERROR = 1e-6  # of the bound: where exact results are drawn on a logarithmic axis
SUITES = {"cnn": "Layers of real networks", "signal": "Signals", "given": "Given problems"}


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes
    ----------
    name : str
        Its file is ``NAME.svg``, its ids on a page begin with it.
    title, note : str
        The heading, and a sentence that is true of this run alone; may be empty.
    svg : str
        The file's text.
    hints : dict of str to str
        What to show when one points at the group of that id.
    """

    name: str
    title: str
    svg: str
    note: str = ""
    hints: dict[str, str] = field(default_factory=dict)

    @property
    def inline(self) -> str:
        """The element for an HTML page."""
        return svg.inline(self.svg, self.name, self.title, self.hints)


def baseline(report: Report, wanted: str | None = None) -> str:
    """The engine that speed-ups are over.

    Raises
    ------
    ValueError
        The wanted one was not measured.
    """
    if wanted and wanted not in report.engines:
        raise ValueError(f"baseline {wanted!r} was not measured; {', '.join(report.engines)} are accepted")
    if wanted or BASELINE in report.engines:
        return wanted or BASELINE
    return next(iter(report.engines), "")


def plots(report: Report, base: str) -> dict[str, list[Plot]]:
    """All figures of a report by section; a section without figures is an empty list."""
    with svg.styled():
        found = {"maps": [], "curves": [], "suites": [], "errors": [], "roofline": [], "scaling": []}
        for grid in grids(report):
            found["maps"] += _maps(report, grid, base)
            found["curves"] += _curves(report, grid)
        for suite in dict.fromkeys(row.suite for row in report.rows if row.best and row.suite != "image"):
            title = SUITES.get(suite, suite)
            found["suites"].append(Plot(f"{suite}-times", title, svg.text(suite_times(report, suite))))
        if report.engines:
            found["errors"].append(Plot("errors", "Errors", svg.text(errors(report))))
        if roof.known(report):
            found["roofline"].append(Plot("roofline", "Roofline", svg.text(roof.roofline(report))))
        if report.scaling:
            found["scaling"].append(Plot("scaling", "Thread scaling", svg.text(threads.scaling_plot(report))))
    return found


def fronts(report: Report) -> list[Plot]:
    """The front of time, error and memory, a figure for each problem."""
    with svg.styled():
        return [
            Plot(f"front-{position}", row.name, svg.text(front_plot(report, row)))
            for position, row in enumerate(report.rows)
            if row.best
        ]


def _maps(report: Report, grid: Grid, base: str) -> list[Plot]:
    hints = {maps.cell_name(row): _hint(row) for row in grid.cells.values()}
    drawn = {
        "winner": ("fastest engine", maps.winner_map(report, grid)),
        "speedup": (f"speed-up over {base}", maps.speedup_map(report, grid, base)),
        "regret": ("regret of the prediction", maps.regret_map(report, grid)),
    }
    return [
        Plot(f"{kind}-map-{grid.name}", f"{grid.title}: {title}", svg.text(figure), hints=hints)
        for kind, (title, figure) in drawn.items()
    ]


def _hint(row: Row) -> str:
    auto = f", {ratio(row.auto_regret)} the fastest's time" if row.auto_regret else ""
    return f"{row.name} ({row.text}): {row.best}, lead {ratio(row.speedup)}; predicted: {row.auto}{auto}"


def _curves(report: Report, grid: Grid) -> list[Plot]:
    found = []
    for size in grid.sizes:
        line = grid.line(size)
        if len(line) >= FEWEST:
            name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in size).strip("-")
            passes = "; ".join(
                f"{c.before} → {c.after} at {c.width:.0f}{'' if c.clear else ' (quartiles overlap)'}"
                for c in crossovers(line)
            )
            drawn = svg.text(curve(report, line, size))
            found.append(Plot(f"curve-{grid.name}-{name}", f"{grid.title}, {size}", drawn, passes or "no crossover"))
    return found


def suite_times(report: Report, suite: str) -> Figure:
    """Every engine's time on each problem of a suite: markers on a logarithmic axis."""
    rows = [row for row in report.suite(suite) if row.best]
    figure = Figure(figsize=(5.2, 1.4 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for y, row in enumerate(rows):
        times = [entry.median for entry in row.measured.values()]
        axes.plot([min(times), max(times)], [y, y], color=LINE, linewidth=2, zorder=1)
    paint, shapes = colours(report.engines), markers(report.engines)
    for name in report.engines:
        found = [(row.engines[name].median, y) for y, row in enumerate(rows) if name in row.measured]
        if found:
            axes.scatter(*zip(*found, strict=True), s=34, marker=shapes[name], color=paint[name], label=name,
                         edgecolor=INK, linewidth=0.3, zorder=3)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    logarithmic_time(axes, "x")
    axes.set_xlabel("time of one call")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def errors(report: Report) -> Figure:
    """Every engine's error as a part of its bound, over all problems: a marker each, wrong right of the line."""
    figure = Figure(figsize=(5.2, 0.9 + 0.34 * len(report.engines)), layout="constrained")
    axes = figure.add_subplot()
    paint, shapes = colours(report.engines), markers(report.engines)
    jitter = np.random.default_rng(0)
    for y, name in enumerate(report.engines):
        parts = [error_part(row.engines[name]) for row in report.rows if name in row.measured]
        drawn = np.clip(np.nan_to_num(parts, nan=np.inf), SMALLEST_ERROR, 1e3)
        axes.scatter(drawn, y + jitter.uniform(-0.22, 0.22, len(drawn)), s=20, marker=shapes[name], color=paint[name],
                     alpha=0.75, lw=0.3, edgecolor=DARK)  # fmt: skip
    axes.axvline(1, color="#d55e00", linewidth=1.4)
    axes.text(0.92, -0.45, "bound", ha="right", va="center", color=INK, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(SMALLEST_ERROR / 2, max(10, 10 * max((min(r.worst_error, 1e3) for r in report.rows), default=1)))
    axes.set_ylim(len(report.engines) - 0.5, -0.8)
    axes.set_yticks(range(len(report.engines)), report.engines)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("error against the reference / the engine's bound")
    return figure
