"""What users give: problems, engines, and their mistakes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

ALL_PEERS = "all"
_VERBOSE = ("onednn_verbose", "dnnl_verbose", "mkldnn_verbose")


class InputError(Exception):
    """What the user gave cannot be used; the message states it and what is accepted."""


@contextlib.contextmanager
def reading_input() -> Iterator[None]:
    """Errors in here are the user's: a line, no traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from None


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


def read_engines(text: str | None) -> tuple[str, ...]:
    """Names of engines, separated by commas; none where nothing is given.

    Raises
    ------
    ValueError
        An unknown engine, or a text without one.
    """
    from convbench import registry

    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    for name in names:
        registry.get(name)
    if text is not None and not names:
        raise ValueError(f"--engines {text!r} names no engine; {', '.join(registry.engines())} are accepted")
    return names


def read_peers(text: str | None) -> tuple[str, ...]:
    """Names of other libraries, separated by commas: all that are known for `ALL_PEERS`, none for None.

    Raises
    ------
    ValueError
        An unknown one, or a text without one.
    """
    from convbench.peers import NAMES

    if text is None:
        return ()
    names = NAMES if text == ALL_PEERS else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"--peers {text!r}: {unknown[0]!r} is unknown; {', '.join(NAMES)} are accepted")
    return names


def enable_peers(text: str | None, *, automatic: bool = False) -> tuple[str, ...]:
    """Enable other libraries, and name them: for `ALL_PEERS` those that are installed.

    With `automatic`, ``engine="auto"`` may pick them.

    Raises
    ------
    ValueError
        An unknown one, one that was named and is not installed, or none that is.
    """
    from convbench import peers

    names = read_peers(text)
    missing = {name: why for name in names if (why := peers.why_missing(name))}
    enabled = tuple(name for name in names if name not in missing)
    if missing and (text != ALL_PEERS or not enabled):
        raise ValueError("; ".join(missing.values()))
    if enabled:
        peers.enable(*enabled, automatic=automatic)
    return enabled


def add_command(commands, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """Add a command to those of a parser (``parser.add_subparsers()``)."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_problem(parser: argparse.ArgumentParser, name: str, **keywords) -> None:
    """An argument that takes problems, and completes their names."""
    parser.add_argument(name, **keywords).completer = _problem_names


def add_engine(parser: argparse.ArgumentParser, **keywords) -> None:
    """The argument ``--engine``, which completes names of engines."""
    parser.add_argument("--engine", metavar="NAME", **keywords).completer = _one_engine


def add_contender(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """An optional argument that takes and completes an engine, another library or a report, a file or its folder."""
    parser.add_argument(name, metavar=name.upper(), nargs="?", help=help).completer = _contenders


def add_engines(parser: argparse.ArgumentParser, help: str) -> None:
    """The argument ``--engines``, which completes names separated by commas."""
    parser.add_argument("--engines", metavar="A,B", help=help).completer = _several_engines


def add_peers(parser: argparse.ArgumentParser, help: str) -> None:
    """The argument ``--peers``, alone for all, or with names separated by commas, which it completes."""
    argument = parser.add_argument("--peers", metavar="A,B", nargs="?", const=ALL_PEERS, help=help)
    argument.completer = _several_peers


def _problem_names(**_):
    from convbench.problems import PROBLEMS

    return [problem.name for problem in PROBLEMS]


def _one_engine(**_):
    from convbench import registry

    return ["auto", *registry.engines()]


def _contenders(prefix, **_):
    from convbench import registry
    from convbench.peers import NAMES

    folder = prefix[: prefix.rfind("/") + 1]
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:  # no such folder, or none that may be read
        paths = []
    folders = [f"{folder}{path.name}/" for path in paths if path.is_dir() and not path.name.startswith(".")]
    files = [f"{folder}{path.name}" for path in paths if path.suffix == ".json" and path.is_file()]
    return [*dict.fromkeys([*registry.engines(), *NAMES]), *folders, *files]


def _several_engines(prefix, **_):
    from convbench import registry

    return _several(prefix, registry.engines())


def _several_peers(prefix, **_):
    from convbench.peers import NAMES

    return _several(prefix, NAMES)


def _several(prefix, names):
    before = prefix[: prefix.rfind(",") + 1]
    return [before + name for name in names if name not in before.split(",")]
