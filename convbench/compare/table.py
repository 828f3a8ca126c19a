"""The terminal's tables of a comparison (rich)."""

from __future__ import annotations

from rich import box
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from convbench import display
from convbench.compare.goals import Verdict, verdicts
from convbench.compare.results import Comparison, Result, mean_ratio
from convbench.compare.rows import Group

CLOSE = 1.02  # below that, and above its inverse, neither is called faster


def table(comparison: Comparison) -> Stack:
    """A table for each group, then the goals."""
    parts = [_group_table(comparison, group, results) for group, results in comparison.groups()]
    found = verdicts(comparison)
    return Stack(*parts, *([_goal_table(found)] if found else []), _footer(comparison))


def _group_table(comparison: Comparison, group: Group, results: tuple[Result, ...]) -> Table:
    mean = mean_ratio(results)
    title = Text(f"\n{group.title}", style="bold")
    if mean is not None:
        title.append(f": geometric mean {mean:.2f}", style="bold")
    made = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("row", no_wrap=True)
    for name in ("time", "GFLOP/s", "% of peak"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("best peer", no_wrap=True)
    made.add_column("its time", justify="right", no_wrap=True)
    made.add_column("ratio", justify="right", no_wrap=True)
    for result in results:
        made.add_row(*_cells(result, comparison))
    return made


def _cells(result: Result, comparison: Comparison) -> list[Text]:
    share = result.peak_share(comparison.limits)
    best, ratio = result.best(), result.ratio()
    cells = [result.row.name, display.seconds(result.seconds), f"{result.flops / 1e9:.1f}", percent(share)]
    if best is None:
        return [*map(Text, cells), Text("–", style="dim"), Text(""), Text("")]
    style = "green" if ratio >= CLOSE else "red" if ratio <= 1 / CLOSE else ""
    return [
        *map(Text, cells),
        Text(best),
        Text(display.seconds(result.timings[best].median)),
        Text(f"{ratio:.2f}", style=style),
    ]


def percent(share: float | None) -> str:
    """83 %, or a dash where the peak is not known."""
    return "–" if share is None else f"{share:.0%}"


def _goal_table(found: list[Verdict]) -> Table:
    made = Table(title=Text("\nGoals", style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("group", "goal", "reached", ""):
        made.add_column(name)
    for verdict in found:
        mark = Text("met", style="green") if verdict.met else Text("missed", style="red")
        made.add_row(verdict.group, verdict.goal, verdict.reached, mark)
    return made


def _footer(comparison: Comparison) -> Text:
    peaks = ", ".join(f"{dtype} {flops / 1e9:.0f} GFLOP/s" for dtype, flops in comparison.limits.peaks.items())
    text = Text(f"multiply-add peak: {peaks or 'not measured'}; copy {comparison.limits.bandwidth / 1e9:.0f} GB/s; ")
    text.append(f"{comparison.threads} threads; ratio: the best peer's time / ours\n")
    if comparison.missing:
        text.append(f"Not installed, left out: {', '.join(comparison.missing)}.\n", style="yellow")
    for result in comparison.results:
        for note in result.notes:
            text.append(f"{result.row.name}: {note}\n", style="yellow")
    return text
