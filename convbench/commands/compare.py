"""``convbench compare``: an engine against other libraries, or A against B, two engines or two reports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from convbench.commands import FAILED
from convbench.commands.given import add_contender, add_engine, add_problem, read_problems, reading_input
from convbench.commands.output import add_json, console, print_json, progress, steps

SUMMARY = "time an engine against other libraries; or A against B, two engines or two reports"
EXAMPLES = """
Without A and B, --engine is timed against the other libraries that are installed.  With A and B, each problem gets
the ratio B / A with a 95 % interval: above 1, B is slower.  Engines are timed now, in turn; other libraries are
engines too (torch, onnxruntime, openvino, opencv, scipy).  Reports are those that `convbench bench` writes.

examples:
  convbench compare                        every row; writes docs/performance.md and its plots
  convbench compare --quick                a look, in a quarter of a minute
  convbench compare --only mobilenet
  convbench compare --problem mb1ic64ih56oc64oh56kh3ph1 --engine auto
  convbench compare --strict --output out  call by call, as programs that mix libraries meet it

  convbench compare direct winograd4 --only vgg16          two engines on the problems with vgg16 in their names
  convbench compare torch direct --problem resnet50-stem   an engine against a library, with an interval
  convbench compare before/report.json after/report.json   two reports, each engine on each problem
  convbench compare before after --fail-over 1.1           for CI: exits 1 where B is over 10 % slower for certain
"""
DEFAULT_ENGINE = "direct"


def add(parser) -> None:
    """Add the arguments."""
    add_contender(parser, "a", "an engine, or a report (report.json or its folder)")
    add_contender(parser, "b", "what is compared with it, of the same kind")
    add_engine(parser, help="a name, or auto (default: direct); with two reports: only this one (default: all)")
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
    parser.add_argument(
        "--fail-over",
        metavar="RATIO",
        type=_ratio,
        help="with A and B: exit code 1 where the geometric mean of B / A is over RATIO, its interval's lower end too",
    )
    parser.add_argument("--each", action="store_true", help="with --fail-over: or where any single B / A is")
    add_json(parser)


def run(args) -> int:
    """Compare, and write the page where it is complete or asked for."""
    out = console()  # says at once where what it needs is not installed
    with reading_input():
        _check(args)
    return _others(args, out) if args.a is None else _versus(args, out)


def _ratio(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; a number above 0, such as 1.1, is")
    return value


def _check(args):
    """Refuse options that mean nothing beside the others."""
    if args.a is not None and args.b is None:
        raise ValueError(f"A is {args.a!r} and B is missing; two engines, two reports, or neither are accepted")
    only_here = ("strict", "output") if args.a is not None else ("fail_over", "each")
    for option in only_here:
        if getattr(args, option):
            where = "with" if args.a is not None else "without"
            raise ValueError(f"--{option.replace('_', '-')} means nothing {where} A and B")
    if args.each and args.fail_over is None:
        raise ValueError("--each says what --fail-over looks at; give both")


def _others(args, out) -> int:
    from convbench.compare import command, table

    args.engine = args.engine or DEFAULT_ENGINE
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


def _versus(args, out) -> int:
    from convbench.compare import versus, versus_table

    with reading_input():
        if versus.kind(args.a, args.b) == "reports":
            if args.problem or args.quick:
                raise ValueError("--problem and --quick choose what to time; two reports are measured, --only chooses")
            found = versus.reports(args.a, args.b, args.only, args.engine)
        else:
            found = _timed(args)
    failed = [] if args.fail_over is None else found.over(args.fail_over, each=args.each)
    if args.json:
        print_json({**versus_table.data(found), "fail_over": args.fail_over, "failed": failed})
    else:
        out.print(versus_table.table(found))
    if failed:
        print(f"convbench: B takes over {args.fail_over:g} times as long as A: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else 0


def _timed(args):
    from convbench import problems
    from convbench.compare import versus

    if args.engine:
        raise ValueError(f"A and B name the engines; --engine {args.engine} is for reports and other libraries")
    if args.problem and (args.only or args.quick):
        raise ValueError("--problem names the problems; --only and --quick choose among the table's: give one of them")
    chosen = read_problems(args.problem) if args.problem else problems.chosen(quick=args.quick)
    chosen = [problem for problem in chosen if args.only in problem.name]
    if not chosen:
        raise ValueError(f"no problem has {args.only!r} in its name; e.g. resnet50-stem, photo-512-k9 are accepted")
    with progress() as bars:
        rounds = versus.QUICK_ROUNDS if args.quick else versus.ROUNDS
        return versus.engines(args.a, args.b, chosen, rounds, progress=steps(bars, len(chosen)))
