"""Which jobs wake workers that sleep: by the times that they took before."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest

import convbench
from convbench import settings
from convbench.engines.direct import Direct
from convbench.engines.jit import compile as compiler
from convbench.engines.jit import parallel, pool_code, scheduling, waking
from convbench.engines.jit.target import target
from convbench.engines.jit.vector import Code

CLOSE, NOW = 200_000, 10**12
HELPED, ALONE, CALLS, LAST, HOLD, AWAKE, TIME = range(7)
LONG_AGO = NOW - 10**9


def write_decide(module):
    code = Code(module, "decide", target(), "p")
    (words,) = code.arguments
    helped, alone, _, last, _, awake, time = (words + 8 * word for word in range(7))
    time.store(waking.is_worth_it(code, helped, alone, last, awake, time.load(), CLOSE))
    code.finish()


def write_note(module):
    code = Code(module, "note", target(), "pi")
    usual, taken = code.arguments
    waking.note(code, usual, taken)
    code.finish()


def decide(helped, alone, *, calls=waking.TRIALS, last=LONG_AGO, hold=0, awake=LONG_AGO):
    """Whether others are to help, and the words afterwards."""
    words = np.array([helped, alone, calls, last, hold, awake, NOW], np.int64)
    function = compiler.address("decide", (), target(), write_decide)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(words.ctypes.data)
    return bool(words[TIME]), words


def note(usual, taken):
    """The usual time after a job."""
    word = np.array([usual], np.int64)
    function = compiler.address("note", (), target(), write_note)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(function)(word.ctypes.data, taken)
    return int(word[0])


def write_learn(module):
    code = Code(module, "learn", target(), "pii")
    patience, late, lost = code.arguments
    waking.learn_patience(patience, late.compare("!=", 0), lost.compare("!=", 0), CLOSE)
    code.finish()


def learn(patience, *, late=False, lost=False):
    """How long a worker watches the next time."""
    word = np.array([patience], np.int64)
    function = compiler.address("learn", (), target(), write_learn)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(function)(word.ctypes.data, late, lost)
    return int(word[0])


def write_lost(module):
    code = Code(module, "lost", target(), "p")
    code.arguments[0].store(scheduling.times_lost(code))
    code.finish()


def test_a_worker_that_lost_its_core_does_not_watch():
    assert learn(CLOSE, lost=True) == learn(CLOSE, late=True, lost=True) == 0


def test_a_worker_watches_longer_every_time_also_when_it_came_late():
    assert 0 < learn(0, late=True) < learn(0) < learn(10_000, late=True) < learn(10_000) < CLOSE
    assert learn(CLOSE) == learn(CLOSE, late=True) == CLOSE


@pytest.mark.skipif(not scheduling.knows_threads(), reason="threads are not told apart on this system")
def test_losses_of_the_core_are_the_systems():
    resource = pytest.importorskip("resource")
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiler.address("lost", (), target(), write_lost))
    word = np.zeros(1, np.int64)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    function(word.ctypes.data)
    assert before <= word[0] <= resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


@pytest.mark.parametrize(
    ("helped", "alone", "by_itself"),
    [
        (150_000, 37_000, False),  # too long to try
        (50_000, 37_000, True),
        (50_000, 60_000, False),
    ],
)
def test_a_job_has_help_if_it_was_faster_so(helped, alone, by_itself):
    helps, words = decide(helped, alone)
    assert helps != by_itself
    assert (words[LAST] == NOW) == by_itself


def test_first_calls_go_either_way_in_turn():
    assert [decide(0, 0, calls=0)[0], decide(50_000, 0, calls=1)[0]] == [True, False]
    assert [decide(50_000, 37_000, calls=2)[0], decide(50_000, 60_000, calls=3)[0]] == [True, False]
    assert decide(150_000, 0, calls=1)[0]
    assert decide(50_000, 120_000, calls=3)[0]


def test_jobs_in_a_row_wake_workers_unless_those_do_not_stay_awake():
    assert decide(50_000, 37_000, last=NOW - CLOSE // 2)[0]
    helps, words = decide(50_000, 37_000, last=NOW - CLOSE // 2, awake=NOW - CLOSE // 2)
    assert not helps
    assert words[HOLD] == NOW + waking.HOLD_NANOSECONDS
    assert not decide(50_000, 37_000, last=NOW - CLOSE // 2, hold=NOW + 1)[0]
    assert decide(50_000, 60_000, last=NOW - CLOSE // 2, hold=NOW + 1)[0]


def test_the_other_way_is_tried_again_some_day():
    words = [50_000, 49_000]
    for _ in range(50):
        helps, (*words, _, _, _, _, _) = decide(*words)
        if helps:
            break
    assert helps
    assert words[HELPED] <= 49_000


def test_times_are_steady():
    assert note(0, 80_000) == 80_000
    assert note(40_000, 44_000) == 41_000
    assert note(40_000, 4_000_000) == 50_000  # the caller had lost its processor
    assert note(40_000, 20_000) == 35_000


@pytest.mark.parametrize("alone_is_faster", [True, False])
def test_calls_of_a_plan_go_the_faster_way(monkeypatch, alone_is_faster):
    monkeypatch.setattr(settings, "_threads", 2)
    monkeypatch.setattr(settings.CHANGES, "value", settings.epoch() + 1)
    spec = convbench.ConvSpec.parse("mb1ic1ih256oc1kh5ph2")
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, spec.input_shape).astype("float32")
    weight = rng.integers(-3, 4, spec.weight_shape).astype("float32")
    plan, out = Direct("wide").plan(spec, weight), np.empty(spec.output_shape, "float32")
    plan(x, out)
    words = plan._frames[0].words
    times = (90_000, 10) if alone_is_faster else (10, 90_000)
    first = pool_code.FRAME_HELPED // 8
    words[first : first + 3] = *times, waking.TRIALS
    memory, end = parallel._pool.memory, time.monotonic() + 20
    while not memory[pool_code.SLEEPERS // 8] and time.monotonic() < end:
        time.sleep(0.001)
    woken = int(memory[pool_code.WOKEN // 8])
    plan(x, out)
    assert (memory[pool_code.WOKEN // 8] == woken) == alone_is_faster
    assert np.array_equal(out, convbench.conv2d(x, weight, padding=2, engine="reference")), str(spec)
