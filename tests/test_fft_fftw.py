"""The FFT engine where FFTW transforms: complex and extended precision, volumes, and FFTW's wisdom."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import correlate, run

from convbench import ConvSpec, registry
from convbench.engines import fft_fftw, fft_plans, fft_wisdom
from convbench.engines.fft import family

ENGINE = registry.get("fft")
EXTENDED = [np.dtype(np.longdouble).name, np.dtype(np.clongdouble).name]
SPECS = (
    ConvSpec(2, 1, 1, (40,), (9,), padding=4),
    ConvSpec(1, 4, 4, (12, 14), (5, 3), groups=4, padding=2),
    ConvSpec(1, 4, 6, (12, 11), (5, 4), stride=(2, 1)),
    ConvSpec(1, 5, 5, (8, 7, 9), (3, 2, 4), padding=1),
    ConvSpec(1, 1, 2, (60,), (5,), dilation=4, padding=((3, 9),)),
)
specs = pytest.mark.parametrize("spec", SPECS, ids=str)


def draw(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, shape)
    return (values + 1j * rng.uniform(-1, 1, shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


@specs
@pytest.mark.parametrize("dtype", ["complex64", "complex128", *EXTENDED])
def test_complex_and_extended_precision(spec, dtype):
    spec = spec.replace(dtype=dtype)
    if family(spec) == "tiles":
        pytest.skip(f"{spec}: extended precision is double precision here")
    x, weight = draw(spec.input_shape, dtype, 0), draw(spec.weight_shape, dtype, 1)
    result = run("fft", spec, x, weight)
    assert result.dtype == spec.dtype, spec
    scale = correlate(spec.replace(dtype="float64"), abs(x).astype("float64"), abs(weight).astype("float64"))
    error = np.linalg.norm(abs(result - correlate(spec, x, weight)).astype("float64"))
    # The expected values of extended precision are sums in that very type.
    bound = ENGINE.error_bound(spec) + (spec.taps * np.finfo(dtype).eps if dtype in EXTENDED else 0)
    assert error <= bound * np.linalg.norm(scale), spec


@specs
@pytest.mark.parametrize("dtype", ["complex64", "complex128", EXTENDED[0]])
def test_nan_reaches_exactly_the_outputs_that_cover_it(spec, dtype):
    spec = spec.replace(dtype=dtype)
    x, weight = draw(spec.input_shape, dtype, 2), draw(spec.weight_shape, dtype, 3)
    x.flat[x.size // 2] = np.nan
    result = run("fft", spec, x, weight)
    right = run("reference", spec, x, weight)
    assert np.array_equal(np.isfinite(result), np.isfinite(right)), spec


def test_without_pyfftw_it_says_so(monkeypatch):
    monkeypatch.setattr("convbench.engines.fft._has_pyfftw", lambda: False)
    assert "pyfftw" in ENGINE.why_unsupported(SPECS[3])
    assert ENGINE.why_unsupported(SPECS[0]) is None, "generated transforms need no pyfftw"


@pytest.fixture
def no_wisdom():
    pyfftw = pytest.importorskip("pyfftw", reason="the wisdom is pyfftw's")
    pyfftw.forget_wisdom()
    fft_wisdom._read.clear()
    fft_plans._kept.clear()
    yield pyfftw
    pyfftw.forget_wisdom()


def make_plan(spec):
    fft_fftw.plan(spec, draw(spec.weight_shape, spec.dtype, 4), 1)


def test_wisdom_is_kept_with_the_records(no_wisdom, records_directory):
    make_plan(SPECS[3])
    (file,) = records_directory.rglob("*.json")
    assert file == fft_wisdom.path()
    assert ".".join(map(str, no_wisdom.fftw_version_tuple)) in file.name
    learnt = no_wisdom.export_wisdom()
    no_wisdom.forget_wisdom()
    assert no_wisdom.export_wisdom() != learnt
    assert fft_wisdom.load(file)
    assert len(no_wisdom.export_wisdom()[1]) == len(learnt[1])
    assert not list(records_directory.rglob("*.tmp"))


def test_wisdom_of_several_processes_is_merged(no_wisdom, records_directory):
    make_plan(SPECS[3])
    first = fft_wisdom.path().stat().st_size
    code = (
        "import numpy as np; from convbench import ConvSpec; from convbench.engines import fft_fftw\n"
        "spec = ConvSpec(1, 1, 1, (50, 60, 40), (9, 8, 7), dtype='complex64')\n"
        "fft_fftw.plan(spec, np.zeros(spec.weight_shape, spec.dtype), 1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    make_plan(ConvSpec(1, 1, 1, (90, 30, 40), (20, 8, 7), dtype="complex128"))
    assert fft_wisdom.path().stat().st_size > first
    single, double, _ = json.loads(fft_wisdom.path().read_text())["wisdom"]
    assert len(single) > 200
    assert len(double) > 200


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"wisdom": ["!!", "", ""]}', '{"wisdom": ["aGVsbG8=", "", ""]}'])
def test_a_broken_wisdom_is_noticed_and_said(no_wisdom, content):
    place = fft_wisdom.path()
    place.parent.mkdir(parents=True)
    place.write_text(content)
    with pytest.warns(RuntimeWarning, match="wisdom"):
        make_plan(SPECS[3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_plan(SPECS[4].replace(dtype="complex64"))


def test_a_place_that_cannot_be_written_is_said(no_wisdom, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVBENCH_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="wisdom"):
        assert not fft_wisdom.save(fft_wisdom.path())
