"""Engines from elsewhere: registered by a program, installed as a plug-in, broken, or named like another."""

import os
import subprocess
import sys
import textwrap
import types
import warnings

import numpy as np
import pytest

import convbench
from convbench import registry
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic1ih9oc1oh9kh3ph1")
BUILTIN = ["direct", "winograd", "winograd4", "winograd8", "im2col", "fft", "separable", "toeplitz", "reference"]

TINY_SOURCE = '''
"""Convolution one output at a time: as small as an engine can be."""

import itertools

import convbench


class Tiny(convbench.Engine):
    name = "tiny"
    summary = "one output at a time"

    def why_unsupported(self, spec):
        return None if spec.groups == 1 else f"tiny computes one group, not {spec.groups}"

    def predict_seconds(self, spec, machine):
        return 1e-9

    def plan(self, spec, weight):
        import numpy as np

        weight = weight.copy()
        pads = ((0, 0), (0, 0), *spec.padding)

        def run(x, out):
            padded = np.pad(x, pads)
            for place in itertools.product(*map(range, spec.output_spatial)):
                window = tuple(
                    slice(p * s, p * s + span, d)
                    for p, s, span, d in zip(place, spec.stride, spec.extents, spec.dilation)
                )
                axes = list(range(1, weight.ndim))
                out[(..., *place)] = np.tensordot(padded[(..., *window)], weight, (axes, axes))

        return run
'''


def _tiny():
    module = types.ModuleType("tiny_engine")
    exec(TINY_SOURCE, module.__dict__)
    return module.Tiny


class Nothing(convbench.Engine):
    """Does nothing, at any price."""

    name = "nothing"

    def why_unsupported(self, spec):
        return None

    def plan(self, spec, weight):
        return lambda x, out: None


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """Whatever a test registers is gone afterwards."""
    monkeypatch.setattr(registry, "_engines", dict(registry.engines()))
    yield
    monkeypatch.undo()
    registry._changed()


# In this process.


def test_a_registered_engine_is_listed_computes_verified_and_picked():
    convbench.register(_tiny())
    assert list(convbench.engines())[-1] == "tiny"
    x, weight = np.arange(81, dtype="f4").reshape(1, 1, 9, 9), np.arange(9, dtype="f4").reshape(1, 1, 3, 3)
    expected = convbench.conv2d(x, weight, padding=1, engine="reference")
    assert np.array_equal(convbench.conv2d(x, weight, padding=1, engine="tiny"), expected), str(SPEC)
    checked = convbench.verify(SPEC, engines=["tiny"])
    assert checked.ok, f"{SPEC}\n{checked}"
    assert convbench.select(SPEC).engine == "tiny", str(SPEC)
    assert np.array_equal(convbench.conv2d(x, weight, padding=1), expected), str(SPEC)


def test_its_refusal_is_shown_and_respected():
    convbench.register(_tiny())
    grouped = ConvSpec.parse("g2mb1ic2ih9oc2oh9kh3ph1")
    selected = convbench.select(grouped)
    assert selected.engine != "tiny", str(grouped)
    assert "tiny computes one group, not 2" in str(selected)


def test_it_goes_as_it_came():
    convbench.register(Nothing)
    convbench.unregister("nothing")
    assert "nothing" not in convbench.engines()
    with pytest.raises(ValueError, match="'nothing' is unknown"):
        convbench.unregister("nothing")


def test_classes_and_instances_register_and_register_decorates():
    assert convbench.register(Nothing) is Nothing
    other = Nothing()
    other.name = "other"
    assert convbench.register(other) is other
    assert registry.get("other") is other
    assert isinstance(registry.get("nothing"), Nothing)


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced():
    convbench.register(Nothing)
    before = registry.get("nothing")
    with pytest.raises(ValueError, match="'nothing' exists; pass replace=True"):
        convbench.register(Nothing)
    assert registry.get("nothing") is before
    order = list(convbench.engines())
    convbench.register(Nothing, replace=True)
    assert registry.get("nothing") is not before
    assert list(convbench.engines()) == order


