"""The front of time, error and memory: the engines of a problem that no other beats in all three."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from convbench.report.curves import logarithmic, logarithmic_time
from convbench.report.results import Entry, Report, Row, size
from convbench.report.style import INK, PAPER, SOFT, colours, markers

SIZE = (5.2, 3.3)  # inches
FONT = 8.0  # points
EXACT = 10.0  # how far below the smallest error exact results are drawn
_OFFSETS = [(9, 0, "left"), (-9, 0, "right"), (0, 13, "center"), (0, -13, "center"), (9, 12, "left"), (9, -12, "left"),
            (-9, 12, "right"), (-9, -12, "right"), (0, 25, "center"), (0, -25, "center"), (9, 24, "left"),
            (-9, -24, "right"), (9, -24, "left"), (-9, 24, "right")]  # fmt: skip


def front(row: Row) -> list[str]:
    """The engines on the front, fastest first; one that disagrees with the reference is on none."""
    measured = {name: entry for name, entry in row.measured.items() if entry.agrees}
    return [
        name
        for name, entry in measured.items()
        if not any(_beats(other, entry) for rival, other in measured.items() if rival != name)
    ]


def _beats(other: Entry, entry: Entry) -> bool:
    """At least as good in everything, better in something."""
    pairs = [(getattr(other, what), getattr(entry, what)) for what in ("median", "error", "workspace_bytes")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front_plot(report: Report, row: Row) -> Figure:
    """Error over time; the text tells the memory. Filled: on the front; hollow: beaten by another in all three."""
    figure = Figure(figsize=SIZE)
    figure.subplots_adjust(left=0.14, right=0.975, top=0.96, bottom=0.14)
    axes = figure.add_subplot()
    paint, shapes, best = colours(report.engines), markers(report.engines), front(row)
    places = {name: (entry.median, drawn_error(row, entry)) for name, entry in row.measured.items()}
    _limits(axes, places.values())
    logarithmic_time(axes, "x")
    logarithmic(axes, "y", lambda value, _: f"{value:.0e}")
    axes.minorticks_off()
    for name, (x, y) in places.items():
        filled = paint[name] if name in best else "none"
        axes.scatter(x, y, s=52, marker=shapes[name], facecolor=filled, edgecolor=paint[name], linewidth=1.4, zorder=3)
    axes.step(*zip(*_staircase(places.values()), strict=True), where="post", color=SOFT, linewidth=0.8, linestyle=":")
    _names(axes, {name: (*places[name], size(entry.workspace_bytes)) for name, entry in row.measured.items()}, best)
    axes.set_xlabel("time of one call")
    axes.set_ylabel("error")
    axes.grid(which="major")
    return figure


def drawn_error(row: Row, entry: Entry) -> float:
    """An error's place on a logarithmic axis, where 0 and what is no number have none."""
    inexact = [other.error for other in row.measured.values() if 0 < other.error < math.inf]
    if entry.error == 0:
        return min(inexact, default=1e-16) / EXACT
    return entry.error if math.isfinite(entry.error) else max(inexact, default=1.0) * EXACT


def _staircase(places):
    """The points that no other beats in time and error alone, by time."""
    line = []
    for x, y in sorted(places):
        if not line or y < line[-1][1]:
            line.append((x, y))
    return line


def _limits(axes, places):
    for setter, values in zip((axes.set_xlim, axes.set_ylim), zip(*places, strict=True), strict=True):
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.18 * (high - low), 0.3)
        setter(10 ** (low - margin), 10 ** (high + margin))


def _names(axes, places, best):
    """Names beside the points, each at the first place where it covers no other name and no point."""
    points = {name: axes.transData.transform((x, y)) * 72 / axes.figure.dpi for name, (x, y, _) in places.items()}
    taken = [_box(x - 5, y - 5, 10, 10) for x, y in points.values()]
    frame = _box(0.14 * SIZE[0] * 72, 0.14 * SIZE[1] * 72, 0.835 * SIZE[0] * 72, 0.82 * SIZE[1] * 72)
    for name, (x, y) in points.items():
        label = f"{name}, {places[name][2]}"
        width = 0.58 * FONT * len(label)
        boxes = []
        for right, up, align in _OFFSETS:
            left = x + right - {"left": 0.0, "center": width / 2, "right": width}[align]
            boxes.append((_box(left, y + up - FONT / 2, width, FONT), right, up, align))
        free = (entry for entry in boxes if _inside(entry[0], frame) and not any(_overlap(entry[0], b) for b in taken))
        box, right, up, align = next(free, boxes[0])
        taken.append(box)
        axes.annotate(label, places[name][:2], (right, up), textcoords="offset points", ha=align, va="center",
                      fontsize=FONT, color=INK if name in best else SOFT,
                      bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})  # fmt: skip


def _box(left, bottom, width, height):
    return left, bottom, left + width, bottom + height


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(a, b):
    return a[0] >= b[0] and a[2] <= b[2] and a[1] >= b[1] and a[3] <= b[3]
