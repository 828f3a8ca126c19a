"""The page of errors and times."""

from __future__ import annotations

import pytest

from convbench.compare import accuracy


def entry(name, seconds, error):
    return accuracy.Entry(name, seconds, dict.fromkeys(accuracy.DATA, error), 9.0)


def test_the_front():
    entries = [entry("quick", 1, 8.0), entry("worse", 2, 9.0), entry("exact", 3, 1.0), entry("slow", 4, 1.0)]
    assert accuracy.front(entries) == {"quick", "exact"}


def test_a_page():
    text = accuracy.page(("mb1ic4ih12oc4oh12kh3ph1",), seconds=0.05)
    for name in ("direct", "winograd", "winograd4", "winograd8", "fft"):
        assert text.count(f"| {name} |") == len(accuracy.DTYPES)
    assert "●" in text
    assert "inf" not in text.split("## Errors")[1]


def test_the_command_has_help_and_refuses_a_folder_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "page", lambda: "the page")
    with pytest.raises(SystemExit, match="0"):
        accuracy.main(["--help"])
    with pytest.raises(SystemExit, match="2"):
        accuracy.main([str(tmp_path / "missing" / "accuracy.md")])
    assert "is no folder" in capsys.readouterr().err
    accuracy.main([str(tmp_path / "accuracy.md")])
    assert (tmp_path / "accuracy.md").read_text() == "the page"
