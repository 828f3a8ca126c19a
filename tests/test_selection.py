"""The judge, with engines that only pretend and a clock that only they move."""

import contextvars
import threading

import numpy as np
import pytest
from fake_engines import Fake

import convbench
from convbench import measuring, records, registry, selection, settings
from convbench.selection import NoRecordError
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")


@pytest.fixture
def tuning_seconds(monkeypatch):
    """Sets the time limit for one test."""
    monkeypatch.setattr(settings, "_tuning_seconds", settings._tuning_seconds)
    return convbench.set_tuning_seconds


def _select(tuning="estimate", **keywords):
    selection.forget()
    return convbench.select(SPEC, tuning, **keywords)


def _record(**seconds):
    """A record of SPEC with those medians."""
    entries = {}
    for name, median in seconds.items():
        version = registry.get(name).version
        entries[name] = records.EngineTiming(median, median * 0.99, median * 1.01, 5, 0, None, version)
    assert records.save(SPEC, entries)


def _reasons(selected):
    return {candidate.engine: candidate.refused for candidate in selected.candidates}


# The filter.

REFUSALS = {
    "the capability": ({"refusal": "fast takes 1-D only"}, {}, "fast takes 1-D only"),
    "the error bound": ({"bound": 1e-3}, {"rtol": 1e-5}, "its error bound 1.0e-03 is over rtol 1.0e-05"),
    "a bound of NaN": ({"bound": float("nan")}, {"rtol": 1e-5}, "its error bound nan is over rtol 1.0e-05"),
    "the workspace": (
        {"workspace": 2048},
        {"max_workspace": 2000},
        "its workspace of 2,048 bytes is over max_workspace 2,000",
    ),
    "determinism": ({"deterministic": False}, {}, "fast may give other bits each time"),
    "NaN and Inf": (
        {"propagates_nonfinite": False},
        {},
        "fast may spread a NaN or Inf to outputs whose window does not cover it",
    ),
    "only where named": ({"automatic": False}, {}, "fast computes only where it is named"),
}
LIMITS = ("the capability", "the error bound", "a bound of NaN", "the workspace")


def _pair(house, refusal):
    """A slow engine that is fine, and a fast one that is refused; the limits that refuse it."""
    attributes, limits, sentence = REFUSALS[refusal]
    slow, fast = house("slow", 1e-2), house("fast", 1e-6)
    for attribute, value in attributes.items():
        assert hasattr(fast, attribute)
        setattr(fast, attribute, value)
    return slow, fast, limits, sentence


