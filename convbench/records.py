"""What was measured, kept on disk: one file per problem and environment, every engine's timings.

    <user cache>/convbench/v<schema>/<environment hash>/<problem hash>.json

Written to a temporary file that then takes the name (`os.replace`), so a reader sees a whole
record or none, on network file systems and with concurrent writers too; of two writers at the
same moment, one file wins whole.  The full key and a checksum stand inside and are checked on
reading, so that a file which a disk has altered counts as missing.  What can't be read counts as
missing, what can't be written is dropped, each with one warning.

Records that an application ships are looked up in the directories that
``CONVBENCH_SHIPPED_RECORDS`` names, in the same form below ``v<schema>``; nothing is written there.
Two kinds may lie there:

    v<schema>/<environment hash>/<problem hash>.json    completes the user's record of that environment
    v<schema>/any/<problem hash>.json                   pinned: replaces every other record of the problem

A pinned record holds on every machine and for every number of threads: the engine that was the
fastest where it was measured is taken everywhere.  A folder ``any`` among the user's own records
means nothing.
"""

from __future__ import annotations

import contextlib
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

SCHEMA = 2  # 1 had no checksum
ANY = "any"  # in the place of an environment: a pinned record, which holds in all of them
PACKAGES = ("convbench", "numpy", "scipy", "pyfftw", "numba")
DIRECTORY_VARIABLE = "CONVBENCH_CACHE_DIR"
SHIPPED_VARIABLE = "CONVBENCH_SHIPPED_RECORDS"
TEMPORARY = ".tmp"  # the ending of files that are being written

# What a file of another form raises while it is taken apart.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

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
    """Every engine's timing of one problem, as the judge takes it."""

    problem: str
    timings: dict[str, EngineTiming]
    shipped: frozenset[str] = frozenset()  # engines whose timing is not the user's own
    pinned: bool = False  # an application fixed them: nothing measured here counts beside them


@dataclass(frozen=True)
class Stored:
    """A record as it lies in a file: of one problem in one environment, or in any (`ANY`)."""

    problem: str
    environment: dict | str
    timings: dict[str, EngineTiming]

    def path(self, base: Path) -> Path:
        """Its file below `base`."""
        return path_in(base, hash_of(self.environment), self.problem)

    def text(self) -> str:
        """The file's content."""
        content = {"schema": SCHEMA, "problem": self.problem, "environment": self.environment}
        content["timings"] = {name: asdict(timing) for name, timing in self.timings.items()}
        return sealed(content)

    @classmethod
    def parse(cls, text: str) -> Stored:
        """Read what `text` wrote; one of `MALFORMED` where it is anything else."""
        content = unsealed(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}; {SCHEMA} is accepted")
        return cls(content["problem"], content["environment"], timings_from(content["timings"]))


def sealed(content: Mapping) -> str:
    """`content` as JSON with its checksum inside."""
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1)


def unsealed(text: str) -> dict:
    """The content of a sealed text; one of `MALFORMED` where the checksum is not that of the content."""
    content = json.loads(text)
    given = content.pop("checksum", None)
    if given != _checksum(content):
        raise ValueError("its checksum is not that of its content: it was altered or damaged")
    return content


def _checksum(content):
    return _hash(json.dumps(content, sort_keys=True))


def timings_from(entries: Mapping) -> dict[str, EngineTiming]:
    """Timings from the form in files; one of `MALFORMED` where a field is missing or no possible value."""
    return {name: _timing(entry) for name, entry in entries.items()}


def name_of(engine: str, variant: str) -> str:
    """What a timing is called in records: that of one variant, or with one weight, says nothing of another."""
    return f"{engine}, {variant}" if variant else engine


def engine_of(name: str) -> str:
    """The engine's part of what `name_of` made."""
    return name.partition(", ")[0]


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
    """The file of a problem's record below `base`, in this environment."""
    return path_in(base, _environment_hash(settings.get_num_threads()), str(spec))


def path_in(base: Path, environment_hash: str, problem: str) -> Path:
    """The file of a problem's record below `base`, in the environment of that hash."""
    return base / f"v{SCHEMA}" / environment_hash / f"{_hash(problem)}.json"


