"""The command line: ``convbench bench | compare | run | explain | verify | engines | report``.

Everything heavy is imported by the command that needs it, so ``--help`` answers at once.
Exit codes: 0 done, 1 a verification failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from convbench.report import command as report_command

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
EXTRAS = ("asv", "asv_runner", "rich", "matplotlib", "PIL", "jinja2")
PIPED_WIDTH = 160  # columns of a table that goes into a file
_VERBOSE = ("onednn_verbose", "dnnl_verbose", "mkldnn_verbose")

BENCH_EXAMPLES = """
examples:
  convbench bench                          every suite, about three minutes
  convbench bench --quick                  a look, in half a minute
  convbench bench --suite image --image holiday.jpg
  convbench bench --problem mb1ic64ih56oc64oh56kh3ph1 --engines direct,fft
  ONEDNN_VERBOSE=1 python model.py | convbench bench --problem -
"""
COMPARE_EXAMPLES = """
examples:
  convbench compare                        every row; writes docs/performance.md and its plots
  convbench compare --quick                a look, in a quarter of a minute
  convbench compare --only mobilenet
  convbench compare --problem mb1ic64ih56oc64oh56kh3ph1 --engine auto
  convbench compare --strict --output out  call by call, as programs that mix libraries meet it
"""
RUN_EXAMPLES = """
examples:
  convbench run photo.jpg --kernel gaussian:2.5 -o soft.png
  convbench run photo.jpg --kernel sobel-x -o edges.png --values abs
  convbench run photo.jpg --kernel psf.npy --padding-mode reflect -o out.npy
"""
EXPLAIN_EXAMPLES = """
examples:
  convbench explain mb1ic64ih56oc64oh56kh3ph1
  convbench explain photo-512-k21 --tuning measure
"""
VERIFY_EXAMPLES = """
examples:
  convbench verify                         every engine on the quick problems
  convbench verify resnet50-stem g32mb1ic32ih112oc32oh112kh3ph1
  convbench verify --engines fft @problems.txt
"""
ENGINES_EXAMPLES = """
examples:
  convbench engines
