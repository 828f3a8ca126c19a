"""The engine im2col: every way to cut patches into blocks, and no patches where none are needed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sample

import convbench
from convbench import ConvSpec, registry
from convbench.engines.jit.patches import PatchPlan
from convbench.engines.jit.patches_layout import PATCH_BYTES, ROOM_BYTES, Layout
from convbench.verify import expected, measured_error

# What makes the layout: rows of the kernel that share a copy or not, whole rows or pieces of them, chunks of output
# channels or of groups, vectors along the channels or along the rows.
LAYOUTS = {
    "shared rows of the kernel": ConvSpec(2, 24, 40, spatial=(28, 28), kernel=(3, 3), padding=1),
    "rows in tiles": ConvSpec(1, 80, 40, spatial=(9, 150), kernel=(5, 5), padding=2),
    "a stride": ConvSpec(2, 16, 48, spatial=(33, 31), kernel=(3, 3), padding=1, stride=2),
    "a stride and pieces of rows": ConvSpec(1, 96, 40, spatial=(7, 301), kernel=(3, 3), stride=2),
    "rows of a stride that share a copy": ConvSpec(2, 3, 40, spatial=(61, 66), kernel=(7, 7), padding=2, stride=2),
    "fewer views than rows": ConvSpec(1, 5, 36, spatial=(90, 41), kernel=(11, 3), padding=(4, 0), stride=(4, 3)),
    "one long row": ConvSpec(1, 32, 64, spatial=(3000,), kernel=(25,), padding=12),
    "element by element": ConvSpec(1, 3, 40, spatial=(60, 83), kernel=(7, 7), padding=3, stride=5),
    "chunks of channels": ConvSpec(1, 128, 192, spatial=(7, 7), kernel=(3, 3), padding=1),
    "chunks of groups": ConvSpec(2, 96, 480, spatial=(20, 20), kernel=(3, 3), padding=1, groups=12),
    "depthwise": ConvSpec(1, 65, 65, spatial=(30, 34), kernel=(5, 3), padding=(2, 1), groups=65),
    "along the rows": ConvSpec(1, 3, 34, spatial=(70, 150), kernel=(5, 7), padding=(2, 3)),
    "along the rows, dilated": ConvSpec(1, 2, 34, spatial=(70, 50), kernel=(5, 3), padding=(4, 2), dilation=2),
    "an image": ConvSpec(1, 1, 1, spatial=(100, 300), kernel=(15, 15), padding=7, dtype="float64"),
    "an image under a large kernel": ConvSpec(1, 1, 1, spatial=(130, 140), kernel=(95, 95), padding=47),
    "a volume": ConvSpec(2, 6, 40, spatial=(7, 9, 11), kernel=(3, 3, 2), padding=1, stride=(2, 1, 1)),
    "far apart taps": ConvSpec(1, 40, 36, spatial=(19, 19), kernel=(3, 3), padding=6, dilation=6),
    "much padding": ConvSpec(1, 4, 36, spatial=(3, 5), kernel=(2, 3), padding=((7, 9), (40, 21))),
}


def layout_of(spec):
    return registry.get("im2col").plan(spec, sample(spec)[1])._layout


@pytest.mark.parametrize("spec", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_the_convolution(spec):
    engine, (x, weight, _) = registry.get("im2col"), sample(spec)
    exact, scale = expected(spec, x, weight)
    plan = engine.plan(spec, weight)
    assert isinstance(plan, PatchPlan), spec
    for other in (plan, PatchPlan(spec, weight, wide=not plan._layout.wide)):
        out = np.full(spec.output_shape, np.nan, spec.dtype)
        other(x, out)
        assert measured_error("componentwise", out, exact, scale) <= engine.error_bound(spec), spec
    assert plan.nbytes <= engine.workspace_bytes(spec) + 100_000, spec  # and tables


def test_the_layouts_are_what_they_are_called():
    layouts = {name: layout_of(spec) for name, spec in LAYOUTS.items()}
    assert layouts["shared rows of the kernel"].views == 3
    assert layouts["rows in tiles"].views == 5
    assert len(layouts["rows in tiles"].widths) > 1
    assert layouts["rows of a stride that share a copy"].views == 4
    assert layouts["fewer views than rows"].views == 3
    assert layouts["a stride"].views == 1
    assert len(layouts["a stride and pieces of rows"].widths) > 1
    assert len(layouts["one long row"].widths) > 1
    assert len(layouts["chunks of channels"].chunks) > 1
    assert len(layouts["chunks of groups"].chunks) > 1
    wide = {"along the rows", "along the rows, dilated", "an image", "depthwise", "much padding"}
    wide |= {"rows of a stride that share a copy", "fewer views than rows", "a volume", "shared rows of the kernel"}
    wide |= {"an image under a large kernel"}
    assert {name for name, layout in layouts.items() if layout.wide} == wide


@pytest.mark.parametrize("size", [64, 512, 4096])
def test_patches_are_never_a_whole_matrix(size):
    spec = ConvSpec(1, 64, 64, spatial=(size, size), kernel=(3, 3), padding=1)
    layout = Layout.of(spec, 2, wide=False)
    assert layout.block_bytes() <= max(PATCH_BYTES, ROOM_BYTES), size
    assert sum(layout.heights) == sum(layout.widths) == size


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(2, 32, 64, spatial=(14, 14), kernel=(1, 1)),
        ConvSpec(1, 32, 32, spatial=(20, 17), kernel=(5, 1)),
        ConvSpec(1, 8, 32, spatial=(4, 20, 17), kernel=(2, 3, 1), dilation=2),
        ConvSpec(1, 16, 1, spatial=(60, 70), kernel=(5, 5), padding=2),
        ConvSpec(1, 3, 24, spatial=(60, 71), kernel=(7, 7), padding=2, stride=2),
        ConvSpec(2, 3, 2, spatial=(30, 50), kernel=(5, 3), padding=(4, 2), dilation=2),
    ],
    ids=str,
)
def test_views_of_the_input_are_not_copied(spec):
    engine, (x, weight, _) = registry.get("im2col"), sample(spec)
    plan, out = engine.plan(spec, weight), np.empty(spec.output_shape, spec.dtype)
    assert not isinstance(plan, PatchPlan), spec
    exact, scale = expected(spec, x, weight)
    plan(x, out)
    assert measured_error("componentwise", out, exact, scale) <= engine.error_bound(spec), spec


@pytest.mark.parametrize("name", ["shared rows of the kernel", "chunks of channels", "along the rows"])
def test_threads_change_no_bit(name):
    spec = LAYOUTS[name]
    (x, weight, _), before, results = sample(spec), convbench.get_num_threads(), []
    plan = PatchPlan(spec, weight, wide=name == "along the rows")
    try:
        for threads in (1, 2, 4):  # one plan: it makes scratch for as many as there are
            convbench.set_num_threads(threads)
            results.append(np.empty(spec.output_shape, spec.dtype))
            plan(x, results[-1])
    finally:
        convbench.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(results[0], result, err_msg=str(spec))


def test_the_blas_product_where_no_code_is_generated(monkeypatch):
    from convbench.engines import im2col

    monkeypatch.setattr(im2col, "generates_code", lambda: False)
    for spec in LAYOUTS.values():
        x, weight, _ = sample(spec)
        out = np.empty(spec.output_shape, spec.dtype)
        exact, scale = expected(spec, x, weight)
        registry.get("im2col").plan(spec, weight)(x, out)
        assert measured_error("componentwise", out, exact, scale) <= registry.get("im2col").error_bound(spec), spec
