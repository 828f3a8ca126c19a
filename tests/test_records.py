"""Records on disk: whole or absent, whoever writes at the same time, whatever the disk does."""

import errno
import json
import os
import subprocess
import sys
import warnings

import pytest

import convbench
from convbench import records, registry, selection, settings
from convbench.records import EngineTiming
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
OTHER = ConvSpec.parse("mb1ic2ih8oc3oh8kh3ph1")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    """As in a new process: no warning given yet, nothing chosen yet."""
    monkeypatch.setattr(records, "_warned", set())
    selection.forget()
    yield
    selection.forget()


def _timing(seconds=1e-3, engine="direct", **changes):
    version = registry.get(engine).version if engine in registry.engines() else "1"
    known = {"median": seconds, "q1": seconds * 0.9, "q3": seconds * 1.1, "samples": 7, "workspace_bytes": 64}
    return EngineTiming(**{**known, "error": 1e-7, "version": version, **changes})


def _path(spec=SPEC):
    return records.path_of(spec, records.directory())


def _warnings_of(call, *arguments):
    """The call's result, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*arguments)
    assert all(issubclass(warning.category, RuntimeWarning) for warning in caught)
    return result, [str(warning.message) for warning in caught]


def _leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_nothing_recorded_is_a_quiet_miss():
    assert _warnings_of(records.load, SPEC) == (None, [])


@pytest.mark.parametrize("error", [None, 0.0, 3e-8])
def test_a_record_comes_back_as_it_was_saved(error):
    saved = {"direct": _timing(1e-3, error=error), "fft": _timing(2e-3, "fft")}
    assert records.save(SPEC, saved)
    found = records.load(SPEC)
    assert (found.problem, found.timings, found.shipped) == (str(SPEC), saved, frozenset()), str(SPEC)
    assert records.load(OTHER) is None, str(OTHER)
    assert _leftovers(records.directory()) == []


def test_the_file_holds_the_full_key():
    records.save(SPEC, {"direct": _timing()})
    content = json.loads(_path().read_text())
    assert content["problem"] == str(SPEC)
    assert content["environment"] == records.environment()
    assert set(content["environment"]) == {"model", "isa", "cores", "threads", "packages"}


@pytest.mark.parametrize("change", [{"dtype": "float64"}, {"memory_format": "channels_last"}, {"batch": 2}])
def test_every_part_of_the_problem_is_in_the_key(change):
    assert _path(SPEC.replace(**change)) != _path(), f"{SPEC} with {change}"


def test_saving_keeps_the_other_engines():
    records.save(SPEC, {"direct": _timing(1e-3), "fft": _timing(2e-3, "fft")})
    records.save(SPEC, {"fft": _timing(5e-3, "fft"), "im2col": _timing(3e-3, "im2col")})
    medians = {name: timing.median for name, timing in records.load(SPEC).timings.items()}
    assert medians == {"direct": 1e-3, "fft": 5e-3, "im2col": 3e-3}, str(SPEC)


def test_another_version_of_an_engine_is_ignored():
    old = _timing(1e-9, "toeplitz", version="an older one")
    records.save(SPEC, {"toeplitz": old, "im2col": _timing(1e-8, "im2col")})
    chosen = convbench.select(SPEC)
    assert (chosen.engine, chosen.source) == ("im2col", "record"), str(SPEC)
    assert {c.engine for c in chosen.candidates if c.measured} == {"im2col"}, str(SPEC)


def test_engines_that_are_gone_are_ignored():
    records.save(SPEC, {"no-longer-installed": _timing(1e-9)})
    assert convbench.select(SPEC).source == "model", str(SPEC)


def _altered(change):
    """The text of a good record after `change` of its content."""
    content = records.unsealed(_path().read_text())
    change(content)
    return records.sealed(content)


BROKEN = {
    "empty": lambda: "",
    "cut off": lambda: _path().read_text()[:-20],
    "binary": lambda: b"\xff\xfe\x00{",
    "a digit changed": lambda: _path().read_text().replace('"samples": 7', '"samples": 8'),
    "no checksum": lambda: json.dumps(records.unsealed(_path().read_text())),
    "no object": lambda: "[1, 2]",
    "nested too deep": lambda: "[" * 200_000,
    "another schema": lambda: _altered(lambda record: record.update(schema=records.SCHEMA + 1)),
    "another problem": lambda: _altered(lambda record: record.update(problem=str(OTHER))),
    "another machine": lambda: _altered(lambda record: record["environment"].update(model="8086")),
    "no timings": lambda: _altered(lambda record: record.pop("timings")),
    "timings as a list": lambda: _altered(lambda record: record.update(timings=[1])),
    "a field too many": lambda: _altered(lambda record: record["timings"]["direct"].update(mood="good")),
    "a field too few": lambda: _altered(lambda record: record["timings"]["direct"].pop("q1")),
    "a negative time": lambda: _altered(lambda record: record["timings"]["direct"].update(median=-1.0)),
    "a time of NaN": lambda: _altered(lambda record: record["timings"]["direct"].update(q3=float("nan"))),
    "an endless time": lambda: _altered(lambda record: record["timings"]["direct"].update(q3=float("inf"))),
    "a time as text": lambda: _altered(lambda record: record["timings"]["direct"].update(median="1 ms")),
    "a time that is no number": lambda: _altered(lambda record: record["timings"]["direct"].update(median=True)),
    "samples as text": lambda: _altered(lambda record: record["timings"]["direct"].update(samples="7")),
    "a negative workspace": lambda: _altered(lambda record: record["timings"]["direct"].update(workspace_bytes=-1)),
    "a version as number": lambda: _altered(lambda record: record["timings"]["direct"].update(version=3)),
    "an error as text": lambda: _altered(lambda record: record["timings"]["direct"].update(error="small")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_a_miss_and_one_warning(kind):
    records.save(SPEC, {"direct": _timing()})
    text = BROKEN[kind]()
    _path().write_bytes(text if isinstance(text, bytes) else text.encode())
    found, messages = _warnings_of(records.load, SPEC)
    assert found is None, f"{SPEC}: {kind}"
    assert len(messages) == 1, f"{SPEC}: {messages}"
    assert str(_path()) in messages[0]
    assert "counts as missing" in messages[0]
    assert _warnings_of(records.load, SPEC) == (None, []), f"{SPEC}: {kind}, the second time"
    assert _warnings_of(convbench.select, SPEC)[0].source == "model", f"{SPEC}: {kind}"
    assert records.save(SPEC, {"fft": _timing(engine="fft")})
    assert list(records.load(SPEC).timings) == ["fft"], f"{SPEC}: {kind}, written anew"


def test_a_record_that_cannot_be_read_is_a_miss_and_one_warning():
    _path().mkdir(parents=True)  # root may read any file, but nobody reads a folder
    found, messages = _warnings_of(records.load, SPEC)
    assert found is None
    assert len(messages) == 1
    assert "can't be read" in messages[0]


def _fail_with(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", [(records, "open"), (os, "replace")])
def test_a_disk_that_takes_no_record_costs_one_warning(where, number, monkeypatch):
    records.save(SPEC, {"direct": _timing(1e-3)})
    with monkeypatch.context() as patched:
        patched.setattr(*where, _fail_with(number), raising=False)
        saved, messages = _warnings_of(records.save, SPEC, {"direct": _timing(2e-3)})
        assert saved is False
        assert len(messages) == 1, messages
        assert os.strerror(number) in messages[0]
        assert _warnings_of(records.save, SPEC, {"direct": _timing(3e-3)}) == (False, [])
    assert records.load(SPEC).timings["direct"].median == 1e-3, str(SPEC)
    assert _leftovers(records.directory()) == []


def test_a_disk_that_fills_up_while_writing_leaves_the_old_record(monkeypatch):
    records.save(SPEC, {"direct": _timing(1e-3)})
    _write_half_then(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    saved, messages = _warnings_of(records.save, SPEC, {"direct": _timing(2e-3)})
    assert (saved, len(messages)) == (False, 1)
    assert records.load(SPEC).timings["direct"].median == 1e-3, str(SPEC)
    assert _leftovers(records.directory()) == []


def test_an_interrupt_while_writing_leaves_the_old_record(monkeypatch):
    records.save(SPEC, {"direct": _timing(1e-3)})
    _write_half_then(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        records.save(SPEC, {"direct": _timing(2e-3)})
    assert records.load(SPEC).timings["direct"].median == 1e-3, str(SPEC)
    assert _leftovers(records.directory()) == []


def _write_half_then(monkeypatch, error):
    """Let the writing of a record stop in the middle, with half its text on disk."""

    def open_half(*arguments, **keywords):
        file = open(*arguments, **keywords)  # noqa: SIM115 (closed by Half)

        class Half:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, text):
                file.write(text[: len(text) // 2])
                file.flush()
                raise error

        return Half()

    monkeypatch.setattr(records, "open", open_half, raising=False)


def test_a_folder_that_is_a_file_costs_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "file"))
    saved, messages = _warnings_of(records.save, SPEC, {"direct": _timing()})
    assert saved is False
    assert any("records are not kept" in message for message in messages)
    assert _warnings_of(records.save, SPEC, {"direct": _timing()}) == (False, [])
    assert convbench.select(SPEC).source == "model", str(SPEC)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Ships records as an application does: measured once, then moved out of the user's cache."""
    monkeypatch.setenv("CONVBENCH_SHIPPED_RECORDS", os.pathsep.join(["", str(tmp_path / "shipped")]))

    def ship(spec, timings):
        with monkeypatch.context() as patched:
            patched.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "shipped"))
            assert records.save(spec, timings)

    return ship


