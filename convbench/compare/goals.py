"""The project's goals for these rows, and what of them is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convbench import display
from convbench.compare.limits import Limits
from convbench.compare.memory import MEMORY_PART
from convbench.compare.results import Comparison, Result, geometric_mean, mean_ratio
from convbench.compare.rows import COPY_SHARE, PEAK_SHARES, SHORT_SECONDS, TIE_SECONDS, Group, group_of


@dataclass(frozen=True)
class Verdict:
    """A goal, what was reached, and whether that is enough."""

    group: str
    goal: str
    reached: str
    met: bool


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Every goal that the rows measured have."""
    found = []
    for group, results in comparison.groups():
        if group.mean is not None:
            found += _ratio_goals(group, results)
        if group.key == "image":
            found += _copy_goal(group, results)
        if group.key == "peak":
            found += _peak_goals(group, results, comparison.limits)
        if group.key == "signal":
            found += _signal_goal(group, results)
    return found + _memory_goal(comparison.memory)


def ceiling(results: Sequence[Result], limits: Limits) -> tuple[int, float] | None:
    """How far arithmetic at the peak could get on these rows.

    Returns
    -------
    tuple of int and float, or None
        On how many rows the best rival is so near the peak that code without fewer multiplications
        cannot reach the group's mean; and the geometric mean that code at the peak would have.
    """
    pairs = [
        (limits.peaks[spec.dtype] * result.timings[best].median / (2 * spec.macs), group)
        for group, result, spec, best in _with_rivals(results)
        if spec.dtype in limits.peaks
    ]
    if not pairs:
        return None
    return sum(room < group.mean for room, group in pairs), geometric_mean([room for room, _ in pairs])


def _with_rivals(results):
    for result in results:
        group = group_of(result.row)
        best = result.best(group.rivals)
        if best is not None:
            yield group, result, result.spec, best


def _ratio_goals(group: Group, results):
    ratios = {r.row.name: ratio for r in results if (ratio := r.ratio(group.rivals)) is not None}
    if not ratios:
        return
    whom = " / ".join(group.rivals)
    mean = mean_ratio(results, group.rivals)
    yield Verdict(
        group.title, f"geometric mean ≥ {group.mean:g} over the best of {whom}", f"{mean:.2f}", mean >= group.mean
    )
    worst = min(ratios, key=ratios.get)
    under = sum(ratio < group.floor for ratio in ratios.values())
    reached = f"{under} of {len(ratios)} under; least {ratios[worst]:.2f} ({worst})"
    yield Verdict(group.title, f"no row under {group.floor:g}", reached, not under)
    for peer, least in group.apart:
        mean = mean_ratio(results, (peer,))
        if mean is not None:
            goal = f"geometric mean ≥ {least:g} over {peer}"
            yield Verdict(group.title, goal, f"{mean:.2f}", mean >= least)


def _copy_goal(group, results):
    for result in results:
        share = result.copy_share
        if share is not None:
            goal = f"{result.row.name} into a given output ≥ {COPY_SHARE:.0%} of the bandwidth of a copy of its arrays"
            yield Verdict(group.title, goal, f"{share:.0%}", share >= COPY_SHARE)


def _peak_goals(group, results, limits):
    for dtype, least in PEAK_SHARES.items():
        shares = {r.row.name: r.peak_share(limits) for r in results if r.spec.dtype == dtype}
        shares = {name: share for name, share in shares.items() if share is not None}
        if shares:
            worst = min(shares, key=shares.get)
            reached = f"{shares[worst]:.0%} ({worst}) to {max(shares.values()):.0%}"
            yield Verdict(
                group.title, f"{dtype} ≥ {least:.0%} of its peak on every row", reached, shares[worst] >= least
            )


def _memory_goal(memory):
    if memory is None:
        return []
    least = f"{display.size(memory.image_bytes // MEMORY_PART)} more at its peak than its arrays"
    goal = f"an image of {memory.title} takes at most a {MEMORY_PART}th of the image, {least}"
    return [
        Verdict(
            "Memory", goal, display.size(memory.extra_bytes), memory.extra_bytes * MEMORY_PART <= memory.image_bytes
        )
    ]


def _signal_goal(group, results):
    behind = []
    for result in results:
        best = result.best(group.rivals)
        theirs = result.timings[best].median if best else result.seconds
        allowed = TIE_SECONDS if theirs < SHORT_SECONDS else 0.0
        if result.seconds > theirs + allowed:
            behind.append(f"{result.row.name} ({theirs / result.seconds:.2f})")
    goal = (
        f"ahead of {' / '.join(group.rivals)} on each row; where the best takes under "
        f"{display.seconds(SHORT_SECONDS)}, at most {display.seconds(TIE_SECONDS)} behind"
    )
    yield Verdict(group.title, goal, f"behind on {', '.join(behind)}" if behind else "yes", not behind)
