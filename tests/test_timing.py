"""The timer, on a clock that only moves when a call says so."""

from functools import partial

import pytest

from convbench import timing
from convbench.timing import Timing, fastest, interleaved, summarise, within_limit


class Clock:
    """Seconds that pass inside calls only, and a log of the calls."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def __call__(self):
        return self.now

    def call(self, name, *durations):
        """A call that takes each of `durations` in turn, then the last one again and again."""
        remaining = list(durations)

        def run():
            self.log.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return run


@pytest.fixture
def clock():
    return Clock()


def _timing(median, spread=0.0):
    return Timing(median, median - spread, median + spread, 9)


def _interleaved(clock, calls, seconds=0.0, **options):
    """`interleaved` on the fake clock, whose rests take their time too."""

    def rest(pause):
        clock.now += pause

    return interleaved(calls, seconds, clock=clock, rest=rest, **options)


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(0, 4, []), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (8, 4, [1, 3, 5, 7]), (100, 3, [16, 50, 83])],
)
def test_samples_are_thinned_over_the_whole_time(count, most, kept):
    assert timing.thinned(list(map(float, range(count))), most) == kept


def test_kept_samples_have_four_digits():
    assert timing.thinned([1.23456e-5]) == [1.235e-5]


def test_turns_are_interleaved_and_begin_with_an_untimed_call(clock):
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 1.0)}
    found = _interleaved(clock, calls)
    assert "".join(clock.log) == "ab" + "aabb" * timing.MIN_ROUNDS
    assert found["a"].samples == timing.MIN_ROUNDS


def test_every_turn_of_several_rivals_begins_with_a_rest(clock):
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 1.0)}
    _interleaved(clock, calls)
    assert clock.now - 100.0 == pytest.approx(len(clock.log) + 2 * timing.MIN_ROUNDS * timing.SETTLE_SECONDS)


def test_who_is_alone_needs_no_rest(clock):
    _interleaved(clock, {"a": clock.call("a", 1.0)})
    assert clock.now - 100.0 == pytest.approx(len(clock.log))


def test_first_calls_do_not_count(clock):
    found = _interleaved(clock, {"a": clock.call("a", 60.0, 30.0, 1.0)})
    assert found["a"].q3 == pytest.approx(1.0)


def test_medians_and_quartiles_come_from_the_samples(clock):
    found = _interleaved(clock, {"a": clock.call("a", 9.0, 9.0, 3.0, 9.0, 1.0, 9.0, 2.0)})
    assert found["a"].samples == timing.MIN_ROUNDS == 3
    assert (found["a"].q1, found["a"].median, found["a"].q3) == pytest.approx((1.5, 2.0, 2.5))


def test_a_call_past_three_times_the_best_gets_one_turn(clock):
    calls = {"slow": clock.call("slow", 3.1), "best": clock.call("best", 1.0), "near": clock.call("near", 2.9)}
    found = _interleaved(clock, calls)
    assert list(found) == ["slow", "best", "near"]
    assert (found["slow"].samples, found["best"].samples, found["near"].samples) == (1, 3, 3)
    assert found["slow"].q1 == found["slow"].median == found["slow"].q3 == pytest.approx(3.1)
    assert clock.log.count("slow") == 3


def test_how_far_behind_is_dropped_can_be_chosen(clock):
    calls = {"slow": clock.call("slow", 3.1), "best": clock.call("best", 1.0)}
    assert _interleaved(clock, calls, drop_beyond=4.0)["slow"].samples == timing.MIN_ROUNDS


def test_short_calls_are_repeated_within_a_sample(clock):
    found = _interleaved(clock, {"short": clock.call("short", 10e-6), "long": clock.call("long", 20e-6)})
    assert found["short"].median == pytest.approx(10e-6)
    repeats = round(timing.MIN_SAMPLE_SECONDS / 10e-6)
    assert found["short"].samples == timing.MIN_ROUNDS * timing.SAMPLES_PER_TURN
    assert clock.log.count("short") == 1 + timing.MIN_ROUNDS * (1 + repeats * timing.SAMPLES_PER_TURN)


def test_a_turn_ends_with_its_time(clock):
    found = _interleaved(clock, {"a": clock.call("a", timing.TURN_SECONDS / 3.5)})
    assert found["a"].samples == timing.MIN_ROUNDS * 3


def test_a_clock_too_coarse_for_a_call_does_no_harm(clock):
    found = _interleaved(clock, {"a": clock.call("a", 0.0)})
    assert found["a"].samples == timing.MIN_ROUNDS * timing.SAMPLES_PER_TURN


def test_the_time_limit_ends_the_rounds(clock):
    found = _interleaved(clock, {"a": clock.call("a", 1.0)}, 20.0)  # 1 s for the first call, then 2 s a turn
    assert found["a"].samples == 10
    assert clock.now - 100.0 == pytest.approx(21.0)


def test_slow_calls_get_the_fewest_turns_beyond_the_limit(clock):
    assert _interleaved(clock, {"a": clock.call("a", 50.0)}, 1.0)["a"].samples == timing.MIN_ROUNDS


# Within a limit.


def _within(clock, calls, seconds, making=0.0, **options):
    """`within_limit` on the fake clock, where making a call takes `making` seconds."""

    def made(name):
        clock.log.append(f"make {name}")
        clock.now += making
        return calls[name]

    def rest(pause):
        clock.now += pause

    return within_limit({name: partial(made, name) for name in calls}, seconds, clock=clock, rest=rest, **options)


@pytest.mark.parametrize("making", [0.0, 0.03, 0.4])
@pytest.mark.parametrize("once", [1e-4, 0.02, 0.3, 5.0])
@pytest.mark.parametrize("limit", [0.0, 0.2, 1.0, 3.0])
def test_no_more_than_the_limit_a_making_and_a_run(clock, limit, once, making):
    calls = {name: clock.call(name, once) for name in "abcdef"}
    found, lacking = _within(clock, calls, limit, making)
    assert clock.now - 100.0 <= limit + making + once + 1e-6
    assert (lacking, "a" in found) == ([], True)
    assert list(found) == list("abcdef")[: len(found)], "who is named first gets a turn first"


def test_within_a_long_limit_all_get_as_many_turns(clock):
    calls = {name: clock.call(name, 0.02) for name in "abc"}
    found, _ = _within(clock, calls, 10.0)
    counts = [found[name].samples for name in "abc"]
    assert max(counts) - min(counts) <= timing.SURE_SAMPLES
    assert min(counts) > timing.MIN_ROUNDS * timing.SURE_SAMPLES
    assert all(found[name].median == pytest.approx(0.02) for name in "abc")


def test_each_is_made_just_before_its_turn(clock):
    _within(clock, {"a": clock.call("a", 0.02), "b": clock.call("b", 0.02)}, 0.3)
    assert clock.log[:7] == ["make a", *"aaaa", "make b", "b"]


def test_the_promising_have_their_turns_before_others_are_made(clock):
    _within(clock, {name: clock.call(name, 0.02) for name in "abc"}, 3.0, early=2)
    turn = 1 + timing.SURE_SAMPLES
    before = ["make a", *"a" * turn, "make b", *"b" * turn, *("a" * turn + "b" * turn) * (timing.MIN_ROUNDS - 1)]
    assert clock.log[: len(before) + 1] == [*before, "make c"]


def test_less_promising_ones_are_made_while_it_is_early(clock):
    found, _ = _within(clock, {name: clock.call(name, 0.02) for name in "abcdef"}, 3.0, making=0.3, early=2)
    assert list(found) == ["a", "b", "c"]
    assert found["a"].samples > found["c"].samples > 0


def test_who_was_never_near_the_best_has_no_more_turns(clock):
    found, _ = _within(clock, {"best": clock.call("best", 0.02), "behind": clock.call("behind", 0.04)}, 5.0)
    assert found["behind"].samples <= 2 * timing.SURE_SAMPLES < found["best"].samples


@pytest.mark.parametrize(("once", "samples"), [(0.012, 3), (0.02, 3), (0.04, 2), (0.06, 1), (0.2, 1)])
def test_a_turn_of_slow_calls_has_some_samples_if_it_does_not_take_long(clock, once, samples):
    assert len(timing._turn(clock.call("a", once), clock)[1]) == samples


def test_within_a_limit_the_slow_get_one_turn(clock):
    found, _ = _within(clock, {"slow": clock.call("slow", 0.1), "best": clock.call("best", 0.02)}, 3.0)
    assert found["slow"].samples == 1
    assert found["best"].samples > 5


def test_the_first_run_is_the_timing_where_it_ends_the_time(clock):
    found, _ = _within(clock, {"a": clock.call("a", 2.0, 1.0), "b": clock.call("b", 1.0)}, 1.5)
    assert found == {"a": Timing(2.0, 2.0, 2.0, 1)}


@pytest.mark.parametrize("when", ["made", "called"])
def test_who_runs_out_of_memory_is_named(clock, when):
    def fail():
        raise MemoryError

    makers = {"big": fail if when == "made" else lambda: fail, "a": lambda: clock.call("a", 0.1)}
    found, lacking = within_limit(makers, 1.0, clock=clock, rest=lambda pause: None)
    assert (list(found), lacking) == (["a"], ["big"])


def test_nothing_at_all_is_timed_where_all_run_out_of_memory(clock):
    def fail():
        raise MemoryError

    assert within_limit({"a": fail}, 1.0, clock=clock) == ({}, ["a"])


def test_an_idle_process_has_settled_at_once(monkeypatch):
    slept = []
    monkeypatch.setattr(timing.time, "sleep", slept.append)
    monkeypatch.setattr(timing.time, "process_time", lambda: 0.0)
    timing.settle(60.0)
    assert len(slept) == 1


@pytest.mark.skipif(timing.os.name != "posix", reason="the clock of processor time is too coarse on this system")
def test_a_busy_process_settles_after_the_longest_rest(monkeypatch):
    slept = []
    clock = Clock()

    def sleep(seconds):
        slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(timing.time, "sleep", sleep)
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    monkeypatch.setattr(timing.time, "process_time", clock)
    timing.settle(0.09)
    assert sum(slept) == pytest.approx(0.09, abs=2 * timing.QUIET_SECONDS)


def test_summarise_one_sample_and_several():
    assert summarise([2.0]) == Timing(2.0, 2.0, 2.0, 1)
    assert summarise([4.0, 1.0, 3.0, 2.0, 5.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert all(type(value) is float for value in (summarise([1, 2, 3]).median, summarise([1, 2, 3]).q1))


def test_the_least_median_is_fastest():
    assert fastest({"a": _timing(2.0), "b": _timing(1.0), "c": _timing(3.0)}) == "b"


@pytest.mark.parametrize(
    ("rival", "chosen"),
    [
        (_timing(0.97), "incumbent"),  # within 5 %
        (_timing(0.90, spread=0.2), "incumbent"),  # the quartiles overlap
        (_timing(0.90, spread=0.01), "rival"),
        (_timing(1.50), "incumbent"),
    ],
)
def test_the_incumbent_stays_unless_clearly_beaten(rival, chosen):
    assert fastest({"rival": rival, "incumbent": _timing(1.0, spread=0.02)}, "incumbent") == chosen


def test_an_incumbent_that_was_not_timed_does_not_stay():
    assert fastest({"a": _timing(2.0), "b": _timing(1.99)}, "gone") == "b"


def test_clearly_faster_is_not_symmetric():
    fast, slow = _timing(1.0, 0.01), _timing(2.0, 0.01)
    assert fast.clearly_faster_than(slow)
    assert not slow.clearly_faster_than(fast)
    assert not fast.clearly_faster_than(fast)
