"""Records as a whole: the portable file, pinned sets, and what can go."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import convbench
from convbench import archive, records, registry, selection, settings
from convbench.data import sample
from convbench.records import ANY, EngineTiming, Stored
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
OTHER = ConvSpec.parse("mb1ic2ih8oc3oh8kh3ph1")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    monkeypatch.setattr(records, "_warned", set())
    selection.forget()
    yield
    selection.forget()


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder that an application ships."""
    folder = tmp_path / "shipped"
    monkeypatch.setenv(records.SHIPPED_VARIABLE, str(folder))
    return folder


def _timing(seconds=1e-3, engine="direct", **changes):
    version = registry.get(engine).version if engine in registry.engines() else "1"
    known = {"median": seconds, "q1": seconds * 0.9, "q3": seconds * 1.1, "samples": 7, "workspace_bytes": 64}
    return EngineTiming(**{**known, "error": 1e-7, "version": version, **changes})


def _stored(spec=SPEC, environment=None, **timings):
    return Stored(str(spec), environment or records.environment(), timings or {"direct": _timing()})


def _elsewhere(**changes):
    """The environment of another machine."""
    return {**records.environment(), **(changes or {"model": "8086"})}


def _files(base):
    return {path.relative_to(base): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def _select(spec=SPEC, tuning="estimate", **keywords):
    selection.forget()
    return convbench.select(spec, tuning, **keywords)


# The portable file.


def test_packed_records_come_back():
    found = [_stored(), _stored(OTHER, _elsewhere(), fft=_timing(2e-3, "fft"), direct=_timing(error=None))]
    text = archive.packed(found)
    assert archive.unpacked(text) == found
    content = json.loads(text)
    assert (content["format"], content["schema"]) == (archive.FORMAT, records.SCHEMA)
    assert list(content["environments"].values()) == [each.environment for each in found]


def test_nothing_is_not_packed():
    with pytest.raises(ValueError, match="no record to export"):
        archive.packed([])


def _resealed(change):
    content = records.unsealed(archive.packed([_stored()]))
    change(content)
    return records.sealed(content)


BAD_FILES = {
    "empty": (lambda: "", "Expecting value"),
    "a list": (lambda: "[1]", "no file of"),
    "another JSON file": (lambda: '{"name": 1}', "lacks 'format'"),
    "a report": (lambda: '{"format": "report"}', "'report'"),
    "an older schema": (lambda: _resealed(lambda c: c.update(schema=1)), "schema is 1; 2 is accepted"),
    "cut off": (lambda: archive.packed([_stored()])[:-9], "no file of"),
    "a changed digit": (lambda: archive.packed([_stored()]).replace('"samples": 7', '"samples": 8'), "checksum"),
    "no environments": (lambda: _resealed(lambda c: c.pop("environments")), "environments"),
    "an unknown environment": (lambda: _resealed(lambda c: c["records"][0].update(environment="x")), "'x'"),
    "an environment of other fields": (
        lambda: _resealed(lambda c: next(iter(c["environments"].values())).pop("isa")),
        "'isa'",
    ),
    "packages as a list": (
        lambda: _resealed(lambda c: next(iter(c["environments"].values())).update(packages=[])),
        "environment",
    ),
    "no problem": (lambda: _resealed(lambda c: c["records"][0].update(problem="soup")), "soup"),
    "a problem in other words": (
        lambda: _resealed(lambda c: c["records"][0].update(problem="mb1_ic2ih9oc3oh9kh3ph1")),
        "mb1_ic2",
    ),
    "a negative time": (
        lambda: _resealed(lambda c: c["records"][0]["timings"]["direct"].update(median=-1)),
        "not positive",
    ),
    "records as a number": (lambda: _resealed(lambda c: c.update(records=3)), "no file of"),
    "nested too deep": (lambda: "[" * 200_000, "no file of"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_words(kind):
    make, words = BAD_FILES[kind]
    with pytest.raises(ValueError, match="no file of 'convbench records export'") as caught:
        archive.unpacked(make())
    assert words in str(caught.value)


# Merging.


def test_merging_adds_what_is_missing_and_keeps_the_users_own():
    records.save(SPEC, {"direct": _timing(1e-3)})
    changed = archive.merge(
        [_stored(direct=_timing(9e-3), fft=_timing(2e-3, "fft")), _stored(OTHER)], records.directory()
    )
    assert len(changed) == 2
    medians = {name: timing.median for name, timing in records.load(SPEC).timings.items()}
    assert medians == {"direct": 1e-3, "fft": 2e-3}, str(SPEC)
    assert records.load(OTHER).timings == {"direct": _timing()}, str(OTHER)
    again = [_stored(direct=_timing(9e-3), fft=_timing(2e-3, "fft")), _stored(OTHER)]
    assert archive.merge(again, records.directory()) == {}


def test_merging_replaces_on_request_and_what_is_out_of_date():
    records.save(SPEC, {"direct": _timing(1e-3), "fft": _timing(1e-3, "fft", version="an older one")})
    new = _stored(direct=_timing(9e-3), fft=_timing(2e-3, "fft"))
    archive.merge([new], records.directory())
    medians = {name: timing.median for name, timing in records.load(SPEC).timings.items()}
    assert medians == {"direct": 1e-3, "fft": 2e-3}, str(SPEC)
    archive.merge([new], records.directory(), prefer_new=True)
    assert records.load(SPEC).timings == new.timings, str(SPEC)


def test_what_is_out_of_date_does_not_replace_what_is_not():
    records.save(SPEC, {"direct": _timing(1e-3)})
    archive.merge([_stored(direct=_timing(9e-3, version="an older one"))], records.directory())
    assert records.load(SPEC).timings["direct"] == _timing(1e-3), str(SPEC)


def test_records_of_another_machine_are_kept_but_not_used_here():
    archive.merge([_stored(SPEC, _elsewhere(), toeplitz=_timing(1e-9, "toeplitz"))], records.directory())
    assert records.load(SPEC) is None, str(SPEC)
    found, broken = archive.stored(records.directory())
    assert ([each.environment["model"] for each in found.values()], broken) == (["8086"], {})


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_disk_that_fills_up_while_merging_changes_nothing(calls, monkeypatch):
    records.save(SPEC, {"direct": _timing(1e-3)})
    before = _files(records.directory())
    left = [calls]

    def fail(*arguments, **keywords):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return open(*arguments, **keywords)

    many = [_stored(fft=_timing(engine="fft")), _stored(OTHER), _stored(OTHER, _elsewhere())]
    with monkeypatch.context() as patched:
        patched.setattr(records, "open", fail, raising=False)
        with pytest.raises(OSError, match="No space left"):
            archive.merge(many, records.directory())
    assert _files(records.directory()) == before
    assert len(archive.merge(many, records.directory())) == 3


def test_something_in_the_way_changes_nothing():
    records.save(SPEC, {"direct": _timing(1e-3)})
    _stored(OTHER).path(records.directory()).mkdir()
    before = _files(records.directory())
    with pytest.raises(OSError, match="directory"):
        archive.merge([_stored(fft=_timing(engine="fft")), _stored(OTHER)], records.directory())
    assert _files(records.directory()) == before


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX'")
def test_others_may_read_what_is_shipped(shipped):
    before = os.umask(0o022)
    try:
        (path,) = archive.merge(archive.pin([_stored()]), shipped)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


# Pinned sets.


def test_a_pinned_record_goes_before_everything_else(shipped):
    records.save(SPEC, {"direct": _timing(1e-9), "im2col": _timing(1e-9, "im2col")})
    elsewhere = _stored(
        SPEC, _elsewhere(), toeplitz=_timing(1e-3, "toeplitz"), fft=_timing(2e-3, "fft"), direct=_timing(5e-3)
    )
    archive.merge([_stored(im2col=_timing(1e-9, "im2col"))], shipped)
    archive.merge(archive.pin([elsewhere]), shipped)
    found = records.load(SPEC)
    assert found.pinned
    assert found.timings == elsewhere.timings, str(SPEC)
    for tuning in ("estimate", "replay", "measure"):
        chosen = _select(tuning=tuning)
        assert (chosen.engine, chosen.source) == ("toeplitz", "shipped record"), f"{SPEC}, {tuning}"
    assert records.load(OTHER) is None, str(OTHER)


def test_a_pinned_record_still_obeys_the_callers_limits(shipped):
    timings = {"toeplitz": _timing(1e-3, "toeplitz"), "direct": _timing(5e-3)}
    archive.merge(archive.pin([_stored(**timings)]), shipped)
    assert _select().engine == "toeplitz", str(SPEC)
    cap = max(c.workspace_bytes for c in _select().candidates if c.engine == "direct")
    assert _select(max_workspace=cap).engine == "direct", str(SPEC)
    assert _select(engine="im2col").engine == "im2col", str(SPEC)


def test_pinned_records_of_another_version_do_not_count(shipped):
    archive.merge(archive.pin([_stored(toeplitz=_timing(1e-9, "toeplitz", version="an older one"))]), shipped)
    assert _select().source == "model", str(SPEC)


def test_a_pinned_form_among_the_users_own_records_means_nothing():
    archive.merge(archive.pin([_stored(toeplitz=_timing(1e-9, "toeplitz"))]), records.directory())
    assert records.load(SPEC) is None, str(SPEC)


def test_pinning_anew_does_not_mix_two_machines(shipped):
    archive.merge(archive.pin([_stored(toeplitz=_timing(1e-9, "toeplitz"))]), shipped)
    archive.merge(archive.pin([_stored(direct=_timing(1e-3))]), shipped)
    assert set(records.load(SPEC).timings) == {"direct"}, str(SPEC)


def test_one_environment_is_pinned_not_several():
    with pytest.raises(ValueError, match="2 environments") as caught:
        archive.pin([_stored(), _stored(OTHER, _elsewhere())])
    assert "8086" in str(caught.value)


def test_a_damaged_pinned_record_is_missing_and_one_warning(shipped):
    (path,) = archive.merge(archive.pin([_stored()]), shipped)
    path.write_text(path.read_text()[:-5])
    with pytest.warns(RuntimeWarning, match="counts as missing"):
        assert records.load(SPEC) is None, str(SPEC)
    assert records.load(SPEC) is None, str(SPEC)  # RuntimeWarnings are errors here


PINNED = """
import sys, numpy, convbench
from convbench.data import sample
spec = convbench.ConvSpec.parse(sys.argv[1])
x, weight = sample(spec)
layer = convbench.Conv2d(weight, padding=spec.padding)
numpy.save(sys.argv[2], layer(x))
print(layer.selection(x.shape).engine, convbench.get_num_threads())
"""


@pytest.mark.parametrize("winner", ["im2col", "toeplitz"])
def test_every_process_takes_the_pinned_engine_whatever_its_threads(winner, shipped, tmp_path):
    rivals = ("direct", "im2col", "toeplitz")
    timings = {name: _timing(1e-6 if name == winner else 1e-3, name) for name in rivals}
    archive.merge(archive.pin([_stored(SPEC, _elsewhere(threads=64), **timings)]), shipped)
    x, weight = sample(SPEC)
    expected = convbench.conv2d(x, weight, padding=SPEC.padding, engine="reference")
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-c", PINNED, str(SPEC), str(tmp_path / "y.npy")],
            env={**os.environ, "CONVBENCH_NUM_THREADS": threads, "CONVBENCH_CACHE_DIR": str(tmp_path / threads)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == [winner, threads], f"{SPEC}: {done.stderr}"
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=0, atol=1e-5, err_msg=str(SPEC))


# What can go.


def _removals(found):
    return {(removal.path, removal.timings): removal.reason for removal in found}


def test_useless_is_what_the_judge_cannot_use():
    base = records.directory()
    records.save(SPEC, {"direct": _timing(), "fft": _timing(engine="fft", version="0"), "gone, quick": _timing()})
    records.save(OTHER, {"direct": _timing()})
    kept = [_stored(SPEC, _elsewhere(threads=7)), _stored(SPEC, _elsewhere(cores=1))]
    packages = {**records.environment()["packages"], "numpy": "0.9"}
    foreign = [_stored(SPEC, _elsewhere()), _stored(SPEC, _elsewhere(packages=packages)), _stored(SPEC, ANY)]
    older = _stored(SPEC, None, direct=_timing(version="0"))
    archive.merge([*kept, *foreign, dataclasses.replace(older, environment=_elsewhere(threads=9))], base)
    before = _files(base)
    path = records.path_of(SPEC, base)
    removals = _removals(archive.useless(base))
    assert set(removals) == {
        (path, ("fft", "gone, quick")),
        *((each.path(base), ()) for each in foreign),
        (dataclasses.replace(older, environment=_elsewhere(threads=9)).path(base), ()),
    }
    assert "version 0; the engine is at " in removals[path, ("fft", "gone, quick")]
    assert "there is no such engine" in removals[path, ("fft", "gone, quick")]
    assert "8086" in removals[foreign[0].path(base), ()]
    assert _files(base) == before
    archive.remove(archive.useless(base))
    assert records.load(SPEC).timings == {"direct": _timing()}, str(SPEC)
    assert set(archive.stored(base)[0]) == {path, records.path_of(OTHER, base), *(each.path(base) for each in kept)}
    assert archive.useless(base) == []


def test_useless_are_older_schemas_damaged_files_and_what_killed_writers_left():
    base = records.directory()
    records.save(SPEC, {"direct": _timing()})
    here = records.path_of(SPEC, base).parent
    for folder in (base / "v1" / "x", base / "v99" / "x", base / "vault", base / "fftw"):
        folder.mkdir(parents=True)
        (folder / "a.json").write_text("{}")
    (here / "damaged.json").write_text("{")
    (here / "misplaced.json").write_text(_stored(OTHER).text())
    for name, age in (("old.tmp", 2 * archive.ABANDONED_SECONDS), ("fresh.tmp", 0)):
        (here / name).write_text("{")
        os.utime(here / name, (time.time() - age,) * 2)
    removed = {path for path, _ in _removals(archive.useless(base))}
    assert removed == {base / "v1" / "x" / "a.json", here / "damaged.json", here / "misplaced.json", here / "old.tmp"}
    archive.remove(archive.useless(base))
    assert not (base / "v1").exists()
    left = {str(path) for path in _files(base)}
    name = records.path_of(SPEC, base).name
    assert left == {
        "v99/x/a.json",
        "vault/a.json",
        "fftw/a.json",
        f"v2/{here.name}/{name}",
        f"v2/{here.name}/fresh.tmp",
    }


def test_files_that_vanish_meanwhile_disturb_nothing():
    base = records.directory()
    records.save(SPEC, {"direct": _timing(), "gone": _timing()})
    records.save(OTHER, {"gone": _timing()})
    (records.path_of(SPEC, base).parent / "done.tmp").symlink_to(base / "nothing")  # no stat, as if renamed just now
    found = archive.useless(base)
    assert len(found) == 2
    for spec in (SPEC, OTHER):
        records.path_of(spec, base).unlink()
    archive.remove(found)
    assert archive.stored(base) == ({}, {})


def test_everything_is_the_records_and_nothing_else():
    base = records.directory()
    records.save(SPEC, {"direct": _timing()})
    archive.merge([_stored(OTHER, _elsewhere())], base)
    (records.path_of(SPEC, base).parent / "left.tmp").write_text("")
    (base / "fftw").mkdir()
    (base / "fftw" / "wisdom.json").write_text("{}")
    (base / "notes.txt").write_text("mine")
    found = archive.everything(base)
    assert len(found) == 3
    archive.remove(found)
    assert set(map(str, _files(base))) == {"fftw/wisdom.json", "notes.txt"}
    assert records.load(SPEC) is None, str(SPEC)
    assert archive.everything(base) == []


def test_a_folder_that_does_not_exist_is_empty(tmp_path):
    for list_of in (archive.everything, archive.useless):
        assert list_of(tmp_path / "nothing") == []
    assert archive.stored(tmp_path / "nothing") == ({}, {})


def test_outdated_names_the_engines_whose_timings_are_ignored():
    timings = {"direct": _timing(), "fft": _timing(version="0"), "x": _timing()}
    timings["separable, 1 term"] = _timing(engine="separable")
    record = _stored(**timings)
    assert set(archive.outdated(record)) == {"fft", "x"}
    records.save(SPEC, record.timings)
    assert {c.engine for c in _select().candidates if c.measured} == {"direct"}, str(SPEC)


def test_other_threads_have_other_environments_which_are_no_strangers():
    here = records.environment()
    assert not archive.is_foreign(here)
    assert not archive.is_foreign({**here, "threads": settings.get_num_threads() + 1})
    assert archive.is_foreign({**here, "isa": []})
    assert archive.is_foreign(ANY)
