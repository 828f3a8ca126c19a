"""``convbench run``: filter an image."""

from __future__ import annotations

from pathlib import Path

from convbench.commands.given import add_engine, reading_input
from convbench.commands.output import add_json, print_json

SUMMARY = "filter an image with the engine that is picked"
EXAMPLES = """
examples:
  convbench run photo.jpg --kernel gaussian:2.5 -o soft.png
  convbench run photo.jpg --kernel sobel-x -o edges.png --values abs
  convbench run photo.jpg --kernel psf.npy --padding-mode reflect -o out.npy
"""


def add(parser) -> None:
    """Add the arguments."""
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
    add_engine(parser, default="auto", help="default: auto")
    parser.add_argument("--flip", action="store_true", help="true convolution: turn the kernel by 180 degrees")
    parser.add_argument(
        "--values",
        choices=("auto", "clip", "abs", "signed"),
        default="auto",
        help="how values become brightness (default: signed for kernels that sum to zero, else clip)",
    )
    add_json(parser)


def run(args) -> int:
    """Read, filter, write, say how."""
    from convbench import filtering

    with reading_input():
        done = filtering.run(
            args.image,
            args.kernel,
            args.output,
            values=args.values,
            padding_mode=args.padding_mode,
            engine=args.engine,
            flip=args.flip,
        )
    if args.json:
        print_json(done)
    else:
        print(done)
    return 0
