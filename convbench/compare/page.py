"""``performance.md``: every figure of a comparison, misses as misses."""

from __future__ import annotations

from pathlib import Path

from convbench import display
from convbench.compare import crossover, gauge, protocol, roofline
from convbench.compare.crossover import Point
from convbench.compare.goals import ceiling, verdicts
from convbench.compare.results import COPY, INTO, PEAK, Comparison, Result, mean_ratio
from convbench.compare.rows import COPY_ROW, Group
from convbench.compare.table import percent

NAME = "performance.md"
WORST = 12


def write(comparison: Comparison, folder: Path, points: tuple[Point, ...] = ()) -> list[Path]:
    """Write the page and its plots into `folder`, which is made; returns the files, the page first.

    Without `points` the page has no section about crossovers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(page(comparison, points), encoding="utf-8")
    plots = [roofline.write(comparison, folder)]
    return [path, *plots, crossover.write(points, folder)] if points else [path, *plots]


def page(comparison: Comparison, points: tuple[Point, ...] = ()) -> str:
    """The page's text."""
    parts = [
        "# Performance\n",
        _machine(comparison),
        _summary(comparison),
        _goals(comparison),
        _ceiling(comparison),
        _worst(comparison),
        _roofline(comparison),
        _crossover(points),
        *(_group(comparison, group, results) for group, results in comparison.groups()),
        _protocol(comparison),
        _problems(comparison),
    ]
    return "\n".join(part for part in parts if part)


