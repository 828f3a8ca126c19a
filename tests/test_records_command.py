"""``convbench records``: what it shows, writes, brings in and removes, and what it refuses."""

import io
import json
import os
import subprocess
import sys

import pytest

from convbench import archive, cli, records, registry, selection
from convbench.commands import BAD_INPUT
from convbench.records import EngineTiming, Stored
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
OTHER = ConvSpec.parse("mb1ic2ih8oc3oh8kh3ph1")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    monkeypatch.setattr(records, "_warned", set())
    selection.forget()
    yield
    selection.forget()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _timing(seconds=1e-3, engine="direct", **changes):
    version = registry.get(engine).version if engine in registry.engines() else "1"
    known = {"median": seconds, "q1": seconds * 0.9, "q3": seconds * 1.1, "samples": 7, "workspace_bytes": 2048}
    return EngineTiming(**{**known, "error": 1e-7, "version": version, **changes})


def _elsewhere(spec=SPEC, **timings):
    """Records a problem as another machine would."""
    environment = {**records.environment(), "model": "8086"}
    archive.merge([Stored(str(spec), environment, timings or {"direct": _timing()})], records.directory())


def _run(capsys, *argv, code=0):
    capsys.readouterr()
    assert cli.main(["records", *map(str, argv)]) == code
    return capsys.readouterr()


def _json(capsys, *argv):
    return json.loads(_run(capsys, *argv, "--json").out)


