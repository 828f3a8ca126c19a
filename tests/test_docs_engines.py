"""The engine of docs/engines.md, as it stands there, passes what the built-in ones pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# The engines' own tests, run here with this module's `engine`.
from test_conformance import (  # noqa: F401
    test_a_layer_is_the_function,
    test_a_layer_keeps_its_weight,
    test_arrays_with_gaps,
    test_bias,
    test_channels_last,
    test_complex,
    test_estimates_come_from_the_spec_alone,
    test_one_layer_takes_many_shapes,
    test_out_is_filled_and_returned,
    test_out_with_gaps,
    test_read_only_arrays,
    test_the_grid,
    test_true_convolution,
    test_unbatched,
)
from test_exact import test_integers, test_whole_numbers_in_floats  # noqa: F401

import convbench
from convbench import peers, registry

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
LINES = 50  # "forty lines", without the empty ones and what the module says of itself


@pytest.fixture(scope="module")
def blocks():
    """The page's Python."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def engine(blocks):
    """The page's engine, registered by the page while this module's tests run."""
    exec(compile(blocks[0], str(PAGE), "exec"), {})
    yield registry.get("correlate")
    convbench.unregister("correlate")


def test_its_use(engine, blocks, capsys):
    names = {}
    exec(compile(blocks[1], str(PAGE), "exec"), {"convbench": convbench}, names)
    assert names["y"].shape == names["spec"].output_shape
    assert "correlate" in capsys.readouterr().out
    assert len(blocks) == 2


def test_it_is_as_short_as_the_page_says(blocks):
    lines = [line for line in blocks[0].splitlines() if line.strip() and not line.startswith(('"""', "import"))]
    assert len(lines) <= 40


def test_auto_may_pick_it(engine):
    spec = convbench.ConvSpec.parse("mb1ic1ih9oc1oh9kh3ph1")
    refused = {candidate.engine: candidate.refused for candidate in convbench.select(spec).candidates}
    assert refused["correlate"] is None


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_it_keeps_what_is_not_finite(engine, value):
    import numpy as np

    x, weight = np.ones((1, 2, 6, 7), "float32"), np.ones((3, 2, 3, 3), "float32")
    x[0, 1, 2, 3] = float(value)
    expected = np.zeros((6, 7), bool)
    expected[1:4, 2:5] = True
    found = ~np.isfinite(convbench.conv2d(x, weight, padding=1, engine="correlate"))
    assert (found == expected).all()


def test_the_page_names_every_peer():
    table = PAGE.read_text(encoding="utf-8").split("| engine |")[1]
    for name in peers.NAMES:
        assert f"| `{name}` |" in table
