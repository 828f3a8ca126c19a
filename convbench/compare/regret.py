"""How good the judge's choices are: its regret on public and on random problems, beside SciPy's chooser.

The regret of a choice is the time of what was chosen over the time of the fastest.  Every engine and variant that the
judge may pick is timed twice on each problem, in interleaved turns.  ``predicted`` is the choice that the
model makes unmeasured; ``measured`` chooses by the first timing and is judged by the second.  SciPy's
``choose_conv_method`` picks between its own two methods, which are timed on the problems that it takes.

``python -m convbench.compare.regret`` measures and writes the figures into ``docs/selection.md``; ``--random N``,
``--seconds S``, ``--minutes M`` and ``--output FILE`` change how many problems, how long for each and in all, and
where.  Records do not count; the user's profile does.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from convbench import planning, profile, records, registry, selection
from convbench.compare.rows import ROWS
from convbench.data import sample
from convbench.machine import processor_name
from convbench.outputs import empty
from convbench.spec import ConvSpec
from convbench.timing import interleaved, settle

PAGE = Path("docs/selection.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PUBLIC_GROUPS = ("grouped", "signal", "filters", "im2col")  # the last are the dense layers
RANDOM, SECONDS = 300, 0.1
MOST_MACS, LEAST_MACS = 1.5e9, 1e4  # of a random problem
SLOW = 20.0  # who is predicted to take so many times the best is not timed, as the judge has it
SCIPY_METHODS = ("direct", "fft")
SCIPY_MACS = 3e7  # its direct method takes minutes on large images


@dataclass(frozen=True)
class Choice:
    """One problem: the regret of each chooser (None where it takes no part), and what the model chose."""

    name: str
    text: str
    predicted: float
    measured: float
    chosen: str
    best: str
    scipy: float | None = None


def public() -> list[tuple[str, str]]:
    """Name and text of the public problems of the comparison."""
    found = {row.text: row.name.removeprefix("im2col-") for row in ROWS if row.group in PUBLIC_GROUPS}
    return [(name, text) for text, name in found.items() if not name.startswith("fir-")]


def random_problems(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` problems of one to three dimensions: layers, depthwise layers, images and signals of any size."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        spec = _drawn(rng)
        if spec is not None and LEAST_MACS <= spec.macs <= MOST_MACS:
            found.setdefault(str(spec), f"random {len(found)}")
    return [(name, text) for text, name in found.items()]


def _drawn(rng):
    """A random problem, or None where its sizes clash."""
    ndim = rng.choice([1, 2, 3], p=[0.25, 0.65, 0.1])
    kind = rng.choice(["layer", "depthwise", "single"], p=[0.5, 0.15, 0.35])
    channels = 1 if kind == "single" else int(2 ** rng.uniform(1, 9))
    filters = channels if kind != "layer" else int(2 ** rng.uniform(1, 9))
    most = {1: 15, 2: 10.5, 3: 6}[ndim] - (0 if kind == "single" else ndim > 1 and 3)
    spatial = (
        tuple(int(2 ** rng.uniform(2, most)) for _ in range(ndim))
        if ndim != 2
        else (int(2 ** rng.uniform(2, most)),) * 2
    )
    largest = {1: 9, 2: 6.5, 3: 2.5}[ndim] if kind == "single" else {1: 7, 2: 3.5, 3: 2}[ndim]
    kernel = (int(2 ** rng.uniform(0, largest)),) * ndim
    stride = (int(rng.choice([1, 2], p=[0.8, 0.2])),) * ndim
    dilation = (int(rng.choice([1, 2], p=[0.92, 0.08])),) * ndim
    same = tuple(((k - 1) * d // 2, (k - 1) * d // 2) for k, d in zip(kernel, dilation, strict=True))
    batch = int(rng.choice([1, 1, 1, 4, 16]))
    if any(
        size + low + high < (k - 1) * d + 1
        for size, (low, high), k, d in zip(spatial, same, kernel, dilation, strict=True)
    ):
        return None
    return ConvSpec(
        batch,
        channels,
        filters,
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        padding=same,
        dilation=dilation,
        groups=channels if kind == "depthwise" else 1,
        dtype="float32",
    )


def judge(name: str, text: str, seconds: float) -> Choice | None:
    """Measure one problem; None where nothing but one way computes it."""
    spec = ConvSpec.parse(text)
    selection.forget()
    answer = selection.select(spec)
    able = [candidate for candidate in answer.candidates if candidate.refused is None]
    limit = SLOW * min(candidate.predicted for candidate in able)
    ways = {
        records.name_of(way.name, way.variant): way
        for candidate in able
        if candidate.predicted <= limit
        for way in planning.variants(registry.get(candidate.engine), spec)
    }
    calls = _planned(spec, ways)
    first, second = ({name: t.median for name, t in _timed(calls, seconds).items()} for _ in range(2))
    picked = records.name_of(answer.engine, answer.variant)
    chosen = picked if picked in second else next(iter(second))
    best, quickest = min(second, key=second.get), min(first, key=first.get)
    return Choice(
        name, text, second[chosen] / second[best], second[quickest] / second[best], chosen, best, _scipy(spec, seconds)
    )


def _planned(spec, ways):
    """A call for each way, on sample data."""
    x, weight = sample(spec)
    outputs = {name: empty(spec.output_shape, spec.dtype) for name in ways}
    plans = {name: planning.make_plan(way, spec, weight) for name, way in ways.items()}
    return {name: partial(plan, x, outputs[name]) for name, plan in plans.items()}


def _timed(calls, seconds):
    return interleaved(calls, seconds, rest=settle)


def _scipy(spec, seconds):
    """The regret of SciPy's choice between its own methods; None for a problem that it does not take."""
    from scipy import signal

    single = spec.batch == spec.in_channels == spec.out_channels == 1
    if (
        not single
        or spec.macs > SCIPY_MACS
        or {*spec.stride, *spec.dilation} != {1}
        or any(k > n for k, n in zip(spec.kernel, spec.spatial, strict=True))
    ):
        return None
    x, weight = (array[0, 0] for array in sample(spec))
    flipped = np.ascontiguousarray(np.flip(weight))
    calls = {way: lambda way=way: signal.convolve(x, flipped, "same", method=way) for way in SCIPY_METHODS}
    timings = _timed(calls, seconds)
    return timings[signal.choose_conv_method(x, flipped, "same")].median / min(t.median for t in timings.values())