@pytest.mark.parametrize("name", ["", "auto", "Upper", "two words", None, 3])
def test_unusable_names_are_refused(name):
    engine = Nothing()
    engine.name = name
    with pytest.raises(ValueError, match="engine name") as caught:
        convbench.register(engine)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("thing", [3, "direct", object, lambda: None, np])
def test_what_is_no_engine_is_refused(thing):
    with pytest.raises(TypeError, match="is not an engine: it lacks"):
        convbench.register(thing)


def test_an_incomplete_engine_is_refused():
    class Half(convbench.Engine):
        name = "half"

        def why_unsupported(self, spec):
            return None

    with pytest.raises(TypeError, match="plan"):
        convbench.register(Half)


def test_the_list_of_engines_cannot_be_changed():
    with pytest.raises(TypeError):
        convbench.engines()["mine"] = Nothing()


def test_engines_is_a_function_and_a_package():
    assert list(convbench.engines())[: len(BUILTIN)] == BUILTIN
    assert dict(convbench.engines()) == dict(registry.engines())
    assert isinstance(convbench.engines, types.ModuleType)
    assert list(convbench.engines.BUILTIN) == BUILTIN
    from convbench.engines.reference import Reference

    assert type(convbench.engines()["reference"]) is Reference


def test_an_unknown_attribute_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = convbench.no_such_thing


def test_every_engine_keeps_the_contract_of_its_attributes():
    for name, engine in convbench.engines().items():
        assert engine.name == name
        assert engine.summary, name
        assert engine.version, name
        assert engine.error_measure in ("componentwise", "l2"), name
        assert name in repr(engine)


# Plug-ins, as entry points see them.


class Point:
    """An entry point that loads `found`, or fails."""

    def __init__(self, name, found):
        self.name, self.value, self._found = name, f"somewhere:{name}", found

    def load(self):
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found() if isinstance(self._found, types.FunctionType) else self._found


