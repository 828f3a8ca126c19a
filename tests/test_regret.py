"""The study of the judge's regret."""

import pytest

from convbench import profile
from convbench.compare import regret
from convbench.compare.regret import Choice
from convbench.spec import ConvSpec


def test_random_problems_are_the_same_every_time_and_all_different():
    found = regret.random_problems(60)
    assert found == regret.random_problems(60)
    assert len({text for _, text in found}) == 60
    specs = [ConvSpec.parse(text) for _, text in found]
    assert {spec.ndim for spec in specs} == {1, 2, 3}
    assert any(spec.groups > 1 for spec in specs)
    assert any(max(spec.stride) > 1 for spec in specs)
    assert all(regret.LEAST_MACS <= spec.macs <= regret.MOST_MACS for spec in specs)


def test_public_problems_are_each_there_once():
    texts = [text for _, text in regret.public()]
    assert len(texts) == len(set(texts)) > 50


@pytest.mark.parametrize("text", ["mb1ic1ih40oc1oh40kh5ph2", "mb1ic16ih9oc20oh9kh1ph0"])
def test_one_problem_is_judged_by_its_second_timing(text):
    found = regret.judge("x", text, 0.001)
    assert found.predicted >= 1
    assert found.measured >= 1
    assert (found.scipy is not None) == ("ic1ih" in text)


def test_scipy_takes_no_part_where_its_direct_method_takes_minutes(monkeypatch):
    text = "mb1ic1ih40oc1oh40kh5ph2"
    monkeypatch.setattr(regret, "SCIPY_MACS", ConvSpec.parse(text).macs - 1)
    assert regret.judge("x", text, 0.001).scipy is None


def test_the_table_has_mean_percentile_worst_and_share():
    choices = [Choice("a", "t", 1.0, 1.0, "x", "x", 4.0), Choice("b", "u", 4.0, 1.0, "x", "y")]
    predicted, measured, scipy = regret.table("public", choices)
    assert predicted == ("public", "convbench, predicted", "2", "2.000", "3.85", "4.00", "50%")
    assert measured[3:] == ("1.000", "1.00", "1.00", "100%")
    assert scipy[2] == "1"


def test_the_section_is_put_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A\n{regret.BEGIN}\nold\n{regret.END}\nafter\n")
    regret.write("new\n", page)
    assert page.read_text() == f"# A\n{regret.BEGIN}\nnew\n{regret.END}\nafter\n"
    regret.write("first\n", tmp_path / "fresh.md")
    assert "first" in (tmp_path / "fresh.md").read_text()


def test_the_command_leaves_records_and_profile_alone(tmp_path, monkeypatch, records_directory):
    saved = profile.Profile(4e9, 5e10, {"direct, dense": 1.5}, "here")
    profile.save(saved)
    before = {path: path.read_bytes() for path in records_directory.rglob("*") if path.is_file()}
    monkeypatch.setattr(regret, "public", lambda: [("tiny", "mb1ic1ih9oc1oh9kh3ph1")])
    shown = []
    output = tmp_path / "selection.md"
    assert regret.main(["--random", "1", "--seconds", "0.001", "--output", str(output)], show=shown.append) == 0
    assert "geometric mean" in output.read_text()
    assert {path: path.read_bytes() for path in records_directory.rglob("*") if path.is_file()} == before
    assert profile.load() == saved
