"""How exact a result must be: the levels of `rtol`, each checked by what it admits and what comes out."""

import json
import math

import numpy as np
import pytest
from conftest import sample

import convbench
from convbench import kernels, limits, registry
from convbench.engine import UNROUNDED_GUARD, gamma, unit_roundoff
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")
PROBLEMS = [
    "mb1ic2ih9oc3oh9kh3ph1",
    "mb2ic16ih20oc24oh20kh3ph1",
    "mb1ic1ih64oc1oh64kh15ph7",
    "mb1ic64ih14oc64oh14kh5ph2",
    "mb1ic1iw300oc1ow300kw31pw15",
]


def _admitted(spec, rtol, **keywords):
    chosen = convbench.select(spec, rtol=rtol, **keywords)
    return {candidate.engine for candidate in chosen.candidates if candidate.refused is None}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", PROBLEMS)
def test_each_level_admits_what_the_one_before_it_does(text, dtype):
    spec = ConvSpec.parse(text).replace(dtype=dtype)
    exact, standard, fast = (_admitted(spec, level) for level in limits.LEVELS)
    assert exact <= standard <= fast, f"{spec}: {exact} {standard} {fast}"
    assert _admitted(spec, None) == standard, str(spec)
    assert {registry.get(name).error_measure for name in exact} == {"componentwise"}, str(spec)
    assert {"fft", "direct"} <= standard, str(spec)
    assert "fft" not in exact, str(spec)


