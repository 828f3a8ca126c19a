"""``convbench bench``: measure with asv, check equality, record for the judge, report.

The times are measured by the project's asv suite (`convbench.asvrun`); each problem's are
recorded as soon as it is done, so an interrupted run loses only the problem it was at.
"""

from __future__ import annotations

import contextlib
import datetime
import platform
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from convbench import images, peers, records, registry, scaling, settings
from convbench.asvrun import AsvError, AsvRun
from convbench.benchmarks.session import AUTO, SECONDS, Session
from convbench.compare.limits import measure as measure_limits
from convbench.machine import Machine, this_machine
from convbench.problems import Problem
from convbench.report.results import OTHERS, Entry, Report, Row
from convbench.spec import ConvSpec

QUICK_SECONDS = 0.2  # per problem, shared by its engines
SHOWN_ISA = ("AVX512F", "AVX2", "FMA3", "SVE", "NEON", "ASIMD", "SSE42")
RECORDED = ("workspace_bytes", "error", "version")  # beside a variant's timing
LIBRARIES = ("numpy", "scipy", "numba", "pyfftw", "asv")


@dataclass(frozen=True)
class Bench:
    """What to measure, and where the report goes.

    Attributes
    ----------
    problems : tuple of Problem
    engines : tuple of str
        Other libraries' among them (`convbench.peers.NAMES`); what is not installed is skipped with that reason.
    image : Path or None
        The photograph; None for the sample.
    seconds : float
        Time for each problem, all engines together.
    reports : Path
        The folder that gets a folder for this machine.
    saved : Path or None
        An empty folder for asv's result files (for `convbench.dashboard.keep`); None for one that is removed.
    """

    problems: tuple[Problem, ...]
    engines: tuple[str, ...]
    image: Path | None = None
    seconds: float = SECONDS
    reports: Path = Path("reports")
    saved: Path | None = None

    def session(self) -> Session:
        """The settings for asv's processes."""
        image = str(self.image.resolve()) if self.image else ""
        return Session(
            [[problem.name, problem.text] for problem in self.problems], list(self.engines), self.seconds, image
        )


def default_engines() -> tuple[str, ...]:
    """Every engine that the judge may pick."""
    return tuple(name for name, engine in registry.engines().items() if engine.automatic)


def run(bench: Bench, progress) -> Report:
    """Measure and record; returns the report's data.

    Parameters
    ----------
    bench : Bench
    progress : rich.progress.Progress
        Gets a task that advances by one for each problem.

    Raises
    ------
    AsvError
        asv could not run.
    KeyboardInterrupt
        Interrupted; the message says what is recorded.
    """
    task = progress.add_task("starting asv", total=len(bench.problems))
    done: dict[str, dict] = {}
    current = "nothing"
    with tempfile.TemporaryDirectory(prefix="convbench-") as scratch, _terminated_like_interrupted():
        asv = AsvRun(bench.session(), Path(scratch), bench.saved)
        try:
            for event in asv.events():
                if event["event"] == "problem":
                    current = event["name"]
                    progress.update(task, description=current)
                elif event["event"] == "done":
                    done[event["name"]] = event
                    record(event)
                    progress.advance(task)
                    if len(done) == len(bench.problems):
                        progress.update(task, description="asv files the results")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted: {len(done)} of {len(bench.problems)} problems are measured and recorded; "
                "no report is written"
            ) from None
        except AsvError as error:
            raise AsvError(f"at {current}, {len(done)} of {len(bench.problems)} problems measured: {error}") from None
        metrics = asv.results()
    rows = [_row(problem, done[problem.name], metrics) for problem in bench.problems]
    threads = settings.get_num_threads()
    limits = measure_limits(threads)  # for the roofline
    progress.update(task, description="1 to all threads (Ctrl-C skips it)")
    with _terminated_like_interrupted():
        scaled, cut = scaling.measure(rows, threads, bench.session().image)
    described = _describe_run(bench) | _describe_peers(bench, rows) | ({"thread scaling": cut} if cut else {})
    return Report(describe_machine(), described, rows, limits.peaks, limits.bandwidth, scaled)


def record(result: dict) -> None:
    """Record the timings of every engine that agrees with the reference, for ``engine="auto"``."""
    timings = {
        records.name_of(name, variant): records.EngineTiming(**timing, **{field: entry[field] for field in RECORDED})
        for name, entry in result["engines"].items()
        if entry["refused"] is None and entry["agrees"]
        for variant, timing in entry["variants"].items()
    }
    if timings:
        records.save(ConvSpec.parse(result["text"]), timings)


def machine_folder(reports: Path) -> Path:
    """``reports/<machine>``, made and checked for writing.

    Raises
    ------
    ValueError
        It cannot be written.
    """
    machine = this_machine(settings.get_num_threads())
    folder = reports / f"{_slug(machine.model)}-{machine.threads}-threads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"report folder {str(folder)!r} cannot be written ({error.strerror}); give one that can with --report DIR"
        ) from None
    return folder


def describe_machine() -> dict[str, str]:
    """The machine and the software, as texts by title; nothing that names a host or a user."""
    machine: Machine = this_machine(settings.get_num_threads())
    isa = [name for name in SHOWN_ISA if name in machine.isa]
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return {
        "processor": machine.model,
        "cores": str(machine.cores),
        "threads": str(machine.threads),
        "vector instructions": ", ".join(isa) or "none that NumPy knows",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "convbench": _version("convbench"),
        "libraries": ", ".join(versions),
    }


def _describe_run(bench: Bench) -> dict[str, str]:
    photograph = bench.image.name if bench.image else f"{images.sample_path().name} (matplotlib's sample)"
    return {
        "date": datetime.date.today().isoformat(),
        "engines measured": ", ".join(bench.engines),
        "time for each problem": f"{bench.seconds:g} s, all engines in turn in one process",
        "photograph": photograph,
    }


def _describe_peers(bench: Bench, rows: list[Row]) -> dict[str, str]:
    """A line on the other libraries, where some were asked for: their versions, or that they are not installed."""
    asked = [name for name in bench.engines if name in peers.NAMES]
    found = {name: entry.version for row in rows for name, entry in row.engines.items() if entry.version}
    texts = [f"{name} {found.get(name, '(not measured)')}" for name in asked]
    return {OTHERS: f"{', '.join(texts)}; auto takes none of them unasked"} if asked else {}


def _row(problem: Problem, result: dict, metrics: dict) -> Row:
    entries = {}
    for name, found in result["engines"].items():
        saved = metrics.get((problem.name, name), {})
        known = {key: value for key, value in found.items() if key in Entry.__dataclass_fields__}
        if "time" in saved:
            known.update(median=saved["time"], regret=saved["regret"])
        entries[name] = Entry(**known)
    return Row(problem.name, problem.suite, result["text"], problem.source, result[AUTO], entries)


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "machine"


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Take a request to terminate as an interrupt, so that asv's processes end too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
