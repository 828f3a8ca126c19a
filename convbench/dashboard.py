"""The asv dashboard of an installed package: a folder that keeps every run's results, and the pages that show them.

asv draws a graph over the commits of a git repository, which an installed package lacks.  The folder
holds a repository of its own with an empty commit for each run, so each run is a point in time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from convbench import __version__
from convbench.asvrun import MACHINE, AsvError, commit
from convbench.benchmarks import session as sessions

_BENCHMARKS = "benchmarks.json"
_MACHINE_FILE = "machine.json"
_ENVIRONMENT = "installed"
_UNVERSIONED = ("version",)  # what benchmarks.json has beside the benchmarks


def default_folder() -> Path:
    """Where the dashboard lies unless another place is named: the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("convbench", appauthor=False) / "dashboard"


def prepare(folder: Path) -> Path:
    """Make the folder, and see that it can be written.

    Raises
    ------
    ValueError
        It cannot be, or it holds something else: asv removes a folder ``html`` that it finds there.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / "results" / MACHINE).is_dir():
            raise ValueError(
                f"dashboard folder {str(folder)!r} holds other files; "
                "one that is empty, new, or made by --publish is accepted"
            )
        (folder / "results" / MACHINE).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"dashboard folder {str(folder)!r} cannot be written ({error.strerror}); "
            "give one that can with --publish DIR"
        ) from None
    return folder.resolve()


def keep(results: Path, folder: Path) -> None:
    """Keep what asv saved of one run below `results`, as a new point of the history in `folder`.

    Raises
    ------
    AsvError
        git failed, or the history is damaged.
    OSError
        A file cannot be written.
    """
    revision = commit(folder / "repository", f"convbench {__version__}")
    place = folder / "results"
    for path in (results / MACHINE).glob("*.json"):
        saved, name = json.loads(path.read_text()), path.name
        if name != _MACHINE_FILE:
            name = f"{revision[:8]}-{_ENVIRONMENT}.json"
            saved = _placed(saved, revision)
        _write(place / MACHINE / name, saved)
    known = place / _BENCHMARKS
    new = json.loads((results / _BENCHMARKS).read_text())
    _write(known, merged(_read(known), new) if known.exists() else new)


def _placed(saved: dict, revision: str) -> dict:
    """asv's results as those of that revision, now, and without the interpreter's path.

    asv begins another line where the environment differs: a new virtual environment would cut the history.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    known = {"commit_hash": revision, "date": int(time.time() * 1000), "env_name": _ENVIRONMENT, "python": python}
    return {**saved, **known, "params": {**saved["params"], "python": python}}


def merged(old: dict, new: dict) -> dict:
    """The benchmarks of `new` with the parameters of both, or asv would show only the last run's problems."""
    found = {**old, **new}
    for name in (old.keys() & new.keys()) - set(_UNVERSIONED):
        pairs = zip(old[name]["params"], new[name]["params"], strict=True)
        found[name] = {**new[name], "params": [list(dict.fromkeys(before + after)) for before, after in pairs]}
    return found


def publish(folder: Path) -> Path:
    """Write the pages; returns the first of them.

    Raises
    ------
    AsvError
        asv failed; the message says what it printed last.
    OSError
        A file cannot be written.
    """
    config = {
        "version": 1,
        "project": "convbench",
        "repo": str(folder / "repository"),
        "dvcs": "git",
        "branches": ["HEAD"],
        "benchmark_dir": str(Path(sessions.__file__).parent),
        "results_dir": str(folder / "results"),
        "html_dir": str(folder / "html"),
    }
    _write(folder / "asv.conf.json", config)
    argv = [sys.executable, "-m", "asv", "--config", str(folder / "asv.conf.json"), "publish", "--no-pull"]
    done = subprocess.run(argv, cwd=folder, env=os.environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise AsvError(f"asv publish ended with exit code {done.returncode}; its last lines:\n{lines}")
    return folder / "html" / "index.html"


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise AsvError(f"{path} is damaged ({error}); once it is removed, the next run writes it anew") from None


def _write(path: Path, data: dict) -> None:
    """Write a file whole: an interrupted run leaves the one before."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(data))
    os.replace(temporary, path)
