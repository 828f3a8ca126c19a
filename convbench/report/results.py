"""What a benchmark run found: problems, engines, times; written as JSON and read back."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

CLOSE = 1.05  # below this ratio the winner is not clear: the judge needs as much to change its mind
OTHERS = "other libraries"  # the title in `Report.settings` where they were timed too


@dataclass(frozen=True)
class Entry:
    """One engine on one problem.

    Attributes
    ----------
    refused : str or None
        Why it was not measured; the other fields then hold nothing.
    median, q1, q3 : float
        Seconds of one planned call, of the engine's fastest variant.
    samples : int
    error, bound : float
        Against the reference, and what the engine promises.
    agrees : bool
        The error is within the rule of equality.
    workspace_bytes : int
    regret : float
        Time / time of the fastest.
    version : str
    modelled : float or None
        Median seconds of the variant that the engine picks unmeasured; None where there is but one.
    plan_seconds : float or None
        Of planning once, generated code and transforms of the weight included; None where it was not taken.
    variant : str
        The engine's fastest; empty where there is but one, or it was not taken.
    times : list of float
        Some of the samples, seconds in the order of time; empty where they were not kept.
    """

    refused: str | None = None
    median: float = 0.0
    q1: float = 0.0
    q3: float = 0.0
    samples: int = 0
    error: float = 0.0
    bound: float = 0.0
    agrees: bool = True
    workspace_bytes: int = 0
    regret: float = 0.0
    version: str = ""
    modelled: float | None = None
    plan_seconds: float | None = None
    variant: str = ""
    times: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One problem and all engines' entries, by name; `auto` is what the judge picks unmeasured."""

    name: str
    suite: str
    text: str
    source: str
    auto: str
    engines: dict[str, Entry] = field(default_factory=dict)

    @property
    def measured(self) -> dict[str, Entry]:
        """The entries with a time, fastest first."""
        timed = {name: entry for name, entry in self.engines.items() if entry.refused is None}
        return dict(sorted(timed.items(), key=lambda item: item[1].median))

    @property
    def best(self) -> str | None:
        """The fastest engine, None where all refuse."""
        return next(iter(self.measured), None)

    @property
    def speedup(self) -> float | None:
        """Time of the runner-up / time of the fastest, None without a runner-up."""
        times = [entry.median for entry in self.measured.values()]
        return times[1] / times[0] if len(times) > 1 else None

    @property
    def auto_regret(self) -> float | None:
        """Time of the engine that prediction picks / time of the fastest; None where it was not measured."""
        entry = self.measured.get(self.auto)
        if entry is None:
            return None
        return entry.regret if entry.modelled is None else entry.regret * entry.modelled / entry.median

    @property
    def agree(self) -> bool:
        """Whether every measured engine equals the reference within the rule."""
        return all(entry.agrees for entry in self.measured.values())

    @property
    def worst_error(self) -> float:
        """The largest error as a part of its engine's bound; above 1 is wrong."""
        parts = [error_part(entry) for entry in self.measured.values()]
        return max(parts, default=0.0)


@dataclass(frozen=True)
class Point:
    """Seconds of a call at a number of threads: median and quartiles of `samples` samples, and some of these."""

    threads: int
    median: float
    q1: float
    q3: float
    samples: int
    times: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Scaling:
    """The fastest engine of a problem at several numbers of threads, one thread first."""

    problem: str
    engine: str
    points: list[Point]


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes
    ----------
    machine, settings : dict of str to str
        Texts by title, in the order to show.
    rows : list of Row
    peaks : dict of str to float
        FLOP/s by dtype, where they were measured.
    bandwidth : float or None
        Bytes per second from memory, where it was measured.
    scaling : list of Scaling
        A few problems at several numbers of threads, where there are several.
    """

    machine: dict[str, str]
    settings: dict[str, str]
    rows: list[Row]
    peaks: dict[str, float] = field(default_factory=dict)
    bandwidth: float | None = None
    scaling: list[Scaling] = field(default_factory=list)

    @property
    def engines(self) -> list[str]:
        """Engines that were measured at least once, in the order of preference."""
        names = dict.fromkeys(name for row in self.rows for name in row.engines)
        return [name for name in names if any(name in row.measured for row in self.rows)]

    @property
    def wins(self) -> dict[str, int]:
        """Number of problems that each engine wins."""
        return {name: sum(row.best == name for row in self.rows) for name in self.engines}

    @property
    def agree(self) -> bool:
        """Whether all engines agree on all problems."""
        return all(row.agree for row in self.rows)

    @property
    def prediction(self) -> str:
        """A sentence on how well prediction alone would have picked; empty where it could not."""
        regrets = {row.name: row.auto_regret for row in self.rows if row.auto_regret is not None}
        if not regrets:
            return ""
        mean = math.exp(statistics.fmean(math.log(regret) for regret in regrets.values()))
        worst = max(regrets, key=regrets.__getitem__)
        rivals = ", other libraries included," if OTHERS in self.settings else ""
        best = "the fastest of the engines" if rivals else "the fastest"
        return (
            f"Prediction alone would take {ratio(mean)} the fastest's time{rivals} in the geometric mean, "
            f"at worst {ratio(regrets[worst])} ({worst}); the record takes {best}."
        )

    def suite(self, name: str) -> list[Row]:
        """The rows of one suite."""
        return [row for row in self.rows if row.suite == name]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = [
                Row(**{**row, "engines": {name: Entry(**entry) for name, entry in row["engines"].items()}})
                for row in content["rows"]
            ]
            scaling = [
                Scaling(**{**one, "points": [Point(**point) for point in one["points"]]})
                for one in content.get("scaling", [])
            ]
            return cls(**{**content, "rows": rows, "scaling": scaling})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{str(path)!r} is no report of a run ({type(error).__name__}: {error}); "
                "the report.json that `convbench bench` writes is accepted"
            ) from None


def error_part(entry: Entry) -> float:
    """Error / bound; an exact engine's error has no bound to be a part of."""
    if entry.bound:
        return entry.error / entry.bound
    return float("inf") if entry.error else 0.0


def duration(seconds: float) -> str:
    """Seconds as people read them: three digits and a unit."""
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{three_digits(seconds * factor)} {unit}"
    return f"{three_digits(seconds)} s"


def three_digits(value: float) -> str:
    """Three significant digits, never as a power of ten: 0.123, 1.23, 12.3, 123, 1234."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{3 if value < 1 else decimals}f}"


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{three_digits(value)} {unit}"
        value /= 1024
    return f"{three_digits(value)} GiB"


def ratio(value: float | None) -> str:
    """A speed-up, or a dash where there is none."""
    return "–" if value is None else f"{value:.2f}×" if value < 10 else f"{value:.0f}×"
