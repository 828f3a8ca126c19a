"""Writers of records that are killed, that race, that meet a full disk; and disks that change a byte.

Whatever happens to a record, it is read as one that was saved whole or counts as missing with one
warning, the judge goes on, and results are those of the reference.
"""

import os
import random
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import convbench
from convbench import records, registry, selection
from convbench.data import sample
from convbench.records import EngineTiming
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
ENGINES = ("direct", "im2col", "fft", "toeplitz")
PROCESSES = 8
KILLS = 40


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    monkeypatch.setattr(records, "_warned", set())
    selection.forget()
    yield
    selection.forget()


def _timing(seconds, engine="direct"):
    return EngineTiming(seconds, seconds * 0.9, seconds * 1.1, 7, 64, 1e-7, registry.get(engine).version)


def _path():
    return records.path_of(SPEC, records.directory())


def _loaded():
    """The record, and the warnings that reading it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = records.load(SPEC)
    return found, [str(warning.message) for warning in caught]


def _assert_auto_works():
    """``engine="auto"`` computes, and rightly, whatever lies on the disk."""
    selection.forget()
    x, weight = sample(SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = convbench.Conv2d(weight, padding=SPEC.padding)
        result = layer(x)
    expected = convbench.conv2d(x, weight, padding=SPEC.padding, engine="reference")
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5, err_msg=str(SPEC))


# Killed.  A process that has imported everything forks the writers, so that one costs milliseconds.

WRITERS = """
import os, random, signal, sys, time
from convbench import records
from convbench.spec import ConvSpec

spec = ConvSpec.parse(sys.argv[1])
engines = sys.argv[2].split(",")

def save(number):  # every engine with the same figures: a mixture of two records would show
    timing = records.EngineTiming(number * 1e-6, number * 1e-6, number * 1e-6, number, 0, None, "1")
    assert records.save(spec, {name: timing for name in engines})

def write_until_killed(begun):
    number = 1
    while True:
        save(number)
        os.write(begun, b"." if number == 1 else b"")
        number += 1

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at(step, calls):
    # The process dies at the `calls // 2`-th call, before it where `calls` is even, else after it.
    module, real = {"open": (records, open), "replace": (os, os.replace), "write": (records, open)}[step]
    count = 0
    def dying(*arguments, **keywords):
        nonlocal count
        count += 1
        if count == calls // 2 and calls % 2 == 0 and step != "write":
            die()
        result = real(*arguments, **keywords)
        if count == calls // 2:
            return dying_file(result, calls % 2) if step == "write" else die()
        return result
    setattr(module, step if step != "write" else "open", dying)

