"""Crossover curves: every engine's time over the kernel's width, with bands, and where the lead changes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from convbench.report.bands import ALPHA, Bands
from convbench.report.results import Report, Row, duration
from convbench.report.style import INK, SOFT, colours, markers

FEWEST = 3  # kernels that make a curve
FINE = 100.0  # an axis over a smaller ratio gets ticks at 1, 2 and 5 of a decade, not only at 1


@dataclass(frozen=True)
class Crossover:
    """Between two measured kernels the lead passes from one engine to another.

    Attributes
    ----------
    before, after : str
        The fastest engines left and right.
    width : float
        Where their times meet, linear in the logarithms; midway where one of the two was not measured on both sides.
    clear : bool
        On both sides the quartiles of the two are separate.
    """

    before: str
    after: str
    width: float
    clear: bool


def crossovers(line: dict[int, Row]) -> list[Crossover]:
    """Where the lead changes along a line of rows by kernel width."""
    found = []
    for low, high in itertools.pairwise(line):
        before, after = line[low].best, line[high].best
        if before != after:
            found.append(_meeting(line, low, high, before, after))
    return found


def _meeting(line, low, high, before, after):
    left, right = line[low].measured, line[high].measured
    if after not in left or before not in right:
        return Crossover(before, after, math.sqrt(low * high), False)
    ahead = math.log(left[after].median / left[before].median)
    behind = math.log(right[before].median / right[after].median)
    part = ahead / (ahead + behind) if ahead + behind else 0.5
    clear = left[before].q3 < left[after].q1 and right[after].q3 < right[before].q1
    return Crossover(before, after, math.exp(math.log(low) + part * math.log(high / low)), clear)


def curve(report: Report, line: dict[int, Row], title: str) -> Figure:
    """The figure of one image size; a dashed line at every crossover, its kernel width on top."""
    figure = Figure(figsize=(4.2, 3.5), layout="constrained")
    axes = figure.add_subplot()
    paint, shapes = colours(report.engines), markers(report.engines)
    bands = Bands([entry for row in line.values() for entry in row.measured.values()])
    for name in report.engines:
        points = {width: row.engines[name] for width, row in line.items() if name in row.measured}
        if points:
            entries = list(points.values())
            axes.fill_between(list(points), *bands.limits(entries), color=paint[name], alpha=ALPHA, lw=0)
            axes.plot(
                list(points), [e.median for e in entries], marker=shapes[name], color=paint[name], label=name,
                markersize=4.5, linewidth=1.4, markeredgecolor=INK, markeredgewidth=0.3,
            )  # fmt: skip
    for crossing in crossovers(line):
        axes.axvline(crossing.width, color=SOFT, linestyle="--", linewidth=0.9, zorder=1)
        axes.text(crossing.width, 1.0, f"{crossing.width:.0f}", transform=axes.get_xaxis_transform(), va="bottom",
                  ha="center", color=SOFT, fontsize=8)  # fmt: skip
    logarithmic_time(axes, "y")
    axes.set_xscale("log")
    axes.set_xticks(list(line), [str(width) for width in line])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_xlabel(f"kernel width; image {title}")
    figure.legend(loc="outside lower left", ncols=4, title=bands.title, alignment="left", title_fontsize="medium")
    return figure


def logarithmic_time(axes, which: str) -> None:
    """Make an axis one of times: logarithmic, with durations at its ticks.  What it shows is drawn already."""
    logarithmic(axes, which, _tick)
    axes.grid(axis=which, which="major")


def logarithmic(axes, which: str, tick) -> None:
    """Make an axis logarithmic; on less than two decades there are ticks at 1, 2 and 5, so that two are seen."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high / low < FINE:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(seconds, _position):
    number, unit = duration(seconds).split()
    return f"{float(number):g} {unit}"
