"""Tuning by the caller's own calls, with engines that only pretend and a clock that only they move."""

import threading

import numpy as np
import pytest
from fake_engines import Fake

import convbench
from convbench import incremental, measuring, records, registry, selection
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
X = np.random.default_rng(3).standard_normal(SPEC.input_shape).astype("float32")
WEIGHT = np.random.default_rng(4).standard_normal(SPEC.weight_shape).astype("float32")
BIAS = np.arange(3, dtype="float32")
ROUNDS = 1 + incremental.COUNTED_CALLS


def _layer(**options):
    return convbench.Conv2d(WEIGHT, padding=1, tuning="incremental", **options)


def test_every_call_computes_with_one_candidate_until_the_fastest_is_known(house):
    liar, honest = house("liar", 1e-4, seconds=2e-3), house("honest", 1e-3)
    layer = _layer()
    for number in range(2 * ROUNDS):
        assert layer.selection(X.shape).source == "trial", f"{SPEC}: call {number}"
        layer(X)
        assert liar.calls + honest.calls == number + 1, str(SPEC)
    assert (liar.calls, honest.calls) == (ROUNDS, ROUNDS), str(SPEC)
    settled = layer.selection(X.shape)
    assert (settled.engine, settled.source) == ("honest", "measurement"), str(SPEC)
    for _ in range(5):
        layer(X)
    assert (liar.calls, honest.calls) == (ROUNDS, ROUNDS + 5), str(SPEC)
    assert (liar.plans, honest.plans) == (1, 1), f"{SPEC}: nothing is planned twice"


def test_the_timings_are_recorded_as_those_of_measure_are(house):
    house("slow", 2e-3)
    house("fast", 1e-3)
    layer = _layer()
    for _ in range(2 * ROUNDS):
        layer(X)
    medians = {name: entry.median for name, entry in records.load(SPEC).timings.items()}
    assert medians == pytest.approx({"slow": 2e-3, "fast": 1e-3}), str(SPEC)
    selection.forget()
    for tuning in ("replay", "measure", "incremental", "estimate"):
        assert convbench.select(SPEC, tuning).source == "record", f"{SPEC} {tuning}"


def test_what_is_recorded_is_not_tried_again(house):
    old = house("old", 1e-3)
    for layer in (_layer(), _layer()):
        for _ in range(ROUNDS):
            layer(X)
    assert old.calls == 2 * ROUNDS, str(SPEC)
    new = house("new", 1e-4)
    before, layer = old.calls, _layer()
    for _ in range(ROUNDS):
        layer(X)
    assert (new.calls, old.calls) == (ROUNDS, before), f"{SPEC}: only the new one is tried"
    assert layer.selection(X.shape).engine == "new", str(SPEC)


def test_the_winner_may_be_one_that_a_record_knows(house):
    old = house("old", 1e-3)
    convbench.select(SPEC, "measure")
    before = old.calls
    house("new", 1e-4, seconds=5e-3)
    layer = _layer()
    for _ in range(ROUNDS + 2):
        layer(X)
    assert layer.selection(X.shape).engine == "old", str(SPEC)
    assert old.calls == before + 2, str(SPEC)


def test_hopeless_candidates_are_not_tried(house):
    house("good", 1e-4)
    hopeless = house("hopeless", 1e-4 * measuring.HOPELESS * 1.1)
    near = house("near", 1e-4 * measuring.HOPELESS * 0.9)
    layer = _layer()
    for _ in range(3 * ROUNDS):
        layer(X)
    assert hopeless.plans == 0, f"{SPEC}: also where one call would be cheap"
    assert near.plans == 1, str(SPEC)


def test_who_is_far_behind_takes_two_calls(house):
    slow, fast = house("slow", 1e-4, seconds=1e-2), house("fast", 1e-3)
    layer = _layer()
    for _ in range(3 * ROUNDS):
        layer(X)
    assert slow.calls == 2, str(SPEC)
    assert fast.calls == 3 * ROUNDS - 2, str(SPEC)
    assert set(records.load(SPEC).timings) == {"slow", "fast"}, str(SPEC)


@pytest.mark.parametrize("position", [1e-6, 1e-1], ids=["first", "last"])
def test_a_candidate_without_memory_is_dropped_within_the_call(house, position):
    modest = house("modest", 1e-2)
    greedy = house("greedy", position)
    greedy.failure = MemoryError("no room")
    layer = _layer()
    for number in range(ROUNDS + 2):
        layer(X)
        assert modest.calls == number + 1, f"{SPEC}: every call computes"
    chosen = layer.selection(X.shape)
    assert chosen.engine == "modest", str(SPEC)
    assert greedy.plans == 1, str(SPEC)
    reasons = {candidate.engine: candidate.refused for candidate in chosen.candidates}
    assert reasons["greedy"] == "greedy ran out of memory while it was timed", str(SPEC)


