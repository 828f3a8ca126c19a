"""Thread scaling: the fastest engines of a few problems, timed at 1, 2, 4 … threads in turn.

It is the last step of a long run, and a report is as good without it.  So it is measured in a process of its own, which
prints each problem as soon as it is done: whatever becomes of that process costs the problems that it has not done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from convbench import peers, planning, settings
from convbench.benchmarks.contest import arrays, planned
from convbench.registry import get
from convbench.report.results import Point, Row, Scaling
from convbench.spec import ConvSpec
from convbench.timing import samples_within_limit, summarise, thinned

PER_SUITE = 2  # the problems whose fastest engine takes longest: there is something to share out
LONGEST_CALL = 0.05  # seconds on one thread, were all threads of use: with longer ones a round takes half a second
SECONDS = 10.0  # all problems together, planning included
EACH_SECONDS = 2.0  # one problem at most
GRACE_SECONDS = 4.0  # for the process to start, and for what has begun when the time is over


@dataclass(frozen=True)
class Task:
    """What the process measures: a problem's name and text, the engine and its variant."""

    problem: str
    text: str
    engine: str
    variant: str = ""


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def chosen(rows: list[Row], most: int) -> list[Task]:
    """A few problems of each suite, with the fastest engine that is no other library, in its fastest variant."""
    found: dict[str, list[tuple[float, Task]]] = {}
    for row in rows:
        name = next((name for name in row.measured if name not in peers.NAMES), None)
        if name and row.engines[name].median * most <= LONGEST_CALL:
            task = Task(row.name, row.text, name, row.engines[name].variant)
            found.setdefault(row.suite, []).append((row.engines[name].median, task))
    longest = [sorted(pairs, key=lambda pair: -pair[0])[:PER_SUITE] for pairs in found.values()]
    return [task for pairs in longest for _, task in pairs]


def measure(
    rows: list[Row], most: int, image: str = "", seconds: float = SECONDS, grace: float = GRACE_SECONDS
) -> tuple[list[Scaling], str]:
    """Time the engines at every number of threads; nothing where there is one thread only.

    Ctrl-C ends this step, not the run.

    Parameters
    ----------
    rows : list of Row
        Measured at `most` threads.
    most : int
        Threads.
    image : str
        The photograph; empty for the sample.
    seconds, grace : float
        For all problems together, and how much later the process is ended.

    Returns
    -------
    list of Scaling
    str
        Why there are not as many as were chosen; empty where there are.
    """
    tasks = chosen(rows, most) if most > 1 else []
    if not tasks:
        return [], ""
    job = {"tasks": [asdict(task) for task in tasks], "most": most, "image": image, "seconds": seconds}
    lines, why = _run([sys.executable, "-P", "-m", __name__, json.dumps(job)], seconds + grace)
    found = [read(json.loads(line)) for line in lines]
    if not why and len(found) < len(tasks):
        why = f"{seconds:g} s were not enough"
    return found, f"{len(found)} of {len(tasks)} problems: {why}" if why else ""


def read(line: dict) -> Scaling:
    """The `Scaling` of a line that the process printed, or of a report."""
    return Scaling(**{**line, "points": [Point(**point) for point in line["points"]]})


def _run(command, limit) -> tuple[list[str], str]:
    """The whole lines that a process prints within `limit` seconds, and what it failed by."""
    why = ""
    # A session of its own: the terminal's Ctrl-C reaches us only.
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        try:
            printed, complaint = process.communicate(timeout=limit)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            why = "interrupted" if isinstance(stop, KeyboardInterrupt) else f"it took over {limit:g} s"
            process.kill()
            printed, complaint = process.communicate()
    if not why and process.returncode:
        why = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return printed.split("\n")[:-1], why


def main(job: str) -> None:
    """In the process: measure the tasks of `job` one after the other, and print a line of JSON for each."""
    asked = json.loads(job)
    end = time.perf_counter() + asked["seconds"]
    for left, task in zip(range(len(asked["tasks"]), 0, -1), asked["tasks"], strict=True):
        seconds = min(EACH_SECONDS, (end - time.perf_counter()) / left)
        if seconds <= 0:
            return
        found = measure_one(Task(**task), asked["most"], asked["image"], seconds)
        if len(found.points) > 1 and found.points[0].threads == 1:  # else there is nothing to divide
            print(json.dumps(asdict(found)), flush=True)


def measure_one(task: Task, most: int, image: str, seconds: float) -> Scaling:
    """Plan and time a task at every number of threads within `seconds`; those that got no turn are left out."""
    spec = ConvSpec.parse(task.text)
    x, weight = arrays(spec, image)
    way = planning.variant_of(get(task.engine), spec, task.variant)

    def at(threads):
        _use(threads)
        call = planned(way, spec, x, weight)

        def run():
            _use(threads)  # a plan computes on as many as there are now
            call()

        return run

    counts = thread_counts(most)
    first = [1, most, *counts[1:-1]]  # the two that tell most come first
    makers = {threads: lambda threads=threads: at(threads) for threads in first}
    with _restored_threads():
        samples, _ = samples_within_limit(makers, seconds, drop_beyond=float("inf"))
    points = [
        Point(threads, **asdict(summarise(samples[threads])), times=thinned(samples[threads]))
        for threads in counts
        if threads in samples
    ]
    return Scaling(task.problem, task.engine, points)


def _use(threads):
    if settings.get_num_threads() != threads:
        settings.set_num_threads(threads)


@contextmanager
def _restored_threads() -> Iterator[None]:
    before = settings.get_num_threads()
    try:
        yield
    finally:
        _use(before)


if __name__ == "__main__":
    main(sys.argv[1])