@pytest.mark.parametrize("tuning", ["estimate", "measure", "replay"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_engine_is_never_chosen_nor_timed(house, refusal, tuning):
    _, fast, limits, sentence = _pair(house, refusal)
    _record(slow=1e-2, fast=1e-9)
    selected = _select(tuning, **limits)
    assert selected.engine == "slow", f"{SPEC}\n{selected}"
    assert _reasons(selected) == {"slow": None, "fast": sentence}, str(SPEC)
    assert sentence in str(selected)
    assert fast.plans == 0, str(SPEC)


@pytest.mark.parametrize("tuning", ["estimate", "measure"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_engine_is_not_chosen_without_a_record_either(house, refusal, tuning):
    _, fast, limits, sentence = _pair(house, refusal)
    selected = _select(tuning, **limits)
    assert (selected.engine, _reasons(selected)["fast"]) == ("slow", sentence), f"{SPEC}\n{selected}"
    assert fast.plans == 0, str(SPEC)


@pytest.mark.parametrize("tuning", ["estimate", "measure", "replay"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_limits_hold_for_a_pinned_engine_and_promises_of_auto_do_not(house, refusal, tuning):
    _, _, limits, sentence = _pair(house, refusal)
    if refusal not in LIMITS:
        selected = _select(tuning, engine="fast", **limits)
        assert (selected.engine, selected.source) == ("fast", "pinned"), str(SPEC)
        return
    with pytest.raises(ValueError, match="refused") as caught:
        _select(tuning, engine="fast", **limits)
    assert all(part in str(caught.value) for part in ("fast", str(SPEC), sentence))


@pytest.mark.parametrize("tuning", ["estimate", "measure"])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_integers_go_to_engines_that_are_exact(house, dtype, tuning):
    house("slow", 1e-2)
    house("fast", 1e-6, exact_integers=False)
    spec = SPEC.replace(dtype=dtype)
    sentence = f"fast may round, and {dtype} needs exact sums"
    selected = convbench.select(spec, tuning)
    assert (selected.engine, _reasons(selected)["fast"]) == ("slow", sentence), str(spec)
    with pytest.raises(ValueError, match=sentence):
        convbench.select(spec, tuning, engine="fast")


def test_the_filter_has_an_order(house):
    fast = house("fast", 1e-6, bound=1.0, workspace=1 << 30, exact_integers=False, deterministic=False)
    fast.refusal, fast.propagates_nonfinite = "fast computes nothing at all", False
    house("slow", 1.0)
    spec = SPEC.replace(dtype="int32")
    steps = [
        ("computes nothing", {"refusal": None}),
        ("needs exact sums", {"exact_integers": True}),
        ("over rtol", {"bound": 0.0}),
        ("over max_workspace", {"workspace": 0}),
        ("other bits", {"deterministic": True}),
        ("NaN or Inf", {"propagates_nonfinite": True}),
    ]
    for reason, remedy in steps:
        selection.forget()
        assert reason in _reasons(convbench.select(spec, rtol=1e-6, max_workspace=1))["fast"], str(spec)
        vars(fast).update(remedy)
    selection.forget()
    assert convbench.select(spec, rtol=1e-6, max_workspace=1).engine == "fast", str(spec)


def test_limits_are_met_by_equality(house):
    house("only", bound=1e-5, workspace=2000)
    assert _select(rtol=1e-5, max_workspace=2000).engine == "only", str(SPEC)
    house("free", bound=0.0)
    assert _select(rtol=0, max_workspace=0).engine == "free", str(SPEC)


def test_when_no_engine_is_left_every_reason_is_said(house):
    house("big", workspace=10)
    house("loose", bound=1.0)
    with pytest.raises(ValueError, match="no engine is left") as caught:
        _select(rtol=1e-6, max_workspace=5)
    message = str(caught.value)
    assert all(part in message for part in (str(SPEC), "big: its workspace", "loose: its error bound")), message


def test_an_engine_that_transposes_needs_the_copies(house):
    house("only", workspace=7)
    last = SPEC.replace(memory_format="channels_last")
    copies = 4 * (np.prod(SPEC.input_shape) + np.prod(SPEC.output_shape))
    assert convbench.select(last).candidates[0].workspace_bytes == 7 + copies, str(last)
    assert convbench.select(SPEC).candidates[0].workspace_bytes == 7, str(SPEC)


# The modes.


def test_estimate_takes_the_least_prediction_and_runs_nothing(house):
    engines = [house("b", 2e-3), house("a", 1e-3), house("c", 3e-3)]
    selected = _select()
    assert (selected.engine, selected.source, selected.regret) == ("a", "model", None), str(SPEC)
    assert [candidate.engine for candidate in selected.candidates] == ["a", "b", "c"], str(SPEC)
    assert not any(engine.plans for engine in engines), str(SPEC)
    assert records.load(SPEC) is None, str(SPEC)


@pytest.mark.parametrize("tuning", ["estimate", "measure", "replay"])
def test_a_record_goes_before_the_prediction(house, tuning):
    house("liar", 1e-6)
    house("honest", 1e-3)
    _record(liar=2e-3, honest=1e-3)
    selected = _select(tuning)
    assert (selected.engine, selected.source, selected.regret) == ("honest", "record", 1.0), str(SPEC)
    assert {c.engine: c.measured.median for c in selected.candidates} == {"liar": 2e-3, "honest": 1e-3}


@pytest.mark.parametrize(("recorded", "engine"), [(2e-3, "new"), (1.3e-3, "new"), (1.2e-3, "old"), (5e-4, "old")])
def test_who_is_not_recorded_is_chosen_if_clearly_faster_by_prediction(house, recorded, engine):
    house("old", 1e-6)
    renewed = house("new", 1e-3)
    _record(old=recorded, new=1e-4)
    renewed.version = "2"
    selected = _select()
    assert (selected.engine, selected.source) == (engine, {"new": "model", "old": "record"}[engine]), str(SPEC)
    assert _select("replay").engine == "old", str(SPEC)


def test_replay_without_a_record_is_an_error_that_says_what_to_do(house):
    house("only")
    with pytest.raises(NoRecordError, match="convbench bench") as caught:
        _select("replay")
    assert str(SPEC) in str(caught.value)
    assert isinstance(caught.value, LookupError)


def test_replay_takes_no_record_of_refused_engines(house):
    house("big", workspace=100)
    house("small")
    _record(big=1e-9)
    with pytest.raises(NoRecordError):
        _select("replay", max_workspace=10)


def test_measure_times_records_and_chooses(house):
    house("liar", 1e-4, seconds=2e-3)
    house("honest", 1e-3)
    selected = _select("measure")
    assert (selected.engine, selected.source, selected.regret) == ("honest", "measurement", 1.0), str(SPEC)
    medians = {name: entry.median for name, entry in records.load(SPEC).timings.items()}
    assert medians == pytest.approx({"liar": 2e-3, "honest": 1e-3}), str(SPEC)
    assert _select().source == "record", str(SPEC)
    assert _select("replay").engine == "honest", str(SPEC)


def test_measure_times_only_what_no_record_has(house):
    old = house("old", 1e-3)
    _select("measure")
    calls = old.calls
    assert calls
    new = house("new", 1e-4)
    selected = _select("measure")
    assert (selected.engine, selected.source) == ("new", "measurement"), str(SPEC)
    assert old.calls == calls, str(SPEC)
    assert set(records.load(SPEC).timings) == {"old", "new"}, str(SPEC)
    again = new.calls
    assert _select("measure").source == "record", str(SPEC)
    assert (old.calls, new.calls) == (calls, again), str(SPEC)


def test_measure_times_another_version_of_an_engine_anew(house):
    only = house("only", 1e-3)
    _select("measure")
    only.version, only.seconds = "2", 5e-3
    assert _select("measure").source == "measurement", str(SPEC)
    assert records.load(SPEC).timings["only"].median == pytest.approx(5e-3), str(SPEC)


def test_measure_in_one_process_is_done_once(house):
    only = house("only", 1e-3)
    first = convbench.select(SPEC, "measure")
    calls = only.calls
    assert convbench.select(SPEC, "measure") is first, str(SPEC)
    assert only.calls == calls, str(SPEC)


def test_hopeless_engines_are_not_timed_but_shown(house):
    house("good", 1e-2)
    hopeless = house("hopeless", 1e-2 * measuring.HOPELESS * 1.1)
    cheap = house("cheap", measuring.CHEAP_SECONDS)
    selected = _select("measure")
    assert (hopeless.plans, cheap.plans) == (0, 1), str(SPEC)
    assert {c.engine for c in selected.candidates if c.measured} == {"good", "cheap"}, str(SPEC)
    assert "hopeless" in str(selected)


def test_a_cheap_engine_is_timed_however_bad_its_prediction(house):
    house("good", 1e-6)
    cheap = house("cheap", measuring.CHEAP_SECONDS, seconds=1e-7)
    assert _select("measure").engine == "cheap", str(SPEC)
    assert cheap.plans == 1


def test_the_predicted_winner_stays_within_the_noise(house):
    house("rival", 2e-3, seconds=0.98e-3)
    house("predicted", 1e-3, seconds=1e-3)
    selected = _select("measure")
    assert selected.engine == "predicted", str(SPEC)
    assert selected.regret == pytest.approx(1 / 0.98), str(SPEC)
    assert "regret 1.02" in str(selected)


@pytest.mark.parametrize(
    ("predicted", "seconds", "workspace", "chosen"),
    [
        (1.3e-3, 1.24e-3, 4 << 20, "lean"),
        (5e-3, 1.24e-3, 4 << 20, "lean"),
        (1.3e-3, 1.27e-3, 4 << 20, "heavy"),  # which is clearly faster
        (1.3e-3, 1.24e-3, 9 << 20, "heavy"),  # which is hardly heavier
    ],
)
def test_of_two_about_as_fast_who_needs_less_workspace_stays(house, predicted, seconds, workspace, chosen):
    house("heavy", 1e-3, workspace=16 << 20)
    house("lean", predicted, seconds=seconds, workspace=workspace)
    assert _select("measure").engine == chosen, str(SPEC)
    selection.forget()
    assert _select("replay").engine == chosen, str(SPEC)


def test_a_few_bytes_of_workspace_decide_nothing(house):
    house("heavy", 1e-3, workspace=1 << 20)
    house("lean", 1.2e-3, seconds=1.04e-3)
    assert _select("measure").engine == "heavy", str(SPEC)


def test_measure_works_on_a_disk_that_takes_nothing(house, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "file" / "below"))
    house("only", 1e-3)
    with pytest.warns(RuntimeWarning):
        selected = _select("measure")
    assert (selected.engine, selected.source) == ("only", "measurement"), str(SPEC)


def test_an_engine_that_runs_out_of_memory_is_refused(house):
    house("greedy", 1e-6).failure = MemoryError("no room")
    house("modest", 1e-3)
    selected = _select("measure")
    assert selected.engine == "modest", str(SPEC)
    assert _reasons(selected)["greedy"] == "greedy ran out of memory while it was timed", str(SPEC)
    assert set(records.load(SPEC).timings) == {"modest"}, str(SPEC)


def test_a_recorded_engine_remains_when_the_new_one_runs_out_of_memory(house):
    house("modest", 1e-3)
    _record(modest=1e-3)
    house("greedy", 1e-6).failure = MemoryError("no room")
    selected = _select("measure")
    assert (selected.engine, selected.source) == ("modest", "record"), str(SPEC)
    assert "out of memory" in _reasons(selected)["greedy"], str(SPEC)


def test_when_every_engine_runs_out_of_memory_it_is_said(house):
    house("greedy").failure = MemoryError("no room")
    with pytest.raises(MemoryError, match="every engine") as caught:
        _select("measure")
    assert str(SPEC) in str(caught.value)


def test_who_was_not_worth_a_try_is_left_when_the_others_run_out_of_memory(house):
    house("greedy", 1e-6).failure = MemoryError("no room")
    slow = house("slow", 1.0)
    selected = _select("measure")
    assert (selected.engine, selected.source, slow.plans) == ("slow", "model", 0), str(SPEC)


def test_anything_else_that_goes_wrong_is_not_hidden(house):
    house("buggy", 1e-6).failure = ZeroDivisionError("a bug")
    house("fine", 1e-3)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        _select("measure")


# Problems that are nearly the same.


def _layer_of_sizes(house, tuning="measure", **options):
    """Calls a layer with inputs of any batch and size; engines that were measured slower than predicted."""
    liar = house("liar", 1e-4, seconds=2e-3)
    house("honest", 1e-3)
    layer = convbench.Conv2d(np.ones((3, 2, 3, 3), "float32"), padding=1, tuning=tuning, **options)
    return layer, liar, lambda n, h, w: layer(np.ones((n, 2, h, w), "float32"))


def test_a_size_that_differs_little_takes_over_the_measured_engine(house):
    layer, liar, call = _layer_of_sizes(house)
    call(8, 20, 20)
    timed = liar.calls
    for batch, height, width in [(9, 20, 20), (12, 20, 20), (6, 30, 14), (8, 20, 21)]:
        call(batch, height, width)
        chosen = layer.selection((batch, 2, height, width))
        assert (chosen.engine, chosen.source) == ("honest", "record of mb8ic2ih20oc3oh20kh3ph1"), str(chosen)
        assert records.load(chosen.spec) is None, f"{chosen.spec}: nothing was measured of it"
    assert liar.calls == timed, "nobody was timed again"


def test_a_size_that_differs_much_is_measured(house):
    layer, liar, call = _layer_of_sizes(house)
    call(8, 20, 20)
    for batch, height, width in [(13, 20, 20), (8, 31, 20), (8, 20, 13), (5, 20, 20)]:
        timed = liar.calls
        call(batch, height, width)
        assert layer.selection((batch, 2, height, width)).source == "measurement"
        assert liar.calls > timed, (batch, height, width)


def test_what_was_taken_over_is_not_passed_on(house):
    layer, _, call = _layer_of_sizes(house)
    for batch in (8, 12, 16):
        call(batch, 20, 20)
    assert [layer.selection((batch, 2, 20, 20)).source for batch in (12, 16)] == [
        "record of mb8ic2ih20oc3oh20kh3ph1",
        "measurement",
    ]


def test_the_nearest_is_taken(house):
    layer, _, call = _layer_of_sizes(house)
    for batch in (8, 14):
        call(batch, 20, 20)
    assert layer.selection((11, 2, 20, 20)).source == "record of mb14ic2ih20oc3oh20kh3ph1"
    assert layer.selection((10, 2, 20, 20)).source == "record of mb8ic2ih20oc3oh20kh3ph1"


def test_a_record_of_the_very_problem_goes_first(house):
    house("old")
    honest = house("honest")
    spec = SPEC.replace(batch=9, spatial=(9, 9))
    convbench.select(SPEC.replace(batch=8), "measure")
    entry = records.EngineTiming(1e-9, 1e-9, 1e-9, 5, 0, None, honest.version)
    records.save(spec, {"honest": entry})
    assert convbench.select(spec, "measure").source == "measurement", f"{spec}: the other one is missing there"


@pytest.mark.parametrize(
    "changes",
    [{"out_channels": 4}, {"kernel": (5, 5)}, {"dtype": "float64"}, {"stride": (2, 2)}, {"padding": ((0, 1), (1, 1))}],
)
def test_only_batch_and_sizes_may_differ(house, changes):
    house("only")
    convbench.select(SPEC, "measure")
    other = SPEC.replace(**changes)
    assert convbench.select(other, "measure").source == "measurement", str(other)


def test_high_padding_that_no_window_reaches_is_no_difference(house):
    house("only")
    even = ConvSpec.parse("mb1ic2ih20oc3oh10kh3sh2ph1")
    odd = even.replace(spatial=(21, 21), padding=1)
    assert even.padding != odd.padding, "the stride leaves out the last row of the one"
    convbench.select(even, "measure")
    assert convbench.select(odd, "measure").source == f"record of {even}", str(odd)


def test_other_limits_are_another_choice(house):
    house("only", workspace=10)
    convbench.select(SPEC, "measure")
    assert convbench.select(SPEC.replace(batch=1, spatial=(10, 9)), "measure", max_workspace=10).source == "measurement"


def test_a_record_of_an_earlier_process_is_taken_over(house):
    liar = house("liar", 1e-4, seconds=2e-3)
    house("honest", 1e-3)
    convbench.select(SPEC, "measure")
    convbench.select(SPEC.replace(batch=2), "measure")
    timed = liar.calls
    wider = SPEC.replace(batch=2, spatial=(9, 12))
    selection.forget()
    chosen = convbench.select(wider, "measure")
    assert (chosen.engine, chosen.source) == ("honest", f"record of {SPEC.replace(batch=2)}"), str(chosen)
    assert convbench.select(SPEC.replace(batch=3), "incremental").source == f"record of {SPEC.replace(batch=2)}"
    assert liar.calls == timed, str(wider)


@pytest.mark.parametrize(("predicted", "source"), [(1e-4, "measurement"), (1e-2, f"record of {SPEC}")])
def test_a_record_that_lacks_a_promising_engine_is_not_taken_over(house, predicted, source):
    house("old", 1e-3)
    convbench.select(SPEC, "measure")
    house("new", predicted)
    selection.forget()
    assert convbench.select(SPEC.replace(spatial=(9, 10)), "measure").source == source, str(SPEC)


def test_damaged_records_are_not_taken_over(house, records_directory):
    house("only", 1e-3)
    convbench.select(SPEC, "measure")
    path = records.path_of(SPEC, records_directory)
    (path.parent / "0.json").write_text("{")
    path.write_text(path.read_text().replace("0.001", "0.002"))
    selection.forget()
    assert convbench.select(SPEC.replace(spatial=(9, 10)), "measure").source == "measurement", str(SPEC)


def test_a_variant_is_taken_over(house):
    rival = house("rival", seconds=9e-3)
    engine = _Twofold.registered(rival.clock)
    layer = convbench.Conv2d(np.ones(SPEC.weight_shape, SPEC.dtype), padding=1, tuning="measure")
    for width in (9, 10):
        layer(np.ones((*SPEC.input_shape[:3], width), SPEC.dtype))
    assert [code.plans for code in engine.codes] == [1, 3], str(SPEC)
    chosen = layer.selection((*SPEC.input_shape[:3], 10))
    assert (chosen.variant, chosen.source) == ("quick", f"record of {SPEC}"), str(chosen)


@pytest.mark.parametrize("tuning", ["estimate", "replay"])
def test_other_modes_take_nothing_over(house, tuning):
    house("liar", 1e-4, seconds=2e-3)
    house("honest", 1e-3)
    convbench.select(SPEC, "measure")
    wider = SPEC.replace(spatial=(9, 10))
    if tuning == "estimate":
        assert convbench.select(wider).engine == "liar", str(wider)
    else:
        with pytest.raises(NoRecordError):
            convbench.select(wider, tuning)


# The time limit.


def test_a_measurement_ends_with_the_limit(house, tuning_seconds):
    engines = [house(f"e{number}", 1e-3 * number, seconds=0.15) for number in range(1, 9)]
    clock = engines[0].clock
    for limit in (0.0, 0.1, 0.5, 1.0, 2.0):
        tuning_seconds(limit)
        begin = clock.now
        selection.forget()
        convbench.select(SPEC.replace(batch=1 + int(10 * limit)), "measure")
        assert clock.now - begin <= limit + 0.15 + 1e-9, f"{SPEC}: limit {limit}"


def test_who_is_predicted_to_be_fast_gets_its_turn_first(house, tuning_seconds):
    tuning_seconds(0.65)
    slow = house("slow", 3e-3, seconds=0.2)
    house("fast", 1e-3, seconds=0.2)
    house("second", 2e-3, seconds=0.05)
    selected = _select("measure")
    measured = {candidate.engine for candidate in selected.candidates if candidate.measured}
    assert measured == {"fast", "second"}, str(selected)
    assert (selected.engine, slow.calls) == ("second", 0), str(SPEC)
    assert set(records.load(SPEC).timings) == measured, f"{SPEC}: no timing for who got no turn"
    _select("measure")
    assert slow.calls > 0, f"{SPEC}: its turn comes the next time"


def test_of_those_that_are_about_as_fast_the_leanest_gets_its_turn_first(house, tuning_seconds):
    tuning_seconds(1.0)
    large = house("large", 1e-3, seconds=0.3, workspace=1 << 27)
    lean, other = house("lean", 1.2e-3, seconds=60.0, workspace=1 << 20), house("other", 1.3e-3, seconds=0.1)
    selected = _select("measure")
    assert (lean.calls, large.calls, other.calls) == (1, 0, 0), str(selected)


def test_one_run_ends_the_measurement_of_a_very_large_problem(house, tuning_seconds):
    tuning_seconds(1.0)
    slow, other = house("slow", 1e-3, seconds=60.0), house("other", 2e-3, seconds=50.0)
    selected = _select("measure")
    assert (selected.engine, slow.calls, other.calls) == ("slow", 1, 0), str(SPEC)
    assert records.load(SPEC).timings["slow"].median == pytest.approx(60.0), str(SPEC)


def test_the_limit_is_one_second_unless_it_is_set(tuning_seconds, monkeypatch):
    monkeypatch.setattr(settings, "_tuning_seconds", None)
    settings._tuning_seconds_from_environment.cache_clear()
    assert convbench.get_tuning_seconds() == 1.0
    tuning_seconds(0.25)
    assert convbench.get_tuning_seconds() == 0.25


@pytest.mark.parametrize(("given", "expected"), [("0.5", 0.5), ("", 1.0), ("soon", None), ("-1", None), ("nan", None)])
def test_the_limit_from_the_environment(given, expected, monkeypatch):
    monkeypatch.setenv("CONVBENCH_TUNING_SECONDS", given)
    monkeypatch.setattr(settings, "_tuning_seconds", None)
    settings._tuning_seconds_from_environment.cache_clear()
    try:
        if expected is None:
            with pytest.raises(ValueError, match="CONVBENCH_TUNING_SECONDS is") as caught:
                convbench.get_tuning_seconds()
            assert repr(given) in str(caught.value)
        else:
            assert convbench.get_tuning_seconds() == expected
    finally:
        settings._tuning_seconds_from_environment.cache_clear()


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("inf"), ValueError), ("1", TypeError)])
def test_a_bad_limit_is_refused(seconds, error):
    with pytest.raises(error) as caught:
        convbench.set_tuning_seconds(seconds)
    assert repr(seconds) in str(caught.value)


# The order of the sources.


def test_the_choice_has_an_order(house, tmp_path, monkeypatch):
    for name, predicted in (("predicted", 9e-6), ("shipped", 1e-3), ("recorded", 1e-3), ("named", 1e-3)):
        house(name, predicted)
    assert (_select().engine, _select().source) == ("predicted", "model"), str(SPEC)
    with monkeypatch.context() as patched:
        patched.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "shipped"))
        _record(shipped=1e-5)
    monkeypatch.setenv("CONVBENCH_SHIPPED_RECORDS", str(tmp_path / "shipped"))
    assert (_select().engine, _select().source) == ("shipped", "shipped record"), str(SPEC)
    _record(recorded=9.5e-6)
    assert (_select().engine, _select().source) == ("recorded", "record"), str(SPEC)
    before = convbench.select(SPEC)
    _record(shipped=1e-9)
    assert convbench.select(SPEC) is before, f"{SPEC}: the process remembers"
    assert _select().engine == "shipped", f"{SPEC}: until it forgets"
    named = _select(engine="named")
    assert (named.engine, named.source) == ("named", "pinned"), str(SPEC)
    assert {c.engine for c in named.candidates if c.measured} == {"recorded", "shipped"}, str(SPEC)


