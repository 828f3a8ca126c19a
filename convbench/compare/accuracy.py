"""Time against error: every engine on a few problems, written to ``docs/accuracy.md``.

``python -m convbench.compare.accuracy [FILE]``
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from convbench import display, planning, registry, settings
from convbench.data import sample
from convbench.engine import unit_roundoff
from convbench.machine import processor_name
from convbench.outputs import empty
from convbench.spec import ConvSpec
from convbench.timing import interleaved
from convbench.verify import expected, measured_error

PAGE = Path("docs/accuracy.md")
PROBLEMS = (
    "mb1ic64ih56oc64oh56kh3ph1",
    "mb1ic256ih14oc256oh14kh3ph1",
    "mb1ic64ih60iw80oc64oh60ow80kh5kw5ph2pw2",
    "mb1ic64ih30iw40oc64oh30ow40kh7kw7ph3pw3",
    "mb1ic1ih256oc1oh256kh15ph7",
)
DTYPES = ("float32", "float64")
SECONDS = 1.5  # of timing per problem and dtype
DATA = {"both signs": lambda x: x, "positive": np.abs}

HEAD = """# Accuracy

Written by `python -m convbench.compare.accuracy` on {date}; {processor}, {threads} threads.

The error is `‖y - r‖₂ / ‖ |x| ∗ |w| ‖₂` with r in a wider type, in units of the dtype's roundoff u (2⁻²⁴ for
float32, 2⁻⁵³ for float64), for data uniform in [-1, 1) ("both signs") and for their magnitudes ("positive").
The bound is the one by which `rtol` decides; for direct, im2col and toeplitz it is the componentwise worst
case of any order of summation, for the others that of data of even magnitude.  An engine is on the front (●) if
none that is faster is as exact, by the error of both signs.

## Why Winograd is allowed by default

Without `rtol` any engine may be chosen.  The products of F(m, r) are sums of numbers larger than those of
the direct sum, and cancel; on the other hand each sums over the channels only, not over the taps as well.  With the
points of [`winograd_matrices.py`](../engines/jit/winograd_matrices.py) the two nearly balance: F(2, 3) is more exact
than the direct sum, F(4, 3) up to twice as far off for data of both signs and nearer for positive data, F(6, 3),
F(4, 5) and F(2, 7) up to five times as far off.  All stay under a tenth of what the direct sum's own a-priori bound
allows.  Who minds says so: `rtol` takes away first the engines with large tiles.

A worst case exists for Winograd, too: γ · |Aᵀ| [Σ |G| |g| |Gᵀ| ⊙ |Bᵀ| |d| |B|] |A| bounds every output whatever the
data (`tests/test_winograd.py` holds it to that), but relative to `|x| ∗ |w|` it has no limit: where a window holds
only small numbers and the rest of its tile large ones, the output takes the rounding errors of the large ones.

## Errors and times
"""


@dataclass(frozen=True)
class Entry:
    """One engine on one problem: seconds, errors by kind of data and bound, in u."""

    engine: str
    seconds: float
    errors: dict[str, float]
    bound: float


def measure(spec: ConvSpec, seconds: float) -> list[Entry]:
    """Every engine that computes `spec` and that ``engine="auto"`` may pick, the fastest first."""
    able = [engine for engine in registry.engines().values() if engine.automatic and not engine.why_unsupported(spec)]
    x, weight = sample(spec)
    plans = {engine.name: planning.make_plan(engine, spec, weight) for engine in able}
    calls = {name: partial(plan, x, empty(spec.output_shape, spec.dtype)) for name, plan in plans.items()}
    timings = interleaved(calls, seconds)
    u = unit_roundoff(spec.dtype)
    errors = {name: {} for name in timings}
    for kind, change in DATA.items():
        data = change(x), change(weight)
        exact, scale = expected(spec, *data)
        for name in timings:
            out = np.empty(spec.output_shape, spec.dtype)
            planning.make_plan(registry.get(name), spec, data[1])(data[0], out)
            errors[name][kind] = measured_error("l2", out, exact, scale) / u
    found = [
        Entry(name, timing.median, errors[name], registry.get(name).error_bound(spec) / u)
        for name, timing in timings.items()
    ]
    return sorted(found, key=lambda entry: entry.seconds)


def front(entries: list[Entry]) -> set[str]:
    """Names of the engines that no faster one is as exact as."""
    names, least = set(), np.inf
    for entry in entries:
        error = next(iter(entry.errors.values()))
        if error < least:
            names.add(entry.engine)
            least = error
    return names


def table(entries: list[Entry]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| engine | time | " + " | ".join(f"error, {kind}" for kind in DATA) + " | bound | |", "|---" * 6 + "|"]
    best = front(entries)
    for entry in entries:
        errors = " | ".join(f"{entry.errors[kind]:.2g} u" for kind in DATA)
        mark = "●" if entry.engine in best else ""
        lines.append(f"| {entry.engine} | {display.seconds(entry.seconds)} | {errors} | {entry.bound:.3g} u | {mark} |")
    return lines


def page(problems=PROBLEMS, seconds: float = SECONDS) -> str:
    """The text of ``docs/accuracy.md``."""
    date = np.datetime64("today")
    lines = [HEAD.format(date=date, processor=processor_name(), threads=settings.get_num_threads())]
    for text in problems:
        for dtype in DTYPES:
            spec = ConvSpec.parse(text).replace(dtype=dtype)
            lines += [f"### {text}, {dtype}", "", *table(measure(spec, seconds)), ""]
    return "\n".join(lines)


def main(arguments=None):
    """The command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m convbench.compare.accuracy",
        description="Time every engine on a few problems, measure its error, and write both as a page.",
        epilog="It takes some minutes.  example: python -m convbench.compare.accuracy accuracy.md",
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, default=PAGE, help=f"where the page goes (default: {PAGE})"
    )
    file = parser.parse_args(arguments).file
    if not file.parent.is_dir():
        parser.error(f"{file}: {file.parent} is no folder; one that exists is accepted")
    file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
