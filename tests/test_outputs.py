"""New outputs."""

import gc
import mmap
import subprocess
import sys
import textwrap
import threading

import ml_dtypes
import numpy as np
import pytest

import convbench
from convbench import outputs
from convbench.outputs import ALIGNED_BYTES, RECYCLED_BYTES, empty

LARGE = 3, RECYCLED_BYTES


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    """And every output's memory is, from here on."""
    gc.collect()
    outputs.forget()
    monkeypatch.setattr(outputs, "PATIENCE", -1)
    yield
    outputs.forget()


def _address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "complex128", ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3), (3, 5), (1, 7, ALIGNED_BYTES), (2, ALIGNED_BYTES // 2), LARGE])
def test_large_outputs_begin_on_a_cache_line(shape, dtype):
    for _ in range(5):
        made = empty(shape, dtype)
        assert made.shape == shape
        assert made.dtype == dtype
        assert made.flags.c_contiguous
        assert made.flags.writeable
        assert made.nbytes < ALIGNED_BYTES or _address(made) % 64 == 0
        made[...] = 1
        assert np.all(made == 1)


def test_memory_that_nobody_refers_to_serves_again():
    first = empty(LARGE, "float32")
    address = _address(first)
    del first
    assert outputs.kept_bytes() >= 4 * np.prod(LARGE)
    assert _address(empty(LARGE, "int32")) == address


def test_call_after_call_meets_the_same_memory_however_much_is_kept():
    made = [empty(LARGE, "float32") for _ in range(3)]
    last = _address(made[1])
    for number in (0, 2, 1):
        made[number] = None
    assert [_address(empty(LARGE, "float32")) for _ in range(4)] == [last] * 4


@pytest.mark.parametrize("view", [lambda a: a[1:, ::2], lambda a: a.T, lambda a: a.view("int8"), memoryview])
def test_memory_that_a_view_refers_to_stays_its_own(view):
    first = empty(LARGE, "float32")
    first[...] = 7
    kept = view(first)
    address = _address(first)
    before = np.array(kept)
    del first
    assert outputs.kept_bytes() == 0
    other = empty(LARGE, "float32")
    other[...] = 8
    assert _address(other) != address
    np.testing.assert_array_equal(np.array(kept), before)


def test_memory_of_another_size_is_not_wasted():
    del (first := [empty(LARGE, "float32")])[0]
    assert first == []
    before = outputs.kept_bytes()
    small = empty((RECYCLED_BYTES,), "int8")
    assert outputs.kept_bytes() == before
    assert small.nbytes == RECYCLED_BYTES


def test_what_is_kept_is_bounded_and_given_back(monkeypatch):
    monkeypatch.setattr(outputs, "KEPT_BYTES", 3 * RECYCLED_BYTES)
    made = [empty((RECYCLED_BYTES,), "int8") for _ in range(6)]
    del made
    assert 0 < outputs.kept_bytes() <= 3 * RECYCLED_BYTES
    convbench.clear_cache()
    assert outputs.kept_bytes() == 0


@pytest.fixture
def news(monkeypatch):
    """What the system says of new memory, in turn; then nothing is new."""
    monkeypatch.setattr(outputs, "PATIENCE", 4)
    told = []
    monkeypatch.setattr(outputs, "_is_new", lambda room, size: bool(told) and told.pop(0))
    return told


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([True, True, False, False, False], False),  # the C library has learnt to keep it
        ([True, True, False, False, True, False, False, True, False], False),
        ([True, True, True], True),
        ([True, False] * 5, True),
    ],
)
def test_memory_is_kept_where_the_system_takes_it_back_again_and_again(news, told, kept):
    news += told
    for _ in told:
        empty(LARGE, "float32")
    assert (outputs.kept_bytes() > 0) == kept


def test_outputs_of_other_sizes_are_judged_by_themselves(news):
    news += [True] * 3
    for _ in range(3):
        empty(LARGE, "float32")
    outputs._kept.clear()
    empty((2 * RECYCLED_BYTES,), "int8")
    assert outputs.kept_bytes() == 0


def test_what_the_c_library_maps_by_itself_is_kept_at_once(news):
    empty((outputs.MAPPED_BYTES - 1,), "int8")
    assert outputs.kept_bytes() == 0
    empty((outputs.MAPPED_BYTES,), "int8")
    assert outputs.kept_bytes() > 0


@pytest.mark.skipif(outputs._mincore is None, reason="this system does not tell which pages there are")
def test_memory_is_new_until_it_is_written():
    with mmap.mmap(-1, 64 * mmap.PAGESIZE) as pages:
        room = np.frombuffer(pages, np.uint8)
        assert outputs._is_new(room, room.nbytes)
        room[...] = 1
        assert not outputs._is_new(room, room.nbytes)
        del room


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep memory by other rules")
@pytest.mark.parametrize(("count", "kept"), [(1, False), (2, True)])
def test_two_outputs_at_a_time_are_kept_and_one_is_not(count, kept):
    """In a process of its own: what the C library keeps depends on the largest array that was ever freed."""
    text = f"""
    from convbench import outputs
    for _ in range(20):
        made = [outputs.empty((3, outputs.RECYCLED_BYTES), "float32") for _ in range({count})]
        for array in made:
            array[...] = 1
        del made, array
    print(outputs.kept_bytes() > 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(kept)), done.stderr


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(50):
            made = empty((RECYCLED_BYTES // 8,), "int64")
            made[:] = number
            if not (made == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_arrays_that_live_until_the_end_of_the_process_are_silent():
    text = (
        "from convbench.outputs import empty; import builtins; builtins.last = empty((1 << 23,), 'int8'); last[:] = 1"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
