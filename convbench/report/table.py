"""The terminal's table of a report (rich)."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from convbench.peers import NAMES
from convbench.report.results import CLOSE, Report, Row, duration, ratio
from convbench.report.style import terminal_colours

_TITLES = {"image": "a photograph", "cnn": "layers of real networks", "signal": "signals", "given": "given problems"}


def table(report: Report) -> Group:
    """One table for each suite: winner, its time, its lead, every other engine's time, error and equality."""
    paint = terminal_colours(report.engines)
    suites = dict.fromkeys(row.suite for row in report.rows)
    own = [name for name in report.engines if name not in NAMES]
    others = [name for name in report.engines if name in NAMES]
    tables = [_suite_table(report, suite, own, paint) for suite in suites]
    if others:
        tables += [_others_table(report, suite, own, others, paint) for suite in suites]
    return Group(*tables, _verdict(report, paint))


def _titled(text: str) -> Table:
    title = Text(f"\n{text}", style="bold")
    made = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("problem", no_wrap=True)
    return made


def _suite_table(report: Report, suite: str, engines: list[str], paint: dict[str, str]) -> Table:
    made = _titled(f"{suite}: {_TITLES.get(suite, suite)}")
    made.add_column("fastest", no_wrap=True)
    made.add_column("lead", justify="right", no_wrap=True)
    for name in engines:
        made.add_column(Text(name, style=paint[name]), justify="right", no_wrap=True)
    made.add_column("error", justify="right", no_wrap=True)
    made.add_column("agree", justify="center", no_wrap=True)
    for row in report.suite(suite):
        made.add_row(*_cells(row, engines, paint))
    return made


def _others_table(report: Report, suite: str, own: list[str], others: list[str], paint: dict[str, str]) -> Table:
    """The fastest engine beside other libraries, and the best library's time / the fastest engine's."""
    made = _titled(f"{suite}: other libraries")
    made.add_column("engine", no_wrap=True)
    for name in ("its time", *others, "best library / engine"):
        made.add_column(Text(name, style=paint.get(name, "")), justify="right", no_wrap=True)
    for row in report.suite(suite):
        engine, library = (next((name for name in row.measured if name in some), None) for some in (own, others))
        times = [_time(row, name) for name in others]
        if engine is None:
            made.add_row(row.name, Text("none", style="red"), Text("–", style="dim"), *times, "–")
            continue
        quotient = row.measured[library].median / row.measured[engine].median if library else None
        style = "" if quotient is None else "green" if quotient >= CLOSE else "red" if quotient <= 1 / CLOSE else ""
        name = Text(engine, style=paint[engine])
        made.add_row(row.name, name, _time(row, engine), *times, Text(ratio(quotient), style=style))
    return made


def _time(row: Row, name: str) -> Text:
    entry = row.measured.get(name)
    if entry is None:
        return Text("–", style="dim")
    return Text(duration(entry.median), style="bold" if name == row.best else "")


def _cells(row: Row, engines: list[str], paint: dict[str, str]) -> list[Text]:
    lead = row.speedup
    style = "dim" if lead is None or lead < CLOSE else "bold"
    best = Text(row.best, style=f"bold {paint[row.best]}") if row.best else Text("none", style="red")
    times = [_time(row, name) for name in engines]
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