def hash_of(environment: Mapping | str) -> str:
    """The name of an environment's folder."""
    return ANY if environment == ANY else _hash(json.dumps(environment, sort_keys=True))


def load(spec: ConvSpec) -> Record | None:
    """The pinned record of `spec`, else the user's, completed by shipped ones; None where there is none."""
    problem = str(spec)
    shipped = shipped_directories()
    for base in shipped:
        pinned = _read(path_in(base, ANY, problem), problem, ANY)
        if pinned:
            return Record(problem, pinned, frozenset(pinned), pinned=True)
    here = environment()
    own = _read(path_of(spec, directory()), problem, here)
    timings = dict(own)
    for base in shipped:
        timings = {**_read(path_of(spec, base), problem, here), **timings}
    return Record(problem, timings, frozenset(timings.keys() - own.keys())) if timings else None


def shipped_directories() -> list[Path]:
    """Directories of records that came with an application."""
    return [Path(part) for part in os.environ.get(SHIPPED_VARIABLE, "").split(os.pathsep) if part]


def save(spec: ConvSpec, timings: Mapping[str, EngineTiming]) -> bool:
    """Merge `timings` into the user's record of `spec`; False, after one warning, if it can't be written."""
    problem, here = str(spec), environment()
    path = path_of(spec, directory())
    merged = {**_read(path, problem, here), **timings}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, Stored(problem, here, merged).text())
    except OSError as error:
        reason = f"{path.parent} can't be written ({error.strerror or error})"
        _warn_once(path.parent, f"records are not kept: {reason}")
        return False
    return True


def write_whole(path: Path, text: str) -> None:
    """Write a file that others see as it was or as it will be, never half written.

    Raises
    ------
    OSError
        It can't be written; nothing is left behind.
    """
    write_all({path: text})


def write_all(texts: Mapping[Path, str]) -> None:
    """Write files into folders that exist: first all of them beside their places, then each into its place.

    Raises
    ------
    OSError
        One can't be written.  A full disk or a folder without permission shows before any file is in its place.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            staged[path] = _stage(path, text)
        for path in texts:
            os.replace(staged[path], path)
            del staged[path]
    finally:  # after an interrupt too: leave no temporary file behind
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)  # missing: interrupted just after it took its place


def _stage(path, text) -> Path:
    temporary = path.parent / f"{path.stem}-{os.urandom(8).hex()}{TEMPORARY}"
    with contextlib.ExitStack() as undo:  # after an interrupt too
        undo.callback(temporary.unlink, missing_ok=True)
        # Not `tempfile`, whose files no other user may read: records are shipped and shared.
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        undo.pop_all()
    return temporary


def _read(path, problem, expected) -> dict[str, EngineTiming]:
    """The timings in a file, which has to be of `problem` and of the environment `expected`."""
    try:
        found = Stored.parse(path.read_text(encoding="utf-8"))
        if found.problem != problem or found.environment != expected:
            raise ValueError("it describes another problem or environment")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        _warn_once(path, f"the record {path} can't be read and counts as missing ({error})")
        return {}
    except MALFORMED as error:
        _warn_once(path, f"the record {path} is malformed and counts as missing ({error!r})")
        return {}
    return found.timings


def _timing(entry) -> EngineTiming:
    timing = EngineTiming(**entry)
    seconds = (timing.q1, timing.median, timing.q3)
    if not all(_is_number(value) and 0 < value < float("inf") for value in seconds):
        raise ValueError(f"seconds {seconds} are not positive numbers")
    if timing.error is not None and not _is_number(timing.error):
        raise ValueError(f"error {timing.error!r} is not a number")
    for field in ("samples", "workspace_bytes"):
        value = getattr(timing, field)
        if not _is_number(value) or value < 0:
            raise ValueError(f"{field} {value!r} is not a number of at least 0")
    if not isinstance(timing.version, str):
        raise ValueError(f"version {timing.version!r} is not a text")
    return timing


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _warn_once(place, message):
    """One warning for each file or folder, whatever happens to it."""
    if str(place) not in _warned:
        _warned.add(str(place))
        warnings.warn(message, RuntimeWarning, stacklevel=4)


@cache
def _environment_hash(threads):
    return hash_of(environment())


def _hash(text):
    with forks.held_off:
        import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:24]
