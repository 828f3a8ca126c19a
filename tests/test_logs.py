"""What the judge logs, and what it costs where no one listens: nothing."""

import logging
import os
import subprocess
import sys

import pytest

import convbench
from convbench import selection
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
SELECT = f"import convbench; convbench.select(convbench.ConvSpec.parse('{SPEC}'))"


def test_choices_are_logged_at_info_and_reasons_at_debug(house, caplog):
    house("slow", 2e-3)
    house("fast", 1e-3)
    house("narrow").refusal = "narrow takes 1-D problems only"
    with caplog.at_level(logging.DEBUG, "convbench"):
        convbench.select(SPEC, "measure")
    by_level = {level: [r.getMessage() for r in caplog.records if r.levelname == level] for level in ("INFO", "DEBUG")}
    assert by_level["INFO"] == [f"{SPEC}: fast (measurement)"]
    assert f"{SPEC}: narrow: narrow takes 1-D problems only" in by_level["DEBUG"]
    assert f"{SPEC}: slow: predicted to take 0.002 s" in by_level["DEBUG"]
    assert any(line.startswith(f"{SPEC}: fast takes 0.001 s") for line in by_level["DEBUG"]), by_level["DEBUG"]
    assert {record.name for record in caplog.records} == {"convbench"}


def test_a_choice_is_logged_once(house, caplog):
    house("only")
    with caplog.at_level(logging.INFO, "convbench"):
        for _ in range(3):
            convbench.select(SPEC)
        selection.forget()
        convbench.select(SPEC)
    assert len(caplog.records) == 2, str(SPEC)


def _run(code, **environment):
    given = {name: value for name, value in os.environ.items() if name != "CONVBENCH_LOG"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**given, **environment}, check=False
    )


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True), ("DEBUG", True)])
def test_the_environment_turns_it_on(level, shown):
    done = _run(SELECT, CONVBENCH_LOG=level)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    chosen = [line for line in lines if f"convbench INFO {SPEC}: " in line]
    assert len(chosen) == 1, done.stderr
    assert chosen[0].endswith("(model)"), done.stderr
    assert any(" convbench DEBUG " in line for line in lines) is shown, done.stderr


def test_without_it_nothing_is_printed_nor_set_up():
    done = _run("import convbench, logging; print(logging.getLogger('convbench').handlers)")
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert _run(SELECT).stderr == ""


def test_an_unknown_level_is_refused():
    done = _run(SELECT, CONVBENCH_LOG="loud")
    assert done.returncode == 1
    assert "ValueError: CONVBENCH_LOG is 'loud'; debug or info is accepted" in done.stderr
