"""Thread scaling as a figure: the speed-up over one thread, with bands, beside the ideal."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from convbench.report.bands import ALPHA, Bands
from convbench.report.results import Report, Scaling
from convbench.report.style import INK, MARKERS, PALETTE, SOFT


def speedups(scaling: Scaling, bands: Bands) -> dict[int, tuple[float, float, float]]:
    """By threads: one thread's median / the median there, and / the upper and lower edge of its band."""
    one = scaling.points[0].median
    edges = zip(*bands.limits(scaling.points), strict=True)
    return {
        point.threads: (one / point.median, one / high, one / low)
        for point, (low, high) in zip(scaling.points, edges, strict=True)
    }


def scaling_plot(report: Report) -> Figure:
    """A line for each problem; the dashed one is the ideal, as many times as fast as there are threads."""
    figure = Figure(figsize=(5.2, 3.4 + 0.17 * len(report.scaling)), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted({point.threads for scaling in report.scaling for point in scaling.points})
    axes.plot(counts, counts, color=SOFT, linestyle="--", linewidth=1.2, label="ideal", zorder=1)
    bands = Bands([point for scaling in report.scaling for point in scaling.points])
    for position, scaling in enumerate(report.scaling):
        found = speedups(scaling, bands)
        middle, low, high = zip(*found.values(), strict=True)
        colour = PALETTE[position % len(PALETTE)]
        axes.fill_between(list(found), low, high, color=colour, alpha=ALPHA, lw=0)
        axes.plot(list(found), middle, marker=MARKERS[position % len(MARKERS)], color=colour, markersize=5,
                  linewidth=1.4, markeredgecolor=INK, markeredgewidth=0.3,
                  label=f"{scaling.problem}, {scaling.engine}")  # fmt: skip
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log", base=2)
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xticks(counts, list(map(str, counts)))
    axes.set_yticks(counts, [f"{count}×" for count in counts])
    axes.grid()
    axes.set_xlabel("threads")
    axes.set_ylabel("speed-up over one thread")
    figure.legend(loc="outside lower left", ncols=1, title=bands.title, alignment="left", title_fontsize="medium")
    return figure
