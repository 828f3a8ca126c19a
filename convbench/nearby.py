"""Problems that differ in batch and input size alone, and by little: they share a measured engine."""

from __future__ import annotations

import heapq
import math
from functools import cache
from pathlib import Path

from convbench import records
from convbench.spec import ConvSpec

NEAR = 1.5  # batch and each size of near problems differ by no more than this factor
# Files of records that a process looks through for near problems, the newest ones: each takes some 100 µs to
# parse, so all of them less than one measurement.
MOST_FILES = 2048


def distance(spec: ConvSpec, other: ConvSpec) -> float:
    """Sum of the logarithms of the factors by which batch and sizes differ; infinite where they are not near."""
    if _family(spec) != _family(other):
        return math.inf
    pairs = list(zip((spec.batch, *spec.spatial), (other.batch, *other.spatial), strict=True))
    if not all(min(pair) and max(pair) <= NEAR * min(pair) for pair in pairs):
        return math.inf
    return sum(math.log(max(pair) / min(pair)) for pair in pairs)


def recorded(spec: ConvSpec) -> list[ConvSpec]:
    """Near problems that the user has records of in this environment, the nearest first.

    As of the first question in this process, or after `forget`: what it measures itself it remembers otherwise.
    """
    known = _problems(records.path_of(spec, records.directory()).parent)
    found = [(distance(spec, other), other) for other in known]
    return [other for far, other in sorted(found, key=lambda item: item[0]) if far < math.inf]


def forget() -> None:
    """Look at the files again the next time."""
    _problems.cache_clear()


def _family(spec):
    """A spec but for batch and sizes; high padding depends on sizes where there are strides."""
    padding = tuple(
        (low, high if stride == 1 else None) for (low, high), stride in zip(spec.padding, spec.stride, strict=True)
    )
    same = (spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.dilation, spec.groups)
    return (*same, padding, spec.dtype, spec.memory_format, spec.padding_mode)


@cache
def _problems(folder: Path) -> tuple[ConvSpec, ...]:
    """The problems of the records in a folder; files that are gone or damaged are left to who loads them."""
    try:
        aged = [(path.stat().st_mtime, path) for path in folder.glob("*.json")]
    except OSError:
        return ()
    found = []
    for _, path in heapq.nlargest(MOST_FILES, aged):
        try:
            found.append(ConvSpec.parse(records.Stored.parse(path.read_text(encoding="utf-8")).problem))
        except (OSError, *records.MALFORMED):
            continue
    return tuple(found)
