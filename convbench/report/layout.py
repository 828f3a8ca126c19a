"""Which problems form a map: by dimensions and channels, the sizes downwards, the kernels across."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from convbench.report.results import Report, Row
from convbench.spec import ConvSpec

# Input channels in each group, up to and with; beyond the last, many.
_CLASSES = (
    (1, "One channel"),
    (4, "2 to 4 channels"),
    (128, "5 to 128 channels"),
    (math.inf, "More than 128 channels"),
)


@dataclass
class Grid:
    """Problems of a kind as a grid; not every cell is taken.

    Attributes
    ----------
    name, title : str
        The key in file names, and the heading.
    cells : dict of (size label, kernel label) to Row
    sizes, kernels : list of str
        The labels in ascending order.
    """

    name: str
    title: str
    cells: dict[tuple[str, str], Row] = field(default_factory=dict)
    _order: dict[str, tuple] = field(default_factory=dict)

    @property
    def sizes(self) -> list[str]:
        """Labels of the rows, few channels and small images first."""
        return sorted({size for size, _ in self.cells}, key=self._order.__getitem__)

    @property
    def kernels(self) -> list[str]:
        """Labels of the columns, small kernels first."""
        return sorted({kernel for _, kernel in self.cells}, key=self._order.__getitem__)

    def add(self, row: Row, spec: ConvSpec) -> None:
        """Take a row in; where its cell is taken, it gets a line of its own with its name."""
        size, kernel = size_label(spec), "×".join(map(str, spec.kernel))
        if (size, kernel) in self.cells:
            size = f"{size} {row.name}"
        self.cells[size, kernel] = row
        self._order[size] = (spec.in_channels, math.prod(spec.spatial), size)
        self._order.setdefault(kernel, (math.prod(spec.kernel), kernel))

    def line(self, size: str) -> dict[int, Row]:
        """One size's rows by the kernel's width, ascending; square kernels only, as a curve needs them."""
        found = {}
        for kernel in self.kernels:
            taps = set(kernel.split("×"))
            if (size, kernel) in self.cells and len(taps) == 1:
                found[int(taps.pop())] = self.cells[size, kernel]
        return found


def grids(report: Report) -> list[Grid]:
    """Every measured problem, in the grid of its kind; images first, then layers, signals, volumes."""
    found: dict[tuple[int, int], Grid] = {}
    for row in report.rows:
        if row.best:
            spec = parsed(row.text)
            key, title = _kind(spec)
            found.setdefault(key, Grid("-".join(title.lower().split()), title)).add(row, spec)
    return [found[key] for key in sorted(found)]


def size_label(spec: ConvSpec) -> str:
    """Channels where there are several, image size, and what else is not the usual: ``64→64 56² /2 d3 b4``."""
    sizes = set(spec.spatial)
    power = {1: "", 2: "²", 3: "³"}[spec.ndim]
    image = f"{spec.spatial[0]}{power}" if len(sizes) == 1 else "×".join(map(str, spec.spatial))
    parts = [image]
    if (spec.in_channels, spec.out_channels) != (1, 1):
        parts.insert(0, f"{spec.in_channels}→{spec.out_channels}")
    if 1 < spec.groups < spec.in_channels:
        parts.append(f"g{spec.groups}")
    for sign, values in (("/", spec.stride), ("d", spec.dilation)):
        if any(value != 1 for value in values):
            parts.append(sign + "×".join(dict.fromkeys(map(str, values))))
    if spec.batch != 1:
        parts.append(f"b{spec.batch}")
    return " ".join(parts)


@lru_cache(maxsize=1024)
def parsed(text: str) -> ConvSpec:
    """The problem of a row."""
    return ConvSpec.parse(text)


def _kind(spec):
    if spec.ndim != 2:
        return (spec.ndim * 10, 0), {1: "Signals", 3: "Volumes"}[spec.ndim]
    if spec.groups > 1 and spec.groups == spec.in_channels:
        return (2, len(_CLASSES)), "Depthwise"
    channels = spec.in_channels // spec.groups
    position = next(at for at, (most, _) in enumerate(_CLASSES) if channels <= most)
    return (2, position), _CLASSES[position][1]
