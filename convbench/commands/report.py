"""``convbench report``: pages of a run that was measured before, from its JSON; nothing is measured."""

from __future__ import annotations

from pathlib import Path

from convbench.commands.given import reading_input
from convbench.commands.output import add_json, print_json

SUMMARY = "make the pages of a run that was measured before: HTML, Markdown, CSV and JSON"
EXAMPLES = """
examples:
  convbench report                         the newest run in reports/, its pages beside it
  convbench report reports/my-machine/report.json -o page
  convbench report --baseline direct       speed-ups over direct
"""
REPORTS = Path("reports")
RAW = "report.json"


def add(parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "report", metavar="REPORT.json", nargs="?", type=Path, help=f"default: the newest {RAW} in {REPORTS}/"
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="default: the folder of REPORT.json")
    parser.add_argument("--baseline", metavar="ENGINE", help="speed-ups are over this one (default: im2col)")
    add_json(parser)


def run(args) -> int:
    """Write the pages."""
    from rich.console import Console

    from convbench.report import pages
    from convbench.report.plots import baseline
    from convbench.report.results import Report

    with reading_input():
        source = args.report or newest(REPORTS)
        report = Report.load(source)
        base = baseline(report, args.baseline)
        folder = args.output or source.parent
        folder.mkdir(parents=True, exist_ok=True)
        with Console(stderr=True).status(f"drawing {len(report.rows)} problems"):  # nothing where no one looks on
            written = pages.write(report, folder, base)
    if args.json:
        print_json({"written": written})
    else:
        print(f"Report: {written[0]}")
    return 0


def newest(reports: Path) -> Path:
    """The run that was measured last, by the date in its JSON, the file's own where two have the same.

    Raises
    ------
    ValueError
        There is none.
    """
    from convbench.report.results import Report

    found = list(reports.glob(f"*/{RAW}"))
    if not found:
        raise ValueError(f"no */{RAW} lies in {str(reports)!r}; give REPORT.json, or measure with: convbench bench")
    return max(found, key=lambda path: (Report.load(path).settings.get("date", ""), path.stat().st_mtime))
