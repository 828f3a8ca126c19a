"""Other libraries as engines: the same conformance and exactness as every engine, and who may pick them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import assert_refused, assert_within_bound, correlate, run, sample, skip_if_refused
from hypothesis import HealthCheck, given, settings

# The engines' own tests, run here with this module's `engine`.
from test_conformance import (  # noqa: F401
    test_a_layer_is_the_function,
    test_a_layer_keeps_its_weight,
    test_arrays_with_gaps,
    test_bias,
    test_channels_last,
    test_complex,
    test_estimates_come_from_the_spec_alone,
    test_out_is_filled_and_returned,
    test_out_with_gaps,
    test_read_only_arrays,
    test_the_grid,
    test_true_convolution,
    test_unbatched,
)
from test_exact import PROBLEMS, test_whole_numbers_in_floats  # noqa: F401
from test_properties import seeds, specs, whole

import convbench
from convbench import ConvSpec, peers, records, registry
from convbench.data import sample as arrays
from convbench.peers import library

DEEP = (  # where a library would take Winograd's algorithm, a product, or code of its own for depthwise layers
    ConvSpec(1, 32, 32, spatial=(28, 28), kernel=(3, 3), padding=1),
    ConvSpec(1, 64, 32, spatial=(14, 14), kernel=(1, 1)),
    ConvSpec(1, 32, 32, spatial=(28, 28), kernel=(3, 3), padding=1, groups=32),
    ConvSpec(2, 32, 32, spatial=(60,), kernel=(5,), padding=2),
    ConvSpec(1, 3, 32, spatial=(32, 32), kernel=(7, 7), padding=3, stride=2),
)
ONE_CHANNEL = (
    ConvSpec(1, 1, 1, spatial=(40, 41), kernel=(3, 5), padding=(1, 2)),
    ConvSpec(1, 1, 1, spatial=(64, 61), kernel=(15, 15), padding=7),
    ConvSpec(1, 1, 1, spatial=(200,), kernel=(33,), padding=16),
    ConvSpec(1, 1, 1, spatial=(20, 30), kernel=(4, 3), padding=((3, 3), (2, 2))),
    ConvSpec(1, 1, 1, spatial=(9, 10, 11), kernel=(3, 3, 3), padding=1),
)
THREE_BY_THREE = ConvSpec(1, 3, 4, spatial=(12, 13), kernel=(3, 3), padding=1)


@pytest.fixture(scope="module", params=peers.NAMES)
def engine(request):
    """Each peer that is installed, registered while this module's tests run."""
    why = peers.why_missing(request.param)
    if why:
        pytest.skip(why)
    peers.enable(request.param)
    yield registry.get(request.param)
    peers.disable(request.param)


@pytest.fixture
def scipy_only():
    """SciPy's adapter, which every installation can have."""
    peers.enable("scipy")
    yield registry.get("scipy")
    peers.disable()