@pytest.fixture
def plugged(monkeypatch):
    """The names of the engines there are with some plug-ins, and the warnings."""

    def load(*points):
        monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points)
        monkeypatch.setattr(registry, "_engines", None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            names = list(convbench.engines())
            assert list(convbench.engines()) == names
        return names, [str(warning.message) for warning in caught]

    return load


def test_a_plug_in_comes_after_the_built_in_engines(plugged):
    assert plugged(Point("nothing", Nothing)) == ([*BUILTIN, "nothing"], [])


FAILURES = [
    ImportError("No module named 'gone'"),
    AttributeError("module has no attribute 'Mine'"),
    SyntaxError("invalid syntax"),
    NameError("name 'nump' is not defined"),
    OSError("libmine.so: cannot open shared object file"),
    RuntimeError("CUDA is not there"),
    KeyError("MINE_HOME"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_broken_plug_in_is_left_out_with_one_warning(plugged, failure):
    names, messages = plugged(Point("broken", failure), Point("nothing", Nothing))
    assert names == [*BUILTIN, "nothing"]
    assert len(messages) == 1
    assert all(part in messages[0] for part in ("'broken'", "somewhere:broken", "left out", str(failure)))


def test_a_plug_in_that_is_no_engine_is_left_out(plugged):
    names, messages = plugged(Point("number", 3), Point("nothing", Nothing))
    assert names == [*BUILTIN, "nothing"]
    assert len(messages) == 1
    assert "is not an engine" in messages[0]


def test_a_plug_in_does_not_take_the_place_of_another_engine(plugged):
    class Impostor(Nothing):
        name = "direct"

    names, messages = plugged(Point("impostor", Impostor))
    assert names == BUILTIN
    assert type(registry.get("direct")).__module__ == "convbench.engines.direct"
    assert len(messages) == 1
    assert "an engine named 'direct' exists" in messages[0]


def test_a_plug_in_found_twice_is_taken_once(plugged):
    assert plugged(Point("nothing", Nothing), Point("nothing", Nothing)) == ([*BUILTIN, "nothing"], [])


def test_a_plug_in_may_also_register_itself_while_it_is_imported(plugged):
    def importing():
        convbench.register(Nothing)
        return Nothing

    assert plugged(Point("nothing", importing)) == ([*BUILTIN, "nothing"], [])


# An installed plug-in, in processes of its own.


@pytest.fixture
def installed(tmp_path):
    """Variables for processes that have the plug-in packages `tiny` and, on request, broken ones."""
    site = tmp_path / "site"
    _install(site, "tiny_engine", TINY_SOURCE, "tiny = tiny_engine:Tiny")
    return {**os.environ, "PYTHONPATH": str(site), "CONVBENCH_CACHE_DIR": str(tmp_path / "records")}


def _install(site, package, source, point):
    information = site / f"{package}-1.0.dist-info"
    information.mkdir(parents=True)
    (site / f"{package}.py").write_text(source)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[convbench.engines]\n{point}\n")


def _run(environment, *arguments, **keywords):
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **keywords)
    assert done.returncode == 0, f"{SPEC}: {done.stdout}\n{done.stderr}"
    return done


def test_an_installed_plug_in_is_listed_and_verified(installed):
    listed = _run(installed, "-m", "convbench", "engines").stdout
    assert [line.split()[0] for line in listed.splitlines()] == [*BUILTIN, "tiny"]
    assert "one output at a time" in listed
    verified = _run(installed, "-m", "convbench", "verify", str(SPEC)).stdout
    row = next(line for line in verified.splitlines() if line.startswith("tiny"))
    assert row.endswith("ok"), str(SPEC)


def test_an_installed_plug_in_is_benchmarked_recorded_and_picked(installed, tmp_path):
    pytest.importorskip("asv")
    options = ("--problem", str(SPEC), "--engines", "tiny,direct", "--quick")
    report = _run(installed, "-m", "convbench", "bench", *options, cwd=tmp_path).stdout
    assert "tiny" in report
    code = f"""
        import dataclasses, convbench
        from convbench import records
        spec = convbench.ConvSpec.parse({str(SPEC)!r})
        timings = records.load(spec).timings
        assert {{records.engine_of(name) for name in timings}} == {{"tiny", "direct"}}, spec
        winning = dataclasses.replace(timings["tiny"], median=1e-9, q1=1e-9, q3=1e-9)
        assert records.save(spec, {{"tiny": winning}})  # as on a machine where it wins
        selected = convbench.select(spec)
        print(selected.engine, selected.source)
    """
    assert _run(installed, "-c", textwrap.dedent(code)).stdout.split() == ["tiny", "record"], str(SPEC)


def test_auto_picks_an_installed_plug_in_after_measuring(installed):
    # Of all engines only the plug-in takes part: what wins is not left to a clock.
    code = f"""
        import convbench
        spec = convbench.ConvSpec.parse({str(SPEC)!r})
        for name in {BUILTIN!r}:
            convbench.unregister(name)
        for tuning in ("measure", "replay", "estimate"):
            selected = convbench.select(spec, tuning=tuning)
            print(selected.engine, selected.source)
    """
    done = _run(installed, "-c", textwrap.dedent(code).replace("import convbench\n", _BRIEFLY, 1))
    assert done.stdout.splitlines() == ["tiny measurement", "tiny record", "tiny record"], str(SPEC)


_BRIEFLY = "import convbench\nconvbench.set_tuning_seconds(0.0)\n"


def test_an_installed_broken_plug_in_does_no_harm(installed, tmp_path):
    _install(tmp_path / "site", "broken_engine", "import no_such_module", "broken = broken_engine:Engine")
    done = _run(installed, "-m", "convbench", "engines")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*BUILTIN, "tiny"]
    assert done.stderr.count("left out") == 1, done.stderr
    assert "no_such_module" in done.stderr