"""


class InputError(Exception):
    """What the user gave cannot be used; the message states it and what is accepted."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except InputError as error:
        return _stop(error, BAD_INPUT)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        return _stop(f"this command needs {error.name}; install it with: pip install 'convbench[bench]'", BAD_INPUT)
    except KeyboardInterrupt as error:
        return _stop(error or "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _stop(message, code):
    print(f"convbench: {str(message) or 'interrupted'}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _reading_input() -> Iterator[None]:
    """Errors in here are the user's: a line, no traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from None


def bench(args) -> int:
    """Measure, check, record, report."""
    from rich.console import Console

    from convbench import harness
    from convbench.asvrun import AsvError
    from convbench.report import pages, table

    with _reading_input():
        plan = _bench_plan(args)
        folder = harness.machine_folder(plan.reports)
    quiet = Console(stderr=True)
    with _progress(quiet) as progress:
        try:
            report = harness.run(plan, progress)
        except AsvError as error:
            return _stop(error, FAILED)
    out = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    out.print(table.table(report))
    written = pages.write(report, folder)
    out.print(f"Recorded for engine='auto'. Report: {written[0]}", highlight=False, soft_wrap=True)
    return 0 if report.agree else FAILED


def _bench_plan(args):
    from convbench import harness, images, problems

    if args.problem and args.suite:
        raise ValueError("--problem and --suite are both given; give one of them")
    chosen = read_problems(args.problem) if args.problem else problems.chosen(args.suite, quick=args.quick)
    engines = _engine_names(args.engines) or harness.default_engines()
    images.load(args.image or images.sample_path())
    seconds = harness.QUICK_SECONDS if args.quick else harness.SECONDS
    return harness.Bench(tuple(chosen), engines, args.image, seconds, args.report)


def _progress(console):
    from rich import progress as bars

    return bars.Progress(
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description:<26}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("elapsed"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("remaining"),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def compare(args) -> int:
    """Time an engine against other libraries."""
    from rich.console import Console

    from convbench.compare import command, table

    quiet = Console(stderr=True)
    with _reading_input():
        rows = command.rows(read_problems(args.problem) if args.problem else None, args.only, quick=args.quick)
        command.check_engine(args.engine, rows)
        partial = bool(args.problem or args.only or args.quick)
        folder = command.folder(args.output, partial=partial)
    with _progress(quiet) as progress:
        found = command.run(rows, args, progress)
        points = () if partial or folder is None else command.crossovers(progress)
    out = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    out.print(table.table(found))
    if folder is not None:
        from convbench.compare import page

        out.print(f"Written: {page.write(found, folder, points)[0]}", highlight=False, soft_wrap=True)
    return 0


def run(args) -> int:
    """Filter an image."""
    from convbench import filtering

    with _reading_input():
        message = filtering.run(
            args.image,
            args.kernel,
            args.output,
            values=args.values,
            padding_mode=args.padding_mode,
            engine=args.engine,
            flip=args.flip,
        )
    print(message)
    return 0


def explain(args) -> int:
    """Print a selection."""
    import convbench

    with _reading_input():
        specs = [convbench.ConvSpec.parse(problem.text) for problem in read_problems([args.problem])]
        chosen = [convbench.select(spec, tuning=args.tuning) for spec in specs]
    print("\n\n".join(map(str, chosen)))
    return 0


def verify(args) -> int:
    """Hold engines to the reference."""
    import convbench
    from convbench import problems

    with _reading_input():
        chosen = read_problems(args.problem) if args.problem else problems.chosen(quick=True)
        engines = _engine_names(args.engines)
        specs = [convbench.ConvSpec.parse(problem.text) for problem in chosen]
    failed = 0
    for spec in specs:
        found = convbench.verify(spec, engines=engines or None, seed=args.seed)
        print(found, flush=True)
        failed += not found.ok
    print(f"{len(specs) - failed} of {len(specs)} problems: every engine agrees with the reference")
    return FAILED if failed else 0


def engines(args) -> int:
    """List the engines."""
    from convbench import registry

    found = registry.engines()
    width = max(map(len, found))
    for name, engine in found.items():
        remark = "" if engine.automatic else "  (never picked by auto)"
        print(f"{name:<{width}}  {engine.summary}{remark}")
    return 0


def read_problems(texts: list[str]) -> list:
    """Problems from names, texts, ``@FILE`` or ``-`` (one in each line; oneDNN logs may be pasted whole).

    Raises
    ------
    ValueError
        A text that names and describes no problem, or no problem at all.
    """
    from convbench.problems import Problem, named
    from convbench.spec import ConvSpec

    found = {}
    for line in _lines(texts):
        problem = named(line)
        if problem is None:
            text = str(_parsed(ConvSpec, line))
            problem = Problem(text, "given", text, "given on the command line")
        found[problem.name] = problem
    if not found:
        raise ValueError(f"{' '.join(texts)!r} holds no problem; e.g. mb1ic64ih56oc64oh56kh3ph1 is accepted")
    return list(found.values())


def _parsed(spec_type, line):
    try:
        return spec_type.parse(line)
    except ValueError as error:
        given = "" if line in str(error) else f"problem {line!r}: "
        raise ValueError(f"{given}{error} (or a name such as photo-512-k9, resnet50-stem, room-4801)") from None


def _lines(texts: list[str]) -> Iterator[str]:
    for text in texts:
        pasted = text == "-" or text.startswith("@") or "\n" in text
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        for line in map(str.strip, text.splitlines()):
            other = line.startswith(_VERBOSE) and ",convolution," not in line
            if line and not line.startswith("#") and not (pasted and other):
                yield line


def _engine_names(text: str | None) -> tuple[str, ...]:
    from convbench import registry

    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    for name in names:
        registry.get(name)
    if text is not None and not names:
        raise ValueError(f"--engines {text!r} names no engine; {', '.join(registry.engines())} are accepted")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convbench",
        description="Convolution with pluggable engines, and a judge that picks the fastest for each size.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=BENCH_EXAMPLES + RUN_EXAMPLES.replace("examples:\n", "").lstrip("\n"),
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    _bench_arguments(_command(commands, "bench", bench, "measure all engines, check, record, report", BENCH_EXAMPLES))
    _compare_arguments(
        _command(commands, "compare", compare, "time an engine against other libraries", COMPARE_EXAMPLES)
    )
    _run_arguments(_command(commands, "run", run, "filter an image with the engine that is picked", RUN_EXAMPLES))
    one = _command(commands, "explain", explain, "show which engine is picked for a problem, and why", EXPLAIN_EXAMPLES)
    one.add_argument("problem", metavar="PROBLEM", help="a name, benchdnn's text or a oneDNN verbose line")
    one.add_argument("--tuning", choices=("estimate", "measure", "replay"), default="estimate")
    some = _command(commands, "verify", verify, "compare every engine with the reference", VERIFY_EXAMPLES)
    some.add_argument(
        "problem", metavar="PROBLEM", nargs="*", help="names, texts, @FILE or - (default: the quick ones)"
    )
    some.add_argument("--engines", metavar="A,B", help="only these (default: all)")
    some.add_argument("--seed", type=int, default=0, help="of the random data (default: 0)")
    _command(commands, "engines", engines, "list the engines", ENGINES_EXAMPLES)
    report_command.add(commands)
    return parser


def _command(commands, name, function, summary, examples):
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=function)
    return parser


def _bench_arguments(parser):
    from convbench.problems import SUITES

    parser.add_argument("--suite", choices=SUITES, help="one suite (default: all of them)")
    parser.add_argument(
        "--problem",
        metavar="TEXT",
        action="append",
        help="a name, benchdnn's text or a oneDNN verbose line; @FILE or - for many; repeatable",
    )
    parser.add_argument("--image", metavar="FILE", type=Path, help="the photograph to filter (default: a sample)")
    parser.add_argument("--engines", metavar="A,B", help="only these (default: all that auto may pick)")
    parser.add_argument("--quick", action="store_true", help="fewer problems, less time for each")
    parser.add_argument("--report", metavar="DIR", type=Path, default=Path("reports"), help="default: reports")


def _compare_arguments(parser):
    parser.add_argument("--engine", metavar="NAME", default="direct", help="a name, or auto (default: direct)")
    parser.add_argument("--only", metavar="SUBSTR", default="", help="rows whose name or group has this in it")
    parser.add_argument(
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


def _run_arguments(parser):
    parser.add_argument("image", metavar="IMAGE", type=Path, help="an image file, or a .npy array (C, H, W)")
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        required=True,
        help="sobel-x, sobel-y, prewitt-x, prewitt-y, gaussian:SIGMA, box:N, sharpen[:4|:8], laplacian[:4|:8], "
        "identity[:N], or FILE.npy",
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="image file, or .npy")
    parser.add_argument("--padding-mode", metavar="MODE", default="replicate", help="default: replicate")
    parser.add_argument("--engine", metavar="NAME", default="auto", help="default: auto")
    parser.add_argument("--flip", action="store_true", help="true convolution: turn the kernel by 180 degrees")
    parser.add_argument(
        "--values",
        choices=("auto", "clip", "abs", "signed"),
        default="auto",
        help="how values become brightness (default: signed for kernels that sum to zero, else clip)",
    )
