"""The same program picks the same engines on every machine, whatever was measured there."""

import dataclasses
import threading

import numpy as np
import pytest

import convbench
from convbench import machine, records, registry, selection, settings
from convbench.problems import chosen as problems
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
    house("predicted", 1e-4)
    house("pinned", 1e-3)
    house("recorded", 1e-3)
    _save(recorded=1e-9)
    _pin(tmp_path / "shipped", pinned=1e-5)
    monkeypatch.setenv("CONVBENCH_SHIPPED_RECORDS", str(tmp_path / "shipped"))
    with convbench.deterministic():
        for tuning in ("estimate", "measure", "incremental", "replay"):
            chosen = convbench.select(SPEC, tuning)
            assert (chosen.engine, chosen.source) == ("pinned", "shipped record"), f"{SPEC} {tuning}"


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


OTHER_MACHINES = [
    machine.Machine("a large one", ("AVX2", "AVX512F"), 64, 64, 64),
    machine.Machine("a small one", ("SSE2",), 1, 1, 16, hertz=1e9),
]


@pytest.mark.parametrize("other", OTHER_MACHINES, ids=lambda other: other.model)
def test_predictions_are_those_of_one_machine_wherever_they_are_made(other, monkeypatch):
    specs = [ConvSpec.parse(problem.text) for problem in problems(quick=True)]

    def figures():
        selection.forget()
        with convbench.deterministic():
            chosen = [convbench.select(spec) for spec in specs]
        return [[(c.engine, c.predicted, c.refused) for c in one.candidates] for one in chosen]

    here = figures()
    monkeypatch.setattr(settings, "this_machine", lambda threads: dataclasses.replace(other, threads=threads))
    monkeypatch.setattr(settings, "_threads", other.threads)
    monkeypatch.setattr("convbench.engines.jit.target._host_cache_bytes", lambda: 1 << 17)
    for spec, before, there in zip(specs, here, figures(), strict=True):
        assert before == there, str(spec)


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