def test_a_new_engine_is_seen_at_once(house):
    house("a", 1e-3)
    assert convbench.select(SPEC).engine == "a", str(SPEC)
    house("b", 1e-4)
    assert convbench.select(SPEC).engine == "b", str(SPEC)
    convbench.unregister("b")
    assert convbench.select(SPEC).engine == "a", str(SPEC)


def test_the_process_remembers_a_bounded_number_of_choices(house, monkeypatch):
    house("only")
    monkeypatch.setattr(selection, "REMEMBERED", 3)
    for batch in range(1, 8):
        convbench.select(SPEC.replace(batch=batch))
    assert len(selection._chosen) <= 3


def test_an_empty_problem_asks_no_engine(house):
    house("only").refusal = "only computes nothing at all"
    selected = convbench.select(SPEC.replace(batch=0))
    assert (selected.engine, selected.source, selected.candidates) == ("only", "nothing to compute", ())
    assert "nothing to compute" in str(selected)


# What is printed.


def test_a_selection_prints_every_engine_with_numbers_or_reason(house):
    house("slow", 2.5e-3, workspace=3 << 20, bound=1.5e-6)
    house("fast", 1e-3, workspace=512)
    house("narrow").refusal = "narrow takes 1-D problems only"
    fast = registry.get("fast")
    records.save(SPEC, {"fast": records.EngineTiming(8e-4, 7e-4, 9e-4, 5, 512, 3.2e-8, fast.version)})
    lines = str(_select()).splitlines()
    assert lines[0].startswith(f"{SPEC}: fast (record, regret 1.00; threads ")
    assert lines[1].split() == ["engine", "predicted", "measured", "workspace", "error"]
    rows = {line.split()[0]: line for line in lines[2:]}
    assert list(rows) == ["fast", "slow", "narrow"], str(SPEC)
    shown = {
        "fast": ("1 ms", "800 µs", "512 B", "3.2e-08", "<- chosen"),
        "slow": ("2.5 ms", "3 MiB", "≤ 1.5e-06"),
        "narrow": ("narrow takes 1-D problems only",),
    }
    for name, parts in shown.items():
        assert all(part in rows[name] for part in parts), rows[name]


