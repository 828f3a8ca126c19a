"""``convbench bench``: measure, check, record, report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from convbench.commands import FAILED
from convbench.commands.given import (
    add_engines,
    add_peers,
    add_problem,
    read_engines,
    read_peers,
    read_problems,
    reading_input,
)
from convbench.commands.output import add_json, console, print_json, progress

SUMMARY = "measure all engines, check, record, report"
EXAMPLES = """
examples:
  convbench bench                          every suite, some minutes
  convbench bench --quick                  a look, in a minute or two
  convbench bench --suite image --image holiday.jpg
  convbench bench --problem mb1ic64ih56oc64oh56kh3ph1 --engines direct,fft
  convbench bench --quick --peers          PyTorch, ONNX Runtime, OpenVINO, OpenCV, SciPy beside them
  convbench bench --suite cnn --engines direct,winograd4 --peers torch,openvino
  convbench bench --quick --publish        the asv dashboard too: a point in its graphs for each such run
  ONEDNN_VERBOSE=1 python model.py | convbench bench --problem -
"""
PUBLISHED = Path()  # --publish without a folder


def add(parser) -> None:
    """Add the arguments."""
    from convbench.problems import SUITES

    parser.add_argument("--suite", choices=SUITES, help="one suite (default: all of them)")
    add_problem(
        parser,
        "--problem",
        metavar="TEXT",
        action="append",
        help="a name, benchdnn's text or a oneDNN verbose line; @FILE or - for many; repeatable",
    )
    parser.add_argument("--image", metavar="FILE", type=Path, help="the photograph to filter (default: a sample)")
    add_engines(parser, "only these (default: all that auto may pick)")
    add_peers(parser, "time other libraries too: all that are installed, or these")
    parser.add_argument("--quick", action="store_true", help="fewer problems, less time for each")
    parser.add_argument("--report", metavar="DIR", type=Path, default=Path("reports"), help="default: reports")
    parser.add_argument(
        "--publish",
        metavar="DIR",
        nargs="?",
        type=Path,
        const=PUBLISHED,
        help="make asv's dashboard of this and earlier runs, in DIR (default: the user's data folder)",
    )
    add_json(parser)


def run(args) -> int:
    """Measure, check, record, report."""
    out = console()  # says at once where what it needs is not installed

    from convbench import dashboard, harness
    from convbench.asvrun import AsvError
    from convbench.report import pages, table

    with reading_input():
        plan = _plan(args)
        folder = harness.machine_folder(plan.reports)
    with progress() as bars:
        try:
            report = harness.run(plan, bars)
            published = _published(dashboard, plan.history, bars)
        except AsvError as error:
            print(f"convbench: {error}", file=sys.stderr)
            return FAILED
    if not args.json:
        out.print(table.table(report))
    written = pages.write(report, folder)
    if args.json:
        print_json({**asdict(report), "agree": report.agree, "written": written, "dashboard": published})
    else:
        out.print(f"Recorded for engine='auto'. Report: {written[0]}", highlight=False, soft_wrap=True)
        if published:
            told = f"Dashboard: {published.as_uri()}\nBrowsers show it over HTTP only: {_server(published)}"
            out.print(told, highlight=False, soft_wrap=True)
    return 0 if report.agree else FAILED


def _published(dashboard, folder, bars):
    """The dashboard's first page, where one is asked for."""
    if folder is None:
        return None
    bars.add_task("asv publishes", total=None)
    return dashboard.publish(folder)


def _server(page):
    return shlex.join(["python", "-m", "http.server", "--directory", str(page.parent)])


def _plan(args):
    from convbench import dashboard, harness, images, problems

    if args.problem and args.suite:
        raise ValueError("--problem and --suite are both given; give one of them")
    chosen = read_problems(args.problem) if args.problem else problems.chosen(args.suite, quick=args.quick)
    engines = read_engines(args.engines) or harness.default_engines()
    peers = read_peers(args.peers)
    images.load(args.image or images.sample_path())
    seconds = harness.QUICK_SECONDS if args.quick else harness.SECONDS
    history = args.publish
    if history is not None:
        history = dashboard.prepare(dashboard.default_folder() if history == PUBLISHED else history)
    return harness.Bench(tuple(chosen), (*engines, *peers), args.image, seconds, args.report, history)
