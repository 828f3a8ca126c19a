"""The roofline plot: GFLOP/s over arithmetic intensity, under the peak and the bandwidth that were measured.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from convbench.compare.results import FAMILIES, Comparison, Result
from convbench.report.style import PALETTE

NAME = "roofline.svg"
LABELLED = 2  # points named per family: the fastest and the one furthest below its roof
INK, GRID = "#3c434b", "#e3e6e9"
_STYLE = {
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
    with matplotlib.rc_context(_STYLE):
        draw(comparison).savefig(path, format="svg", metadata={"Date": None})
    return path


def draw(comparison: Comparison) -> Figure:
    """The figure: a dot for each row, float64 hollow, coloured by family."""
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    _points(axes, comparison.results)
    _roofs(axes, comparison)
    for which in (axes.xaxis, axes.yaxis):
        which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        which.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color=GRID)
    axes.set_xlabel("arithmetic intensity: FLOP per byte of input, weight and output")
    axes.set_ylabel("GFLOP/s")
    figure.legend(loc="outside upper left", ncols=len(FAMILIES), frameon=False, handletextpad=0.2, columnspacing=1.2)
    return figure


def _points(axes, results):
    for family, colour in zip(FAMILIES, PALETTE, strict=False):
        label = family
        for dtype, face in (("float32", colour), ("float64", "none")):
            found = [r for r in results if r.family == family and r.spec.dtype == dtype]
            if found:
                xs, ys = [r.intensity for r in found], [r.flops / 1e9 for r in found]
                axes.scatter(xs, ys, s=34, facecolor=face, edgecolor=colour, linewidth=1.1, label=label, zorder=3)
                label = None
        _label(axes, [r for r in results if r.family == family], colour)


def _label(axes, results: list[Result], colour):
    """Name the fastest and the slowest of a family: right of its point, left of it near the right edge."""
    if not results:
        return
    edge = max(r.intensity for r in results)
    for result in {r.row.name: r for r in (min(results, key=_flops), max(results, key=_flops))}.values():
        left = result.intensity > edge / 3 and edge > 300
        axes.annotate(
            result.row.name,
            (result.intensity, result.flops / 1e9),
            (-6 if left else 6, -9 if result is min(results, key=_flops) else 6),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=7.5,
            color=colour,
            zorder=4,
        )


def _flops(result):
    return result.flops


def _roofs(axes, comparison):
    """The peaks as level lines, the copy's bandwidth as the slope under them."""
    limits = comparison.limits
    left, right = axes.get_xlim()
    bottom = axes.get_ylim()[0]
    slope = limits.bandwidth / 1e9
    top = max((peak / 1e9 for peak in limits.peaks.values()), default=slope * right)
    x = np.geomspace(max(left, bottom / slope), min(right, top / slope), 2)
    axes.plot(x, slope * x, color=INK, linewidth=1.3, zorder=2)
    axes.annotate(
        f"copy {slope:.0f} GB/s",
        (x[0], slope * x[0]),
        (4, 12),
        textcoords="offset points",
        color=INK,
        rotation=0,
        fontsize=8.5,
    )
    for (dtype, peak), style in zip(limits.peaks.items(), ("-", "--"), strict=False):
        level = peak / 1e9
        axes.plot([level / slope, right], [level, level], style, color=INK, linewidth=1.3, zorder=2)
        axes.annotate(
            f"{dtype} multiply-add peak {level:.0f}",
            (right, level),
            (0, 4),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize=8.5,
        )
    axes.set_xlim(left, right)