def test_regret_compares_only_what_takes_part(house):
    house("big", workspace=100)
    house("small")
    _record(big=1e-9, small=1e-3)
    assert _select(max_workspace=10).regret == 1.0, str(SPEC)
    assert _select(engine="small").regret == pytest.approx(1e6), str(SPEC)


# Bad arguments.


@pytest.mark.parametrize(
    ("keywords", "error", "given"),
    [
        ({"tuning": "guess"}, ValueError, "'guess'"),
        ({"rtol": -1.0}, ValueError, "-1.0"),
        ({"rtol": float("nan")}, ValueError, "nan"),
        ({"rtol": "tight"}, ValueError, "'tight'"),
        ({"rtol": [1]}, TypeError, "[1]"),
        ({"rtol": True}, TypeError, "True"),
        ({"max_workspace": -1}, ValueError, "-1"),
        ({"max_workspace": 1.5}, TypeError, "1.5"),
        ({"engine": "warp"}, ValueError, "'warp'"),
    ],
)
def test_bad_arguments_are_refused_with_their_value(house, keywords, error, given):
    house("only")
    with pytest.raises(error) as caught:
        convbench.select(SPEC, **keywords)
    assert given in str(caught.value)


def test_a_problem_text_is_no_spec():
    with pytest.raises(TypeError, match=r"ConvSpec\.parse"):
        convbench.select(str(SPEC))


