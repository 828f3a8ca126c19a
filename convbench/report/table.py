"""The terminal's table of a report (rich)."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from convbench.report.results import CLOSE, Report, Row, duration, ratio
from convbench.report.style import terminal_colours

_TITLES = {"image": "a photograph", "cnn": "layers of real networks", "signal": "signals", "given": "given problems"}


def table(report: Report) -> Group:
    """One table for each suite: winner, its time, its lead, every other engine's time, error and equality."""
    paint = terminal_colours(report.engines)
    suites = dict.fromkeys(row.suite for row in report.rows)
    return Group(*(_suite_table(report, suite, paint) for suite in suites), _verdict(report, paint))


def _suite_table(report: Report, suite: str, paint: dict[str, str]) -> Table:
    rows = report.suite(suite)
    title = Text(f"\n{suite}: {_TITLES.get(suite, suite)}", style="bold")
    made = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("problem", no_wrap=True)
    made.add_column("fastest", no_wrap=True)
    made.add_column("lead", justify="right", no_wrap=True)
    for name in report.engines:
        made.add_column(Text(name, style=paint[name]), justify="right", no_wrap=True)
    made.add_column("error", justify="right", no_wrap=True)
    made.add_column("agree", justify="center", no_wrap=True)
    for row in rows:
        made.add_row(*_cells(row, report.engines, paint))
    return made


def _cells(row: Row, engines: list[str], paint: dict[str, str]) -> list[Text]:
    lead = row.speedup
    style = "dim" if lead is None or lead < CLOSE else "bold"
    best = Text(row.best, style=f"bold {paint[row.best]}") if row.best else Text("none", style="red")
    times = []
    for name in engines:
        entry = row.engines.get(name)
        if entry is None or entry.refused is not None:
            times.append(Text("–", style="dim"))
        else:
            times.append(Text(duration(entry.median), style="bold" if name == row.best else ""))
    error, agree = Text(f"{row.worst_error:.0%}"), Text("yes", style="green")
    if not row.measured:
        error = agree = Text("–", style="dim")
    elif not row.agree:
        agree = Text("NO", style="bold red")
    return [Text(row.name), best, Text(ratio(lead), style=style), *times, error, agree]


def _verdict(report: Report, paint: dict[str, str]) -> Text:
    text = Text("fastest: ")
    for position, (name, count) in enumerate(sorted(report.wins.items(), key=lambda item: -item[1])):
        text.append(", " if position else "").append(name, style=paint[name]).append(f" {count}×")
    text.append(
        "\nlead: the runner-up's time / the fastest's   "
        "error: the largest, in % of what rounding may cost its engine   –: refused, see the report\n",
        style="dim",
    )
    if report.prediction:
        text.append(report.prediction + "\n")
    if report.agree:
        return text.append("All engines agree with the reference on every problem.", style="green")
    wrong = [row.name for row in report.rows if not row.agree]
    return text.append(f"Engines DISAGREE with the reference on {', '.join(wrong)}.", style="bold red")
