"""The kernel library: values, sums, names, refusals."""

import subprocess
import sys

import numpy as np
import pytest

from convbench import kernels


def test_sobel_answers_positively_where_brightness_rises_to_the_right():
    ramp = np.tile(np.arange(3.0), (3, 1))
    assert (kernels.sobel_x() * ramp).sum() == 8
    assert (kernels.sobel_y() * ramp).sum() == 0
    assert (kernels.prewitt_x() * ramp).sum() == 6
    assert (kernels.prewitt_y() * ramp.T).sum() == 6


def test_sharpen_has_both_usual_forms():
    assert kernels.sharpen().tolist() == [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    assert kernels.sharpen(8).tolist() == [[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]]


def test_laplacian_has_both_usual_forms():
    assert kernels.laplacian().tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    assert kernels.laplacian(8).tolist() == [[1, 1, 1], [1, -8, 1], [1, 1, 1]]


@pytest.mark.parametrize("text", ["box:5", "gaussian:1.5", "identity:3", "sharpen", "sharpen:8"])
def test_kernels_that_keep_brightness_sum_to_one(text):
    assert kernels.named(text).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("text", ["sobel-x", "sobel_y", "prewitt-x", "prewitt-y", "laplacian", "laplacian:8"])
def test_derivatives_sum_to_zero(text):
    assert kernels.named(text).sum() == 0


def test_gaussian_is_symmetric_and_has_the_radius_asked_for():
    kernel = kernels.gaussian(2, radius=3)
    assert kernel.shape == (7, 7)
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])
    assert kernel[3, 4] / kernel[3, 3] == pytest.approx(np.exp(-1 / 8))
    assert kernels.gaussian(1).shape == (9, 9)


@pytest.mark.parametrize("name", ["box", "gaussian", "identity", "laplacian", "sharpen"])
def test_dtype_is_taken(name):
    make = getattr(kernels, name)
    kernel = make(1.0, dtype="float32") if name == "gaussian" else make(dtype="float32")
    assert kernel.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("blur", "'blur'"),
        ("gaussian", "'gaussian'"),
        ("gaussian:wide", "'wide'"),
        ("gaussian:-1", "-1"),
        ("gaussian:nan", "nan"),
        ("gaussian:inf", "inf"),
        ("box:0", "0"),
        ("box:2.5", "'2.5'"),
        ("identity:4", "4"),
        ("sharpen:5", "5"),
        ("sobel-x:3", "'sobel-x:3'"),
    ],
)
def test_bad_names_say_what_was_given_and_what_is_accepted(text, given):
    with pytest.raises(ValueError, match=r"accepted|are|is") as caught:
        kernels.named(text)
    assert given in str(caught.value)


def test_even_box_and_wrong_types():
    assert kernels.box(4).shape == (4, 4)
    with pytest.raises(TypeError, match="float"):
        kernels.box(3.0)
    with pytest.raises(TypeError, match="bool"):
        kernels.identity(True)


def test_importing_kernels_imports_no_third_party_package_but_numpy():
    code = (
        "import sys, numpy; before = set(sys.modules); import convbench.kernels;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new & {'scipy', 'numba', 'llvmlite', 'pyfftw', 'PIL', 'matplotlib', 'rich', 'asv', 'jinja2'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
