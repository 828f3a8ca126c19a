"""The equality check: it finds what is wrong, and only that."""

import numpy as np
import pytest

import convbench
from convbench import verify as verify_function
from convbench.data import sample
from convbench.engine import Engine, gamma, unit_roundoff
from convbench.spec import ConvSpec
from convbench.verify import expected, measured_error

SPEC = ConvSpec.parse("mb2ic3ih7iw6oc4oh7ow6kh3kw3ph1pw1")
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "longdouble", "complex64", "complex128", "clongdouble"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


class Off(Engine):
    """The reference's result, spoiled by `spoil`."""

    name = "off"
    exact_integers = True

    def __init__(self, spoil, measure="componentwise"):
        self.spoil, self.error_measure = spoil, measure

    def why_unsupported(self, spec):
        return None

    def plan(self, spec, weight):
        plan = convbench.engines()["reference"].plan(spec, weight)

        def run(x, out):
            plan(x, out)
            self.spoil(out)

        return run


@pytest.fixture
def off():
    """The check of a spoiled engine, alone."""

    def check(spoil, spec=SPEC, measure="componentwise", **keywords):
        convbench.register(Off(spoil, measure), replace=True)
        return verify_function(spec, engines=["off"], **keywords)

    yield check
    convbench.unregister("off")


def _shift(out):
    out.flat[5] += out.dtype.type(1)


def _move(out):
    out[...] = np.roll(out, 1, axis=-1)


def _scale(factor):
    def spoil(out):
        out *= out.dtype.type(factor)

    return spoil


def _put(value, index=3):
    def spoil(out):
        out.flat[index] = value

    return spoil