def _table(header, rows, left=1):
    """A Markdown table: the first `left` columns left-aligned, the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + "|".join("---" if column < left else "---:" for column in range(len(header))) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _ratio(value):
    return "–" if value is None else f"{value:.2f}"


def _machine(comparison):
    limits, low = comparison.limits, comparison.lowest
    peaks = [
        f"{dtype} {limits.peaks[dtype] / 1e9:.0f} (lowest {low.peaks[dtype] / 1e9:.0f}) GFLOP/s"
        for dtype in limits.peaks
    ]
    versions = ", ".join(
        f"{name} {version}" for name, version in comparison.versions.items() if version and " " not in name
    )
    missing = f" Not installed, left out: {', '.join(comparison.missing)}." if comparison.missing else ""
    return (
        f"Written by `{comparison.command}` on {comparison.date}; engine `{comparison.engine}`, "
        f"{comparison.threads} threads.\n\n"
        f"- machine: {comparison.processor}\n"
        f"- multiply-add peak, highest of the measurements between the groups: {', '.join(peaks) or 'not measured'}\n"
        f"- copy of 64 MiB to 64 MiB, read + written: {limits.bandwidth / 1e9:.0f} "
        f"(lowest {low.bandwidth / 1e9:.0f}) GB/s\n"
        f"- peers: {versions}, SciPy's functions; float32 unless a row says f64.{missing}\n\n"
        "A ratio is a peer's median time divided by ours: above 1 convbench is faster. GFLOP/s count two for each\n"
        "multiply-add of the dense sum, border taps included, so code that leaves out products with padding or\n"
        "multiplies less may pass the peak.\n"
    )


def _summary(comparison):
    rows = []
    for group, results in comparison.groups():
        ratios = [ratio for result in results if (ratio := result.ratio()) is not None]
        rows.append(
            (
                group.title,
                str(len(results)),
                _ratio(mean_ratio(results)),
                _ratio(mean_ratio(results, group.rivals) if group.rivals else None),
                _ratio(min(ratios, default=None)),
                f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}",
            )
        )
    header = ("group", "rows", "geometric mean, best of all peers", "over the goal's rivals", "worst row", "rows ahead")
    return "## In short\n\n" + _table(header, rows)


def _goals(comparison):
    found = verdicts(comparison)
    if not found:
        return ""
    rows = [(v.group, v.goal, v.reached, "met" if v.met else "**missed**") for v in found]
    return "## Goals\n\n" + _table(("group", "goal", "reached", ""), rows, left=4)


def _ceiling(comparison):
    """What the goals of the ratio kind could be at most, in the dense group, on this machine."""
    lines = []
    for group, results in comparison.groups():
        found = ceiling(results, comparison.limits) if group.key == "dense" else None
        if found is None:
            continue
        near, mean = found
        lines.append(
            f"On {near} of {len(results)} rows of “{group.title}” the better of {' and '.join(group.rivals)}\n"
            f"already runs above {1 / group.mean:.0%} of this machine's multiply-add peak: no code that makes the\n"
            f"same multiplications can be {group.mean:g} times as fast there. Code at 100 % of the peak on every row\n"
            f"would have a geometric mean of {mean:.2f}; convbench has {mean_ratio(results, group.rivals):.2f}.\n"
        )
    return "\n".join(lines)


def _worst(comparison):
    rated = sorted((r for r in comparison.results if r.ratio() is not None), key=Result.ratio)[:WORST]
    rows = [(r.row.name, r.row.group, *_figures(comparison, r)) for r in rated]
    return f"## The {len(rows)} worst rows\n\n" + _table(("row", "group", *_FIGURES), rows, left=2) if rows else ""


_FIGURES = ("time", "GFLOP/s", "% of peak", "best peer", "its time", "ratio")


def _figures(comparison, result):
    share = result.peak_share(comparison.limits)
    best = result.best()
    theirs = ("–", "–") if best is None else (best, display.seconds(result.timings[best].median))
    ours = (display.seconds(result.seconds), f"{result.flops / 1e9:.1f}", percent(share))
    return (*ours, *theirs, _ratio(result.ratio()))


def _roofline(comparison):
    return (
        "## Roofline\n\n"
        f"![GFLOP/s over arithmetic intensity]({roofline.NAME})\n\n"
        "Dots are rows, hollow ones float64. Intensity counts each byte of input, weight and output once; a row whose\n"
        "arrays stay in the caches may lie above the line of the copy's bandwidth.\n"
    )


def _crossover(points):
    """The plot, and where the transform overtakes the sum."""
    if not points:
        return ""
    found = []
    for size in sorted({point.size for point in points}):
        at = crossover.crossing([point for point in points if point.size == size], "direct", "fft")
        found.append((f"{size}²", "–" if at is None else f"{at:.0f}"))
    return (
        "## Crossovers\n\n"
        f"![Time of each engine over the kernel size]({crossover.NAME})\n\n"
        "One channel, float32, zeros around the image, plans made before. A line ends where a call takes longer\n"
        f"than {display.seconds(crossover.LONG_SECONDS)}, or where the engine refuses (`toeplitz`: a matrix over its\n"
        "limit).\n\n" + _table(("image", "`fft` is faster than `direct` from k ≈"), found)
    )


def _group(comparison: Comparison, group: Group, results):
    rivals = "" if not group.rivals or group.rivals == group.peers else "over rivals"
    rows = []
    for result in results:
        cells = (f"`{result.row.name}`", *_figures(comparison, result))
        rows.append((*cells, _ratio(result.ratio(group.rivals))) if rivals else cells)
    header = ("row", *_FIGURES, rivals) if rivals else ("row", *_FIGURES)
    text = f"## {group.title}\n\n"
    if rivals:
        text += f"Rivals of the goal: {', '.join(group.rivals)}. Timed: {', '.join(group.peers)}.\n\n"
    if any(PEAK in r.timings for r in results):
        text += (
            "The peak of these rows is a call of as many multiply-adds, and nothing else, timed in the same rounds as\n"
            "the libraries.\n\n"
        )
    text += _table(header, rows)
    text += "".join(_copy_line(r) for r in results if r.copy_share is not None)
    return text + "".join(f"\n`{r.row.name}`: {note}.\n" for r in results for note in r.notes)


def _copy_line(result):
    into, copy = result.timings[INTO].median, result.timings[COPY].median
    speed = result.spec.data_bytes / into / 1e9
    return (
        f"\n`{COPY_ROW}` into a given output takes {display.seconds(into)}, {speed:.1f} GB/s:\n"
        f"{result.copy_share:.0%} of the bandwidth of a copy of its input to the same output\n"
        f"({display.seconds(copy)}) in the same rounds. The table's {display.seconds(result.seconds)} include, like\n"
        "every row, a new output for each call.\n"
    )


def _protocol(comparison):
    if comparison.strict:
        fewest, most = protocol.STRICT_ROUNDS
        how = (
            f"Call by call: one call of each contender in turn, in rotating order, without pauses, for about\n"
            f"{protocol.STRICT_SECONDS:g} s per contender ({fewest} to {most} rounds). Medians of the calls."
        )
    else:
        fewest, most = comparison.rounds
        how = (
            f"Blocks: {fewest} rounds, or up to {most} while the ratio of near rivals is not known to\n"
            f"{protocol.SURE:.0%}, in each of them every contender once, in rotating order: a pause of\n"
            f"{protocol.PAUSE_SECONDS * 1e3:g} ms, {protocol.WARM_SECONDS * 1e3:g} ms (at least a call) to warm\n"
            f"up, then {protocol.BLOCK_SECONDS * 1e3:g} ms (at least a call) timed call by call, short calls several\n"
            "to a sample. The figure is the median of the blocks' medians. The pause is there because idle threads of\n"
            "PyTorch, ONNX Runtime and OpenVINO spin for milliseconds after a call and take a core from whoever is\n"
            "called next; `--strict` alternates call by call without pauses instead.\n\n"
            f"The peak is looked at between the rounds, and a round counts only if it is above {gauge.STEADY:.0%} of\n"
            "the highest before and after it: a virtual machine's cores may for seconds be two threads of one real\n"
            f"core, and code near the peak then takes twice as long. Repeated for that: {comparison.repeated} rounds."
            + ("\n" if comparison.patient else " In the\nend the patience was used up, and unsteady rounds count.\n")
        )
    return (
        "## How it was measured\n\n"
        f"One process, {comparison.threads} threads for everyone. Each peer's output is compared with ours before it\n"
        "is timed; who differs is left out and named. Models are built, weights packed and memory formats converted\n"
        f"before. Who takes {protocol.HOPELESS:g} times the best in a first look keeps that figure.\n\n{how}\n"
    )


def _problems(comparison):
    rows = [(f"`{r.row.name}`", f"`{r.row.text}`", r.row.source) for r in comparison.results]
    return "## The problems\n\nIn benchdnn's notation, with their source.\n\n" + _table(
        ("row", "problem", "source"), rows, left=3
    )
