"""The roofline: each problem's fastest engine, as GFLOP/s over arithmetic intensity, under what the machine can do.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009).
The operations are those of the definition, so fast algorithms may stand above the roof.
"""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure

from convbench.report.curves import logarithmic
from convbench.report.layout import parsed
from convbench.report.results import Report, Row
from convbench.report.style import INK, SOFT, colours, markers

GIGA = 1e9
DASHES = ("-", "--", "-.", ":")  # a roof for each dtype


def known(report: Report) -> bool:
    """Whether the bandwidth and a peak were measured."""
    return bool(report.bandwidth and report.peaks)


def point(row: Row) -> tuple[float, float]:
    """Operations per byte of input, weight and output, and operations per second of the fastest engine."""
    spec = parsed(row.text)
    return 2 * spec.macs / spec.data_bytes, 2 * spec.macs / row.measured[row.best].median


def roofline(report: Report) -> Figure:
    """A marker for each problem; a roof for each dtype whose peak is known."""
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    paint, shapes = colours(report.engines), markers(report.engines)
    for name in report.engines:
        points = [point(row) for row in report.rows if row.best == name]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, np.divide(y, GIGA), s=34, marker=shapes[name], color=paint[name], label=name,
                         edgecolor=INK, linewidth=0.3, zorder=3)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.08)
    _roofs(axes, report)
    for which in "xy":
        logarithmic(axes, which, lambda value, _: f"{value:g}")
    axes.grid(which="major")
    axes.set_xlabel("FLOP per byte of input, weight and output")
    axes.set_ylabel("GFLOP/s")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def _roofs(axes, report):
    left, right = axes.get_xlim()
    used = {parsed(row.text).dtype for row in report.rows if row.best}
    peaks = {dtype: peak for dtype, peak in report.peaks.items() if dtype in used}
    right = max([right, *(2 * peak / report.bandwidth for peak in peaks.values())])  # the ridges are seen
    intensity = np.geomspace(left, right, 200)
    for dashes, (dtype, peak) in zip(itertools.cycle(DASHES), peaks.items()):
        roof = np.minimum(peak, intensity * report.bandwidth) / GIGA
        label = f"{dtype}: {peak / GIGA:.0f} GFLOP/s"
        axes.plot(intensity, roof, color=SOFT, linewidth=1.2, linestyle=dashes, zorder=2, label=label)
    axes.set_xlim(left, right)
