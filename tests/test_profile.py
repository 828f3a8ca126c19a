"""The machine's profile: what predictions go by, where it is kept, how it is measured."""

import json
import math

import pytest

import convbench
from convbench import calibration, profile, records, registry, selection
from convbench.profile import SHIPPED, Profile
from convbench.spec import ConvSpec

SPEC = ConvSpec.parse("mb1ic2ih9oc3oh9kh3ph1")


@pytest.fixture(autouse=True)
def _unread():
    profile.forget()
    selection.forget()
    yield
    profile.forget()
    selection.forget()


def _predicted(name):
    selection.forget()
    return next(c.predicted for c in convbench.select(SPEC).candidates if c.engine == name)


def test_until_one_is_measured_the_shipped_profile_serves():
    assert profile.load() == SHIPPED


def test_a_profile_is_kept_and_read_again():
    saved = Profile(4e9, 5e10, {"direct, dense": 1.5}, "here")
    path = profile.save(saved)
    assert path.is_file()
    assert profile.load() == saved


def test_predictions_are_multiplied_by_the_factor(house):
    house("a", 2e-3)
    house("b", 3e-3)
    assert convbench.select(SPEC).engine == "a"
    profile.save(Profile(SHIPPED.hertz, SHIPPED.bandwidth, {"a": 2.0}))
    assert _predicted("a") == pytest.approx(4e-3)
    assert _predicted("b") == pytest.approx(3e-3)
    assert convbench.select(SPEC).engine == "b", str(SPEC)


def test_the_clock_and_the_bandwidth_reach_the_engines():
    before = _predicted("direct")
    profile.save(Profile(SHIPPED.hertz * 2, SHIPPED.bandwidth * 2, SHIPPED.factors))
    assert _predicted("direct") < before, str(SPEC)


def test_deterministic_choices_do_not_see_the_users_profile(house):
    house("a", 2e-3)
    house("b", 3e-3)
    profile.save(Profile(1e9, 1e9, {"a": 100.0}))
    with convbench.deterministic():
        assert convbench.select(SPEC).engine == "a", str(SPEC)


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"schema": 1}'])
def test_a_damaged_profile_counts_as_missing_with_one_warning(damage):
    path = profile.save(Profile(4e9, 5e10))
    path.write_text(damage)
    profile.forget()
    with pytest.warns(RuntimeWarning, match="shipped one serves"):
        assert profile.load() == SHIPPED
    assert profile.load() == SHIPPED


def test_a_profile_of_another_environment_counts_as_missing():
    path = profile.save(Profile(4e9, 5e10))
    content = records.unsealed(path.read_text())
    content["environment"]["cores"] = 1000
    path.write_text(records.sealed(content))
    profile.forget()
    with pytest.warns(RuntimeWarning, match="another environment"):
        assert profile.load() == SHIPPED


@pytest.mark.parametrize(
    ("values", "name"),
    [((0, 1e9), "hertz"), ((1e9, math.inf), "bandwidth"), ((1e9, 1e9, {"a": -1.0}), "a"), ((True, 1e9), "hertz")],
)
def test_impossible_numbers_are_refused(values, name):
    with pytest.raises(ValueError, match=f"{name} is .* a positive finite number is accepted"):
        Profile(*values)


def test_calibration_finds_how_far_predictions_are_off(house, monkeypatch):
    house("twice", 1e-3, seconds=2e-3)
    house("half", 1e-3, seconds=5e-4)
    house("hopeless", 10.0, seconds=1e-3)
    monkeypatch.setattr("convbench.compare.limits.peak", lambda dtype: None)
    told = []
    found = calibration.calibrate([str(SPEC)], progress=told.append)
    assert found.factors == pytest.approx({"twice": 2.0, "half": 0.5}), str(SPEC)
    assert told[1:] == [str(SPEC)]
    assert found.bandwidth > 0


def test_the_panel_is_of_problems_that_every_engine_meets():
    specs = [convbench.ConvSpec.parse(text) for text in calibration.PANEL]
    assert len({str(spec) for spec in specs}) == len(specs)
    for engine in registry.engines().values():
        if engine.automatic:
            assert sum(engine.why_unsupported(spec) is None for spec in specs) >= 3, engine


def test_the_command_shows_the_profile(capsys):
    from convbench import cli

    profile.save(Profile(4e9, 5e10, {"direct, dense": 1.5}, "here"))
    assert cli.main(["calibrate", "--show"]) == 0
    assert "direct, dense            takes  1.50 times" in capsys.readouterr().out
    assert cli.main(["calibrate", "--show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"]["hertz"] == 4e9