@pytest.mark.parametrize("spec", ONE_CHANNEL, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_channel(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    skip_if_refused(engine, spec)
    report = convbench.verify(spec, engines=[engine.name])
    assert report.ok, f"{spec}: {report}"


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_memory_formats(engine, memory_format, dtype):
    spec = THREE_BY_THREE.replace(memory_format=memory_format, dtype=dtype)
    skip_if_refused(engine, spec)
    report = convbench.verify(spec, engines=[engine.name])
    assert report.ok, f"{spec}: {report}"


@pytest.mark.parametrize("spec", DEEP, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers_over_many_channels(engine, spec, dtype):
    spec = spec.replace(dtype=dtype)
    if not engine.exact_integers:
        pytest.skip(f"{engine.name} does not promise exact sums")
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec, integers=True)
    expected = run("reference", spec, x, weight)
    np.testing.assert_array_equal(run(engine, spec, x, weight), expected, err_msg=f"{engine.name} on {spec}")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(specs(dtypes=("float32",)), seeds)
def test_any_problem(engine, spec, seed):
    if not engine.exact_integers:
        pytest.skip(f"{engine.name} takes too few of them")
    x, weight = whole(engine, spec, seed)
    np.testing.assert_array_equal(run(engine, spec, x, weight), correlate(spec, x, weight), str(spec))


@pytest.mark.parametrize("spec", [*PROBLEMS, *DEEP], ids=str)
def test_a_nan_reaches_its_windows_and_no_other(engine, spec):
    if not engine.propagates_nonfinite:
        pytest.skip(f"{engine.name} does not promise it, so auto never picks it")
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    struck = np.zeros(spec.input_shape)
    struck.ravel()[np.random.default_rng(3).integers(0, struck.size, 3)] = 1
    x[struck > 0] = np.nan
    reached = run("reference", spec.replace(dtype="float64"), struck, np.ones(spec.weight_shape)) > 0
    np.testing.assert_array_equal(np.isnan(run(engine, spec, x, weight)), reached, err_msg=f"{engine.name} on {spec}")


@pytest.mark.parametrize("spec", [*PROBLEMS, ONE_CHANNEL[1]], ids=str)
def test_the_same_bits_again(engine, spec):
    skip_if_refused(engine, spec)
    x, weight, _ = sample(spec)
    first = run(engine, spec, x, weight).copy()
    for _ in range(3):
        np.testing.assert_array_equal(run(engine, spec, x, weight), first, err_msg=f"{engine.name} on {spec}")


def test_it_leaves_the_librarys_threads_as_they_were(engine):
    spec = ONE_CHANNEL[0]
    counts = {"torch": "get_num_threads", "cv2": "getNumThreads"}
    module = engine.peer.modules[0]
    if module not in counts:
        pytest.skip(f"{engine.name} has no number of threads that is the process'")
    count = getattr(pytest.importorskip(module), counts[module])
    before = count()
    convbench.set_num_threads(before + 1)
    try:
        run(engine, spec, *sample(spec)[:2])
    finally:
        convbench.set_num_threads(before)
    assert count() == before


def test_one_layer_takes_many_shapes(engine):
    weight = arrays(ONE_CHANNEL[0])[1]
    if engine.why_unsupported(ONE_CHANNEL[0]):
        pytest.fail(f"{engine.name} computes no image of one channel")
    layer = convbench.Conv2d(weight, padding=(1, 2), engine=engine.name)
    for spatial in ((40, 41), (9, 50), (40, 41)):
        spec = ONE_CHANNEL[0].replace(spatial=spatial)
        x, _ = arrays(spec)
        assert_within_bound(engine, spec, layer(x), x, weight)


def test_auto_takes_it_only_where_the_program_says_so(engine):
    skip_if_refused(engine, THREE_BY_THREE)
    refused = {c.engine: c.refused for c in convbench.select(THREE_BY_THREE).candidates}
    assert refused[engine.name] == f"{engine.name} computes only where it is named"
    peers.enable(engine.name, automatic=True)
    try:
        refused = {c.engine: c.refused for c in convbench.select(THREE_BY_THREE).candidates}
        assert refused[engine.name] is None
    finally:
        peers.enable(engine.name)
    assert {c.engine: c.refused for c in convbench.select(THREE_BY_THREE).candidates}[engine.name] is not None


def test_auto_never_takes_one_that_spreads_a_nan(scipy_only):
    peers.enable("scipy", automatic=True)
    refused = {c.engine: c.refused for c in convbench.select(ONE_CHANNEL[0]).candidates}
    assert refused["scipy"].startswith("scipy may spread a NaN")


FORKED = """
import os, signal, sys
import numpy as np
import convbench
name = sys.argv[1]
convbench.peers.enable(name, automatic=True)
x, w = np.ones((1, 1, 200, 200), "float32"), np.ones((1, 1, 3, 3), "float32")
expected = convbench.conv2d(x, w, padding=1, engine=name)
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for ever ends with this signal
    try:
        found = convbench.conv2d(x, w, padding=1, engine=name)
    except ValueError as error:
        assert "do not survive a fork" in str(error), error
        assert name == "torch"
        found = convbench.conv2d(x, w, padding=1)
    os._exit(0 if (found == expected).all() else 1)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_or_is_told_why_not(engine):
    if engine.name == "openvino":
        pytest.skip("a process that has used OpenVINO cannot fork: the child waits within fork itself")
    done = subprocess.run([sys.executable, "-c", FORKED, engine.name], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{engine.name}: {done.returncode}\n{done.stderr}"


def test_versions_are_the_librarys_own(scipy_only):
    import scipy

    assert scipy_only.version == scipy.__version__


def test_bad_names():
    for call in (peers.enable, peers.disable, peers.why_missing):
        assert_refused(("'tensorflow'", *peers.NAMES), call, "tensorflow")
    assert_refused(peers.NAMES, peers.enable)


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(library.Peer, "installed", lambda peer: None)
    with pytest.raises(ModuleNotFoundError, match=r"torch .*pip install 'convbench\[peers\]'"):
        peers.enable("torch")
    assert "torch" not in registry.engines()


def test_an_engine_of_that_name_is_not_replaced():
    class Other(convbench.Engine):
        name = "scipy"

        def why_unsupported(self, spec):
            return None

        def plan(self, spec, weight):
            return lambda x, out: None

    convbench.register(Other)
    try:
        assert_refused(("scipy", "unregister"), peers.enable, "scipy")
        peers.disable("scipy")
        assert isinstance(registry.get("scipy"), Other)
    finally:
        convbench.unregister("scipy")


def test_a_plan_keeps_its_weight_and_counts_it(scipy_only):
    spec = ONE_CHANNEL[0]
    x, weight = arrays(spec)
    plan = scipy_only.plan(spec, weight)
    out, again = np.empty((2, *spec.output_shape), spec.dtype)
    plan(x, out)
    weight[...] = 0
    plan(x, again)
    np.testing.assert_array_equal(out, again)
    assert out.any()
    assert plan.nbytes >= weight.nbytes


def test_bench_skips_a_library_that_is_not_installed(monkeypatch):
    pytest.importorskip("asv")
    from convbench.benchmarks import contest, session

    monkeypatch.setattr(library.Peer, "installed", lambda peer: None)
    given = session.Session([["one", str(ONE_CHANNEL[0])]], ["direct", "torch"], 0.01)
    found = contest.measure_all(given)["one"]["engines"]
    assert found["direct"]["refused"] is None
    assert found["torch"]["refused"] == "torch needs torch to be installed; pip install 'convbench[peers]' brings it"
    with pytest.raises(contest.RefusedError, match="torch needs torch"):
        contest.prepare_one(given, "one", "torch")


def test_bench_times_libraries_beside_the_engines(tmp_path, monkeypatch):
    pytest.importorskip("asv")
    from convbench import cli
    from convbench.report.results import Report

    monkeypatch.chdir(tmp_path)
    spec = ONE_CHANNEL[0]
    arguments = ["--problem", str(spec), "--engines", "direct", "--peers", "scipy,opencv", "--report", "out", "--quick"]
    assert cli.main(["bench", *arguments]) == 0
    report = Report.load(next(tmp_path.glob("out/*/report.json")))
    entries = report.rows[0].engines
    assert set(entries) == {"direct", "scipy", "opencv"}
    import scipy

    assert entries["scipy"].version == scipy.__version__
    assert entries["scipy"].median > 0
    assert f"scipy {scipy.__version__}" in report.settings["other libraries"]
    assert report.rows[0].auto != "scipy"
    if peers.why_missing("opencv"):
        assert entries["opencv"].refused == peers.why_missing("opencv")
        assert "opencv (not measured)" in report.settings["other libraries"]
    assert "other libraries included" in report.prediction
    assert records.load(spec).timings["scipy"].version == scipy.__version__


def test_peers_on_the_command_line():
    from convbench.commands.given import ALL_PEERS, read_peers

    assert read_peers(None) == ()
    assert read_peers(ALL_PEERS) == peers.NAMES
    assert read_peers("scipy, torch,scipy") == ("scipy", "torch")
    assert_refused(("numpy", *peers.NAMES), read_peers, "scipy,numpy")
    assert_refused(peers.NAMES, read_peers, "")


def test_the_terminals_table_sets_libraries_beside_the_fastest_engine():
    rich = pytest.importorskip("rich.console")
    from convbench.report import table
    from convbench.report.results import Entry, Report, Row

    entries = {"direct": Entry(median=3e-3, regret=1.5), "fft": Entry(median=2e-3), "torch": Entry(median=5e-3)}
    alone = {"torch": Entry(median=5e-3), "direct": Entry("it has no way to")}
    rows = [Row("p", "cnn", "", "", "direct", entries), Row("q", "cnn", "", "", "", alone)]
    console = rich.Console(width=120)
    with console.capture() as shown:
        console.print(table.table(Report({}, {}, rows)))
    lines = shown.get().splitlines()
    found = lines[next(number for number, line in enumerate(lines) if "other libraries" in line) :]
    assert [line.split() for line in found if line.strip().startswith(("p ", "q "))] == [
        ["p", "fft", "2.00", "ms", "5.00", "ms", "2.50×"],
        ["q", "none", "–", "5.00", "ms", "–"],
    ]


def test_verify_and_engines_know_libraries_on_request(capsys):
    from convbench import cli

    try:
        assert cli.main(["verify", str(ONE_CHANNEL[0]), "--engines", "direct", "--peers", "scipy"]) == 0
        shown = capsys.readouterr().out
        assert "scipy" in shown
        assert "direct" in shown
        assert "fft" not in shown
        peers.disable()
        assert cli.main(["engines"]) == 0
        assert "scipy.signal.convolve" not in capsys.readouterr().out
        assert cli.main(["engines", "--peers"]) == 0
        assert "scipy.signal.convolve" in capsys.readouterr().out
        assert cli.main(["verify", "--peers", "numpy"]) == 2
        assert "'numpy' is unknown" in capsys.readouterr().err
    finally:
        peers.disable()


def test_a_library_that_was_named_has_to_be_there(monkeypatch, capsys):
    from convbench import cli

    monkeypatch.setattr(library.Peer, "installed", lambda peer: "1" if peer.name == "scipy" else None)
    try:
        assert cli.main(["engines", "--peers", "torch"]) == 2
        assert "torch needs torch to be installed" in capsys.readouterr().err
        assert cli.main(["engines", "--peers"]) == 0
    finally:
        peers.disable()
