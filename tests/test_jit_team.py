"""Jobs on the OpenMP threads that PyTorch brings into a process."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest
from test_jit_parallel import run_script

from convbench import machine
from convbench.engines.jit import scheduling, team

pyfftw = pytest.importorskip("pyfftw")

#: An OpenMP that stands for PyTorch's, whose threads never stop to spin, and a layer whose workers sleep.
PREPARED = """
    import ctypes, os, sys, threading, time
    from pathlib import Path
    import numpy as np
    from test_jit_parallel import expected, layer_and_input
    import pyfftw
    from convbench.engines.jit import parallel, pool_code, team

    path = next(line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line)
    openmp = ctypes.CDLL(path)
    openmp.omp_set_num_threads(2)
    team.find = lambda: None if team.is_fork() else openmp
    layer, x = layer_and_input()
    words = parallel._pool.memory[pool_code.TEAM // 8:]
    right = expected()

    def call_beside_a_spinning_team():
        \"\"\"How many of the team other than the caller took part in a call.\"\"\"
        for _ in range(500):
            if parallel._pool.memory[pool_code.SLEEPERS // 8] == 1:
                break
            time.sleep(0.001)
        words[team.COUNT // 8] = 0
        assert np.array_equal(layer(x), right)
        return int(words[team.COUNT // 8])

    def wait_for_one():
        \"\"\"The same, until the team has done a call, or for 20 s: its thread may just not have its processor.\"\"\"
        end = time.monotonic() + 20
        while not (found := call_beside_a_spinning_team()) and time.monotonic() < end:
            pass
        return found

    layer(x)
"""

VARIABLES = {"OMP_WAIT_POLICY": "active", "CONVBENCH_NUM_THREADS": "2", "OMP_NUM_THREADS": ""}


def loaded_openmp():
    """Where pyFFTW's wheel has GNU's OpenMP, or None: PyTorch's may be loaded, too."""
    lines = team.LOADED.read_text().splitlines() if team.LOADED.exists() else []
    paths = [Path(line.split()[-1]) for line in lines if "libgomp" in line]
    return next((path for path in paths if path.parent.name == "pyfftw.libs"), None)


pytestmark = [
    pytest.mark.skipif(not scheduling.knows_threads(), reason="threads are not told apart on this system"),
    pytest.mark.skipif(not loaded_openmp(), reason="pyFFTW came without GNU's OpenMP"),
    pytest.mark.skipif(machine.usable_cores() < 2, reason="a spinning thread needs a processor of its own"),
]


def run(code):
    return run_script(PREPARED + code, **VARIABLES).split()


def test_jobs_of_the_main_thread_are_the_teams():
    code = """
    print(wait_for_one())
    """
    assert run(code) == ["1"]


def test_jobs_of_other_threads_are_not():
    code = """
    found = []
    thread = threading.Thread(target=lambda: found.extend(call_beside_a_spinning_team() for _ in range(20)))
    thread.start()
    thread.join()
    print(wait_for_one(), sum(found))
    """
    assert run(code) == ["1", "0"]


@pytest.mark.parametrize("members", [1, 3])
def test_a_team_of_another_size_is_left_alone(members):
    code = f"""
    openmp.omp_set_num_threads({members})
    print(sum(call_beside_a_spinning_team() for _ in range(20)))
    """
    assert run(code) == ["0"]


def test_workers_and_team_take_turns():
    """Whether the workers sleep or watch, the results are the same to the bit."""
    code = """
    rng = np.random.default_rng(0)
    values = rng.standard_normal(x.shape, "float32")
    results = []
    for pause in rng.choice([0, 1e-4, 1e-3], 300):
        results.append(layer(values).tobytes())
        time.sleep(pause)
    print(wait_for_one(), len(set(results)))
    """
    assert run(code) == ["1", "1"]


def test_a_team_whose_member_did_not_compute_has_no_jobs_for_a_while():
    """A member whose tasks sleep long stands for a thread that another one keeps from its processor."""
    code = """
    from convbench.engines.jit.compile import address
    from convbench.engines.jit.vector import Code

    def write(module):
        code = Code(module, "nap", parallel.target(), "pii")
        code.external("usleep", [code.int32(1000)])
        with code.when(code.arguments[2].compare("!=", 0)):
            code.external("usleep", [code.int32(20000)])
        code.finish()

    def held_after_a_nap():
        frame = np.zeros(pool_code.FRAME_HEAD, np.int64)
        frame[pool_code.FRAME_FUNCTION // 8] = address("nap", (), parallel.target(), write)
        frame[pool_code.FRAME_TASKS // 8] = 8
        for _ in range(500):
            words[team.COUNT // 8] = words[team.HOLD // 8] = 0
            if parallel._pool.memory[pool_code.SLEEPERS // 8] == 1:
                parallel.caller()(frame.ctypes.data, id(x), id(x))
            if words[team.COUNT // 8]:
                break
            time.sleep(0.001)
        return int(words[team.HOLD // 8]) > 0

    print(held_after_a_nap())
    words[team.HOLD // 8] = 1 << 62
    print(sum(call_beside_a_spinning_team() for _ in range(20)))
    words[team.HOLD // 8] = 0
    print(wait_for_one())
    """
    assert run(code) == ["True", "0", "1"]


def test_threads_that_call_beside_the_main_one():
    code = """
    stop = threading.Event()
    wrong = []

    def work():
        mine, x = layer_and_input()
        while not stop.is_set():
            wrong.extend([0] * (not np.array_equal(mine(x), right)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        call_beside_a_spinning_team()
    stop.set()
    for thread in threads:
        thread.join()
    print(len(wrong))
    """
    assert run(code) == ["0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_has_no_team_and_a_working_openmp():
    """A child that waited for its parent's threads would never end: the alarm ends it."""
    code = """
    import signal
    before = wait_for_one()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        right_without = not any(call_beside_a_spinning_team() for _ in range(20)) and parallel._pool.team is None
        member = parallel.address("member", (), parallel.target(), pool_code.write_member)
        team.Team(openmp, words, member).meet()
        os._exit(0 if right_without else 1)
    status = os.waitpid(child, 0)[1]
    without = sum(call_beside_a_spinning_team() for _ in range(20))
    layer, x = layer_and_input()
    layer(x)
    print(before, status, without, wait_for_one())
    """
    assert run(code) == ["1", "0", "0", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_is_known_without_having_been_told():
    code = """
        import os
        child = os.fork()
        if child == 0:
            from convbench.engines.jit import team
            os._exit(7 if team.is_fork() else 1)
        status = os.waitpid(child, 0)[1]
        from convbench.engines.jit import team
        print(os.waitstatus_to_exitcode(status), team.is_fork())
    """
    assert run_script(code).split() == ["7", "False"]


def test_the_openmp_of_pytorch_is_found(monkeypatch, tmp_path):
    loaded = loaded_openmp()

    def finds(*paths, torch=True, shares="1"):
        listing = tmp_path / "maps"
        listing.write_text("".join(f"7f00-7f01 r-xp 0 fe:00 1     {path}\n" for path in paths))
        monkeypatch.setattr(team, "LOADED", listing)
        monkeypatch.setitem(sys.modules, "torch", os) if torch else monkeypatch.delitem(sys.modules, "torch", False)
        monkeypatch.setenv("CONVBENCH_SHARE_THREADS", shares)
        team._library.cache_clear()
        try:
            return team.find()
        finally:
            team._library.cache_clear()

    link = tmp_path / "torch" / "lib" / loaded.name
    link.parent.mkdir(parents=True)
    link.symlink_to(loaded)
    assert isinstance(finds("/usr/lib/libc.so", link, loaded), ctypes.CDLL)
    assert finds(link, torch=False) is None
    assert finds(link, shares="0") is None
    assert finds(loaded) is None  # another wheel's
    assert finds("/nowhere/libgomp.so.1") is None  # not loaded
    assert finds() is None
    monkeypatch.setattr(team, "is_fork", lambda: True)
    assert finds(link) is None
    monkeypatch.setattr(team, "LOADED", tmp_path / "no such file")  # as without /proc
    team._library.cache_clear()
    assert team.find() is None
    team._library.cache_clear()
    with pytest.raises(ValueError, match="CONVBENCH_SHARE_THREADS is 'yes'; 0 or 1 is accepted"):
        finds(link, shares="yes")
