"""The thread pool of generated code: callers, forks, processes, and numbers of threads."""

from __future__ import annotations

import concurrent.futures
import ctypes
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import convbench
from convbench import machine, settings
from convbench.engines.jit import parallel, pool_code, scheduling

ROUNDS = 30


def layer_and_input(seed=0, filters=40):
    """A layer that is worth several tasks, and an input: the same in every process."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-3, 4, (filters, 24, 3, 3)).astype("float32")
    x = rng.integers(-3, 4, (2, 24, 30, 31)).astype("float32")
    return convbench.Conv2d(weight, padding=((1, 2), (0, 1)), engine="direct"), x


def expected(seed=0, filters=40):
    layer, x = layer_and_input(seed, filters)
    return convbench.conv2d(x, layer.weight, padding=layer.padding, engine="reference")


def computes_right(seed=0, rounds=ROUNDS):
    """Whether every one of `rounds` calls gives what the reference gives."""
    layer, x = layer_and_input(seed)
    right = expected(seed)
    return all(np.array_equal(layer(x), right) for _ in range(rounds))


def right_and_process(seed):
    """`computes_right`, and in which process."""
    return computes_right(seed), os.getpid()


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """As many threads as a test sets, and those of before afterwards."""
    monkeypatch.setattr(settings, "_threads", 4)
    monkeypatch.setattr(settings.CHANGES, "value", settings.epoch() + 1)


def in_threads(count, work):
    """Run ``work(number)`` in `count` Python threads at once; errors are raised here."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def workers():
    """The numbers in the system of the pool's threads."""
    memory = parallel._pool.memory
    first = (pool_code.LINES + pool_code.THREAD) // 8
    return [int(memory[first + n * pool_code.LINE_BYTES // 8]) for n in range(1, len(parallel._pool.workers) + 1)]


def processor():
    """The one that this thread runs on."""
    return ctypes.CDLL(None).sched_getcpu()


def run_script(code, **variables):
    """Run `code` in a new process, in this directory, with environment variables; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=os.path.dirname(__file__),
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout


def test_threads_that_share_a_layer():
    layer, x = layer_and_input()
    right = expected()
    assert all(in_threads(6, lambda _: all(np.array_equal(layer(x), right) for _ in range(ROUNDS))))


def test_threads_that_share_a_plan():
    from convbench.engines.jit.dense import DensePlan

    layer, x = layer_and_input()
    spec = convbench.ConvSpec.from_shapes(x.shape, layer.weight.shape, padding=layer.padding)
    plan, right = DensePlan(spec, layer.weight), expected()

    def work(_):
        out = np.empty_like(right)
        for _ in range(ROUNDS):
            out[...] = 0
            plan(x, out)
            assert np.array_equal(out, right)

    in_threads(6, work)
    assert plan.nbytes > layer.weight.nbytes


def test_both_halves_of_the_tasks_are_as_much_work():
    """Two threads begin with one half each, and what one can take over from the other is a whole task."""
    from convbench.engines.jit.dense import DensePlan
    from convbench.engines.jit.dense_kernel import TASK
    from convbench.engines.jit.target import target

    convbench.set_num_threads(2)
    uneven = 0
    for vectors in (9, 21, 27, 28, 30, 33, 64):
        filters = vectors * target().lanes("float32")
        spec = convbench.ConvSpec(1, 256, filters, spatial=(7, 7), kernel=(3, 3), padding=((1, 1), (1, 1)))
        plan = DensePlan(spec, np.ones(spec.weight_shape, "float32"))
        task = {name: plan._tasks[:, number] for number, name in enumerate(TASK)}
        rows = np.diff(np.cumsum([0, *plan._tiling.rows])[[task["position"], task["position_end"]]], axis=0)[0]
        work = rows * (task["block_end"] - task["block"])
        half = (len(work) + 1) // 2
        assert abs(work[:half].sum() - work[half:].sum()) <= sum(plan._tiling.rows), f"{spec}: {work}"
        uneven += len(set(work)) > 1
    assert uneven


def test_plans_of_several_tasks_summon_the_workers():
    rng = np.random.default_rng(0)
    weight, x = (rng.standard_normal(shape, "float32") for shape in ((32, 16, 3, 3), (1, 16, 40, 40)))
    box, image = np.ones((1, 1, 5, 5), "float32"), rng.standard_normal((1, 1, 512, 512), "float32")
    problems = [(name, weight, x) for name in ("direct", "im2col", "winograd", "fft")] + [("separable", box, image)]
    for name, kernel, large in problems:
        layer = convbench.Conv2d(kernel, engine=name)
        layer(large)
        assert [callable(prepared.summon) for prepared in layer._prepared.values()] == [True], name
    layer = convbench.Conv2d(box, engine="direct")
    layer(image[..., :8, :8])
    assert [prepared.summon for prepared in layer._prepared.values()] == [None]


@pytest.mark.skipif(sys.platform != "linux", reason="how often a thread has slept is not told")
def test_summoned_workers_wake_and_sleep_again():
    def slept(worker):
        status = Path(f"/proc/self/task/{worker}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    def all_sleep():
        end = time.monotonic() + 20
        while parallel._pool.memory[pool_code.SLEEPERS // 8] < len(workers()) and time.monotonic() < end:
            time.sleep(0.001)
        return {worker: slept(worker) for worker in workers()}

    assert computes_right(rounds=1)
    summon = parallel.summoner(2)
    before = all_sleep()
    summon()
    end = time.monotonic() + 20
    while any(slept(worker) == count for worker, count in before.items()) and time.monotonic() < end:
        time.sleep(0.001)
    after = all_sleep()
    assert len(before) == 3
    assert all(after[worker] > count for worker, count in before.items()), f"slept {before}, after a summons {after}"
    assert computes_right()


def test_summonses_while_others_compute_and_the_number_of_threads_changes():
    stop = threading.Event()

    def work(number):
        if number == 0:
            for count in (2, 3, 4) * 5:
                convbench.set_num_threads(count)
                time.sleep(0.01)
            stop.set()
        while number == 1 and not stop.is_set():
            parallel.summoner(2)()
        return number < 2 or all(computes_right(rounds=5) for _ in iter(stop.is_set, True))

    assert all(in_threads(4, work))


def test_threads_with_layers_of_their_own():
    assert all(in_threads(6, computes_right))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("name", ["winograd", "winograd8", "fft", "separable", "im2col"])
def test_threads_that_share_a_layer_of_another_engine(name, dilation):
    layer, x = layer_and_input()
    options = {"padding": layer.padding, "dilation": dilation, "engine": name}
    shared, alone = (convbench.Conv2d(layer.weight, **options) for _ in range(2))
    inputs = [np.roll(x, number, axis=-1) for number in range(6)]
    right = [alone(mine) for mine in inputs]

    def work(number):
        return all(np.array_equal(shared(inputs[number]), right[number]) for _ in range(ROUNDS))

    assert in_threads(6, work) == [True] * 6


def test_numbers_of_threads_that_change_while_others_compute():
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for count in (1, 7, 2, 16):
                convbench.set_num_threads(count)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert all(in_threads(3, computes_right))
    finally:
        stop.set()
        changing.join()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_same_bits_whatever_the_threads(count):
    rng = np.random.default_rng(5)
    problems = (
        (rng.standard_normal((1, 33, 29, 30)), rng.standard_normal((50, 33, 3, 3))),
        (rng.standard_normal((1, 1, 300, 310)), rng.standard_normal((1, 1, 7, 7))),
        (rng.standard_normal((2, 48, 14, 14)), rng.standard_normal((48, 1, 3, 3))),
        (rng.standard_normal((1, 300, 20, 20)), rng.standard_normal((70, 300, 1, 1))),
    )

    def results():
        for x, weight in problems:
            groups = x.shape[1] // weight.shape[1]
            for dtype in ("float32", "float64"):
                yield convbench.conv2d(x.astype(dtype), weight.astype(dtype), padding=1, groups=groups, engine="direct")

    convbench.set_num_threads(1)
    alone = list(results())
    convbench.set_num_threads(count)
    for one, many in zip(alone, results(), strict=True):
        np.testing.assert_array_equal(one, many)


def test_more_and_fewer_threads():
    layer, x = layer_and_input()
    right = expected()
    for count in (1, 5, 2, 9, 1, 2):
        convbench.set_num_threads(count)
        np.testing.assert_array_equal(layer(x), right)
        assert parallel.ready() == count
        assert len(parallel._pool.workers) == count - 1


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"CONVBENCH_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"CONVBENCH_NUM_THREADS": "", "OMP_NUM_THREADS": "5,2"}, 5),
        ({"CONVBENCH_NUM_THREADS": "1"}, 1),
    ],
)
def test_threads_from_the_environment(variables, count):
    code = """
        from test_jit_parallel import computes_right
        from convbench.engines.jit import parallel
        assert computes_right()
        print(parallel.ready(), len(parallel._pool.workers) + 1)
    """
    assert run_script(code, **variables).split() == [str(count)] * 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't bind a process to processors")
def test_a_process_bound_to_one_processor():
    code = """
        import os
        from test_jit_parallel import computes_right
        assert computes_right()
        first = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {first})
        assert computes_right()
        import convbench
        convbench.set_num_threads(3)
        assert computes_right()
        print(os.sched_getaffinity(0) == {first})
    """
    assert run_script(code).split() == ["True"]
    bound = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from test_jit_parallel import computes_right
        from convbench.engines.jit import parallel
        print(computes_right(), parallel.ready())
    """
    unset = {"CONVBENCH_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert run_script(bound, **unset).split() == ["True", "1"]


@pytest.mark.skipif(not scheduling.knows_threads(), reason="workers are not moved on this system")
def test_workers_that_lose_their_processors_in_the_middle_of_a_task():
    """Other processes' loops on every core: waiting callers take workers to theirs, and give them up again."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(machine.usable_cores())]
    guests = set()
    try:
        layer = convbench.Conv2d(np.ones((64, 64, 3, 3), "float32"), padding=1, engine="direct")
        x = np.random.default_rng(0).integers(-3, 4, (4, 64, 56, 56)).astype("float32")
        right = layer(x).copy()
        end = time.monotonic() + 20
        while not guests and time.monotonic() < end:
            np.testing.assert_array_equal(layer(x), right)
            guests |= {number for number in workers() if os.sched_getaffinity(number) == {processor()}}
    finally:
        for other in others:
            other.kill()
            other.wait()
    np.testing.assert_array_equal(right, convbench.conv2d(x, layer.weight, padding=1, engine="im2col"))
    assert guests, "no worker was taken to the caller's processor in 20 s"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
    ids=str,
)
def test_cores_of_a_container_with_a_quota(files, cores, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / Path(path).relative_to("/sys/fs/cgroup"))
    assert machine._container_cores(8) == cores


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_after_computing():
    assert computes_right()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        right = computes_right() and len(parallel._pool.workers) == 3
        os._exit(0 if right else 1)
    assert computes_right()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forks_while_threads_compute_and_compile():
    code = """
        import os, threading
        from test_jit_parallel import computes_right, layer_and_input
        stop = threading.Event()
        started = threading.Barrier(3)

        def work(first):
            filters = first
            while not stop.is_set():
                layer, x = layer_and_input(filters=filters)
                layer(x)
                if filters == first:
                    started.wait()
                filters += 16

        for number in range(2):
            threading.Thread(target=work, args=(number + 1,), daemon=True).start()
        started.wait()
        for _ in range(8):
            child = os.fork()
            if child == 0:
                os._exit(0 if computes_right(rounds=3) else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        print("done")
    """
    assert run_script(code).split() == ["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("engine", "module"),
    [
        ("auto", "convbench.engines"),
        ("auto", "convbench.engines.fft"),
        ("direct", "convbench.text"),
        ("direct", "convbench.engines.jit.target"),
        ("direct", "llvmlite.binding"),
        ("direct", "convbench.engines.jit.dense"),
        ("winograd", "convbench.engines.jit.winograd"),
        ("fft", "convbench.engines.jit.spectral"),
        ("separable", "convbench.engines.jit.separable"),
        ("im2col", "convbench.engines.jit.patches"),
        ("toeplitz", "convbench.matrices"),
    ],
)
def test_a_fork_while_a_thread_imports(engine, module):
    code = f"""
        import faulthandler, os, sys, threading, time, warnings
        import numpy as np
        import convbench
        warnings.simplefilter("ignore", DeprecationWarning)
        importing = threading.Event()

        class Slow:
            def find_spec(self, name, path, target=None):
                if name == {module!r} and not importing.is_set():
                    importing.set()
                    time.sleep(0.2)

        def computes_right():
            y = convbench.conv2d(np.ones((1, 4, 9, 9), "f"), np.ones((40, 4, 3, 3), "f"), engine={engine!r})
            return np.allclose(y, 36)

        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=computes_right)
        thread.start()
        assert importing.wait(60), "the module was not imported"
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(20, exit=True)  # instead of waiting for a lock forever
            os._exit(0 if computes_right() else 1)
        print(os.waitpid(child, 0)[1], computes_right())
        thread.join()
    """
    assert run_script(code).split() == ["0", "True"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no start method {method}")
    code = f"""
        import concurrent.futures, multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from test_jit_parallel import computes_right
        if __name__ == "__main__":
            assert computes_right()
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                assert all(pool.map(computes_right, range(4)))
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                assert all(pool.map(computes_right, range(4)))
            print("done")
    """
    assert run_script(code).split() == ["done"]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend):
    pytest.importorskip("joblib")
    code = f"""
        import joblib, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from test_jit_parallel import computes_right, right_and_process
        assert computes_right()
        calls = [joblib.delayed(right_and_process)(seed) for seed in range(4)]
        right, processes = zip(*joblib.Parallel(2, backend={backend!r})(calls))
        print(all(right), os.getpid() in processes)
    """
    assert run_script(code, CONVBENCH_NUM_THREADS="4").split() == ["True", str(backend == "threading")]


@pytest.mark.parametrize(("scheduler", "context"), [("threads", ""), ("processes", "fork"), ("processes", "spawn")])
def test_dask(scheduler, context):
    pytest.importorskip("dask")
    if context and context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no start method {context}")
    code = f"""
        import dask, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from test_jit_parallel import computes_right, right_and_process
        if __name__ == "__main__":
            assert computes_right()
            calls = [dask.delayed(right_and_process)(seed) for seed in range(4)]
            with dask.config.set({{"multiprocessing.context": {context or "spawn"!r}}}):
                right, processes = zip(*dask.compute(*calls, scheduler={scheduler!r}, num_workers=2))
            print(all(right), os.getpid() in processes)
    """
    assert run_script(code, CONVBENCH_NUM_THREADS="4").split() == ["True", str(scheduler == "threads")]


def test_without_posix_threads(monkeypatch):
    class NoThreads:
        def __getattr__(self, name):
            raise AttributeError(name)

    pool = parallel._Pool()
    with monkeypatch.context() as without:
        without.setattr(parallel.ctypes, "CDLL", lambda _: NoThreads())
        with pytest.warns(RuntimeWarning, match="on one thread") as caught:
            pool.start(4)
        pool.start(4)
    assert len(caught) == 1
    assert pool.threads == 1
    assert not pool.workers


def test_a_process_without_posix_threads_computes_alone():
    code = """
        import warnings
        from test_jit_parallel import computes_right
        from convbench.engines.jit import parallel

        def missing(*_):
            raise OSError("no such library")

        parallel.ctypes.CDLL = missing
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert computes_right()
            assert computes_right()
        print(len([w for w in caught if w.category is RuntimeWarning]), parallel.ready())
    """
    assert run_script(code, CONVBENCH_NUM_THREADS="4").split() == ["1", "1"]


def test_the_interpreter_ends_while_a_thread_computes():
    code = """
        import threading, time
        from test_jit_parallel import layer_and_input
        layer, x = layer_and_input()
        layer(x)

        def work():
            while True:
                layer(x)

        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        print("end")
    """
    for _ in range(3):
        assert run_script(code).split() == ["end"]
