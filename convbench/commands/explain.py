"""``convbench explain``: show which engine is picked for a problem, and why."""

from __future__ import annotations

from convbench.commands.given import add_problem, read_problems, reading_input
from convbench.commands.output import add_json, print_json

SUMMARY = "show which engine is picked for a problem, and why"
EXAMPLES = """
examples:
  convbench explain mb1ic64ih56oc64oh56kh3ph1
  convbench explain photo-512-k21 --tuning measure
  convbench explain resnet50-stem --json
"""


def add(parser) -> None:
    """Add the arguments."""
    add_problem(parser, "problem", metavar="PROBLEM", help="a name, benchdnn's text or a oneDNN verbose line")
    parser.add_argument("--tuning", choices=("estimate", "measure", "replay"), default="estimate")
    add_json(parser)


def run(args) -> int:
    """Print a selection."""
    import convbench

    with reading_input():
        specs = [convbench.ConvSpec.parse(problem.text) for problem in read_problems([args.problem])]
        chosen = [convbench.select(spec, tuning=args.tuning) for spec in specs]
    if args.json:
        print_json([_as_data(selection) for selection in chosen])
    else:
        print("\n\n".join(map(str, chosen)))
    return 0


def _as_data(selection):
    from convbench import settings

    return {
        "problem": str(selection.spec),
        "engine": selection.engine,
        "variant": selection.variant,
        "source": selection.source,
        "regret": selection.regret,
        "threads": settings.get_num_threads(),
        "candidates": selection.candidates,
    }
