"""The worked example of docs/kernels.md runs as it stands there."""

import re
from pathlib import Path

import pytest

from convbench.engines.jit.target import levels

PAGE = Path(__file__).parents[1] / "docs" / "kernels.md"


@pytest.mark.parametrize("level", levels())
def test_the_worked_example(monkeypatch, level, capsys):
    monkeypatch.setenv("CONVBENCH_ISA", level)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["machine"].level == level
    assert capsys.readouterr().out.count("fmadd") == (3 if level != "baseline" else 0)
