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
from convbench.engines.jit import parallel, pool_code, waking
from convbench.engines.jit.target import target
from convbench.engines.jit.vector import Code

CLOSE, NOW = 200_000, 10**12
WOKEN, ALONE, LAST, TIME = range(4)


def write_decide(module):
    code = Code(module, "decide", target(), "p")
    (words,) = code.arguments
    woken, alone, last = (words + 8 * word for word in (WOKEN, ALONE, LAST))
    time = words + 8 * TIME
    time.store(waking.is_worth_it(code, woken, alone, last, time.load(), CLOSE))
    code.finish()


def write_note(module):
    code = Code(module, "note", target(), "p")
    (words,) = code.arguments
    waking.note(code, words, (words + 8 * TIME).load())
    code.finish()


def run(name, write, *words):
    """What the generated function makes of four words."""
    memory = np.array(words, np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiler.address(name, (), target(), write))
    function(memory.ctypes.data)
    return memory.tolist()


@pytest.mark.parametrize(
    ("woken", "alone", "since", "wakes"),
    [
        (0, 0, 10**9, 1),  # the first call
        (50_000, 0, 10**9, 0),  # the second, never tried alone
        (150_000, 0, 10**9, 1),  # too long to try
        (50_000, 37_000, 10**9, 0),
        (50_000, 60_000, 10**9, 1),
        (50_000, 37_000, 150_000, 1),  # one of a row of jobs
    ],
)
def test_a_job_wakes_workers_if_it_was_faster_so(woken, alone, since, wakes):
    *_, last, answer = run("decide", write_decide, woken, alone, NOW - since, NOW)
    assert answer == wakes
    assert (last == NOW) == (alone < woken < waking.LONG_NANOSECONDS)


def test_the_other_way_is_tried_again_some_day():
    words = [50_000, 49_000, NOW - 10**9, NOW]
    for _ in range(50):
        woken, alone, _, answer = run("decide", write_decide, *words)
        if answer:
            break
        words = [woken, alone, NOW - 10**9, NOW]
    assert answer == 1
    assert woken <= 49_000


def test_times_are_steady():
    assert run("note", write_note, 0, 0, 0, 80_000)[WOKEN] == 80_000
    assert run("note", write_note, 40_000, 0, 0, 44_000)[WOKEN] == 41_000
    assert run("note", write_note, 40_000, 0, 0, 4_000_000)[WOKEN] == 50_000  # the caller had lost its processor
    assert run("note", write_note, 40_000, 0, 0, 20_000)[WOKEN] == 35_000


@pytest.mark.parametrize("alone_is_faster", [True, False])
def test_calls_of_a_plan_go_the_faster_way(monkeypatch, alone_is_faster):
    monkeypatch.setattr(settings, "_threads", 2)
    monkeypatch.setattr(settings, "_changes", settings._changes + 1)
    spec = convbench.ConvSpec.parse("mb1ic1ih256oc1kh5ph2")
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, spec.input_shape).astype("float32")
    weight = rng.integers(-3, 4, spec.weight_shape).astype("float32")
    plan, out = Direct("wide").plan(spec, weight), np.empty(spec.output_shape, "float32")
    plan(x, out)
    words = plan._frames[0][2]
    words[pool_code.FRAME_WOKEN // 8], words[pool_code.FRAME_ALONE // 8] = (
        (90_000, 10) if alone_is_faster else (10, 90_000)
    )
    memory, end = parallel._pool.memory, time.monotonic() + 20
    while not memory[pool_code.SLEEPERS // 8] and time.monotonic() < end:
        time.sleep(0.001)
    woken = int(memory[pool_code.WOKEN // 8])
    plan(x, out)
    assert (memory[pool_code.WOKEN // 8] == woken) == alone_is_faster
    assert np.array_equal(out, convbench.conv2d(x, weight, padding=2, engine="reference")), str(spec)
