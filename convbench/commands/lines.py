"""Progress where no terminal shows bars: a line on standard error now and then, as a build's log wants it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_SECONDS = 10.0  # a short command writes nothing


@dataclass
class _Task:
    description: str
    total: int | None
    begin: float
    completed: int = 0


class Lines:
    """What the commands use of `rich.progress.Progress`, in plain text.

    Parameters
    ----------
    every : float
        Seconds between two lines, and before the first.
    clock : callable
        Tests pass their own.
    """

    def __init__(self, every: float = EVERY_SECONDS, clock: Callable[[], float] = time.monotonic):
        self._every, self._clock = every, clock
        self._told = clock()
        self._tasks: list[_Task] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def add_task(self, description: str, total: int | None) -> int:
        """Begin a task of `total` steps, None where nobody knows; returns its number."""
        self._tasks.append(_Task(description, total, self._clock()))
        return len(self._tasks) - 1

    def advance(self, number: int, advance: int = 1) -> None:
        """So many steps of a task are done."""
        self.update(number, advance=advance)

    def update(
        self, number: int, *, description: str | None = None, completed: int | None = None, advance: int = 0
    ) -> None:
        """What the task is at, and how many steps are done, in all or since."""
        task = self._tasks[number]
        task.description = task.description if description is None else description
        task.completed = (task.completed if completed is None else completed) + advance
        now = self._clock()
        if now - self._told >= self._every:
            self._told = now
            print(_line(task, now - task.begin), file=sys.stderr, flush=True)


def _line(task: _Task, seconds: float) -> str:
    parts = [f"{seconds:.0f} s"]
    if task.total is not None:
        parts.insert(0, f"{task.completed} of {task.total} done")
        if 0 < task.completed < task.total:
            parts.append(f"about {seconds * (task.total / task.completed - 1):.0f} s left")
    return f"{task.description}: {', '.join(parts)}"
