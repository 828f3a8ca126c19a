"""``convbench engines``: list the engines."""

from __future__ import annotations

from convbench.commands.given import add_peers, enable_peers, reading_input
from convbench.commands.output import add_json, print_json

SUMMARY = "list the engines"
EXAMPLES = """
examples:
  convbench engines
  convbench engines --json
  convbench engines --peers                the other libraries that are installed, too
"""
_FIELDS = (
    *("name", "summary", "version", "automatic", "deterministic"),
    *("exact_integers", "propagates_nonfinite", "error_measure"),
)


def add(parser) -> None:
    """Add the arguments."""
    add_peers(parser, "other libraries too: all that are installed, or these")
    add_json(parser)


def run(args) -> int:
    """List the engines, in the order of preference."""
    from convbench import registry

    with reading_input():
        enable_peers(args.peers)
    found = registry.engines()
    if args.json:
        print_json([{field: getattr(engine, field) for field in _FIELDS} for engine in found.values()])
        return 0
    width = max(map(len, found))
    for name, engine in found.items():
        remark = "" if engine.automatic else "  (never picked by auto)"
        print(f"{name:<{width}}  {engine.summary}{remark}")
    return 0
