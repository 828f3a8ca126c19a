"""The data of a run for other programs: a CSV line for each problem and engine, and the run as JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

from convbench.report.front import front
from convbench.report.results import Report

COLUMNS = (
    "problem", "suite", "text", "engine", "version", "refused", "median_s", "q1_s", "q3_s", "samples", "regret",
    "error", "bound", "agrees", "workspace_bytes", "plan_s", "fastest", "predicted", "front",
)  # fmt: skip


def csv_text(report: Report) -> str:
    """Every measurement and refusal; seconds and bytes, an empty field where there is no number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in report.rows:
        best = front(row)
        for name, entry in row.engines.items():
            head = [row.name, row.suite, row.text, name]
            if entry.refused is not None:
                writer.writerow([*head, entry.version, entry.refused, *[""] * (len(COLUMNS) - 6)])
                continue
            plan = "" if entry.plan_seconds is None else entry.plan_seconds
            numbers = [entry.median, entry.q1, entry.q3, entry.samples, entry.regret, entry.error, entry.bound]
            facts = [entry.agrees, entry.workspace_bytes, plan, name == row.best, name == row.auto, name in best]
            writer.writerow([*head, entry.version, "", *numbers, *facts])
    return stream.getvalue()


def json_text(report: Report) -> str:
    """The whole run, in one line."""
    return json.dumps(asdict(report), separators=(",", ":"))