def test_a_shipped_record_is_found_and_said_to_be_one(shipped):
    shipped(SPEC, {"toeplitz": _timing(1e-6, "toeplitz"), "direct": _timing(1e-3)})
    chosen = convbench.select(SPEC)
    assert (chosen.engine, chosen.source) == ("toeplitz", "shipped record"), str(SPEC)
    assert convbench.select(SPEC, tuning="replay").source == "shipped record", str(SPEC)


def test_the_users_record_goes_before_a_shipped_one(shipped):
    shipped(SPEC, {"toeplitz": _timing(1e-10, "toeplitz"), "direct": _timing(1e-7)})
    records.save(
        SPEC, {"toeplitz": _timing(5e-7, "toeplitz"), "direct": _timing(1e-7), "im2col": _timing(1e-8, "im2col")}
    )
    chosen = convbench.select(SPEC)
    assert (chosen.engine, chosen.source) == ("im2col", "record"), str(SPEC)


def test_the_users_timing_of_one_engine_does_not_hide_the_shipped_others(shipped):
    shipped(SPEC, {"direct": _timing(1e-8)})
    records.save(SPEC, {"toeplitz": _timing(5e-8, "toeplitz")})
    chosen = convbench.select(SPEC)
    assert (chosen.engine, chosen.source) == ("direct", "shipped record"), str(SPEC)
    assert set(json.loads(_path().read_text())["timings"]) == {"toeplitz"}, str(SPEC)