# The default engine.


@pytest.fixture
def engines(house):
    """Three engines; the default is restored afterwards."""
    for number, name in enumerate(("first", "second", "third"), 1):
        house(name, number * 1e-3)
    yield
    settings.set_default_engine("auto")


def _chosen():
    return convbench.select(SPEC).engine


@pytest.mark.usefixtures("engines")
def test_a_default_engine_is_what_auto_means():
    convbench.set_default_engine("second")
    assert (_chosen(), convbench.select(SPEC).source) == ("second", "pinned"), str(SPEC)
    assert convbench.select(SPEC, engine="third").engine == "third", str(SPEC)
    convbench.set_default_engine("auto")
    assert (_chosen(), convbench.select(SPEC).source) == ("first", "model"), str(SPEC)


@pytest.mark.usefixtures("engines")
def test_a_scoped_engine_nests_and_ends():
    with convbench.use_engine("second"):
        assert _chosen() == "second"
        with convbench.use_engine("third"):
            assert _chosen() == "third"
            with convbench.use_engine("auto"):
                assert _chosen() == "first"
        assert _chosen() == "second"
    assert _chosen() == "first"


@pytest.mark.usefixtures("engines")
def test_a_scoped_engine_ends_with_an_exception():
    with pytest.raises(RuntimeError, match="stop"), convbench.use_engine("second"):
        raise RuntimeError("stop")
    assert _chosen() == "first"