def table(title: str, choices: Sequence[Choice]) -> list[tuple[str, ...]]:
    """Rows of the summary: chooser, problems, geometric mean, 95th percentile, worst."""
    found = []
    for label, regrets in (
        ("convbench, predicted", [choice.predicted for choice in choices]),
        ("convbench, measured", [choice.measured for choice in choices]),
        ("SciPy's `choose_conv_method`", [choice.scipy for choice in choices if choice.scipy is not None]),
    ):
        if regrets:
            mean = math.exp(float(np.mean(np.log(regrets))))
            cells = (f"{mean:.3f}", f"{np.percentile(regrets, 95):.2f}", f"{max(regrets):.2f}")
            right = sum(regret < 1.05 for regret in regrets) / len(regrets)
            found.append((title, label, str(len(regrets)), *cells, f"{right:.0%}"))
    return found


def page(groups: dict[str, list[Choice]], command: str) -> str:
    """The section's text."""
    header = ("problems", "chooser", "count", "geometric mean", "95th percentile", "worst", "within 5 % of the best")
    rows = [row for title, choices in groups.items() for row in table(title, choices)]
    worst = sorted((c for choices in groups.values() for c in choices), key=lambda c: -c.predicted)[:10]
    lines = [f"Regret (time of the chosen / time of the fastest), by `{command}` on {processor_name()}.\n"]
    lines += ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * 2 + ("---:",) * 5, *rows)]
    lines += ["\nThe predictions that cost most:\n"]
    header = ("problem", "chosen", "fastest", "regret")
    cells = [(f"`{c.text}`", c.chosen, c.best, f"{c.predicted:.2f}") for c in worst]
    lines += ["| " + " | ".join(row) + " |" for row in (header, ("---",) * 3 + ("---:",), *cells)]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _no_records():
    """Within the block nothing is recorded, but the user's profile holds."""
    known, before = profile.load(), os.environ.get(records.DIRECTORY_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[records.DIRECTORY_VARIABLE] = folder
        try:
            if known != profile.SHIPPED:
                profile.save(known)
            yield
        finally:
            os.environ.pop(records.DIRECTORY_VARIABLE)
            if before is not None:
                os.environ[records.DIRECTORY_VARIABLE] = before
            profile.forget()


def write(text: str, path: Path) -> None:
    """Put the text between the marks of a page, or make it one."""
    before, _, rest = path.read_text().partition(BEGIN) if path.exists() else ("# Selection\n\n", "", "")
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m convbench.compare.regret", description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=RANDOM, metavar="N", help=f"random problems (default: {RANDOM})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each timing (default: {SECONDS})")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="measure what that time allows (default: all)"
    )
    parser.add_argument("--output", type=Path, default=PAGE, help=f"the page (default: {PAGE})")
    args = parser.parse_args(arguments)
    from rich.progress import Progress

    groups = {"public": public(), "random": random_problems(args.random)}
    found: dict[str, list[Choice]] = {}
    with _no_records(), Progress(transient=True) as progress:
        for title, problems in groups.items():
            task = progress.add_task(title, total=len(problems))
            end = time.monotonic() + 60 * args.minutes / len(groups)
            for name, text in problems:
                if time.monotonic() > end:
                    break
                found.setdefault(title, []).append(judge(name, text, args.seconds))
                progress.advance(task)
    command = " ".join(["python -m convbench.compare.regret", *(arguments if arguments is not None else sys.argv[1:])])
    text = page(found, command)
    show(text)
    write(text, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
