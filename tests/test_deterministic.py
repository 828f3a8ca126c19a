"""The same program picks the same engines on every machine, whatever was measured there."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import convbench
from convbench import records, registry, selection, settings
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")


@pytest.fixture(autouse=True)
def _as_before():
    yield
    convbench.set_deterministic(False)
    selection.forget()


def _save(**seconds):
    entries = {
        name: records.EngineTiming(median, median, median, 5, 0, None, registry.get(name).version)
        for name, median in seconds.items()
    }
    assert records.save(SPEC, entries)


def _pin(base, **seconds):
    entries = {
        name: records.EngineTiming(median, median, median, 5, 0, None, registry.get(name).version)
        for name, median in seconds.items()
    }
    stored = records.Stored(str(SPEC), records.ANY, entries)
    stored.path(base).parent.mkdir(parents=True)
    stored.path(base).write_text(stored.text())


def test_records_of_this_machine_do_not_count(house):
    house("predicted", 1e-4)
    house("recorded", 1e-3)
    _save(recorded=1e-9)
    assert convbench.select(SPEC).engine == "recorded", str(SPEC)
    with convbench.deterministic():
        chosen = convbench.select(SPEC)
        assert (chosen.engine, chosen.source) == ("predicted", "fixed model"), str(SPEC)
        assert all(candidate.measured is None for candidate in chosen.candidates), str(SPEC)
    assert convbench.select(SPEC).engine == "recorded", str(SPEC)


def test_pinned_records_count(house, tmp_path, monkeypatch):
    house("predicted", 1e-6)
    house("pinned", 1e-3)
    house("recorded", 1e-3)
    _save(recorded=1e-9)
    _pin(tmp_path / "shipped", pinned=1e-5)
    monkeypatch.setenv("CONVBENCH_SHIPPED_RECORDS", str(tmp_path / "shipped"))
    with convbench.deterministic():
        for tuning in ("estimate", "measure", "incremental", "replay"):
            chosen = convbench.select(SPEC, tuning)
            assert (chosen.engine, chosen.source) == ("pinned", "shipped record"), f"{SPEC} {tuning}"
    chosen = convbench.select(SPEC)  # though another is predicted to be faster
    assert (chosen.engine, chosen.source) == ("pinned", "shipped record"), str(SPEC)


@pytest.mark.parametrize("tuning", ["measure", "incremental"])
def test_nothing_is_timed(house, tuning):
    engines = [house("a", 2e-3), house("b", 1e-3)]
    layer = convbench.Conv2d(np.ones(SPEC.weight_shape, "float32"), padding=1, tuning=tuning)
    with convbench.deterministic():
        for _ in range(9):
            layer(np.ones(SPEC.input_shape, "float32"))
    assert [engine.calls for engine in engines] == [0, 9], str(SPEC)
    assert records.load(SPEC) is None, str(SPEC)


def test_replay_wants_a_pinned_record(house):
    house("only")
    _save(only=1e-3)
    with convbench.deterministic(), pytest.raises(convbench.NoRecordError, match="no pinned record") as caught:
        convbench.select(SPEC, "replay")
    assert str(SPEC) in str(caught.value)


FIGURES = """
import json, sys
import convbench
from convbench import machine, settings
from convbench.engines.jit import target
from convbench.problems import chosen

if sys.argv[1:]:  # another machine, as far as predictions may ask
    threads, vector_bytes, hertz, cache = map(int, sys.argv[1:])
    other = machine.Machine("another", ("AVX2",), threads, threads, vector_bytes, hertz=float(hertz))
    settings.this_machine = machine.this_machine = lambda threads: other
    settings.usable_cores = lambda: threads
    target._host_cache_bytes = lambda level: cache
with convbench.deterministic():
    found = [convbench.explain(problem.text) for problem in chosen(quick=True)]
print(json.dumps([[str(one.spec), one.engine, [(c.engine, c.predicted) for c in one.candidates]] for one in found]))
"""


def _figures(*machine):
    names = ("CONVBENCH_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", FIGURES, *map(str, machine)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_predictions_are_those_of_one_machine_wherever_they_are_made():
    here = _figures()
    assert len({engine for _, engine, _ in here}) > 1, "the problems are different enough"
    for other in [(64, 64, 4_000_000_000, 2 << 20), (1, 16, 1_000_000_000, 1 << 17)]:
        for before, there in zip(here, _figures(*other), strict=True):
            assert before == there, f"{before[0]} with {other[0]} threads"


def test_plans_made_before_do_not_count_within(house):
    slow, fast = house("slow", 1e-3), house("fast", 1e-4)
    _save(slow=1e-9)
    layer, x = convbench.Conv2d(np.ones(SPEC.weight_shape, "float32"), padding=1), np.ones(SPEC.input_shape, "float32")
    layer(x)
    with convbench.deterministic():
        layer(x)
        with convbench.deterministic(False):
            layer(x)
    layer(x)
    assert (slow.calls, fast.calls) == (3, 1), str(SPEC)


def test_a_process_may_be_deterministic_as_a_whole(house):
    house("predicted", 1e-4)
    house("recorded", 1e-3)
    _save(recorded=1e-9)
    convbench.set_deterministic(True)
    assert convbench.select(SPEC).engine == "predicted", str(SPEC)
    with convbench.deterministic(False):
        assert convbench.select(SPEC).engine == "recorded", str(SPEC)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(convbench.select(SPEC).engine))
    thread.start()
    thread.join(10)
    assert seen == ["predicted"], f"{SPEC}: in every thread"


def test_blocks_of_both_kinds_nest(house):
    house("predicted", 1e-4)
    house("named", 1e-3)
    with convbench.use_engine("named"), convbench.deterministic():
        assert settings.is_deterministic()
        assert convbench.select(SPEC).engine == "named", str(SPEC)
        with convbench.use_engine("auto"):
            assert settings.is_deterministic()
            assert convbench.select(SPEC).engine == "predicted", str(SPEC)
    assert not settings.is_deterministic()


@pytest.mark.parametrize("setting", [convbench.set_deterministic, lambda on: convbench.deterministic(on).__enter__()])
@pytest.mark.parametrize("on", ["yes", 1, None])
def test_anything_but_a_switch_is_refused(setting, on):
    with pytest.raises(TypeError, match="True or False") as caught:
        setting(on)
    assert repr(on) in str(caught.value)
