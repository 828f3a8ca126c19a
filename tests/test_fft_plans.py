"""FFTW's plans: how hard they are looked for, and how convolutions share them."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import threading

import numpy as np
import pytest
from conftest import assert_refused, assert_within_bound, sample

import convbench
from convbench import ConvSpec, registry, settings
from convbench.engines import fft_fftw, fft_plans, fft_wisdom

pyfftw = pytest.importorskip("pyfftw", reason="the plans are pyfftw's")
ENGINE = registry.get("fft")
SPEC = ConvSpec(1, 1, 2, (20, 21, 22), (5, 4, 3), dtype="complex64")
OTHERS = (SPEC.replace(dtype="complex128"), SPEC.replace(dtype="float32"), SPEC.replace(stride=2))


@pytest.fixture(autouse=True)
def no_plans(monkeypatch):
    """Nothing planned before, nor learnt; and two processors."""
    monkeypatch.setattr(fft_plans, "usable_cores", lambda: 2)
    fft_plans._kept.clear()
    pyfftw.forget_wisdom()
    yield
    fft_plans._kept.clear()


@pytest.fixture
def effort():
    """`set_planning_effort`, undone after the test."""
    yield convbench.set_planning_effort
    convbench.set_planning_effort("auto")


@pytest.fixture
def flags(monkeypatch):
    """What FFTW is asked for: pairs of rigor and time limit."""
    asked, plan = [], pyfftw.FFTW

    def spy(*arrays, flags, planning_timelimit, **keywords):
        asked.append((flags[0], planning_timelimit))
        return plan(*arrays, flags=flags, planning_timelimit=planning_timelimit, **keywords)

    monkeypatch.setattr(pyfftw, "FFTW", spy)
    return asked


def layer(**keywords):
    weight = sample(SPEC)[1]
    return convbench.Conv3d(weight, engine="fft", **keywords)


def plan(spec=SPEC, threads=1):
    return fft_fftw.plan(spec, sample(spec)[1], threads)


def transforms(made):
    return [transform for worker in made._workers for transform in (worker._forward, worker._inverse)]


def call(made, spec=SPEC, seed=0):
    out = np.full(spec.output_shape, np.nan, spec.dtype)
    made(sample(spec, seed)[0], out)
    return out


@pytest.mark.parametrize(
    ("tuning", "rigor"),
    [("estimate", "FFTW_ESTIMATE"), ("replay", "FFTW_ESTIMATE"), ("measure", "FFTW_MEASURE")],
)
def test_rigor_follows_tuning(flags, tuning, rigor):
    layer(tuning=tuning)(sample(SPEC)[0])
    assert {asked for asked, _ in flags} == {rigor}


def test_what_the_judge_times_is_measured(flags, monkeypatch):
    monkeypatch.setattr(settings, "_tuning_seconds", 4.0)  # the engine has its turn also where the machine is busy
    convbench.select(SPEC, "measure")
    assert flags
    assert {asked for asked, _ in flags} == {"FFTW_MEASURE"}


@pytest.mark.parametrize(
    ("wanted", "rigor"),
    [("estimate", ("FFTW_ESTIMATE", None)), ("measure", ("FFTW_MEASURE", 0.25)), ("patient", ("FFTW_PATIENT", 5.0))],
)
@pytest.mark.parametrize("tuning", ["estimate", "measure"])
def test_what_a_program_sets_comes_first(flags, effort, wanted, rigor, tuning):
    effort(wanted)
    x, weight, _ = sample(SPEC)
    y = layer(tuning=tuning)(x)
    assert set(flags) == {rigor}
    assert_within_bound(ENGINE, SPEC, y, x, weight)


def test_more_effort_plans_anew_and_less_does_not(flags, effort):
    rounds = []
    for wanted in ("estimate", "patient", "measure", "estimate"):
        effort(wanted)
        layer()(sample(SPEC)[0])
        gc.collect()
        rounds.append(len(flags))
    first = rounds[0]
    assert rounds == [first, 2 * first, 2 * first, 2 * first]


def test_efforts_that_do_not_exist(effort):
    assert_refused(["'exhaustive'", "auto, estimate, measure, patient"], effort, "exhaustive")
    assert settings.planning_effort() == "measure"


def test_an_estimate_leaves_no_wisdom_behind(effort, records_directory, monkeypatch):
    monkeypatch.setattr(fft_wisdom, "LEARNT_SECONDS", 0.0)
    effort("estimate")
    plan()
    assert not list(records_directory.rglob("*.json"))
    effort("measure")
    plan()
    assert list(records_directory.rglob("*.json")) == [fft_wisdom.path()]


def test_transforms_of_a_plan_that_is_gone_are_used_again(flags):
    first = plan()
    before, result = set(map(id, transforms(first))), call(first)
    del first
    gc.collect()
    second = plan()
    assert set(map(id, transforms(second))) == before
    assert len(flags) == 2
    assert np.array_equal(call(second), result)


def test_as_many_as_processors_run_then_they_are_shared():
    made = [plan() for _ in range(5)]
    different = {id(transform) for one in made for transform in transforms(one)}
    assert len(different) == 2 * 2
    assert len({id(transform) for one in made[:2] for transform in transforms(one)}) == 4, "two could run at once"
    results = [call(one, seed=seed) for seed, one in enumerate(made)]
    for seed, (one, result) in enumerate(zip(made, results, strict=True)):
        x, weight = sample(SPEC, seed)[0], sample(SPEC)[1]
        assert_within_bound(ENGINE, SPEC, result, x, weight)
        assert np.array_equal(call(one, seed=seed), result), "what others computed meanwhile must not matter"


def test_where_memory_is_short_they_are_shared_at_once(monkeypatch):
    monkeypatch.setattr(fft_plans, "KEPT_BYTES", sum(transform.nbytes for transform in transforms(plan())))
    first, second = plan(), plan()
    assert transforms(first) == transforms(second)


def test_what_is_kept_is_bounded_and_the_oldest_goes(monkeypatch):
    oldest = plan()
    limit = 2 * fft_plans.held_bytes()
    monkeypatch.setattr(fft_plans, "KEPT_BYTES", limit)
    result = call(oldest)
    for spec in OTHERS:
        x, weight, _ = sample(spec)
        assert_within_bound(ENGINE, spec, call(plan(spec), spec), x, weight)
        assert fft_plans.held_bytes() <= limit, spec
    kept = {transform for same in fft_plans._kept.values() for transform in same}
    assert not kept & set(transforms(oldest))
    assert np.array_equal(call(oldest), result), "a plan keeps what it was made with"


def test_none_that_is_larger_than_the_bound_is_lost_while_it_is_used(monkeypatch, flags):
    monkeypatch.setattr(fft_plans, "KEPT_BYTES", 1)
    made = plan()
    results = [call(made) for _ in range(3)]
    assert len(flags) == 2
    assert all(np.array_equal(results[0], result) for result in results)


def test_nothing_is_destroyed_while_another_thread_plans():
    fft_plans._kept.clear()
    made = plan()
    fft_plans._kept.clear()
    planning, done = threading.Event(), threading.Event()

    def hold():
        with fft_wisdom.lock:
            planning.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    planning.wait(60)
    del made
    gc.collect()
    waiting = len(fft_plans._dropped)
    done.set()
    thread.join()
    assert waiting == 2
    plan(OTHERS[0])
    assert not fft_plans._dropped


def _many(seed):
    """Several plans, some of them sharing, each right and always the same."""
    for spec in (SPEC, *OTHERS, SPEC):
        x, weight, _ = sample(spec, seed)
        made, out = fft_fftw.plan(spec, weight, 2), np.empty(spec.output_shape, spec.dtype)
        made(x, out)
        first = out.copy()
        assert_within_bound(ENGINE, spec, first, x, weight)
        for _ in range(5):
            out[...] = np.nan
            made(x, out)
            if not np.array_equal(out, first):
                return False
    return True


def test_several_threads_at_once():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(_many, range(8)))


def _child(made, result, queue):
    queue.put(np.array_equal(call(made), result) and _many(0))


def test_a_child_forked_while_another_thread_computes():
    """It is not kept waiting by a lock whose holder is not there."""
    made = plan()
    result = call(made)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    held = [transform.lock for transform in transforms(made)]
    for lock in held:
        lock.acquire()
    child = context.Process(target=_child, args=(made, result, queue))
    child.start()
    for lock in held:
        lock.release()
    try:
        assert queue.get(timeout=60)
        assert np.array_equal(call(made), result)
    finally:
        child.kill()
        child.join()


def test_an_estimate_takes_what_was_measured_before(effort, monkeypatch):
    plans = pyfftw.FFTW

    def from_wisdom_only(*arrays, flags, **keywords):
        return plans(*arrays, flags=(*flags, "FFTW_WISDOM_ONLY"), **keywords)

    effort("measure")
    plan()
    fft_plans._kept.clear()
    effort("estimate")
    monkeypatch.setattr(pyfftw, "FFTW", from_wisdom_only)
    x, weight, _ = sample(SPEC)
    assert_within_bound(ENGINE, SPEC, call(plan()), x, weight)
    with pytest.raises(RuntimeError, match="wisdom"):
        plan(OTHERS[0])
