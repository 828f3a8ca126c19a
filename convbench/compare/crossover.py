"""Where one engine overtakes another: every engine's time over the kernel's size, on images of four sizes.

Direct convolution takes k² multiply-adds for each pixel, a transform takes the same time for every k, and the two
lines cross where the kernel is as large as the transform's cost.  Toeplitz and patch matrices make the same
products as direct convolution, and their distance from it is what making the matrix costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from convbench import data, display, planning, registry
from convbench.compare import protocol, roofline
from convbench.compare.gauge import machine_gauge
from convbench.report.style import colours
from convbench.spec import ConvSpec
from convbench.timing import Timing

NAME = "crossover.svg"
ENGINES = ("direct", "im2col", "toeplitz", "fft")
SIZES = (64, 256, 1024, 4096)
KERNELS = (3, 5, 7, 9, 11, 15, 21, 31, 45, 63, 91, 127)
LONG_SECONDS = 0.4  # an engine's line ends behind the first point that takes longer
WORKSPACE_BYTES = 1 << 30  # it also ends where a plan needs more
ROUNDS = 3

Timer = Callable[[dict], dict[str, Timing]]


@dataclass(frozen=True)
class Point:
    """One size² image, one kernel × kernel filter: the timings by engine."""

    size: int
    kernel: int
    timings: dict[str, Timing]


def measure(
    sizes: Iterable[int] = SIZES,
    kernels: Iterable[int] = KERNELS,
    engines: Iterable[str] = ENGINES,
    *,
    timer: Timer | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[Point, ...]:
    """Time the engines, interleaved, on float32 images of one channel with zeros around them.

    Parameters
    ----------
    sizes, kernels : iterable of int
        Sides of the images; of the odd kernels, which are not larger than the image.
    engines : iterable of str
    timer : callable, optional
        From calls by name to timings; `protocol.blocks` where none is given.
    progress : callable
        Gets the name of each point before it is timed.
    """
    if timer is None:
        gauge = machine_gauge()
        timer = lambda calls: protocol.blocks(calls, ROUNDS, gauge)  # noqa: E731
    points, kernels = [], sorted(kernels)
    for size in sizes:
        live = list(engines)
        for kernel in (k for k in kernels if k <= size):
            progress(f"crossover {size}² k = {kernel}")
            calls = _calls(size, kernel, live)
            if not calls:
                break
            timings = timer(calls)
            points.append(Point(size, kernel, timings))
            live = [name for name in live if name not in timings or timings[name].median <= LONG_SECONDS]
    return tuple(points)


def _calls(size, kernel, engines):
    """The planned calls of those engines that compute this problem."""
    spec = ConvSpec(1, 1, 1, (size, size), (kernel, kernel), padding=kernel // 2)
    x, weight = data.sample(spec)
    calls = {}
    for name in engines:
        engine = registry.get(name)
        if engine.why_unsupported(spec) or planning.workspace_bytes(engine, spec) > WORKSPACE_BYTES:
            continue
        plan, out = planning.make_plan(engine, spec, weight), np.empty(spec.output_shape, spec.dtype)
        calls[name] = lambda plan=plan, out=out: plan(x, out)
    return calls


def crossing(points: Iterable[Point], first: str, second: str) -> float | None:
    """The kernel size from which on `second` is faster than `first`; None where that is not between two points.

    Interpolated between the logarithms of time and kernel size.
    """
    both = [p for p in points if first in p.timings and second in p.timings]
    leads = [(math.log(p.kernel), math.log(p.timings[second].median / p.timings[first].median)) for p in both]
    for (k, lead), (next_k, next_lead) in reversed(list(itertools.pairwise(leads))):
        if lead > 0 >= next_lead:
            return math.exp(k + (next_k - k) * lead / (lead - next_lead))
    return None


def write(points: Iterable[Point], folder: Path) -> Path:
    """Draw ``crossover.svg`` into `folder`, which exists."""
    path = folder / NAME
    with matplotlib.rc_context(roofline.STYLE):
        draw(tuple(points)).savefig(path, format="svg", metadata={"Date": None})
    return path


def draw(points: tuple[Point, ...]) -> Figure:
    """A panel for each image size: time over the kernel's size, both logarithmic, a line for each engine."""
    sizes = sorted({point.size for point in points})
    names = list(dict.fromkeys(name for point in points for name in point.timings))
    columns = min(len(sizes), 2)
    figure = Figure(figsize=(4.9 * columns, 0.5 + 3.2 * -(-len(sizes) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(sizes) // columns), columns, squeeze=False, sharex=True)
    for axes in panels.flat[len(sizes) :]:
        axes.set_visible(False)
    for axes, size in zip(panels.flat, sizes, strict=False):
        _panel(axes, size, [point for point in points if point.size == size], colours(names))
    for axes in panels[-1]:
        axes.set_xlabel("kernel size k, k × k taps")
    handles = {
        label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend([handles[name] for name in names], names, loc="outside upper left", ncols=len(names), frameon=False)
    return figure


def _panel(axes, size, points, paint):
    for name, colour in paint.items():
        found = [(p.kernel, p.timings[name].median) for p in points if name in p.timings]
        if found:
            axes.plot(*zip(*found, strict=True), "o-", color=colour, label=name, markersize=3.5, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(KERNELS, [str(k) if k not in (9, 45, 91) else "" for k in KERNELS])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: display.seconds(seconds)))
    axes.grid(which="major", color=roofline.GRID)
    axes.set_title(f"{size} × {size} pixels", loc="left", fontsize=10)
    at = crossing(points, "direct", "fft")
    if at is not None:
        axes.axvline(at, color=roofline.INK, linewidth=1, linestyle=":")
        left = at < 30  # of the panel: the text stands right of the line, else left
        axes.annotate(
            f"fft from k ≈ {at:.0f}",
            (at, 0.03),
            (4 if left else -4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if left else "right",
            fontsize=8.5,
            color=roofline.INK,
        )
