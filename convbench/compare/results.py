"""What a comparison found, and the figures that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from convbench.compare.limits import Limits
from convbench.compare.memory import Memory
from convbench.compare.rows import GROUPS, Group, Row
from convbench.spec import ConvSpec
from convbench.timing import Timing

OURS = "convbench"
INTO, COPY = "convbench, output given", "copy"  # on one row: ours without making an output, and a copy
PEAK = "peak"  # on rows whose goal is a share of it: as many multiply-adds as ours, and nothing else
FAMILIES = ("1×1", "3×3 and larger", "depthwise, grouped", "3-D", "image", "1-D")


@dataclass(frozen=True)
class Result:
    """One row, timed.

    Attributes
    ----------
    row : Row
    engine : str
        The engine that computed ours.
    timings : dict of str to Timing
        By contender; `OURS` is among them, on some rows also `INTO` and `COPY`, or `PEAK`.
    notes : tuple of str
        Who was left out, and why.
    """

    row: Row
    engine: str
    timings: dict[str, Timing]
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> ConvSpec:
        """The problem."""
        return ConvSpec.parse(self.row.text)

    @property
    def seconds(self) -> float:
        """Our time of a call."""
        return self.timings[OURS].median

    @property
    def flops(self) -> float:
        """Our FLOP/s: two for each multiply-add of the dense sum, border taps included."""
        return 2 * self.spec.macs / self.seconds

    @property
    def copy_share(self) -> float | None:
        """Time of a copy of input to output / our time into the same output, where that was timed."""
        return self.timings[COPY].median / self.timings[INTO].median if COPY in self.timings else None

    def peak_share(self, limits: Limits) -> float | None:
        """Our part of the multiply-add peak: that of the same rounds where it was timed, else of `limits`, if known."""
        if PEAK in self.timings:
            return self.timings[PEAK].median / self.seconds
        return limits.share(self.flops, self.spec.dtype)

    @property
    def intensity(self) -> float:
        """FLOP per byte of input, weight and output."""
        return 2 * self.spec.macs / self.spec.data_bytes

    def best(self, names: Iterable[str] | None = None) -> str | None:
        """The fastest peer (of those named), or None where none was timed."""
        chosen = [
            name for name in self.timings if name not in (OURS, INTO, COPY, PEAK) and (names is None or name in names)
        ]
        return min(chosen, key=lambda name: self.timings[name].median, default=None)

    def ratio(self, names: Iterable[str] | None = None) -> float | None:
        """Time of the fastest peer (of those named) / our time: above 1 we are faster."""
        best = self.best(names)
        return self.timings[best].median / self.seconds if best else None

    @property
    def family(self) -> str:
        """One of `FAMILIES`."""
        spec = self.spec
        if spec.in_channels == spec.out_channels == 1 and spec.ndim == 2:
            return "image"
        if spec.ndim != 2:
            return f"{spec.ndim}-D"
        if spec.groups > 1:
            return "depthwise, grouped"
        return "1×1" if max(spec.kernel) == 1 else "3×3 and larger"


@dataclass(frozen=True)
class Comparison:
    """All rows, the limits measured around them, and what the run was.

    Attributes
    ----------
    results : tuple of Result
    limits : Limits
        The highest that were measured.
    lowest : Limits
        The lowest: how steady the machine was.
    engine : str
        As asked for.
    threads : int
    strict : bool
    rounds : tuple of int
        Of a row: the fewest, and the most where those say little.
    repeated : int
        Rounds that did not count, because the machine was unsteady.
    patient : bool
        Whether every round that counts was steady.
    processor : str
    versions : dict of str to (str or None)
        By peer; None is not installed.
    date : str
    command : str
    memory : Memory or None
        What a large image takes beside its arrays, where that was measured.
    """

    results: tuple[Result, ...]
    limits: Limits
    lowest: Limits
    engine: str
    threads: int
    strict: bool
    rounds: tuple[int, int]
    repeated: int
    patient: bool
    processor: str
    versions: dict[str, str | None]
    date: str
    command: str
    memory: Memory | None = None

    def groups(self) -> list[tuple[Group, tuple[Result, ...]]]:
        """The groups that have rows, in order, each with its rows."""
        found = [(group, tuple(r for r in self.results if r.row.group == group.key)) for group in GROUPS]
        return [(group, results) for group, results in found if results]

    @property
    def missing(self) -> list[str]:
        """The peers that are not installed."""
        return [name for name, version in self.versions.items() if version is None]


def mean_ratio(results: Iterable[Result], names: Iterable[str] | None = None) -> float | None:
    """Geometric mean of the ratios, None where there are none."""
    return geometric_mean([ratio for r in results if (ratio := r.ratio(names)) is not None])


def geometric_mean(values: list[float]) -> float | None:
    """exp of the mean logarithm, None for no values."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
