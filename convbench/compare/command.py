"""What ``convbench compare`` does with its arguments."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from convbench import registry, settings
from convbench.compare import contest, crossover, protocol
from convbench.compare.results import Comparison
from convbench.compare.rows import Row, chosen, group_of
from convbench.spec import ConvSpec

DOCS = Path("docs")


def rows(problems: Sequence | None, only: str, *, quick: bool) -> tuple[Row, ...]:
    """The given problems as rows, or those of the table that were asked for.

    Raises
    ------
    ValueError
        Both are given, or no row has `only` in its name.
    """
    if problems is None:
        return chosen(only, quick=quick)
    if only or quick:
        raise ValueError("--problem names the rows; --only and --quick choose among the table's: give one of them")
    return tuple(Row(problem.name, "given", problem.text, problem.source) for problem in problems)


def check_engine(engine: str, rows: Sequence[Row]) -> None:
    """Refuse an engine that is unknown or does not compute one of the rows.

    Raises
    ------
    ValueError
        With the engine's own reason.
    """
    if engine == settings.AUTO:
        return
    for row in (row for row in rows if not group_of(row).engine):
        reason = registry.get(engine).why_unsupported(ConvSpec.parse(row.text))
        if reason is not None:
            raise ValueError(f"{row.name}: {reason}")


def folder(output: Path | None, *, partial: bool) -> Path | None:
    """Where the page goes, None for nowhere: a part of the rows does not replace the page of all of them.

    Raises
    ------
    OSError
        The folder cannot be made.
    """
    if output is None:
        if partial:
            return None
        output = DOCS if DOCS.is_dir() and Path("pyproject.toml").is_file() else Path()
    output.mkdir(parents=True, exist_ok=True)
    return output


def run(rows: Sequence[Row], args, progress) -> Comparison:
    """Compare, with a bar in `progress` (`rich.progress.Progress`)."""
    task = progress.add_task("", total=len(rows))
    begun = []

    def advance(name):
        progress.update(task, description=name, completed=len(begun))
        begun.append(name)

    return contest.compare(
        rows,
        args.engine,
        strict=args.strict,
        rounds=(protocol.QUICK_ROUNDS,) * 2 if args.quick else (protocol.ROUNDS, protocol.MOST_ROUNDS),
        command=shlex.join(["convbench", *sys.argv[1:]]),
        memory=not (args.problem or args.only or args.quick),
        progress=advance,
    )


def crossovers(progress) -> tuple[crossover.Point, ...]:
    """Time the engines over the kernel's size, with a line in `progress`."""
    task = progress.add_task("crossovers", total=len(crossover.SIZES) * len(crossover.KERNELS))
    return crossover.measure(progress=lambda name: progress.update(task, description=name, advance=1))