def _refused(capsys, *argv):
    captured = _run(capsys, *argv, code=BAD_INPUT)
    assert captured.out == ""
    assert captured.err.startswith("convbench: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def _files():
    return {path: path.read_bytes() for path in records.directory().rglob("*") if path.is_file()}


# show


def test_show_lists_engines_times_and_what_is_out_of_date(capsys):
    records.save(
        SPEC,
        {
            "direct": _timing(2e-3),
            "separable, 1 term": _timing(1e-3, "separable"),
            "fft": _timing(3e-3, "fft", version="0", error=None),
            "gone": _timing(4e-3),
        },
    )
    text = _run(capsys, "show").out
    assert str(records.directory()) in text
    assert records.environment()["model"] in text
    rows = [line for line in text.splitlines() if " ms " in line]
    assert [row.split("  ")[0] for row in rows] == ["separable, 1 term", "direct", "fft", "gone"]
    assert all(part in rows[1] for part in ("2 ms", "1.8 ms – 2.2 ms", "2 KiB", "1.0e-07"))
    assert rows[2].endswith(f"ignored: version 0; the engine is at {registry.get('fft').version}")
    assert rows[3].endswith("ignored: there is no such engine")
    assert "ignored" not in rows[0] + rows[1]


def test_show_takes_problems_by_name_and_hides_other_environments(capsys):
    records.save(SPEC, {"direct": _timing()})
    stem = ConvSpec.parse("mb1ic3ih224oc64oh112kh7sh2ph3")
    records.save(stem, {"direct": _timing()})
    _elsewhere()
    assert {entry["problem"] for entry in _json(capsys, "show")["records"]} == {str(SPEC), str(stem)}
    assert [entry["problem"] for entry in _json(capsys, "show", "resnet50-stem")["records"]] == [str(stem)]
    assert _json(capsys, "show", SPEC)["hidden"] == 1
    assert "1 record of other environments (--all" in _run(capsys, "show").out
    models = [entry["environment"]["model"] for entry in _json(capsys, "show", SPEC, "--all")["records"]]
    assert sorted(models) == sorted(["8086", records.environment()["model"]])
    assert "8086" in _run(capsys, "show", "--all").out


def test_show_as_json_has_every_figure(capsys):
    timings = {"direct": _timing(2e-3), "fft": _timing(1e-3, "fft", version="0", error=None)}
    records.save(SPEC, timings)
    (entry,) = _json(capsys, "show")["records"]
    assert entry["environment"] == records.environment()
    assert entry["path"] == str(records.path_of(SPEC, records.directory()))
    assert list(entry["timings"]) == ["fft", "direct"]
    for name, timing in timings.items():
        shown = dict(entry["timings"][name])
        assert (shown.pop("outdated") is None) == (name == "direct")
        assert EngineTiming(**shown) == timing, f"{SPEC}: {name}"


def test_show_names_shipped_and_damaged_records(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(records.SHIPPED_VARIABLE, str(tmp_path / "shipped"))
    archive.merge(archive.pin([Stored(str(SPEC), records.environment(), {"direct": _timing()})]), tmp_path / "shipped")
    records.save(OTHER, {"direct": _timing()})
    damaged = records.path_of(OTHER, records.directory())
    damaged.write_text("{")
    text = _run(capsys, "show").out
    assert "any machine (pinned)" in text
    assert str(SPEC) in text
    assert f"damaged, counts as missing: {damaged}" in text
    assert list(_json(capsys, "show")["damaged"]) == [str(damaged)]


def test_show_of_nothing_says_where_it_looked(capsys):
    assert _run(capsys, "show").out == f"no records in {records.directory()}\n"
    assert _json(capsys, "show") == {"records": [], "hidden": 0, "damaged": {}}


# export and import


def test_records_travel_in_a_file(capsys, tmp_path, monkeypatch):
    timings = {"direct": _timing(2e-3), "im2col": _timing(1e-3, "im2col")}
    records.save(SPEC, timings)
    _elsewhere(OTHER)
    file = tmp_path / "mine.json"
    assert _run(capsys, "export", file).out == f"{file}: 1 record, 2 timings\n"
    monkeypatch.setenv(records.DIRECTORY_VARIABLE, str(tmp_path / "fresh"))
    assert _json(capsys, "import", file)["records"] == 1
    assert records.load(SPEC).timings == timings, str(SPEC)
    assert "0 of 1 record" in _run(capsys, "import", file).out


def test_export_of_all_environments(capsys, tmp_path):
    records.save(SPEC, {"direct": _timing()})
    _elsewhere()
    assert _json(capsys, "export", tmp_path / "all.json", "--all")["records"] == 2
    found = archive.unpacked((tmp_path / "all.json").read_text())
    assert {each.environment["model"] for each in found} == {"8086", records.environment()["model"]}
    message = _refused(capsys, "import", tmp_path / "all.json", "--into", tmp_path / "app", "--pin")
    assert "2 environments" in message
    assert not (tmp_path / "app").exists()


def test_standard_input_and_output(capsys, tmp_path, monkeypatch):
    records.save(SPEC, {"direct": _timing()})
    text = _run(capsys, "export", "-").out
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert _json(capsys, "import", "-", "--into", tmp_path / "app")["changed"]
    assert "standard output" in _refused(capsys, "export", "-", "--json")


def test_an_application_ships_a_pinned_set(capsys, tmp_path, monkeypatch):
    import convbench

    records.save(SPEC, {"toeplitz": _timing(1e-6, "toeplitz"), "direct": _timing(1e-3)})
    _run(capsys, "export", tmp_path / "mine.json")
    _run(capsys, "import", tmp_path / "mine.json", "--into", tmp_path / "app", "--pin")
    monkeypatch.setenv(records.DIRECTORY_VARIABLE, str(tmp_path / "elsewhere"))
    monkeypatch.setenv(records.SHIPPED_VARIABLE, str(tmp_path / "app"))
    monkeypatch.setattr(records, "environment", lambda: {"model": "8086", "isa": [], "cores": 1, "threads": 1})
    monkeypatch.setattr(records, "_environment_hash", records._environment_hash.__wrapped__)
    selection.forget()
    chosen = convbench.select(SPEC)
    assert (chosen.engine, chosen.source) == ("toeplitz", "shipped record"), str(SPEC)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("export", "no/folder/mine.json"), "no/folder"),
        (("export", "."), "can't be written"),
        (("import", "missing.json"), "missing.json"),
        (("import", "bad.json"), "bad.json: this is no file of"),
        (("import", "binary.json"), "binary.json"),
        (("import", "good.json", "--pin"), "--into DIR"),
        (("import", "good.json", "--into", "bad.json"), "nothing is changed"),
        (("show", "nonsense"), "nonsense"),
    ],
)
def test_bad_input_is_a_line_and_changes_nothing(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records.save(SPEC, {"direct": _timing()})
    _run(capsys, "export", "good.json")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert words in _refused(capsys, *argv)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "no").exists()


def test_export_of_nothing_is_refused(capsys, tmp_path):
    assert "no record to export" in _refused(capsys, "export", tmp_path / "mine.json")
    assert not (tmp_path / "mine.json").exists()


