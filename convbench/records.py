"""What was measured, kept on disk: one file per problem and environment, every engine's timings.

    <user cache>/convbench/v<schema>/<environment hash>/<problem hash>.json

Written to a temporary file that then takes the name (`os.replace`), so a reader sees a whole
record or none, on network file systems and with concurrent writers too; of two writers at the
same moment, one file wins whole.  The full key stands inside and is checked on reading.  What
can't be read counts as missing, what can't be written is dropped, each with one warning.

Records that an application ships are looked up after the user's, in the directories that
``CONVBENCH_SHIPPED_RECORDS`` names, in the same form below ``v<schema>``; nothing is written there.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from convbench import forks, settings
from convbench.machine import this_machine
from convbench.spec import ConvSpec

SCHEMA = 1
PACKAGES = ("convbench", "numpy", "scipy", "pyfftw", "numba")
DIRECTORY_VARIABLE = "CONVBENCH_CACHE_DIR"
SHIPPED_VARIABLE = "CONVBENCH_SHIPPED_RECORDS"

_warned: set[str] = set()


@dataclass(frozen=True)
class EngineTiming:
    """One engine's part of a record: seconds, samples, bytes, and its error against the reference."""

    median: float
    q1: float
    q3: float
    samples: int
    workspace_bytes: int
    error: float | None
    version: str


@dataclass(frozen=True)
class Record:
    """Every engine's timing of one problem in one environment."""

    problem: str
    timings: dict[str, EngineTiming]
    shipped: frozenset[str] = frozenset()  # engines whose timing is not the user's own


def name_of(engine: str, variant: str) -> str:
    """What a timing is called in records: that of one variant, or with one weight, says nothing of another."""
    return f"{engine}, {variant}" if variant else engine


def directory() -> Path:
    """Where the user's records live: ``CONVBENCH_CACHE_DIR``, or the system's cache folder."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given)
    with forks.held_off:
        from platformdirs import user_cache_path

    return user_cache_path("convbench", appauthor=False)


def environment() -> dict:
    """What timings depend on beside the problem; not the host's name, nor a clock reading."""
    machine = this_machine(settings.get_num_threads())
    return {
        "model": machine.model,
        "isa": list(machine.isa),
        "cores": machine.cores,
        "threads": machine.threads,
        "packages": {name: _version(name) for name in PACKAGES},
    }


@cache
def _version(package):
    with forks.held_off:
        from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def path_of(spec: ConvSpec, base: Path) -> Path:
    """The file of a problem's record below `base`."""
    return base / f"v{SCHEMA}" / _environment_hash(settings.get_num_threads()) / f"{_hash(str(spec))}.json"


def load(spec: ConvSpec) -> Record | None:
    """The user's record of `spec`, completed by shipped ones; None where there is neither."""
    own = _read(path_of(spec, directory()), str(spec))
    timings = dict(own)
    for base in shipped_directories():
        timings = {**_read(path_of(spec, base), str(spec)), **timings}
    return Record(str(spec), timings, frozenset(timings.keys() - own.keys())) if timings else None


def shipped_directories() -> list[Path]:
    """Directories of records that came with an application."""
    return [Path(part) for part in os.environ.get(SHIPPED_VARIABLE, "").split(os.pathsep) if part]


def save(spec: ConvSpec, timings: Mapping[str, EngineTiming]) -> bool:
    """Merge `timings` into the user's record of `spec`; False, after one warning, if it can't be written."""
    path = path_of(spec, directory())
    merged = {**_read(path, str(spec)), **timings}
    content = {
        "schema": SCHEMA,
        "problem": str(spec),
        "environment": environment(),
        "timings": {name: asdict(timing) for name, timing in merged.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=1))
    except OSError as error:
        _warn_once(f"records are not kept: {path.parent} can't be written ({error.strerror or error})")
        return False
    return True


def write_whole(path: Path, text: str) -> None:
    """Write a file that others see as it was or as it will be, never half written.

    Raises
    ------
    OSError
        It can't be written; nothing is left behind.
    """
    with forks.held_off:
        import tempfile  # here, as with hashlib below: only a program that comes this far pays for the import

    handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:  # an interrupt too: leave no half-written file behind
        os.unlink(temporary)
        raise


def _read(path, problem) -> dict[str, EngineTiming]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        _warn_once(f"the record {path} can't be read and counts as missing ({error})")
        return {}
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA or content["problem"] != problem or content["environment"] != environment():
            raise ValueError("it describes another problem or environment")
        return {name: _timing(entry) for name, entry in content["timings"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _warn_once(f"the record {path} is malformed and counts as missing ({error!r})")
        return {}


def _timing(entry) -> EngineTiming:
    timing = EngineTiming(**entry)
    seconds = (timing.q1, timing.median, timing.q3)
    if not all(isinstance(value, (int, float)) and 0 < value < float("inf") for value in seconds):
        raise ValueError(f"seconds {seconds} are not positive numbers")
    if not isinstance(timing.error, (int, float, type(None))):
        raise ValueError(f"error {timing.error!r} is not a number")
    return timing


def _warn_once(message):
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


@cache
def _environment_hash(threads):
    return _hash(json.dumps(environment(), sort_keys=True))


def _hash(text):
    with forks.held_off:
        import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:24]
