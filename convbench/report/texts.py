"""What the report's sections say, and what it says of sections for which nothing was measured."""

from __future__ import annotations

from convbench.report import amortise, roof
from convbench.report.results import CLOSE, Report


def sections(base: str) -> dict[str, tuple[str, str]]:
    """Heading and explanation of every section with figures, by its key in `plots`."""
    return {
        "maps": (
            "Which engine is fastest",
            "Image size upwards, kernel across, three maps for each number of channels. Fastest engine: marker and "
            "colour tell which, the number is its lead (the runner-up's time / its own; below "
            f"{CLOSE:.2f}× the cell is pale: too close to call). Speed-up: the time of {base} / the fastest's. "
            "Regret: the engine that the judge picks before anything is measured, and its time / the fastest's. "
            "Labels: input→output channels, size, then stride (/2), dilation (d2), groups (g2) and batch (b4) where "
            "they are not 1.",
        ),
        "curves": (
            "Where the lead changes",
            "Median time of one call over the kernel's width, both logarithmic. Dashed: the kernel "
            "width at which the lead passes on, interpolated between the measured ones.",
        ),
        "suites": (
            "Layers and signals",
            "Median time of one call, logarithmic; the grey bar spans all engines.",
        ),
        "errors": (
            "Errors",
            "A marker for each problem: the error against the reference in higher precision, as a part of what "
            "rounding may cost that engine. Right of the line it would be wrong; exact results are at the left edge.",
        ),
        "roofline": (
            "Roofline",
            "The fastest engine of each problem, by the operations of the definition, under the measured peak and "
            "bandwidth. Engines that multiply less than the definition may stand above the roof.",
        ),
        "scaling": (
            "Thread scaling",
            "One thread's time / the time at so many threads, for the engine that was the fastest at all of them, on "
            "the problems of each suite that take longest. The band is that of the time at so many threads. Dashed: "
            "the ideal.",
        ),
    }


def absent(report: Report) -> list[str]:
    """A sentence for everything that this report would show if it had been measured."""
    notes = []
    if not roof.known(report):
        notes.append("Roofline: this run's data have no measured peak and bandwidth.")
    if not amortise.known(report):
        notes.append("Amortisation: this run's data have no planning times.")
    if not report.scaling:
        notes.append("Thread scaling: this run's data have no times at several numbers of threads.")
    return notes