def test_a_recorded_engine_computes_when_the_new_one_runs_out_of_memory(house):
    old = house("old", 1e-3)
    convbench.select(SPEC, "measure")
    before = old.calls
    house("greedy", 1e-6).failure = MemoryError("no room")
    _layer()(X)
    assert old.calls == before + 1, str(SPEC)


def test_when_every_candidate_runs_out_of_memory_it_is_said(house):
    house("greedy").failure = MemoryError("no room")
    with pytest.raises(MemoryError, match="every engine") as caught:
        _layer()(X)
    assert str(SPEC) in str(caught.value)


def test_anything_else_that_goes_wrong_is_not_hidden(house):
    house("buggy", 1e-6).failure = ZeroDivisionError("a bug")
    house("fine", 1e-3)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        _layer()(X)


class _Twofold(Fake):
    def variants(self, spec):
        return self.codes


def _twofold(clock):
    engine = convbench.register(_Twofold("twofold", 1e-3, clock=clock))
    engine.codes = tuple(
        Fake("twofold", 1e-3, seconds=seconds, clock=clock, variant=name)
        for name, seconds in {"slow": 3e-3, "quick": 2e-3}.items()
    )
    return engine


@pytest.mark.parametrize("name", ["auto", "twofold"])
def test_variants_are_candidates(house, name):
    rival = house("rival", 2.5e-3)
    engine = _twofold(rival.clock)
    layer = _layer(engine=name)
    for _ in range(4 * ROUNDS):
        layer(X)
    chosen = layer.selection(X.shape)
    assert (chosen.engine, chosen.variant) == ("twofold", "quick"), str(SPEC)
    assert chosen.source == ("pinned" if name == "twofold" else "measurement"), str(SPEC)
    assert (engine.plans, [code.plans for code in engine.codes]) == (0, [1, 1]), str(SPEC)
    assert engine.codes[1].calls > engine.codes[0].calls, str(SPEC)
    assert (rival.calls > 0) == (name == "auto"), str(SPEC)


@pytest.mark.parametrize("options", [{}, {"rtol": "exact"}, {"padding_mode": "reflect"}, {"flip": True}])
def test_every_call_on_real_engines_gives_the_convolution(options):
    options = {"padding": 1, **options}
    limits = {name: options.get(name) for name in ("rtol",)}
    shape = {name: value for name, value in options.items() if name != "rtol"}
    expected = convbench.conv2d(X, WEIGHT, BIAS, engine="reference", **shape)
    layer = convbench.Conv2d(WEIGHT, BIAS, tuning="incremental", **limits, **shape)
    out = np.empty((*expected.shape[:-1], 2 * expected.shape[-1]), "float32")[..., ::2]
    tried = set()
    for number in range(12 * ROUNDS):
        tried.add(layer.selection(X.shape).source)
        result = layer(X, out=out) if number % 2 else layer(X)
        assert np.allclose(result, expected, rtol=1e-4, atol=1e-5), f"{SPEC}: call {number}"
    assert layer.selection(X.shape).source in ("measurement", f"record of {SPEC}"), f"{SPEC}: {tried}"


def test_threads_share_the_trial(house):
    engines = [house("a", 1e-3), house("b", 2e-3)]
    layer, start = _layer(), threading.Barrier(4)

    def work():
        start.wait(10)
        for _ in range(20):
            layer(X)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(engine.calls for engine in engines) == 80, str(SPEC)
    assert layer.selection(X.shape).engine == "a", str(SPEC)


def test_the_functions_tune_too(house):
    slow, fast = house("slow", 1e-4, seconds=2e-3), house("fast", 1e-3)
    for _ in range(3 * ROUNDS):
        convbench.conv2d(X, WEIGHT, padding=1, tuning="incremental")
    assert (slow.calls, fast.calls) == (ROUNDS, 2 * ROUNDS), str(SPEC)


def test_the_plans_of_losers_are_not_counted_when_it_is_over(house):
    house("slow", 2e-3)
    house("fast", 1e-3)
    convbench.clear_cache()
    layer = _layer()
    for _ in range(3 * ROUNDS):
        layer(X)
    info = convbench.cache_info()
    assert (info.plans, info.hits, info.misses) == (1, 3 * ROUNDS - 1, 1), str(SPEC)
    assert registry.get("slow").plans == 1
