"""``convbench bench``: measure, check, record, report."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from dataclasses import asdict, replace
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

    from convbench import harness
    from convbench.report import pages, table

    with reading_input():
        site = _site(args.publish)
        plan = _plan(args)
        folder = harness.machine_folder(plan.reports)
    with contextlib.ExitStack() as stack:
        if site is not None:
            saved = stack.enter_context(tempfile.TemporaryDirectory(prefix="convbench-"))
            plan = replace(plan, saved=Path(saved))
        report = _measured(plan)
        if report is None:
            return FAILED
        if not args.json:
            out.print(table.table(report))
        written = pages.write(report, folder)
        if not args.json:
            out.print(f"Recorded for engine='auto'. Report: {written[0]}", highlight=False, soft_wrap=True)
        page = None if site is None else _published(plan.saved, site)  # last: where it fails, the rest is there
    if args.json:
        print_json({**asdict(report), "agree": report.agree, "written": written, "dashboard": page})
    elif page is not None:
        told = f"Dashboard: {page.as_uri()}\nBrowsers show it online and over HTTP only: {_server(page)}"
        out.print(told, highlight=False, soft_wrap=True)
    return 0 if report.agree and (page is None) == (site is None) else FAILED


def _measured(plan):
    """The run's report; None, and a line on standard error, where asv failed."""
    from convbench import harness
    from convbench.asvrun import AsvError

    with progress() as bars:
        try:
            return harness.run(plan, bars)
        except AsvError as error:
            print(f"convbench: {error}", file=sys.stderr)
            return None


def _site(folder):
    """The dashboard's folder, ready to be written, where one is asked for."""
    from convbench import dashboard

    if folder is None:
        return None
    return dashboard.prepare(dashboard.default_folder() if folder == PUBLISHED else folder)


def _published(saved, site):
    """The dashboard's first page; None, and a line on standard error, where it cannot be made."""
    from convbench import dashboard
    from convbench.asvrun import AsvError

    with progress() as bars:
        bars.add_task("asv publishes", total=None)
        try:
            dashboard.keep(saved, site)
            return dashboard.publish(site)
        except (AsvError, OSError) as error:
            print(f"convbench: the dashboard in {site} is not up to date: {error}", file=sys.stderr)
            return None


def _server(page):
    return shlex.join(["python", "-m", "http.server", "--directory", str(page.parent)])


def _plan(args):
    from convbench import harness, images, problems

    if args.problem and args.suite:
        raise ValueError("--problem and --suite are both given; give one of them")
    chosen = read_problems(args.problem) if args.problem else problems.chosen(args.suite, quick=args.quick)
    engines = read_engines(args.engines) or harness.default_engines()
    peers = read_peers(args.peers)
    images.load(args.image or images.sample_path())
    seconds = harness.QUICK_SECONDS if args.quick else harness.SECONDS
    return harness.Bench(tuple(chosen), (*engines, *peers), args.image, seconds, args.report)