def dying_file(file, whole):
    class Dying:
        def __enter__(self):
            return self
        def __exit__(self, *_):
            file.close()
        def write(self, text):
            file.write(text if whole else text[: len(text) // 2])
            file.flush()
            die()
    return Dying()

for line in sys.stdin:
    kind, number = line.split()
    begins, begun = os.pipe()
    child = os.fork()
    if not child:
        if kind != "delay":
            kill_at(kind, int(number))
        write_until_killed(begun)
    if kind == "delay":
        os.read(begins, 1)
        time.sleep(float(number))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def kill():
    """Starts a writer and kills it: after a time, or at a step of writing."""
    if not hasattr(os, "fork"):
        pytest.skip("this system can't fork, and writers are forked to be killed quickly")
    command = [sys.executable, "-c", WRITERS, str(SPEC), ",".join(ENGINES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:

        def killed(kind, number):
            print(kind, number, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield killed
        process.stdin.close()


def _assert_whole(found, messages, case):
    """What a reader sees after a writer was killed: every engine of one `save`, or nothing at all."""
    assert messages == [], f"{SPEC}, {case}: {messages}"
    if found is not None:
        assert set(found.timings) == set(ENGINES), f"{SPEC}, {case}"
        assert len({timing.median for timing in found.timings.values()}) == 1, f"{SPEC}, {case}"


def test_a_writer_killed_at_a_random_moment_leaves_a_whole_record(kill):
    rng = random.Random(20261125)
    for attempt in range(KILLS):
        delay = rng.uniform(0, 0.03)
        assert kill("delay", delay) == -9
        found, messages = _loaded()
        assert found is not None, f"{SPEC}, kill {attempt}"
        _assert_whole(found, messages, f"kill {attempt} after {delay:.4f} s")
    _assert_auto_works()


@pytest.mark.parametrize("step", ["open", "write", "replace"])
@pytest.mark.parametrize("number", [2, 3, 6, 7])  # before (or half-way) and after, in the first save and the third
def test_a_writer_killed_at_any_step_leaves_a_whole_record(kill, step, number):
    assert kill(step, number) == -9
    found, messages = _loaded()
    _assert_whole(found, messages, f"{step} {number}")
    complete = number // 2 - (step != "replace" or number % 2 == 0)
    assert (found.timings["direct"].samples if found else 0) == complete, f"{SPEC}, {step} {number}"
    assert records.save(SPEC, {name: _timing(1e-3, name) for name in ENGINES})
    _assert_whole(*_loaded(), "saved over it")
    _assert_auto_works()


# At once.

RIVAL = """
import sys
from convbench import records
from convbench.spec import ConvSpec
spec, name = ConvSpec.parse(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 61):
    timing = records.EngineTiming(number * 1e-6, number * 1e-6, number * 1e-6, number, 0, None, "1")
    assert records.save(spec, {name: timing})
    found = records.load(spec)
    assert found and all(t.median == t.samples * 1e-6 for t in found.timings.values()), found
import numpy, convbench
from convbench.data import sample
x, weight = sample(spec)
results = [convbench.conv2d(x, weight, padding=spec.padding, engine=engine) for engine in ("auto", "reference")]
numpy.testing.assert_allclose(*results, rtol=0, atol=1e-5, err_msg=str(spec))
"""


def test_processes_at_once_never_see_half_a_record():
    command = [sys.executable, "-W", "error", "-c", RIVAL, str(SPEC)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    names = [f"writer-{number}" for number in range(PROCESSES)]
    writers = [subprocess.Popen([*command, name], **pipes) for name in names]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found, messages = _loaded()
        assert messages == [], f"{SPEC}: {messages}"
        assert found is None or set(found.timings) <= set(names), str(SPEC)
        seen += found is not None
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * PROCESSES, str(SPEC)
    assert seen, str(SPEC)
    assert [path.name for path in _path().parent.iterdir()] == [_path().name], str(SPEC)
    _assert_auto_works()


# Full disks.

LIMITED = """
import resource, sys, warnings
from convbench import records
from convbench.records import EngineTiming
from convbench.spec import ConvSpec
spec, limit = ConvSpec.parse(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for number in range(5):
        assert records.save(spec, {"direct": EngineTiming(1.0, 1.0, 1.0, 1, 0, None, "1")}) is False
assert len(caught) == 1, caught
assert "records are not kept" in str(caught[0].message), caught
"""


@pytest.mark.parametrize("limit", [0, 1, 300])
def test_a_quota_leaves_the_old_record_and_costs_one_warning(limit):
    pytest.importorskip("resource", reason="this system has no limit for the size of files")
    records.save(SPEC, {"direct": _timing(1e-3)})
    before = _path().read_bytes()
    assert len(before) > limit, "the limit would not be met"
    subprocess.run([sys.executable, "-c", LIMITED, str(SPEC), str(limit)], check=True)
    assert _path().read_bytes() == before, str(SPEC)
    assert [path.name for path in _path().parent.iterdir()] == [_path().name], str(SPEC)
    _assert_auto_works()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few pages; skips where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command to make a small file system with")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small file system can't be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_records_and_costs_one_warning(small_disk, monkeypatch):
    monkeypatch.setenv(records.DIRECTORY_VARIABLE, str(small_disk / "records"))
    saved = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for size in range(9, 209):
            spec = ConvSpec.parse(f"mb1ic2ih{size}oc3oh{size}kh3ph1")
            saved[spec] = records.save(spec, {"direct": _timing(size * 1e-6)})
    assert list(saved.values()).count(True) not in (0, len(saved)), "the disk should be full half-way"
    assert len(caught) == 1, [str(warning.message) for warning in caught]
    assert os.strerror(28) in str(caught[0].message)
    for spec, kept in saved.items():
        found = records.load(spec)
        assert (found is not None) == kept, str(spec)
        assert not kept or found.timings == {"direct": _timing(spec.input_shape[2] * 1e-6)}, str(spec)
    kept = next(spec for spec, kept in saved.items() if kept)
    assert records.save(kept, {"direct": _timing(1.0)}) is False  # not even one page for the new version
    assert records.load(kept).timings["direct"] == _timing(kept.input_shape[2] * 1e-6), str(kept)
    _assert_auto_works()


# Changed bytes.


def test_a_record_with_any_byte_changed_is_missing_or_as_it_was():
    records.save(SPEC, {"direct": _timing(1.25e-3)})
    whole = _path().read_bytes()
    saved = records.load(SPEC).timings
    missing = 0
    marks = b' 1"\0'
    for position, before in enumerate(whole):
        for value in {marks[position % len(marks)], before ^ 1, before ^ 128} - {before}:
            _path().write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            records._warned.clear()
            found, messages = _loaded()
            case = f"{SPEC}: byte {position}, {before} as {value}"
            if found is None:
                missing += 1
                assert len(messages) == 1, f"{case}: {messages}"
                assert str(_path()) in messages[0], case
            else:  # a blank between two parts, say
                assert found.timings == saved, case
                assert messages == [], case
    assert missing > 1.5 * len(whole), f"{SPEC}: hardly any change was noticed"


def test_a_record_cut_anywhere_is_missing():
    records.save(SPEC, {"direct": _timing(1.25e-3)})
    whole = _path().read_bytes()
    for length in range(len(whole)):
        _path().write_bytes(whole[:length])
        records._warned.clear()
        found, messages = _loaded()
        assert (found, len(messages)) == (None, 1), f"{SPEC}: the first {length} bytes: {messages}"


def test_a_file_that_goes_on_changing_costs_one_warning():
    records.save(SPEC, {"direct": _timing(1.25e-3)})
    whole = _path().read_bytes()
    heard = []
    for position in range(0, len(whole), 7):
        _path().write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        heard += _loaded()[1]
        selection.forget()
    assert len(heard) == 1, f"{SPEC}: {heard}"
    _assert_auto_works()


def test_auto_computes_with_damaged_records():
    records.save(SPEC, {"direct": _timing(1.25e-3), "im2col": _timing(1e-3, "im2col")})
    whole = _path().read_bytes()
    rng = random.Random(6)
    for _ in range(25):
        damaged = bytearray(whole)
        for position in rng.sample(range(len(whole)), rng.randint(1, 9)):
            damaged[position] = rng.randrange(256)
        _path().write_bytes(bytes(damaged))
        _assert_auto_works()


def test_wisdom_that_is_no_text_is_planned_anew():
    wisdom = pytest.importorskip("convbench.engines.fft_wisdom")
    place = wisdom.path()
    place.parent.mkdir(parents=True)
    place.write_bytes(b'{"wisdom": ["\xff"]}')
    with pytest.warns(RuntimeWarning, match="planned anew"):
        assert wisdom.load(place) is False


# What changes of the engines leave of a record.


def _recorded_as(version):
    return EngineTiming(1e-3, 1e-3, 1e-3, 5, 0, None, version)


def test_a_new_version_of_an_engine_replaces_its_timing_alone():
    records.save(SPEC, {"one": _recorded_as("1"), "two": _recorded_as("1"), "two, quick": _recorded_as("1")})
    records.save(SPEC, {"two": _recorded_as("2")})
    versions = {name: timing.version for name, timing in records.load(SPEC).timings.items()}
    assert versions == {"one": "1", "two": "2", "two, quick": "1"}, str(SPEC)


def test_a_new_engine_leaves_every_other_timing_as_it_was():
    before = {name: _timing(1e-3, name) for name in ENGINES}
    records.save(SPEC, before)
    records.save(SPEC, {"new": _recorded_as("1")})
    assert records.load(SPEC).timings == {**before, "new": _recorded_as("1")}, str(SPEC)


class Newcomer(convbench.Engine):
    """An engine that does nothing."""

    name = "newcomer"

    def why_unsupported(self, spec):
        return "newcomer computes nothing at all"

    def plan(self, spec, weight):
        raise NotImplementedError


def test_the_place_of_a_record_does_not_depend_on_the_engines(monkeypatch):
    records.save(SPEC, {"direct": _timing(1e-3)})
    before = _path()
    convbench.register(Newcomer)
    try:
        monkeypatch.setattr(registry.get("direct"), "version", "another")
        assert _path() == before, str(SPEC)
        assert set(records.load(SPEC).timings) == {"direct"}, str(SPEC)
    finally:
        convbench.unregister("newcomer")
