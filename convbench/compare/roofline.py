"""The roofline plot: GFLOP/s over arithmetic intensity, under the peak and the bandwidth that were measured.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter

from convbench.compare.results import FAMILIES, Comparison, Result
from convbench.report.style import PALETTE

NAME = "roofline.svg"
INK, GRID = "#3c434b", "#e3e6e9"
HALO = withStroke(linewidth=2.5, foreground="white")  # texts stay readable over lines and dots
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa1a9",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "svg.hashsalt": "convbench",  # the same comparison gives the same file
}


def write(comparison: Comparison, folder: Path) -> Path:
    """Draw ``roofline.svg`` into `folder`, which exists."""
    path = folder / NAME
    with matplotlib.rc_context(STYLE):
        draw(comparison).savefig(path, format="svg", metadata={"Date": None})
    return path


def draw(comparison: Comparison) -> Figure:
    """The figure: a dot for each row, float64 hollow, coloured by family."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.08)
    labels = _points(axes, comparison.results)
    _roofs(axes, comparison)
    for which in (axes.xaxis, axes.yaxis):
        which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        which.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color=GRID)
    axes.set_xlabel("arithmetic intensity: FLOP per byte of input, weight and output")
    axes.set_ylabel("GFLOP/s")
    figure.legend(loc="outside upper left", ncols=len(FAMILIES), frameon=False, handletextpad=0.2, columnspacing=1.2)
    _apart(figure, labels)
    return figure


def _points(axes, results):
    """Draw the dots; return the labels of the slowest of each family."""
    labels = []
    for family, colour in zip(FAMILIES, PALETTE, strict=False):
        label = family
        for dtype, face in (("float32", colour), ("float64", "none")):
            found = [r for r in results if r.family == family and r.spec.dtype == dtype]
            if found:
                xs, ys = [r.intensity for r in found], [r.flops / 1e9 for r in found]
                axes.scatter(xs, ys, s=24, alpha=0.85, facecolor=face, edgecolor=colour, label=label, zorder=3)
                label = None
        if found := [r for r in results if r.family == family]:
            labels.append(_label(axes, min(found, key=lambda result: result.flops), colour))
    return labels


def _label(axes, slowest: Result, colour):
    """Name the slowest row of a family, under its point."""
    return axes.annotate(
        slowest.row.name,
        (slowest.intensity, slowest.flops / 1e9),
        (0, -11),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color=colour,
        zorder=4,
        path_effects=[HALO],
    )


def _apart(figure, labels):
    """Move labels down, from the highest on, until none lies on another."""
    figure.draw_without_rendering()
    placed = []
    for label in sorted(labels, key=lambda label: -label.get_window_extent().y0):
        while any(label.get_window_extent().overlaps(other) for other in placed):
            across, down = label.xyann
            label.xyann = across, down - 1
        placed.append(label.get_window_extent())


def _roofs(axes, comparison):
    """The peaks as level lines, the copy's bandwidth as the slope under them."""
    limits = comparison.limits
    left, right = axes.get_xlim()
    bottom = axes.get_ylim()[0]
    slope = limits.bandwidth / 1e9
    top = max((peak / 1e9 for peak in limits.peaks.values()), default=slope * right)
    x = np.geomspace(max(left, bottom / slope), min(right, top / slope), 9)
    axes.plot(x, slope * x, color=INK, linewidth=1.3, zorder=2)
    _name(axes, f"copy {slope:.0f} GB/s", (x[4], slope * x[4]), (-6, 4), "right")  # few rows lie above
    for (dtype, peak), style in zip(limits.peaks.items(), ("-", "--"), strict=False):
        level = peak / 1e9
        axes.plot([level / slope, right], [level, level], style, color=INK, linewidth=1.3, zorder=2)
        _name(axes, f"{dtype} peak\n{level:.0f} GFLOP/s", (right, level), (4, -6), "left")
    axes.set_xlim(left, right)


def _name(axes, text, point, shift, side):
    axes.annotate(
        text,
        point,
        shift,
        textcoords="offset points",
        ha=side,
        color=INK,
        fontsize=8.5,
        zorder=4,
        path_effects=[HALO],
    )
