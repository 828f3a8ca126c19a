"""``convbench compare``: time an engine against other libraries."""

from __future__ import annotations

from pathlib import Path

from convbench.commands.given import add_engine, add_problem, read_problems, reading_input
from convbench.commands.output import add_json, console, print_json, progress

SUMMARY = "time an engine against other libraries"
EXAMPLES = """
examples:
  convbench compare                        every row; writes docs/performance.md and its plots
  convbench compare --quick                a look, in a quarter of a minute
  convbench compare --only mobilenet
  convbench compare --problem mb1ic64ih56oc64oh56kh3ph1 --engine auto
  convbench compare --strict --output out  call by call, as programs that mix libraries meet it
"""


def add(parser) -> None:
    """Add the arguments."""
    add_engine(parser, default="direct", help="a name, or auto (default: direct)")
    parser.add_argument("--only", metavar="SUBSTR", default="", help="rows whose name or group has this in it")
    add_problem(
        parser,
        "--problem",
        metavar="TEXT",
        action="append",
        help="other problems: a name, benchdnn's text or a oneDNN verbose line; @FILE or - for many; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows, less time for each")
    parser.add_argument("--strict", action="store_true", help="alternate call by call, without pauses")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="for performance.md and its plots (default: docs in a checkout, else here; with --only, --problem "
        "or --quick nothing is written unless this is given)",
    )
    add_json(parser)


def run(args) -> int:
    """Compare, and write the page where it is complete or asked for."""
    out = console()  # says at once where what it needs is not installed

    from convbench.compare import command, table

    with reading_input():
        rows = command.rows(read_problems(args.problem) if args.problem else None, args.only, quick=args.quick)
        command.check_engine(args.engine, rows)
        partial = bool(args.problem or args.only or args.quick)
        folder = command.folder(args.output, partial=partial)
    with progress() as bars:
        found = command.run(rows, args, bars)
        points = () if partial or folder is None else command.crossovers(bars)
    if args.json:
        written = _written(found, folder, points)
        print_json({"comparison": found, "crossovers": points, "written": written})
        return 0
    out.print(table.table(found))
    written = _written(found, folder, points)
    if written:
        out.print(f"Written: {written[0]}", highlight=False, soft_wrap=True)
    return 0


def _written(found, folder, points):
    if folder is None:
        return []
    from convbench.compare import page

    return page.write(found, folder, points)
