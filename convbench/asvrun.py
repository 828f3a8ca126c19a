"""Run the project's asv suite in the installed environment, from anywhere.

asv saves results only for a revision of a git repository, asks questions about the machine once,
and keeps the answers in the home folder.  A scratch folder gives it all three: a repository
with one commit, a home with the answers, and a configuration that points at the installed
benchmarks.  The measuring process gets the real home back (`Session.environment`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from convbench.benchmarks import session as sessions
from convbench.machine import processor_name, usable_cores

MACHINE = "here"
BENCHMARKS = "Contest"
METRICS = ("time", "error", "regret")
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 3.0  # for asv to end its own processes after an interrupt
_LOG_LINES = 15
_LONGEST_SCRATCH = 70  # characters; the fork server's socket lies 31 deeper, and systems take 103 of them at least
_HOME = ("HOME", "USERPROFILE")
# A background job inherits "ignore interrupts"; asv must hear ours to end its own processes.
_LAUNCHER = "import signal; signal.signal(2, signal.default_int_handler); from asv.main import main; main()"


class AsvError(Exception):
    """asv could not run or failed; the message says what it printed last."""


class AsvRun:
    """One run of the suite.

    Parameters
    ----------
    session : Session
        What to measure.
    scratch : Path
        An empty folder, which the caller removes.
    results : Path, optional
        Another one, for the files that asv saves; by default in the scratch folder.
    """

    def __init__(self, session: sessions.Session, scratch: Path, results: Path | None = None):
        self.scratch = scratch
        self.journal = scratch / "journal.jsonl"
        self.log = scratch / "asv.log"
        self.results_dir = results or scratch / "results"
        home = {name: os.environ[name] for name in _HOME if name in os.environ}
        self.session = replace(session, journal=str(self.journal), environment=home)
        self._prepare()

    def events(self) -> Iterator[dict]:
        """Run asv; yield the journal's events as they happen.

        Raises
        ------
        AsvError
            asv failed.
        KeyboardInterrupt
            Passed on, after asv and its processes have ended.
        """
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                self._command(),
                cwd=self.scratch,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C reaches us only; we pass it on
            )
        try:
            yield from self._follow(process)
        finally:
            _end(process)
        if process.returncode:
            raise AsvError(f"asv ended with exit code {process.returncode}; its last lines:\n{self._last_lines()}")

    def results(self) -> dict[tuple[str, str], dict[str, float | None]]:
        """What asv saved: by (problem, engine) the metrics; None where asv recorded a failure, absent where skipped."""
        files = [path for path in (self.results_dir / MACHINE).glob("*.json") if path.name != "machine.json"]
        if len(files) != 1:
            raise AsvError(f"asv saved {len(files)} result files instead of 1; its last lines:\n{self._last_lines()}")
        return read_results(json.loads(files[0].read_text()))

    def _follow(self, process):
        running, seen = True, 0
        while running:
            running = process.poll() is None
            lines = self.journal.read_text().split("\n")[:-1] if self.journal.exists() else []
            for line in lines[seen:]:
                yield json.loads(line)
            seen = len(lines)
            if running:
                time.sleep(_POLL_SECONDS)

    def _prepare(self):
        repository, home = self.scratch / "repository", self.scratch / "home"
        home.mkdir()
        config = {
            "version": 1,
            "project": "convbench",
            "repo": str(repository),
            "dvcs": "git",
            "branches": ["HEAD"],
            "environment_type": "existing",
            "benchmark_dir": str(Path(sessions.__file__).parent),
            "results_dir": str(self.results_dir),
            "env_dir": str(self.scratch / "environments"),
            "html_dir": str(self.scratch / "html"),
        }
        (self.scratch / "asv.conf.json").write_text(json.dumps(config))
        (home / ".asv-machine.json").write_text(json.dumps({MACHINE: _machine(), "version": 1}))
        self.session.write(self.scratch / "session.json")
        commit(repository, "installed")

    def _command(self):
        # The forked processes only file results; everything is measured in one fresh process.
        forks = hasattr(os, "fork") and len(os.fsencode(self.scratch)) <= _LONGEST_SCRATCH
        launch = "forkserver" if forks else "spawn"
        options = f"--environment existing:same --set-commit-hash HEAD --launch-method {launch} --show-stderr"
        return [
            *(sys.executable, "-c", _LAUNCHER, "--config", str(self.scratch / "asv.conf.json"), "run"),
            *(*options.split(), "--machine", MACHINE, "--bench", BENCHMARKS),
        ]

    def _environment(self):
        home = str(self.scratch / "home")
        changes = {
            sessions.VARIABLE: str(self.scratch / "session.json"),
            "PYTHONUSERBASE": site.getuserbase(),  # which would follow the home
            "TMPDIR": str(self.scratch),  # so that nothing of asv's outlives the scratch folder
        }
        if "PYTHONPATH" in os.environ:  # asv clears it, and plug-in engines may be installed there
            changes["ASV_PYTHONPATH"] = os.environ.get("ASV_PYTHONPATH", os.environ["PYTHONPATH"])
        return {**os.environ, **dict.fromkeys(_HOME, home), **changes}

    def _last_lines(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


def read_results(saved: dict) -> dict[tuple[str, str], dict[str, float | None]]:
    """Read one of asv's result files: columns, rows cut after their last value, parameters as text."""
    columns = saved["result_columns"]
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for name, row in saved["results"].items():
        metric = name.rpartition(".track_")[2]
        cells = dict(zip(columns, row, strict=False))
        params = [[text.strip("'\"") for text in values] for values in cells["params"]]
        values = cells["result"] or [None] * math.prod(map(len, params))
        for key, value in zip(product(*params), values, strict=True):
            if metric in METRICS and not (isinstance(value, float) and math.isnan(value)):
                found.setdefault(key, {})[metric] = value
    return found


def _machine():
    fields = {"machine": MACHINE, "os": sys.platform, "arch": "", "ram": ""}
    return {**fields, "cpu": processor_name(), "num_cpu": str(usable_cores())}


def commit(repository: Path, message: str) -> str:
    """An empty commit in a repository, made where there is none, whatever the user's git is set up to do; its hash."""
    if shutil.which("git") is None:
        raise AsvError("asv needs git, which is not on the PATH; install it, or put it there")
    repository.mkdir(exist_ok=True)
    settings = ("user.name=convbench", "user.email=convbench@localhost", "commit.gpgsign=false")
    git = ["git", "-C", str(repository), *(word for setting in settings for word in ("-c", setting))]
    begin = [] if (repository / ".git").exists() else [["init", "--quiet"]]
    enter = ["commit", "--quiet", "--allow-empty", "--no-verify", "-m", message]
    for command in (*begin, enter, ["rev-parse", "HEAD"]):
        try:
            done = subprocess.run([*git, *command], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise AsvError(f"git {command[0]} failed: {error.stderr.strip()}") from None
    return done.stdout.strip()


def _end(process):
    """End asv: an interrupt lets it end its own processes; what is left of its session is killed."""
    with _uninterrupted():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_SECONDS)
        for pid in _session_members(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let an impatient second Ctrl-C wait until everything has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _session_members(session: int) -> list[int]:
    """Processes of a session: asv puts its children into groups of their own, but not into sessions."""
    if not hasattr(os, "getsid"):
        return []
    listed = [entry.name for entry in Path("/proc").glob("[0-9]*")]
    if not listed:
        listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True).stdout.split()
    members = []
    for pid in map(int, listed):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                members.append(pid)
    return members
