"""Amortisation: planning costs once, every call costs again; which engine is cheapest after so many calls."""

from __future__ import annotations

import math

from convbench.report.results import Report, Row

CALLS = (1, 10, 100, 1000)


def planned(row: Row) -> bool:
    """Whether the seconds of planning are known for every measured engine."""
    return bool(row.measured) and all(entry.plan_seconds is not None for entry in row.measured.values())


def known(report: Report) -> list[Row]:
    """The rows that can be told about."""
    return [row for row in report.rows if planned(row)]


def cheapest(row: Row, calls: int) -> str:
    """The engine with the smallest time of a plan and `calls` calls."""
    return min(row.measured, key=lambda name: row.measured[name].plan_seconds + calls * row.measured[name].median)


def pays_from(row: Row) -> int:
    """The number of calls from which the fastest engine is also the cheapest, planning included."""
    fastest = row.measured[row.best]
    needed = [1]
    for other in row.measured.values():
        dearer, saved = fastest.plan_seconds - other.plan_seconds, other.median - fastest.median
        if dearer > 0 and saved > 0:
            needed.append(math.ceil(dearer / saved))
    return max(needed)
