"""The generators write code for 64-bit Arm, too: LLVM takes it, its products are vectors', and it needs no library.

Read, not run: the kernels of every family, as `neon_code` plans them.  The pool's own functions are not among them:
they call the system.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from neon_code import PROBLEMS, TRIPLE

WRITER = Path(__file__).with_name("neon_code.py")
#: Functions of the pool, which every plan shares.
POOL = ("call", "summon")
VECTOR_PRODUCT = re.compile(r"^\s+fmla\s+v\d+\.(4s|2d)", re.MULTILINE)
SCALAR_PRODUCT = re.compile(r"^\s+(fn?m(add|sub|ul)\s+[sd]\d+.*)", re.MULTILINE)
CALL_BY_NAME = re.compile(r"^\s+bl?\s+([A-Za-z_]\w*)", re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    """Family and dtype -> [(function, text)]."""
    llvm.initialize_all_targets()
    try:
        llvm.Target.from_triple(TRIPLE)
    except RuntimeError as reason:
        pytest.skip(f"this llvmlite writes no code for {TRIPLE}: {reason}")
    done = subprocess.run([sys.executable, WRITER], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        family, name, text = json.loads(line)
        if name not in POOL:
            found.setdefault(family, []).append((name, text))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", PROBLEMS)
def test_products_are_vectors_and_nothing_is_called(texts, family, dtype):
    functions = texts[f"{family} {dtype}"]
    lanes = {"float32": "4s", "float64": "2d"}[dtype]
    problem = f"{family} {dtype}: {PROBLEMS[family]}"
    assert sum(VECTOR_PRODUCT.findall(text).count(lanes) for _, text in functions) >= 8, problem
    for name, text in functions:
        assert not CALL_BY_NAME.findall(text), f"{problem}, {name} calls {CALL_BY_NAME.findall(text)}"
        assert not SCALAR_PRODUCT.findall(text), f"{problem}, {name}: {SCALAR_PRODUCT.findall(text)}"


def test_calls_would_be_seen():
    assert CALL_BY_NAME.findall("\tbl\tfmaf\n\tb\tmemcpy\n\tb\t.LBB0_2\n\tblr\tx8\n") == ["fmaf", "memcpy"]
    assert SCALAR_PRODUCT.findall("\tfmadd\ts0, s1, s2, s3\n\tfmla\tv0.4s, v1.4s, v2.4s\n")