@pytest.mark.parametrize("text", PROBLEMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_gives_whole_numbers_bit_for_bit(text, dtype):
    spec = ConvSpec.parse(text).replace(dtype=dtype)
    x, weight, bias = sample(spec, integers=True)
    conv = getattr(convbench, f"conv{spec.ndim}d")
    expected = conv(
        x.astype("int64"), weight.astype("int64"), bias.astype("int64"), padding=spec.padding, engine="reference"
    )
    for name in _admitted(spec, "exact"):
        result = conv(x, weight, bias, padding=spec.padding, engine=name, rtol="exact")
        assert np.array_equal(result, expected), f"{spec} on {name}"


def test_exact_asks_for_both_promises(house):
    house("slow", 1.0)
    house("mixing", 1e-6, error_measure="l2")
    house("rounding", 1e-6, exact_integers=False)
    chosen = convbench.select(SPEC, rtol="exact")
    assert chosen.engine == "slow", str(SPEC)
    for name in ("mixing", "rounding"):
        assert f"{name} does not sum directly, as rtol 'exact' asks for" in str(chosen), str(SPEC)
        with pytest.raises(ValueError, match="does not sum directly"):
            convbench.select(SPEC, engine=name, rtol="exact")


def test_exact_does_not_look_at_the_bound(house):
    house("coarse", bound=1.0)
    assert convbench.select(SPEC, rtol="exact").engine == "coarse", str(SPEC)


def test_fast_has_a_bound(house):
    house("slow", 1.0)
    fast = house("fast", 1e-6)
    fast.bound = math.sqrt(unit_roundoff("float32"))
    assert convbench.select(SPEC, rtol="fast").engine == "fast", str(SPEC)
    convbench.clear_cache()
    fast.bound *= 1.01
    chosen = convbench.select(SPEC, rtol="fast")
    assert chosen.engine == "slow", str(SPEC)
    assert "its error bound 2.5e-04 is over rtol 'fast', 2.4e-04" in str(chosen), str(SPEC)


def test_fast_refuses_no_direct_sum(house):
    spec = SPEC.replace(in_channels=1 << 14)
    house("direct", bound=gamma(spec.taps + UNROUNDED_GUARD, "float32"))
    assert gamma(spec.taps, "float32") > math.sqrt(unit_roundoff("float32"))
    assert convbench.select(spec, rtol="fast").engine == "direct", str(spec)


def test_integers_are_the_same_on_every_level(house):
    house("only", bound=0.5)
    for level in limits.LEVELS:
        assert convbench.select(SPEC.replace(dtype="int32"), rtol=level).engine == "only", str(SPEC)


def test_fast_lets_a_weight_be_approximated_and_standard_does_not():
    spec = ConvSpec.parse("mb1ic1ih64oc1oh64kh15ph7")
    rng = np.random.default_rng(8)
    weight = kernels.gaussian(2.0, 7, "float32") + 1e-7 * rng.standard_normal((15, 15)).astype("float32")
    weight = weight[None, None]
    x = rng.standard_normal(spec.input_shape).astype("float32")
    variants = {
        level: {c.engine: c.variant for c in convbench.select(spec, rtol=level, weight=weight).candidates}["separable"]
        for level in ("standard", "fast")
    }
    assert variants == {"standard": "", "fast": "1 term"}, str(spec)
    expected = convbench.conv2d(x.astype("f8"), weight.astype("f8"), padding=7, engine="reference")
    scale = convbench.conv2d(abs(x).astype("f8"), abs(weight).astype("f8"), padding=7, engine="reference")
    found = convbench.conv2d(x, weight, padding=7, engine="separable", rtol="fast")
    assert np.linalg.norm(found - expected) <= 2.0**-12 * np.linalg.norm(scale), str(spec)


def test_standard_and_none_are_one_choice(house):
    house("only")
    assert convbench.select(SPEC, rtol="standard") is convbench.select(SPEC), str(SPEC)


@pytest.mark.parametrize(
    "call", [convbench.select, lambda spec, rtol: convbench.Conv2d(np.ones((1, 1, 3, 3)), rtol=rtol)]
)
@pytest.mark.parametrize("rtol", ["Exact", "tight", ""])
def test_unknown_levels_are_refused_with_those_there_are(call, rtol):
    with pytest.raises(
        ValueError, match="'exact', 'standard', 'fast', a finite number of at least 0, or None"
    ) as caught:
        call(SPEC, rtol=rtol)
    assert repr(rtol) in str(caught.value)


# What a choice says as data.


def test_a_selection_as_data_is_json_and_complete(house):
    house("fast", 1e-3, workspace=512)
    house("vague", 2e-3, bound=math.inf)
    house("narrow").refusal = "narrow takes 1-D problems only"
    data = json.loads(json.dumps(convbench.explain(SPEC, tuning="measure").as_dict(), allow_nan=False))
    assert (data["problem"], data["engine"], data["source"]) == (str(SPEC), "fast", "measurement")
    assert (data["regret"], data["threads"], data["variant"]) == (1.0, convbench.get_num_threads(), "")
    by_name = {candidate["engine"]: candidate for candidate in data["candidates"]}
    assert by_name["fast"]["measured"]["median"] == pytest.approx(1e-3), str(SPEC)
    assert by_name["fast"]["chosen"] is True
    assert by_name["vague"]["error_bound"] is None
    assert by_name["narrow"]["refused"] == "narrow takes 1-D problems only"
    assert set(by_name["narrow"]) == {
        "engine", "refused", "variant", "predicted", "measured", "workspace_bytes", "error_bound", "error", "chosen"
    }  # fmt: skip


def test_explain_takes_a_spec_its_text_or_arrays(house):
    house("only")
    x, weight = np.ones(SPEC.input_shape, "float32"), np.ones(SPEC.weight_shape, "float32")
    for selected in (
        convbench.explain(SPEC),
        convbench.explain(str(SPEC)),
        convbench.explain(x, weight, padding=1),
        convbench.explain(x[0], weight, padding="same"),
    ):
        assert (selected.spec, selected.engine) == (SPEC, "only"), str(SPEC)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    assert convbench.explain(last, weight, padding=1).spec == SPEC.replace(memory_format="channels_last")


@pytest.mark.parametrize(
    ("arguments", "error", "given"),
    [
        (("mb1ic2ih9oc3oh9kh3ph1", np.ones((3, 2, 3, 3))), TypeError, "mb1ic2ih9oc3oh9kh3ph1"),
        ((np.ones((1, 2, 9, 9)),), TypeError, "ndarray"),
        ((np.ones((1, 2, 9, 9)), np.ones((3, 2))), ValueError, "(3, 2)"),
        ((np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3), "f4")), TypeError, "float32"),
        (("no problem",), ValueError, "no problem"),
    ],
)
def test_explain_refuses_what_is_no_problem(arguments, error, given):
    with pytest.raises(error) as caught:
        convbench.explain(*arguments)
    assert given in str(caught.value)