@pytest.mark.usefixtures("engines")
def test_a_scoped_engine_goes_before_the_default():
    convbench.set_default_engine("second")
    with convbench.use_engine("third"):
        assert _chosen() == "third"
    assert _chosen() == "second"


@pytest.mark.usefixtures("engines")
def test_a_scoped_engine_stays_in_its_thread():
    seen, inside, done = {}, threading.Event(), threading.Event()

    def scoped():
        with convbench.use_engine("third"):
            inside.set()
            done.wait(10)
            seen["scoped"] = _chosen()

    thread = threading.Thread(target=contextvars.Context().run, args=(scoped,))
    thread.start()
    assert inside.wait(10)
    seen["outside"] = _chosen()
    done.set()
    thread.join()
    assert seen == {"scoped": "third", "outside": "first"}, str(SPEC)


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("setting", [convbench.set_default_engine, lambda name: convbench.use_engine(name).__enter__()])
@pytest.mark.parametrize("name", ["warp", "", None, "Second"])
def test_unknown_names_are_refused_with_those_there_are(setting, name):
    with pytest.raises(ValueError, match="auto, first, second, third are accepted") as caught:
        setting(name)
    assert repr(name) in str(caught.value)
    assert _chosen() == "first"


# Variants.


class _Twofold(Fake):
    """An engine with two codes, of which its model picks the slower one."""

    def variants(self, spec):
        return self.codes

    @classmethod
    def registered(cls, clock, slow=3e-3, quick=2e-3):
        engine = convbench.register(cls("twofold", 1e-3, clock=clock))
        engine.codes = tuple(
            Fake("twofold", 1e-3, seconds=seconds, clock=clock, variant=name)
            for name, seconds in {"slow": slow, "quick": quick}.items()
        )
        return engine


