"""The judge's answer: every engine's part in a choice, and how it is printed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from convbench import display, settings
from convbench.spec import ConvSpec
from convbench.timing import Timing


@dataclass(frozen=True)
class Candidate:
    """One engine's part in a selection.

    Attributes
    ----------
    engine : str
    refused : str or None
        Why it takes no part, as a sentence.
    variant : str
        Which of the engine's variants is meant, where there are several (`Engine.variant`).
    predicted : float or None
        Seconds by its model; None where it can't compute the problem.
    measured : Timing or None
    workspace_bytes : int or None
    error_bound : float or None
        A priori, in the engine's `error_measure`.
    error : float or None
        Measured against the reference, in the same measure, where a record has it.
    """

    engine: str
    refused: str | None = None
    variant: str = ""
    predicted: float | None = None
    measured: Timing | None = None
    workspace_bytes: int | None = None
    error_bound: float | None = None
    error: float | None = None

    @property
    def expected(self) -> float | None:
        """Seconds as measured, else as predicted."""
        return self.measured.median if self.measured else self.predicted


@dataclass(frozen=True)
class Selection:
    """The judge's answer: ``print(selection)`` shows every engine and the reasons.

    Attributes
    ----------
    spec : ConvSpec
    engine : str
        The chosen engine.
    source : str
        "pinned", "record", "shipped record", "record of" another problem that is nearly the same, "measurement",
        "trial" (calls in mode "incremental" are still finding out), "model", "fixed model" (where choices are
        `deterministic`), or "nothing to compute".
    candidates : tuple of Candidate
        Every engine of the registry, the fastest first, the refused last.
    """

    spec: ConvSpec
    engine: str
    source: str
    candidates: tuple[Candidate, ...]

    @property
    def variant(self) -> str:
        """The chosen engine's variant, where one was measured to be the fastest of several, or fits the weight."""
        return next((c.variant for c in self.candidates if c.engine == self.engine), "")

    @property
    def regret(self) -> float | None:
        """Time of the chosen engine / time of the best, as measured; None where it was not."""
        measured = {c.engine: c.measured.median for c in self.candidates if c.measured and c.refused is None}
        return measured[self.engine] / min(measured.values()) if self.engine in measured else None

    def as_dict(self) -> dict:
        """All of it as numbers, texts, lists and dicts that JSON can hold; what is not finite is None.

        Returns
        -------
        dict
            ``problem`` (benchdnn's text), ``engine``, ``variant``, ``source``, ``regret``, ``threads``, and
            ``candidates``: a list of dicts with the attributes of `Candidate`, ``chosen``, and ``measured`` as a dict
            with the attributes of `Timing`, or None.
        """
        return {
            "problem": str(self.spec),
            "engine": self.engine,
            "variant": self.variant,
            "source": self.source,
            "regret": self.regret,
            "threads": settings.get_num_threads(),
            "candidates": [
                {**_finite(asdict(candidate)), "chosen": candidate.engine == self.engine}
                for candidate in self.candidates
            ],
        }

    def __str__(self):
        rows = [_row(candidate, candidate.engine == self.engine) for candidate in self.candidates]
        header = ("engine", "predicted", "measured", "workspace", "error", "")
        regret = "" if self.regret is None else f", regret {self.regret:.2f}"
        threads = settings.get_num_threads()
        return f"{self.spec}: {self.engine} ({self.source}{regret}; threads {threads})\n{display.table(header, rows)}"


def _finite(values):
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _row(candidate, chosen):
    known = candidate.predicted is not None
    error = "-"
    if candidate.error is not None:
        error = f"{candidate.error:.1e}"
    elif candidate.error_bound is not None:
        error = f"≤ {candidate.error_bound:.1e}"
    return (
        f"{candidate.engine} ({candidate.variant})" if candidate.variant else candidate.engine,
        display.seconds(candidate.predicted) if known else "-",
        display.seconds(candidate.measured.median) if candidate.measured else "-",
        display.size(candidate.workspace_bytes) if known else "-",
        error,
        candidate.refused or ("<- chosen" if chosen else ""),
    )
