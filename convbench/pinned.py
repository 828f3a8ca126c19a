"""Shipped records as a deterministic choice reads them: those of every machine alike.

A record lies below the hash of the environment that it was measured in, and elsewhere counts for that environment
alone.  Where the same program must pick the same engines on every machine, the hash must not matter: the first
record of a problem counts, in the order of the directories and of the hashes' text, whoever measured it.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path

from convbench import records
from convbench.spec import ConvSpec


def load(spec: ConvSpec) -> records.Record | None:
    """The first shipped record of `spec`, of whatever environment; None where there is none."""
    for base in records.shipped_directories():
        here = records.path_of(spec, base)
        for path in sorted(here.parent.parent.glob(f"*/{here.name}")):
            timings = _read(path, str(spec))
            if timings:
                return records.Record(str(spec), timings, frozenset(timings))
    return None


def _read(path: Path, problem: str) -> dict[str, records.EngineTiming]:
    try:
        content = json.loads(path.read_text())
        if content["schema"] != records.SCHEMA or content["problem"] != problem:
            raise ValueError("it describes another problem")
        timings = {name: records.EngineTiming(**entry) for name, entry in content["timings"].items()}
        if not all(0 < timing.median < float("inf") for timing in timings.values()):
            raise ValueError("its seconds are not positive numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _warn_once(f"the shipped record {path} can't be read and counts as missing ({error!r})")
        return {}
    return timings


@cache
def _warn_once(message):
    warnings.warn(message, RuntimeWarning, stacklevel=5)
