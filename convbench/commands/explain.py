"""``convbench explain``: show which engine is picked for a problem, and why."""

from __future__ import annotations

from convbench.commands.given import add_peers, add_problem, enable_peers, read_problems, reading_input
from convbench.commands.output import add_json, print_json, progress, steps

SUMMARY = "show which engine is picked for a problem, and why"
EXAMPLES = """
examples:
  convbench explain mb1ic64ih56oc64oh56kh3ph1
  convbench explain photo-512-k21 --tuning measure
  convbench explain resnet50-stem --peers  as where a program lets auto pick other libraries too
  convbench explain resnet50-stem --json
"""


def add(parser) -> None:
    """Add the arguments."""
    add_problem(parser, "problem", metavar="PROBLEM", help="a name, benchdnn's text or a oneDNN verbose line")
    parser.add_argument("--tuning", choices=("estimate", "measure", "replay"), default="estimate")
    add_peers(parser, "other libraries beside them, which auto may pick too: all that are installed, or these")
    add_json(parser)


def run(args) -> int:
    """Print a selection."""
    import convbench

    with reading_input():
        specs = [convbench.ConvSpec.parse(problem.text) for problem in read_problems([args.problem])]
        enable_peers(args.peers, automatic=True)
    chosen = []
    with progress() as bars:
        begin = steps(bars, len(specs))
        for spec in specs:
            begin(str(spec))
            with reading_input():
                chosen.append(_selected(spec, args.tuning))
    if args.json:
        print_json([selection.as_dict() for selection in chosen])
    else:
        print("\n\n".join(map(str, chosen)))
    return 0


def _selected(spec, tuning):
    import convbench

    try:
        return convbench.select(spec, tuning=tuning)
    except convbench.NoRecordError as error:
        raise ValueError(error) from None
