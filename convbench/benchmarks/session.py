"""What is measured: the whole table of problems, or what ``convbench bench`` wrote into a session file.

asv tells parameters apart by their position, so they must not depend on what is installed:
engine names are written down here, and the problems come from the file beside this directory,
which may be newer than the installed one.  What an installation lacks is skipped.
"""

from __future__ import annotations

import json
import os
import runpy
from dataclasses import asdict, dataclass, field
from pathlib import Path

VARIABLE = "CONVBENCH_SESSION"  # names the session file, in the environment of asv's processes
AUTO = "auto"
ENGINES = ("direct", "winograd", "winograd4", "winograd8", "im2col", "fft", "separable", "toeplitz")
SECONDS = 1.0  # per problem, shared by its engines


@dataclass(frozen=True)
class Session:
    """One run's settings.

    Attributes
    ----------
    problems : list of (name, text)
    engines : list of str
    seconds : float
        Time to spend on each problem, all engines together.
    image : str
        The photograph whose pixels image problems take; empty for the sample.
    journal : str
        File that gets a JSON line when a problem begins and when it is done; empty for none.
    environment : dict
        Variables that asv's processes get back, after asv itself has run with others.
    """

    problems: list = field(default_factory=list)
    engines: list = field(default_factory=lambda: list(ENGINES))
    seconds: float = SECONDS
    image: str = ""
    journal: str = ""
    environment: dict = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the session file."""
        path.write_text(json.dumps(asdict(self)))

    def note(self, event: str, **details) -> None:
        """Append a line to the journal."""
        if self.journal:
            with open(self.journal, "a") as journal:
                journal.write(json.dumps({"event": event, **details}) + "\n")


def load() -> Session:
    """The session that the environment names, or one of every problem and engine."""
    path = os.environ.get(VARIABLE)
    if path:
        session = Session(**json.loads(Path(path).read_text()))
        os.environ.update(session.environment)
        return session
    table = runpy.run_path(str(Path(__file__).parents[1] / "problems.py"))["PROBLEMS"]
    return Session([[problem.name, problem.text] for problem in table])
