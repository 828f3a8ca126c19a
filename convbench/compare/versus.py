"""``convbench compare A B``: two reports of ``convbench bench``, or two engines timed now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convbench import peers, registry
from convbench.benchmarks import contest
from convbench.compare import protocol, ratios
from convbench.compare.gauge import Gauge, machine_gauge
from convbench.compare.ratios import Interval, Ratio
from convbench.problems import Problem
from convbench.report.results import Report
from convbench.spec import ConvSpec
from convbench.timing import Timing
from convbench.verify import verify

REPORT_FILE = "report.json"
FEWEST_SAMPLES = 4  # of fewer, quartiles tell nothing; ``bench`` takes so few only of an engine that is hopeless
ROUNDS, QUICK_ROUNDS = 15, 8  # of eight samples each, entirely apart, Mann and Whitney's p is 1.6e-4


@dataclass(frozen=True)
class Versus:
    """B against A.

    Attributes
    ----------
    a, b : str
        Engines or files.
    method : str
        What was timed or read, and what the intervals are made from.
    ratios : tuple of Ratio
    mean : Interval
        The geometric mean of them all.
    engines : dict of str to Interval
        That of each engine, where A and B are reports.
    left_out : dict of str to str
        What has no ratio, with the reason.
    notes : tuple of str
        In what the two are not alike.
    """

    a: str
    b: str
    method: str
    ratios: tuple[Ratio, ...]
    mean: Interval
    engines: dict[str, Interval]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    def over(self, limit: float, *, each: bool = False) -> list[str]:
        """What is slower in B by more than `limit` even at its interval's lower end: the mean, or with `each` any."""
        found = ["the geometric mean"] if self.mean.low > limit else []
        if each:
            found += [title(ratio) for ratio in self.ratios if ratio.interval.low > limit]
        return found


def title(ratio: Ratio) -> str:
    """The problem, and the engine where it is one of several."""
    return f"{ratio.problem} {ratio.engine}".strip()


def report_at(given: str) -> Path | None:
    """The report that the text names, a file or its folder, or None."""
    path = Path(given)
    if path.is_dir() and (path / REPORT_FILE).is_file():
        return path / REPORT_FILE
    return path if path.is_file() else None


def kind(a: str, b: str) -> str:
    """Whether both are "reports" or "engines"; peers among the engines are enabled.

    Raises
    ------
    ValueError
        One is neither, or they are not of a kind.
    """
    files = [report_at(given) is not None for given in (a, b)]
    if all(files):
        return "reports"
    for given, is_file in zip((a, b), files, strict=True):
        if is_file:
            other = b if given == a else a
            raise ValueError(f"{given!r} is a report and {other!r} is none; two reports or two engines are accepted")
    for given in (a, b):
        if given in peers.NAMES:
            peers.enable(given)
        if given not in registry.engines():
            raise ValueError(
                f"{given!r} is neither a report (a {REPORT_FILE} that `convbench bench` wrote, or its folder) nor an "
                f"engine; the engines are {', '.join(dict.fromkeys([*registry.engines(), *peers.NAMES]))}"
            )
    if a == b:
        raise ValueError(f"A and B are both {a!r}; two engines are accepted")
    return "engines"


def reports(a: str, b: str, only: str = "", engine: str | None = None) -> Versus:
    """What two reports have in common: the problems and engines that both measured.

    Parameters
    ----------
    a, b : str
        Files, or their folders.
    only : str
        Problems with this in their names.
    engine : str, optional
        This one only.

    Raises
    ------
    ValueError
        Nothing is in both.
    """
    before, after = (Report.load(report_at(given)) for given in (a, b))
    rows = {row.text: row for row in after.rows}
    found, left_out = [], {}
    for row in before.rows:
        other = rows.get(row.text)
        if only not in row.name:
            continue
        if other is None:
            left_out[row.name] = f"{b} has no such problem"
            continue
        for name in row.engines if engine is None else [engine]:
            why = _why_no_ratio(name, (a, row), (b, other))
            if why is None:
                found.append(_ratio(row.name, name, row.engines[name], other.engines[name]))
            elif why:
                left_out[f"{row.name} {name}"] = why
    if not found:
        raise ValueError(f"nothing is measured in both {a} and {b}{f' by {engine}' if engine else ''}")
    names = dict.fromkeys(ratio.engine for ratio in found)
    means = {name: ratios.geometric_mean([ratio for ratio in found if ratio.engine == name]) for name in names}
    mean = ratios.geometric_mean(found)
    return Versus(a, b, _method(found), tuple(found), mean, means, left_out, _unlike(before, after))