def test_export_leaves_damaged_records_out_and_says_so(capsys, tmp_path):
    records.save(SPEC, {"direct": _timing()})
    records.save(OTHER, {"direct": _timing()})
    damaged = records.path_of(OTHER, records.directory())
    damaged.write_text("{")
    captured = _run(capsys, "export", tmp_path / "mine.json")
    assert str(damaged) in captured.err
    assert [each.problem for each in archive.unpacked((tmp_path / "mine.json").read_text())] == [str(SPEC)]


FULL = """
import resource, sys
from convbench import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(cli.main(["records", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("limit", [0, 200, 1000])
def test_a_full_disk_is_a_line_and_changes_nothing(capsys, limit, tmp_path):
    pytest.importorskip("resource", reason="this system has no limit for the size of files")
    records.save(SPEC, {"direct": _timing()})
    records.save(OTHER, {name: _timing(engine=name) for name in registry.engines()})
    file = tmp_path / "mine.json"
    _run(capsys, "export", file)
    whole = file.read_bytes()
    for argv in (("export", str(file)), ("import", str(file), "--into", str(tmp_path / "app"))):
        command = [sys.executable, "-c", FULL, str(limit), *argv]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        assert (done.returncode, done.stdout) == (BAD_INPUT, ""), done.stderr
        assert "nothing is changed" in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert file.read_bytes() == whole
    assert [path for path in (tmp_path / "app").rglob("*") if path.is_file()] == []


# clear and prune


def test_clear_asks_and_says_what_it_removed(capsys, monkeypatch):
    records.save(SPEC, {"direct": _timing()})
    _elsewhere()
    before = _files()
    for answer in ("n\n", "\n", "", "maybe\n"):
        monkeypatch.setattr("sys.stdin", _Terminal(answer))
        captured = _run(capsys, "clear")
        assert f"Remove 2 files in {records.directory()}? [y/N]" in captured.err
        assert captured.out == "nothing is removed\n"
        assert _files() == before, answer
    monkeypatch.setattr("sys.stdin", _Terminal("y\n"))
    text = _run(capsys, "clear").out
    assert all(str(path) in text for path in before)
    assert f"removed 2 files from {records.directory()}" in text
    assert _files() == {}


def test_clear_without_a_terminal_needs_yes(capsys, monkeypatch):
    records.save(SPEC, {"direct": _timing()})
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "--yes" in _refused(capsys, "clear")
    assert records.load(SPEC) is not None, str(SPEC)
    told = _json(capsys, "clear", "--yes")
    assert [entry["reason"] for entry in told["removed"]] == ["record"]
    assert records.load(SPEC) is None, str(SPEC)
    assert _json(capsys, "clear")["removed"] == []  # nothing to ask about


def test_prune_says_what_would_go_and_then_removes_it(capsys):
    records.save(SPEC, {"direct": _timing(), "fft": _timing(engine="fft", version="0")})
    _elsewhere()
    before = _files()
    would = _run(capsys, "prune", "--dry-run").out
    assert "would remove 1 file and 1 single timing" in would
    assert "8086" in would
    assert "fft: version 0" in would
    assert _files() == before
    told = _json(capsys, "prune")
    assert [entry["timings"] for entry in told["removed"]].count(["fft"]) == 1
    assert records.load(SPEC).timings == {"direct": _timing()}, str(SPEC)
    assert len(_files()) == 1
    assert "removed 0 files" in _run(capsys, "prune").out


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="whoever is root may remove anything")
def test_a_folder_without_permission_is_a_line(capsys):
    records.save(SPEC, {"direct": _timing()})
    folder = records.path_of(SPEC, records.directory()).parent
    folder.chmod(0o500)
    try:
        assert str(folder) in _refused(capsys, "clear", "--yes")
    finally:
        folder.chmod(0o700)
    assert records.load(SPEC) is not None, str(SPEC)


def test_what_cannot_be_removed_is_a_line(capsys, monkeypatch):
    from pathlib import Path

    records.save(SPEC, {"direct": _timing()})

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    message = _refused(capsys, "clear", "--yes")
    assert "Permission denied" in message
    assert str(records.path_of(SPEC, records.directory())) in message
