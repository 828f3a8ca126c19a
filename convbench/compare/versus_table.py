"""How ``convbench compare A B`` is shown: the terminal's table, and data for ``--json``."""

from __future__ import annotations

from dataclasses import asdict

from rich import box
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from convbench import display
from convbench.compare.ratios import CONFIDENCE, DIFFERENT, Interval, Ratio
from convbench.compare.versus import Versus


def data(versus: Versus) -> dict:
    """The comparison in the types that JSON has."""
    return {
        "a": versus.a,
        "b": versus.b,
        "method": versus.method,
        "confidence": CONFIDENCE,
        "geometric_mean": asdict(versus.mean),
        "engines": {name: asdict(mean) for name, mean in versus.engines.items()},
        "ratios": [
            {
                "problem": ratio.problem,
                "engine": ratio.engine or None,
                "a": asdict(ratio.a),
                "b": asdict(ratio.b),
                **asdict(ratio.interval),
                "p": ratio.p,
                "differs": ratio.differs,
            }
            for ratio in versus.ratios
        ],
        "left_out": versus.left_out,
        "notes": list(versus.notes),
    }


def table(versus: Versus) -> Stack:
    """A row for each ratio, the means, and what the numbers are."""
    made = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("problem", no_wrap=True)
    if versus.engines:
        made.add_column("engine", no_wrap=True)
    for name in ("A", "B", "B / A", f"{CONFIDENCE:.0%} interval", "p"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("")
    for ratio in versus.ratios:
        names = [ratio.problem, ratio.engine] if versus.engines else [ratio.problem]
        made.add_row(*names, *_cells(ratio))
    return Stack(Text(f"A: {versus.a}\nB: {versus.b}"), made, _footer(versus))


def _cells(ratio: Ratio) -> tuple[Text | str, ...]:
    slower = ratio.interval.ratio > 1
    verdict = Text("B slower" if slower else "B faster", style="red" if slower else "green")
    return (
        display.seconds(ratio.a.median),
        display.seconds(ratio.b.median),
        _figure(ratio.interval.ratio),
        _limits(ratio.interval),
        "–" if ratio.p is None else f"{ratio.p:.1g}",
        verdict if ratio.differs else Text("no difference seen", style="dim"),
    )


def _footer(versus: Versus) -> Text:
    text = Text()
    if len(versus.engines) > 1:
        for name, mean in versus.engines.items():
            text.append(f"geometric mean of {name}: {_figure(mean.ratio)}, {_limits(mean)}\n")
    mean = versus.mean
    text.append(
        f"geometric mean of B / A: {_figure(mean.ratio)}, {CONFIDENCE:.0%} interval {_limits(mean)}; ", style="bold"
    )
    text.append("above 1, B is slower\n", style="bold")
    text.append(f"{versus.method} They differ where {_rule(versus)}.\n")
    for name, reason in versus.left_out.items():
        text.append(f"left out: {name}: {reason}\n", style="yellow")
    if versus.notes:
        text.append("The machines differ: " + "; ".join(versus.notes) + "\n", style="yellow")
    return text


def _rule(versus: Versus) -> str:
    tested = [ratio.p is not None for ratio in versus.ratios]
    rules = {f"p < {DIFFERENT:g}": any(tested), "the interval leaves out 1": not all(tested)}
    return " or, without p, ".join(rule for rule, applies in rules.items() if applies)


def _limits(interval: Interval) -> str:
    return f"{_figure(interval.low)} to {_figure(interval.high)}"


def _figure(ratio: float) -> str:
    """Three decimals, or for what is far below 1 three digits."""
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.3g}"