def _require(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_engine_agrees_in_every_dtype(dtype):
    _require(dtype)
    spec = SPEC.replace(dtype=dtype)
    found = verify_function(spec)
    assert found.ok, f"{spec}\n{found}"
    assert [check.engine for check in found.results] == list(convbench.engines()), str(spec)
    reference = found.results[-1]
    assert reference.refused is None, f"{spec}\n{found}"
    assert 0 <= reference.error <= reference.bound, f"{spec}\n{found}"


@pytest.mark.parametrize(("measure", "spoil"), [("componentwise", _shift), ("l2", _move)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_result_is_caught_in_every_dtype(off, dtype, measure, spoil):
    _require(dtype)
    spec = SPEC.replace(dtype=dtype)
    assert off(lambda out: None, spec, measure).ok, str(spec)
    found = off(spoil, spec, measure)
    assert not found.ok, f"{spec}\n{found}"


@pytest.mark.parametrize("measure", ["componentwise", "l2"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_an_infinite_error(off, value, measure):
    found = off(_put(value), measure=measure)
    assert found.results[0].error == np.inf, str(SPEC)
    assert not found.ok, str(SPEC)


@pytest.mark.parametrize("measure", ["componentwise", "l2"])
def test_an_error_over_the_bound_is_caught_and_one_below_is_not(off, measure):
    bound = gamma(SPEC.taps + 2, SPEC.dtype)
    assert off(_scale(1 + 20 * bound), measure=measure).ok is False, str(SPEC)
    assert off(_scale(1 + 2 * unit_roundoff(SPEC.dtype)), measure=measure).ok, str(SPEC)


def test_an_element_that_is_never_written_is_caught(off):
    class Lazy(Off):
        def plan(self, spec, weight):
            return lambda x, out: None

    off(lambda out: None)
    convbench.register(Lazy(None), replace=True)
    for dtype in ("float32", "uint8", "int64"):
        assert not verify_function(SPEC.replace(dtype=dtype), engines=["off"]).ok, str(SPEC)


def test_a_result_in_channels_last_memory_is_checked_too(off):
    spec = SPEC.replace(memory_format="channels_last")
    assert verify_function(spec).ok, str(spec)
    assert not off(_shift, spec).ok, str(spec)


def test_other_seeds_are_other_data():
    first, second = (verify_function(SPEC, engines=["direct"], seed=seed).results[0].error for seed in (0, 1))
    assert first != second, str(SPEC)


def test_data_of_ones_own(off):
    x, weight = sample(SPEC, integers=True)
    found = verify_function(SPEC, data=(x, weight))
    assert found.ok, f"{SPEC}\n{found}"
    exact = {check.engine: check.error for check in found.results if convbench.engines()[check.engine].exact_integers}
    assert set(exact.values()) == {0.0}, f"{SPEC}\n{found}"
    assert not off(_shift, data=(x, weight)).ok, str(SPEC)


def test_nan_and_inf_in_the_data_belong_where_the_reference_has_them(off):
    x, weight = sample(SPEC)
    x[0, 1, 2, 3], x[1, 0, 0, 0] = np.nan, np.inf
    found = verify_function(SPEC, data=(x, weight))
    assert found.ok, f"{SPEC}\n{found}"
    far = np.ravel_multi_index((0, 0, 6, 5), SPEC.output_shape)
    near = np.ravel_multi_index((0, 0, 2, 3), SPEC.output_shape)
    assert off(_put(np.nan, far), data=(x, weight)).results[0].error == np.inf, str(SPEC)
    assert off(_put(0.0, near), data=(x, weight)).results[0].error == np.inf, str(SPEC)
    assert not off(_put(9.0, far), data=(x, weight)).ok, str(SPEC)


def test_zero_data_must_give_zero(off):
    zeros = (np.zeros(SPEC.input_shape, "f4"), np.zeros(SPEC.weight_shape, "f4"))
    assert verify_function(SPEC, data=zeros).ok, str(SPEC)
    for measure in ("componentwise", "l2"):
        assert not off(_put(1e-30), measure=measure, data=zeros).ok, str(SPEC)


@pytest.mark.parametrize("change", [{"batch": 0}, {"out_channels": 0}])
def test_an_empty_problem_is_right(change):
    spec = SPEC.replace(**change)
    found = verify_function(spec)
    assert found.ok, f"{spec}\n{found}"


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="'warp' is unknown"):
        verify_function(SPEC, engines=["warp"])


def test_a_refusal_is_no_failure():
    spec = SPEC.replace(dtype="int32")
    found = verify_function(spec, engines=["fft"])
    assert found.ok, str(spec)
    assert "not int32" in found.results[0].refused


def test_an_engine_that_rounds_is_not_asked_for_integers(off):
    off(lambda out: None)
    convbench.engines()["off"].exact_integers = False
    spec = SPEC.replace(dtype="int32")
    assert verify_function(spec, engines=["off"]).results[0].refused == "off may round, and int32 needs exact sums"


def test_it_prints_every_engine(off):
    agreed = str(verify_function(SPEC))
    assert agreed.startswith(f"{SPEC}: all agree\n")
    rows = {line.split()[0]: line for line in agreed.splitlines()[2:]}
    assert list(rows) == list(convbench.engines())
    assert all(row.endswith("ok") for row in rows.values()), agreed
    assert rows["fft"].split()[3] == "l2"
    wrong = str(off(_shift))
    assert wrong.startswith(f"{SPEC}: ENGINES DISAGREE\n")
    assert wrong.endswith("WRONG")
    assert "not int32" in str(verify_function(SPEC.replace(dtype="int32")))


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        *(("float16", "float64"), ("float32", "float64"), ("float64", np.longdouble), ("longdouble", np.longdouble)),
        *(("complex64", "complex128"), ("complex128", np.clongdouble), ("int8", "int64"), ("uint32", "uint64")),
    ],
)
def test_errors_are_measured_in_a_wider_type(dtype, wide):
    spec = SPEC.replace(dtype=dtype)
    exact, scale = expected(spec, *sample(spec))
    assert exact.dtype == wide, str(spec)
    assert scale.dtype.kind in "fiu", str(spec)


def test_the_expected_result_is_the_definition():
    x, weight = sample(SPEC)
    exact, scale = expected(SPEC, x, weight)
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    assert np.allclose(exact, np.einsum("nchwij,ocij->nohw", windows, weight), rtol=1e-13), str(SPEC)
    assert (scale >= np.abs(exact)).all(), str(SPEC)


def test_the_measures_by_hand():
    exact, scale = np.array([1.0, 2.0, 0.0]), np.array([2.0, 4.0, 0.0])
    assert measured_error("componentwise", np.array([1.0, 2.4, 0.0], "f4"), exact, scale) == pytest.approx(0.1)
    assert measured_error("l2", np.array([1.0, 2.4, 0.0], "f4"), exact, scale) == pytest.approx(0.4 / np.sqrt(20))
    assert measured_error("componentwise", np.array([1.0, 2.0, 1e-9], "f4"), exact, scale) == np.inf
    assert measured_error("componentwise", np.empty(0), np.empty(0), np.empty(0)) == 0.0