@pytest.fixture
def _threads_restored():
    before = settings.get_num_threads()
    yield
    settings.set_num_threads(before)


@pytest.mark.usefixtures("_threads_restored")
def test_records_belong_to_a_number_of_threads():
    records.save(SPEC, {"toeplitz": _timing(1e-6, "toeplitz")})
    before = _path()
    settings.set_num_threads(settings.get_num_threads() + 1)
    assert _path() != before
    assert _path().name == before.name
    assert records.load(SPEC) is None, str(SPEC)
    settings.set_num_threads(settings.get_num_threads() - 1)
    assert _path() == before
    assert convbench.select(SPEC).engine == "toeplitz", str(SPEC)


def test_a_library_of_another_version_has_other_records(monkeypatch):
    before = _path()
    monkeypatch.setattr(records, "environment", lambda: {"packages": {"numpy": "99"}})
    monkeypatch.setattr(records, "_environment_hash", records._environment_hash.__wrapped__)
    assert _path() != before


NEW_PROCESS = """
import sys, numpy, convbench
from convbench.data import sample
spec = convbench.ConvSpec.parse(sys.argv[1])
x, weight = sample(spec)
layer = convbench.Conv2d(weight, padding=spec.padding)
result = layer(x)
reference = convbench.conv2d(x, weight, padding=spec.padding, engine="reference")
assert numpy.allclose(result, reference, atol=1e-5), spec
chosen = layer.selection(x.shape)
assert f"{chosen.engine} (record" in str(chosen), chosen
print(chosen.engine, chosen.source)
"""


@pytest.mark.parametrize("winner", ["direct", "im2col", "toeplitz"])
def test_a_new_process_picks_the_recorded_winner(winner):
    rivals = ("direct", "im2col", "fft", "toeplitz")
    records.save(SPEC, {name: _timing(1e-6 if name == winner else 1e-3, name) for name in rivals})
    command = [sys.executable, "-c", NEW_PROCESS, str(SPEC)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{SPEC}: {done.stderr}"
    assert done.stdout.split() == [winner, "record"], str(SPEC)
