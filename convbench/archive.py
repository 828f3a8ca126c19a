"""Records as a whole: what is kept, one portable file of it, and what can go.

The portable file is one JSON text with a checksum:

    {"format": "convbench records", "schema": 2, "environments": {hash: {...}},
     "records": [{"environment": hash, "problem": "mb1ic64ih56…", "timings": {engine: {...}}}], "checksum": ...}

It is read whole and checked before anything is written, and written in two steps
(`records.write_all`), so that a bad file or a full disk changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from convbench import planning, records, registry
from convbench.records import ANY, SCHEMA, EngineTiming, Stored
from convbench.spec import ConvSpec

FORMAT = "convbench records"
ABANDONED_SECONDS = 3600.0  # a temporary file this old belongs to a writer that was killed
_THIS_MACHINE_TOO = ("cores", "threads")  # vary from process to process on one machine: see `is_foreign`
_SCHEMA_FOLDER = re.compile(r"v(\d+)")


@dataclass(frozen=True)
class Removal:
    """Something that `clear` or `prune` takes away.

    Attributes
    ----------
    path : Path
        The record's file, or a temporary one.
    reason : str
    timings : tuple of str
        Those that go while the record stays; empty where the whole file goes.
    """

    path: Path
    reason: str
    timings: tuple[str, ...] = ()


def stored(base: Path) -> tuple[dict[Path, Stored], dict[Path, str]]:
    """Every record of this schema below a directory, and the files that are none, each with the reason."""
    found, broken = {}, {}
    for path in sorted((base / f"v{SCHEMA}").glob("*/*.json")):
        try:
            record = Stored.parse(path.read_text(encoding="utf-8"))
            check(record)
            if record.path(base) != path:
                raise ValueError("it describes another problem or environment")
        except FileNotFoundError:  # taken away meanwhile
            continue
        except (OSError, *records.MALFORMED) as error:
            broken[path] = _words(error)
        else:
            found[path] = record
    return found, broken


def check(record: Stored) -> None:
    """Refuse a record whose problem or environment is none.

    Raises
    ------
    ValueError
    """
    if str(ConvSpec.parse(record.problem)) != record.problem:
        raise ValueError(f"problem {record.problem!r} is not written as str(spec) writes it")
    if record.environment == ANY:
        return
    wanted = set(records.environment())
    if set(record.environment) != wanted or not isinstance(record.environment["packages"], dict):
        raise ValueError(f"its environment has {sorted(record.environment)}; {sorted(wanted)} are accepted")


def is_foreign(environment: Mapping | str) -> bool:
    """Whether the timings of an environment can't be used on this machine with these libraries.

    Records of other numbers of threads or usable cores can: `set_num_threads` and the process' affinity choose.
    """
    here = records.environment()
    return environment == ANY or any(
        environment.get(field) != here[field] for field in here if field not in _THIS_MACHINE_TOO
    )


def outdated(record: Stored) -> dict[str, str]:
    """The timings that the judge ignores, by name, each with the reason."""
    spec = ConvSpec.parse(record.problem)
    engines = registry.engines()
    found = {}
    for name, timing in record.timings.items():
        engine = engines.get(records.engine_of(name))
        if engine is None:
            found[name] = "there is no such engine"
        elif timing.version not in (versions := _versions(engine, spec)):
            found[name] = f"version {timing.version}; the engine is at {', '.join(sorted(versions))}"
    return found


def _versions(engine, spec):
    if spec.is_empty or engine.why_unsupported(planning.engine_spec(engine, spec)) is not None:
        return {engine.version}
    return {engine.version, *(way.version for way in planning.variants(engine, spec))}


def packed(found: Iterable[Stored]) -> str:
    """The portable file of some records.

    Raises
    ------
    ValueError
        There are none.
    """
    kept = list(found)
    if not kept:
        raise ValueError("there is no record to export; 'convbench bench' or tuning='measure' makes some")
    entries = [
        {
            "environment": records.hash_of(record.environment),
            "problem": record.problem,
            "timings": {name: asdict(timing) for name, timing in record.timings.items()},
        }
        for record in kept
    ]
    environments = {records.hash_of(record.environment): record.environment for record in kept}
    content = {"format": FORMAT, "schema": SCHEMA, "environments": environments, "records": entries}
    return records.sealed(content) + "\n"


def unpacked(text: str) -> list[Stored]:
    """The records in a portable file.

    Raises
    ------
    ValueError
        It is no such file, one of another schema, or an altered one.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}; {FORMAT!r} is accepted")
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}; {SCHEMA} is accepted")
        content = records.unsealed(text)
        environments = content["environments"]
        found = [
            Stored(entry["problem"], environments[entry["environment"]], records.timings_from(entry["timings"]))
            for entry in content["records"]
        ]
        for record in found:
            check(record)
    except records.MALFORMED as error:
        raise ValueError(f"this is no file of 'convbench records export': {_words(error)}") from None
    return found


