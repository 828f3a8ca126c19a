"""The command line: ``convbench COMMAND …``, a module of `convbench.commands` for each.

Everything heavy is imported by the command that needs it, so ``--help`` answers at once.
Exit codes: 0 done, 1 a verification failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from convbench.commands import BAD_INPUT, COMMANDS, INTERRUPTED, completion
from convbench.commands.given import InputError, add_command

EXTRAS = {  # modules that come with an extra, and its name
    **dict.fromkeys(("asv", "asv_runner", "rich", "matplotlib", "PIL", "jinja2"), "bench"),
    "argcomplete": "completion",
}
EXAMPLES = """
examples:
  convbench bench --quick                  measure every engine, in a minute or two
  convbench explain resnet50-stem          which engine is picked, and why
  convbench run photo.jpg --kernel gaussian:2.5 -o soft.png
  convbench records show                   what has been measured on this machine
  convbench COMMAND --help                 more examples
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = make_parser()
    completion.answer(parser)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except InputError as error:
        return _stop(error, BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _stop(f"this command needs {error.name}; install it with: pip install 'convbench[{extra}]'", BAD_INPUT)
    except KeyboardInterrupt as error:
        return _stop(error or "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _stop(message, code):
    print(f"convbench: {str(message) or 'interrupted'}", file=sys.stderr)
    return code


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="convbench",
        description="Convolution with pluggable engines, and a judge that picks the fastest for each size.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"convbench.commands.{name}")
        command = add_command(commands, name, module.SUMMARY, module.EXAMPLES)
        module.add(command)
        command.set_defaults(run=module.run)
    return parser
