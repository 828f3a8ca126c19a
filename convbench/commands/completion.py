"""``convbench completion``: let a shell complete commands, options, problems and engines.

The shells' code is argcomplete's; it asks ``convbench`` itself at each press of the key, so that
engines of other packages are known too.
"""

from __future__ import annotations

import os

SUMMARY = "print what makes a shell complete convbench's arguments"
EXAMPLES = """
examples:
  eval "$(convbench completion bash)"      in ~/.bashrc
  eval "$(convbench completion zsh)"       in ~/.zshrc, after compinit
  convbench completion fish | source       in ~/.config/fish/config.fish
"""
SHELLS = ("bash", "zsh", "fish")
_ASKED = "_ARGCOMPLETE"  # set by the shells' code


def add(parser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=SHELLS)


def run(args) -> int:
    """Print the shell's code."""
    import argcomplete

    print(argcomplete.shellcode(["convbench"], shell=args.shell))
    return 0


def answer(parser) -> None:
    """Where a shell asks for completions, give them and exit."""
    if _ASKED in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