def engines(
    a: str,
    b: str,
    problems: Sequence[Problem],
    rounds: int = ROUNDS,
    *,
    gauge: Gauge | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Versus:
    """Time two engines on `problems`, a block of each in every round, once both agree with the reference.

    Parameters
    ----------
    a, b : str
    problems : sequence of Problem
    rounds : int
    gauge : Gauge, optional
        Says which rounds count; by default those at the machine's usual speed.
    progress : callable
        Gets each problem's name before it is timed.

    Raises
    ------
    ValueError
        No problem is left.
    """
    gauge = gauge or machine_gauge()
    found, left_out = [], {}
    for problem in problems:
        progress(problem.name)
        try:
            calls = _calls((a, b), ConvSpec.parse(problem.text))
        except contest.RefusedError as refusal:
            left_out[problem.name] = str(refusal)
            continue
        samples = protocol.block_samples(calls, rounds, gauge, hopeless=float("inf"))
        found.append(ratios.from_samples(problem.name, samples[a], samples[b]))
    if not found:
        raise ValueError(f"{a} and {b} have no problem in common: {'; '.join(left_out.values())}")
    method = (
        f"Timed now: {rounds} rounds of a block of each, in rotated order; a sample is the median of a block. The "
        f"intervals are a bootstrap's over the rounds; p is Mann and Whitney's."
    )
    return Versus(a, b, method, tuple(found), ratios.geometric_mean(found), {}, left_out)


def _calls(names, spec):
    accepted = {name: contest.accepted(name, spec) for name in names}
    for check in verify(spec, engines=names).results:
        if not check.ok:
            raise contest.RefusedError(f"{check.engine} is wrong: error {check.error:.1e}, bound {check.bound:.1e}")
    x, weight = contest.arrays(spec)
    return {name: contest.planned(engine, spec, x, weight) for name, engine in accepted.items()}


def _why_no_ratio(name, *sides) -> str | None:
    """Why an engine's times on a problem have no ratio, None if they have; empty where neither side has a time."""
    measured = [(given, row.measured[name]) for given, row in sides if name in row.measured]
    if len(measured) < len(sides):
        return f"only {measured[0][0]} has measured it" if measured else ""
    few = [f"{given} has {entry.samples}" for given, entry in measured if entry.samples < FEWEST_SAMPLES]
    return f"{FEWEST_SAMPLES} samples are the fewest for an interval, {' and '.join(few)}" if few else None


def _ratio(problem, engine, *entries) -> Ratio:
    """From the samples where both reports have them, else from the quartiles."""
    timings = [Timing(entry.median, entry.q1, entry.q3, entry.samples) for entry in entries]
    times = [entry.times for entry in entries]
    if min(map(len, times)) >= FEWEST_SAMPLES:
        return ratios.from_runs(problem, *timings, *times, engine)
    return ratios.from_timings(problem, *timings, engine)


def _method(found: list[Ratio]) -> str:
    sampled = [ratio.p is not None for ratio in found]
    told = "a bootstrap's over the samples that the reports keep, and p is Mann and Whitney's of these"
    if not all(sampled):
        normal = "normal ones of the medians, from the reports' quartiles and numbers of samples"
        told = f"{told}; where they keep none, {normal}" if any(sampled) else normal
    return (
        f"Each report's own medians; the intervals are {told}: what changed between the two runs besides the code is "
        "not in them."
    )


def _unlike(before: Report, after: Report) -> tuple[str, ...]:
    """A line for each entry on the machine in which the reports differ."""
    titles = dict.fromkeys([*before.machine, *after.machine])
    pairs = {title: (before.machine.get(title, "?"), after.machine.get(title, "?")) for title in titles}
    return tuple(f"{title}: A {first}, B {second}" for title, (first, second) in pairs.items() if first != second)
