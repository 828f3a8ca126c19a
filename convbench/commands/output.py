"""What commands write: JSON, tables, progress bars."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

from convbench.commands.lines import Lines

PIPED_WIDTH = 160  # columns of a table that goes into a file


def add_json(parser: argparse.ArgumentParser) -> None:
    """The argument ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


def print_json(data) -> None:
    """Print data as JSON: dataclasses as objects, paths as texts, numbers that are not finite as null."""
    json.dump(plain(data), sys.stdout, indent=1, allow_nan=False, ensure_ascii=False)
    print()


def plain(data):
    """`data` in the types that JSON has."""
    if dataclasses.is_dataclass(data):
        return {field.name: plain(getattr(data, field.name)) for field in dataclasses.fields(data)}
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return str(data) if isinstance(data, Path) else data


def console():
    """A rich console for standard output: as wide as the terminal, or wide enough for tables in a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)


def progress():
    """Progress on standard error: rich's bars on a terminal, elsewhere or without rich a line now and then."""
    if not sys.stderr.isatty():
        return Lines()
    try:
        from rich import progress as bars
        from rich.console import Console
    except ModuleNotFoundError:
        return Lines()
    return bars.Progress(
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description:<26.26}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("elapsed"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("remaining"),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what a file gets must not go to the terminal
    )


def steps(bars, total: int) -> Callable[[str], None]:
    """A task of `total` steps in `bars` (`progress`); the function that is returned is told of each as it begins."""
    task = bars.add_task("", total=total)
    begun = []

    def begin(name):
        bars.update(task, description=name, completed=len(begun))
        begun.append(name)

    return begin
