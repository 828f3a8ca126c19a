"""The command line: what it prints, what it refuses, its exit codes.  Nothing is timed on purpose."""

import functools
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import convbench
from convbench import cli, images
from convbench.commands import BAD_INPUT, COMMANDS, FAILED, INTERRUPTED
from convbench.commands.given import read_problems

TINY, OTHER = "mb1ic1ih9oc1oh9kh3ph1", "mb1ic2ih5oc2oh5kh3ph1"


@pytest.fixture(autouse=True)
def _own_records(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "records"))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    images.save(path, np.random.default_rng(0).random((3, 12, 17), "float32"))
    return path


def _refused(capsys, *argv):
    assert cli.main(list(map(str, argv))) == BAD_INPUT
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    assert message.startswith("convbench: ")
    return message


RECORDS = [("records", action) for action in ("show", "export", "import", "clear", "prune")]


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), *RECORDS])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "convbench" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\n"
        "from convbench.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'matplotlib', 'jinja2', 'PIL', 'asv', 'scipy', 'numba', 'pyfftw', 'argcomplete'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "convbench", "engines"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(convbench.registry.engines())


def test_without_a_command_or_with_an_unknown_one_is_bad_input():
    for argv in ([], ["frobnicate"], ["explain"], ["bench", "--suite", "video"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        assert caught.value.code == BAD_INPUT


def test_explain_prints_the_selection(capsys):
    assert cli.main(["explain", TINY]) == 0
    text = capsys.readouterr().out
    assert TINY in text
    for name in convbench.registry.engines():
        assert name in text


def test_explain_takes_names_and_verbose_lines(capsys):
    line = (
        "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_inference,"
        "src:f32::blocked:abcd::f0 wei:f32::blocked:abcd::f0 dst:f32::blocked:abcd::f0,,alg:convolution_direct,"
        "mb1_ic3oc8_ih12oh10kh3sh1dh0ph0_iw12ow10kw3sw1dw0pw0,0.1"
    )
    assert cli.main(["explain", line]) == 0
    assert "mb1ic3ih12oc8oh10kh3ph0" in capsys.readouterr().out
    assert cli.main(["explain", "photo-128-k3"]) == 0
    assert "mb1ic1ih128oc1oh128kh3ph1" in capsys.readouterr().out


@pytest.fixture
def scipy_after():
    """SciPy's engine out of the registry after a test."""
    pytest.importorskip("scipy")
    yield
    convbench.peers.disable("scipy")


@pytest.mark.usefixtures("scipy_after")
def test_explain_has_other_libraries_beside_the_engines(capsys):
    assert "scipy" not in convbench.registry.engines()
    assert cli.main(["explain", TINY, "--peers", "scipy"]) == 0
    assert "scipy" in [line.split()[0] for line in capsys.readouterr().out.splitlines()], TINY
    (found,) = _json(capsys, "explain", TINY, "--peers", "scipy")
    (entry,) = [candidate for candidate in found["candidates"] if candidate["engine"] == "scipy"]
    assert entry["predicted"] > 0, TINY
    assert "only where it is named" not in (entry["refused"] or ""), TINY


def test_verify_succeeds_and_counts(capsys):
    assert cli.main(["verify", TINY, "mb1ic2ih5oc2oh5kh3ph1"]) == 0
    assert "2 of 2 problems" in capsys.readouterr().out


def test_verify_fails_when_an_engine_is_wrong(capsys):
    class Wrong(convbench.Engine):
        name = "wrong-for-test"

        def why_unsupported(self, spec):
            return None

        def plan(self, spec, weight):
            return lambda x, out: out.fill(7)

    convbench.register(Wrong)
    try:
        assert cli.main(["verify", TINY, "--engines", "wrong-for-test"]) == FAILED
    finally:
        convbench.registry.unregister("wrong-for-test")
    assert "0 of 1 problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (("explain", "mb1ic64"), "mb1ic64"),
        (("explain", "@missing.txt"), "missing.txt"),
        (("verify", "nonsense"), "nonsense"),
        (("verify", TINY, "--engines", "warp"), "warp"),
        (("explain", TINY, "--peers", "warp"), "warp"),
        (("explain", TINY, "--tuning", "replay"), TINY),
        (("bench", "--engines", "warp"), "warp"),
        (("bench", "--engines", ","), "','"),
        (("bench", "--problem", TINY, "--suite", "image"), "--suite"),
        (("bench", "--image", "missing.jpg"), "missing.jpg"),
    ],
)
def test_bad_input_is_a_line_that_names_it(argv, given, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert given in _refused(capsys, *argv)


def test_an_unwritable_report_folder_is_a_line(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = _refused(capsys, "bench", "--problem", TINY, "--report", tmp_path / "file")
    assert "file" in message
    assert "--report DIR" in message


def test_problems_come_from_files_logs_and_standard_input(tmp_path, monkeypatch):
    log = (
        "onednn_verbose,v1,info,oneDNN v3.12\n# a comment\n\n"
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32 dst:f32,,,2x3,0.01\n"
        f"{TINY}\nresnet50-stem\n{TINY}\n"
    )
    (tmp_path / "log.txt").write_text(log)
    found = read_problems([f"@{tmp_path / 'log.txt'}"])
    assert [problem.name for problem in found] == [TINY, "resnet50-stem"]
    monkeypatch.setattr("sys.stdin", io.StringIO(log))
    assert read_problems(["-"]) == found
    assert read_problems([log]) == found
    with pytest.raises(ValueError, match="no problem"):
        read_problems(["# only a comment"])


@pytest.mark.parametrize("kernel", ["sobel-x", "gaussian:1", "sharpen", "box:3"])
def test_run_writes_the_filtered_image(kernel, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert cli.main(["run", str(photo), "--kernel", kernel, "-o", str(out)]) == 0
    assert images.load(out).shape == images.load(photo).shape
    text = capsys.readouterr().out
    assert "engine " in text
    assert " ms a call" in text


def test_run_computes_what_scipy_does(photo, tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = np.random.default_rng(1).standard_normal((3, 5)).astype("float32")
    np.save(tmp_path / "kernel.npy", kernel)
    argv = ["run", photo, "--kernel", tmp_path / "kernel.npy", "-o", tmp_path / "out.npy"]
    assert cli.main(list(map(str, argv))) == 0
    expected = [ndimage.correlate(plane, kernel, mode="nearest") for plane in images.load(photo)]
    np.testing.assert_allclose(images.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5)


def test_run_flips_and_pads_as_asked(photo, tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    argv = ["run", photo, "--kernel", "sobel-x", "-o", tmp_path / "out.npy", "--flip", "--padding-mode", "wrap"]
    assert cli.main(list(map(str, argv))) == 0
    sobel = convbench.kernels.sobel_x()
    expected = [ndimage.convolve(plane, sobel, mode="grid-wrap") for plane in images.load(photo)]
    np.testing.assert_allclose(images.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5)


def test_values_become_brightness():
    from convbench.filtering import displayed

    image = np.array([[[-2.0, 0.0, 1.0]]])
    smoothing, derivative = convbench.kernels.box(3), convbench.kernels.sobel_x()
    assert displayed(image, smoothing)[0].tolist() == [[[0, 0, 1]]]
    assert displayed(image, derivative)[0].tolist() == [[[0, 0.5, 0.75]]]
    assert displayed(image, derivative, "abs")[0].tolist() == [[[1, 0, 0.5]]]
    assert displayed(np.zeros((1, 1, 1)), derivative)[0].tolist() == [[[0.5]]]


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"image": "missing.png"}, "missing.png"),
        ({"--kernel": "blur"}, "'blur'"),
        ({"--kernel": "missing.npy"}, "missing.npy"),
        ({"--engine": "warp"}, "'warp'"),
        ({"--padding-mode": "bounce"}, "'bounce'"),
        ({"-o": "no/folder/out.png"}, "no/folder/out.png"),
    ],
)
def test_run_refuses_with_a_line(changes, given, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"image": photo, "--kernel": "box:3", "-o": "out.png", **changes}
    image = options.pop("image")
    assert given in _refused(capsys, "run", image, *(word for pair in options.items() for word in pair))


def test_kernel_files_of_the_wrong_shape_are_refused(photo, tmp_path, capsys):
    np.save(tmp_path / "kernel.npy", np.zeros((2, 3, 4)))
    message = _refused(capsys, "run", photo, "--kernel", tmp_path / "kernel.npy", "-o", tmp_path / "out.png")
    assert "(2, 3, 4)" in message


def test_a_missing_package_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert "pip install 'convbench[bench]'" in _refused(capsys, "bench")


def test_interrupts_end_with_a_line_and_130(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("convbench.verify", interrupt)
    assert cli.main(["verify", TINY]) == INTERRUPTED
    assert capsys.readouterr().err == "convbench: interrupted\n"


# JSON.


def _json(capsys, *argv, code=0):
    """What a command prints with --json, which has to be JSON and nothing else."""
    capsys.readouterr()
    assert cli.main([*map(str, argv), "--json"]) == code

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def test_engines_as_json(capsys):
    found = _json(capsys, "engines")
    assert [entry["name"] for entry in found] == list(convbench.registry.engines())
    for entry in found:
        engine = convbench.registry.get(entry["name"])
        assert entry["version"] == engine.version
        assert entry["automatic"] is engine.automatic


def test_a_selection_as_json(capsys):
    (found,) = _json(capsys, "explain", TINY)
    chosen = convbench.select(convbench.ConvSpec.parse(TINY))
    assert (found["problem"], found["engine"], found["source"]) == (TINY, chosen.engine, chosen.source)
    assert [c["engine"] for c in found["candidates"]] == [c.engine for c in chosen.candidates], TINY
    assert [c["predicted"] for c in found["candidates"]] == [c.predicted for c in chosen.candidates], TINY
    assert next(c for c in found["candidates"] if c["engine"] == "reference")["refused"]


def test_a_verification_as_json(capsys):
    found = _json(capsys, "verify", TINY, "--engines", "direct,fft")
    assert found["ok"] is True
    (problem,) = found["problems"]
    assert (problem["problem"], problem["ok"]) == (TINY, True)
    assert [check["engine"] for check in problem["engines"]] == ["direct", "fft"]
    assert all(0 <= check["error"] <= check["bound"] for check in problem["engines"]), TINY


def test_a_failed_verification_as_json(capsys):
    class Endless(convbench.Engine):
        name = "endless-for-test"

        def why_unsupported(self, spec):
            return None

        def plan(self, spec, weight):
            return lambda x, out: out.fill(np.inf)

    convbench.register(Endless)
    try:
        found = _json(capsys, "verify", TINY, "--engines", "endless-for-test", code=FAILED)
    finally:
        convbench.registry.unregister("endless-for-test")
    (check,) = found["problems"][0]["engines"]
    assert (found["ok"], check["ok"], check["error"]) == (False, False, None), TINY  # no number is infinite in JSON


def test_a_filtered_image_as_json(capsys, photo, tmp_path):
    found = _json(capsys, "run", photo, "--kernel", "box:3", "-o", tmp_path / "out.png", "--engine", "im2col")
    assert (found["width"], found["height"], found["channels"]) == (17, 12, 3)
    assert (found["engine"], found["source"], found["kernel_shape"]) == ("im2col", "pinned", [3, 3])
    assert found["output"] == str(tmp_path / "out.png")
    assert 0 < found["timing"]["q1"] <= found["timing"]["median"] <= found["timing"]["q3"]


def test_a_comparison_as_json(capsys, tmp_path, monkeypatch):
    from convbench.compare import contest, protocol

    monkeypatch.setattr(contest, "installed", lambda peers: ((), {"torch": None}))
    monkeypatch.setattr(protocol, "STRICT_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    found = _json(capsys, "compare", "--problem", TINY, "--strict")
    (result,) = found["comparison"]["results"]
    assert (result["row"]["text"], result["engine"]) == (TINY, "direct")
    assert result["timings"]["convbench"]["median"] > 0, TINY
    assert found["written"] == []
    assert _json(capsys, "compare", "--problem", TINY, "--strict", "--output", "out")["written"][0].startswith("out")


def test_a_benchmark_as_json(capsys, tmp_path, monkeypatch):
    from convbench import harness
    from convbench.report.results import Entry, Report, Row

    entry = Entry(median=1e-3, q1=1e-3, q3=1e-3, samples=3, error=0.0, bound=1e-6, regret=1.0, version="1")
    row = Row(TINY, "given", TINY, "a test", "direct", {"direct": entry})
    monkeypatch.setattr(
        harness, "run", lambda plan, _: Report(harness.describe_machine(), harness._describe_run(plan), [row])
    )
    found = _json(capsys, "bench", "--problem", TINY, "--report", tmp_path)
    assert (found["agree"], found["rows"][0]["engines"]["direct"]["median"]) == (True, 1e-3), TINY
    assert all(os.path.exists(path) for path in found["written"])


def test_errors_with_json_are_a_line_on_standard_error(capsys):
    assert cli.main(["explain", "nonsense", "--json"]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


# Progress.


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    from convbench.commands.lines import Lines

    now = [0.0]
    with Lines(every=10, clock=lambda: now[0]) as lines:
        task = lines.add_task("starting", total=4)
        told = []
        for second, changes in enumerate(({"description": "a"}, {"completed": 1}, {"advance": 1, "description": "b"})):
            now[0] = 6.0 * (second + 1)
            lines.update(task, **changes)
            told.append(capsys.readouterr().err)
        now[0] = 30.0
        lines.advance(task, 2)
        told.append(capsys.readouterr().err)
        now[0] = 60.0
        lines.update(lines.add_task("open end", total=None))
        told.append(capsys.readouterr().err)
    assert told == ["", "a: 1 of 4 done, 12 s, about 36 s left\n", "", "b: 4 of 4 done, 30 s\n", "open end: 0 s\n"]


@pytest.mark.parametrize(
    "argv",
    [
        ("verify", TINY, OTHER, "--engines", "im2col"),
        ("explain", f"{TINY}\n{OTHER}"),
        ("compare", "direct", "im2col", "--problem", TINY, "--problem", OTHER),
        ("calibrate",),
    ],
)
def test_long_commands_say_what_they_are_at(argv, capsys, monkeypatch):
    from convbench import calibration
    from convbench.commands import output
    from convbench.compare import versus
    from convbench.compare.gauge import Gauge

    monkeypatch.setattr(output, "Lines", functools.partial(output.Lines, every=0.0))
    monkeypatch.setattr(calibration, "PANEL", (TINY, OTHER))
    monkeypatch.setattr(calibration, "SECONDS", 0.0)
    monkeypatch.setattr(versus, "ROUNDS", 4)
    monkeypatch.setattr(versus, "machine_gauge", lambda: Gauge(None))  # every round counts, at whatever speed
    assert cli.main(list(argv)) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if " done, " in line]
    steps = [(line.split(":")[0], line.split(": ")[1].split(" done")[0]) for line in told]
    total = 3 if argv == ("calibrate",) else 2
    assert steps[-2:] == [(TINY, f"{total - 2} of {total}"), (OTHER, f"{total - 1} of {total}")], (TINY, OTHER)


def test_verify_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["verify", TINY, "--engines", "im2col"]) == 0
    assert "1 of 1 problems" in capsys.readouterr().out


# Completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_code(shell, capsys):
    pytest.importorskip("argcomplete")
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "convbench" in text
    assert "_ARGCOMPLETE" in text


def test_completion_refuses_other_shells(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["completion", "cmd"])
    assert caught.value.code == BAD_INPUT
    assert "bash" in capsys.readouterr().err


def test_completion_without_its_library_is_a_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert "pip install 'convbench[completion]'" in _refused(capsys, "completion", "bash")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("convbench rec", {"records"}),
        ("convbench records p", {"prune"}),
        ("convbench records prune --d", {"--dry-run"}),
        ("convbench explain resnet50-s", {"resnet50-stem"}),
        ("convbench verify --engines direct,win", {"direct,winograd", "direct,winograd4", "direct,winograd8"}),
        ("convbench run photo.png --engine im", {"im2col"}),
        ("convbench bench --suite i", {"image"}),
        ("convbench completion z", {"zsh"}),
        ("convbench compare im", {"im2col"}),
        ("convbench compare torch dir", {"direct"}),
        ("convbench compare onn", {"onnxruntime"}),
        ("convbench compare runs/b", {"runs/before/", "runs/both.json"}),
        ("convbench compare runs/before/ ru", {"runs/"}),
        ("convbench compare missing/b", set()),
        ("convbench explain photo-512-k9 --peers torch,op", {"torch,openvino", "torch,opencv"}),
    ],
)
def test_a_shell_is_answered(line, expected, tmp_path):
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    (tmp_path / "runs" / "before").mkdir(parents=True)
    (tmp_path / "runs" / "both.json").write_text("{}")
    (tmp_path / "runs" / "beside.txt").write_text("")
    command = [sys.executable, "-m", "convbench"]
    subprocess.run(command, env={**os.environ, **variables}, cwd=tmp_path, check=True)
    assert {word.strip() for word in answer.read_text().splitlines()} == expected
