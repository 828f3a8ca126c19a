"""Generated code at the edge: no access outside its arrays, on any kernel family and instruction set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edge_sweep import FAMILIES, guarded

from convbench.engines.jit.target import levels

SWEEP = Path(__file__).with_name("edge_sweep.py")


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("family", FAMILIES)
def test_arrays_at_pages_without_access(family, level):
    done = subprocess.run([sys.executable, SWEEP, family, level], capture_output=True, text=True, timeout=300)
    problems = done.stdout.splitlines()
    last = problems[-1] if problems else "before the first problem"
    assert done.returncode == 0, f"{family} at {level} ended with {done.returncode} on {last}\n{done.stderr[-3000:]}"
    assert len(problems) > 10


@pytest.mark.parametrize("at_end", [False, True])
def test_the_guard_catches_an_access_outside(at_end):
    touch = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); from edge_sweep import guarded\n"
        f"array, _ = guarded((3, 5), 'float32', {at_end})\n"
        f"ctypes.c_char.from_address(array.ctypes.data + ({60 if at_end else -1})).value"
    )
    done = subprocess.run([sys.executable, "-c", touch, SWEEP.parent], capture_output=True, timeout=60)
    assert done.returncode < 0, "the page beside the array can be read"


def test_guarded_arrays_are_arrays():
    for at_end in (False, True):
        array, rest = guarded((7, 3), np.float64, at_end)
        array[...] = 1
        assert array.sum() == 21
        assert set(rest.tolist()) == {0xA5}