def test_measuring_times_every_variant_and_takes_the_fastest(house):
    rival = house("rival", seconds=2.5e-3)
    engine = _Twofold.registered(rival.clock)
    chosen = _select("measure")
    assert (chosen.engine, chosen.variant, chosen.source) == ("twofold", "quick", "measurement"), str(SPEC)
    assert "twofold (quick)" in str(chosen)
    assert set(records.load(SPEC).timings) == {"rival", "twofold, slow", "twofold, quick"}
    assert engine.plans == 0, "the engine itself has nothing that its variants have not"
    again = _select()
    assert (again.engine, again.variant, again.source) == ("twofold", "quick", "record"), str(SPEC)


@pytest.mark.parametrize(("seconds", "variant"), [(2.98e-3, "slow"), (2.96e-3, "quick")])
def test_the_variant_that_the_model_picks_stays_unless_another_is_clearly_faster(house, seconds, variant):
    rival = house("rival", seconds=9e-3)
    _Twofold.registered(rival.clock, slow=3e-3, quick=seconds)
    for chosen in (_select("measure"), _select()):
        assert (chosen.engine, chosen.variant) == ("twofold", variant), str(SPEC)


def test_engines_that_are_far_behind_by_prediction_leave_the_variants_their_time(house, tuning_seconds):
    tuning_seconds(1.0)
    far = house("far", predicted=10e-3, seconds=0.9)
    _Twofold.registered(far.clock, slow=0.15, quick=0.1)
    near = house("near", predicted=2e-3, seconds=0.12)
    chosen = _select("measure")
    assert (chosen.engine, chosen.variant) == ("twofold", "quick"), str(SPEC)
    assert (near.calls > 0, far.calls) == (True, 0), str(SPEC)


