"""``convbench verify``: hold engines to the reference."""

from __future__ import annotations

from convbench.commands import FAILED
from convbench.commands.given import (
    add_engines,
    add_peers,
    add_problem,
    enable_peers,
    read_engines,
    read_problems,
    reading_input,
)
from convbench.commands.output import add_json, print_json, progress, steps

SUMMARY = "compare every engine with the reference"
EXAMPLES = """
examples:
  convbench verify                         every engine on the quick problems
  convbench verify resnet50-stem g32mb1ic32ih112oc32oh112kh3ph1
  convbench verify --engines fft @problems.txt
  convbench verify --peers                 PyTorch, ONNX Runtime, OpenVINO, OpenCV, SciPy too, as far as installed
"""


def add(parser) -> None:
    """Add the arguments."""
    add_problem(
        parser, "problem", metavar="PROBLEM", nargs="*", help="names, texts, @FILE or - (default: the quick ones)"
    )
    add_engines(parser, "only these (default: all)")
    add_peers(parser, "other libraries too: all that are installed, or these")
    parser.add_argument("--seed", type=int, default=0, help="of the random data (default: 0)")
    add_json(parser)


def run(args) -> int:
    """Hold engines to the reference; 1 where one is off."""
    import convbench
    from convbench import problems

    with reading_input():
        chosen = read_problems(args.problem) if args.problem else problems.chosen(quick=True)
        enabled = enable_peers(args.peers)
        engines = read_engines(args.engines)
        engines += enabled if engines else ()
        specs = [convbench.ConvSpec.parse(problem.text) for problem in chosen]
    found = []
    with progress() as bars:
        begin = steps(bars, len(specs))
        for spec in specs:
            begin(str(spec))
            found.append(convbench.verify(spec, engines=engines or None, seed=args.seed))
            if not args.json:
                print(found[-1], flush=True)
    right = sum(verification.ok for verification in found)
    if args.json:
        checks = [{"problem": str(each.spec), "ok": each.ok, "engines": each.results} for each in found]
        print_json({"ok": right == len(found), "seed": args.seed, "problems": checks})
    else:
        print(f"{right} of {len(specs)} problems: every engine agrees with the reference")
    return 0 if right == len(found) else FAILED
