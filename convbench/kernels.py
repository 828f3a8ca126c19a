"""Usual image kernels, as arrays for cross-correlation: ``convbench.conv2d`` applies them as they stand.

Odd sizes have their centre in the middle.  An asymmetric kernel (Sobel, Prewitt) answers
positively where the brightness rises along its axis, to the right or downwards.

Examples
--------
>>> sobel_x()
array([[-1.,  0.,  1.],
       [-2.,  0.,  2.],
       [-1.,  0.,  1.]])
>>> named("gaussian:1").shape
(9, 9)
"""

from __future__ import annotations

import math

import numpy as np

TRUNCATE = 4.0  # standard deviations that a Gaussian keeps, scipy.ndimage's default
_SMOOTH = {"sobel": (1, 2, 1), "prewitt": (1, 1, 1)}
_SLOPE = (-1, 0, 1)


def identity(n: int = 3, dtype="float64") -> np.ndarray:
    """An n×n kernel that returns its input: one in the centre, zeros around it; n odd."""
    kernel = np.zeros((_odd(n), n), dtype)
    kernel[n // 2, n // 2] = 1
    return kernel


def box(n: int = 3, dtype="float64") -> np.ndarray:
    """The n×n mean; n odd or even."""
    if _whole("box size", n) < 1:
        raise ValueError(f"box size {n} is not accepted; at least 1 is")
    return np.full((n, n), 1 / n**2, dtype)


def gaussian(sigma: float, radius: int | None = None, dtype="float64") -> np.ndarray:
    """A normalised Gaussian, (2·radius + 1)².

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels, above 0.
    radius : int, optional
        Pixels to each side of the centre; the default keeps 4 standard deviations.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"gaussian sigma {sigma} is not accepted; a finite number above 0 is")
    radius = math.ceil(TRUNCATE * sigma) if radius is None else _whole("gaussian radius", radius)
    if radius < 0:
        raise ValueError(f"gaussian radius {radius} is not accepted; at least 0 is")
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype(dtype)


def laplacian(neighbours: int = 4, dtype="float64") -> np.ndarray:
    """The sum of the 4 or 8 neighbours minus as many times the centre: positive inside dark spots."""
    if neighbours not in (4, 8):
        raise ValueError(f"{neighbours} neighbours are not accepted; 4 or 8 are")
    kernel = np.ones((3, 3), dtype)
    if neighbours == 4:
        kernel[::2, ::2] = 0
    kernel[1, 1] = -neighbours
    return kernel


def sharpen(neighbours: int = 4, dtype="float64") -> np.ndarray:
    """Identity minus Laplacian: 5 in the centre with 4 neighbours of -1, or 9 with 8."""
    return identity(3, dtype) - laplacian(neighbours, dtype)


def sobel_x(dtype="float64") -> np.ndarray:
    """Slope to the right, smoothed by [1 2 1] downwards."""
    return np.outer(_SMOOTH["sobel"], _SLOPE).astype(dtype)


def sobel_y(dtype="float64") -> np.ndarray:
    """Slope downwards, smoothed by [1 2 1] to the right."""
    return sobel_x(dtype).T.copy()


def prewitt_x(dtype="float64") -> np.ndarray:
    """Slope to the right, smoothed by [1 1 1] downwards."""
    return np.outer(_SMOOTH["prewitt"], _SLOPE).astype(dtype)


def prewitt_y(dtype="float64") -> np.ndarray:
    """Slope downwards, smoothed by [1 1 1] to the right."""
    return prewitt_x(dtype).T.copy()


# name: function, type of its argument (None: takes none), how the argument is written
_NAMED = {
    "box": (box, int, "N"),
    "gaussian": (gaussian, float, "SIGMA"),
    "identity": (identity, int, "N"),
    "laplacian": (laplacian, int, "4|8"),
    "sharpen": (sharpen, int, "4|8"),
    "sobel-x": (sobel_x, None, ""),
    "sobel-y": (sobel_y, None, ""),
    "prewitt-x": (prewitt_x, None, ""),
    "prewitt-y": (prewitt_y, None, ""),
}
ACCEPTED = ", ".join(f"{name}:{argument}" if argument else name for name, (_, _, argument) in _NAMED.items())


def named(text: str, dtype="float64") -> np.ndarray:
    """The kernel that a text such as ``"gaussian:2.5"``, ``"box:5"`` or ``"sobel-x"`` names.

    Raises
    ------
    ValueError
        The text names no kernel; the message lists those there are.
    """
    name, colon, argument = text.strip().lower().replace("_", "-").partition(":")
    make, kind, _ = _NAMED.get(name, (None, None, ""))
    if make is None or (colon and kind is None) or (name == "gaussian" and not colon):
        raise ValueError(f"kernel {text!r} is unknown; {ACCEPTED} are accepted")
    if not colon:
        return make(dtype=dtype)
    try:
        value = kind(argument)
    except ValueError:
        raise ValueError(f"kernel {text!r}: {argument!r} is not a number; {ACCEPTED} are accepted") from None
    return make(value, dtype=dtype)


def _odd(n):
    if _whole("identity size", n) < 1 or n % 2 == 0:
        raise ValueError(f"identity size {n} is not accepted; an odd number of at least 1 is")
    return n


def _whole(what, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} {value!r} is a {type(value).__name__}; an int is accepted")
    return value