def test_a_pinned_engine_is_tuned_among_its_variants_only(house):
    rival = house("rival", seconds=1e-4)
    _Twofold.registered(rival.clock)
    chosen = _select("measure", engine="twofold")
    assert (chosen.engine, chosen.variant, chosen.source) == ("twofold", "quick", "pinned"), str(SPEC)
    assert rival.calls == 0, str(SPEC)
    assert _select(engine="twofold").variant == "quick", "the record tells"


def test_a_variant_of_another_version_is_timed_again(house):
    rival = house("rival", seconds=9e-3)
    engine = _Twofold.registered(rival.clock)
    _select("measure")
    engine.codes[0].version = "2"
    before = [code.calls for code in engine.codes]
    _select("measure")
    after = [code.calls for code in engine.codes]
    assert after[0] > before[0], str(SPEC)
    assert after[1] == before[1], str(SPEC)


def test_unmeasured_the_variant_that_is_predicted_to_be_the_fastest_is_planned(house):
    rival = house("rival", 1.0)
    engine = _Twofold.registered(rival.clock)
    engine.codes[1].predicted = 0.5e-3
    assert (_select().variant, _select().source) == ("quick", "model"), str(SPEC)
    layer = convbench.Conv2d(np.ones(SPEC.weight_shape, SPEC.dtype), padding=1)
    layer(np.ones(SPEC.input_shape, SPEC.dtype))
    assert (engine.plans, [code.plans for code in engine.codes]) == (0, [0, 1])


def test_a_layer_plans_the_variant_that_was_chosen(house):
    rival = house("rival", seconds=9e-3)
    engine = _Twofold.registered(rival.clock)
    layer = convbench.Conv2d(np.ones(SPEC.weight_shape, SPEC.dtype), padding=1, tuning="measure")
    layer(np.ones(SPEC.input_shape, SPEC.dtype))
    assert [code.plans for code in engine.codes] == [1, 2], str(SPEC)


@pytest.mark.parametrize("name", list(registry.engines()))
@pytest.mark.parametrize("text", ["mb1ic16ih9oc20oh9kh1ph0", "mb1ic2ih9oc3oh9kh3ph1", "g4mb1ic4ih9oc4oh9kh3ph1"])
def test_variants_compute_what_their_engine_computes(name, text):
    spec = ConvSpec.parse(text)
    engine = registry.get(name)
    if engine.why_unsupported(spec) is None:
        ways = engine.variants(spec)
        assert {way.name for way in ways} == {name}, text
        assert len({way.variant for way in ways}) == len(ways), text
        found = convbench.verify(spec, [name])
        assert found.ok, str(found)