def pin(found: list[Stored]) -> list[Stored]:
    """The records in the form that holds on every machine.

    Raises
    ------
    ValueError
        A problem was measured in several environments: which of them is meant?
    """
    environments = {records.hash_of(record.environment): record.environment for record in found}
    if len(environments) > 1:
        raise ValueError(
            f"the file holds timings of {len(environments)} environments "
            f"({'; '.join(map(describe, environments.values()))}); one is accepted: export without --all"
        )
    return [replace(record, environment=ANY) for record in found]


def merge(found: Iterable[Stored], base: Path, *, prefer_new: bool = False) -> dict[Path, Stored]:
    """Add records to those below a directory, all or nothing.

    Where both have a timing, the older one stays unless `prefer_new`, or unless only the new one is of the
    engine's present version.  A pinned record replaces the one that was there: times of two machines can't be compared.

    Returns
    -------
    dict of Path to Stored
        The files written, as they now are: those that changed.

    Raises
    ------
    OSError
        One can't be written.
    """
    changed = {}
    for record in found:
        path = record.path(base)
        before = _timings_at(path, record)
        pinned = record.environment == ANY
        timings = record.timings if pinned else {**before, **_winning(before, record, prefer_new)}
        if timings != before:
            changed[path] = replace(record, timings=timings)
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
    records.write_all({path: record.text() for path, record in changed.items()})
    return changed


def _timings_at(path: Path, record: Stored) -> dict[str, EngineTiming]:
    """What a file holds that a record is to be added to; nothing where it is damaged, as for `records.save`."""
    try:
        before = Stored.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, *records.MALFORMED):
        return {}
    same = (before.problem, before.environment) == (record.problem, record.environment)
    return before.timings if same else {}


def _winning(before, record, prefer_new):
    """The timings of `record` that go over those from `before`."""
    if prefer_new:
        return record.timings
    old = outdated(replace(record, timings=before))
    new = outdated(record)
    return {
        name: timing
        for name, timing in record.timings.items()
        if name not in before or (name in old and name not in new)
    }


def everything(base: Path) -> list[Removal]:
    """All records below a directory, of every schema, and abandoned temporary files; nothing else that lies there."""
    found = []
    for folder in _schema_folders(base):
        found += [Removal(path, "record") for path in sorted(folder.glob("*/*.json"))]
        found += [Removal(path, "temporary file") for path in sorted(folder.glob(f"*/*{records.TEMPORARY}"))]
    return found


def useless(base: Path) -> list[Removal]:
    """What the judge can't use any more on this machine: see `is_foreign` and `outdated`; and damaged files."""
    found = []
    for folder in _schema_folders(base):
        if _schema_of(folder) < SCHEMA:
            found += [Removal(path, "an older schema") for path in sorted(folder.glob("*/*.json"))]
        found += [
            Removal(path, "left by a writer that was killed")
            for path in sorted(folder.glob(f"*/*{records.TEMPORARY}"))
            if _is_abandoned(path)
        ]
    kept, broken = stored(base)
    found += [Removal(path, f"damaged: {reason}") for path, reason in broken.items()]
    for path, record in kept.items():
        found += _useless_in(path, record)
    return found


def _is_abandoned(path):
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:  # its writer is done
        return False


def _useless_in(path, record):
    if is_foreign(record.environment):
        return [Removal(path, f"another environment: {describe(record.environment)}")]
    reasons = outdated(record)
    if not reasons:
        return []
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    whole = len(reasons) == len(record.timings)
    return [Removal(path, told, () if whole else tuple(reasons))]


def remove(removals: Iterable[Removal]) -> None:
    """Take them away, and the folders that this leaves empty.

    Raises
    ------
    OSError
        One can't be removed; those before it are.
    """
    for removal in removals:
        if removal.timings:
            _remove_timings(removal)
            continue
        removal.path.unlink(missing_ok=True)
        for folder in (removal.path.parent, removal.path.parent.parent):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _remove_timings(removal):
    try:
        record = Stored.parse(removal.path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # someone else took it away whole
        return
    left = {name: timing for name, timing in record.timings.items() if name not in removal.timings}
    records.write_whole(removal.path, replace(record, timings=left).text())


def describe(environment: Mapping | str) -> str:
    """An environment in a line."""
    if environment == ANY:
        return "any machine (pinned)"
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return f"{environment['model']}, {environment['cores']} cores, {environment['threads']} threads, {packages}"


def _schema_folders(base: Path) -> list[Path]:
    """Folders of records, also of other schemas."""
    return [path for path in sorted(base.glob("v*")) if path.is_dir() and _SCHEMA_FOLDER.fullmatch(path.name)]


def _schema_of(folder):
    return int(_SCHEMA_FOLDER.fullmatch(folder.name)[1])


def _words(error) -> str:
    """What went wrong, in a line that can stand alone."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(str(error).split())
