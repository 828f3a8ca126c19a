"""Arrays of a problem: memory formats, and sample data that are the same on every machine."""

from __future__ import annotations

import numpy as np

from convbench.spec import ConvSpec

INTEGER_RANGE = 4  # sample integers lie in [-4, 4]: sums of a million products stay exact in float32's 24 bits


def sample(spec: ConvSpec, seed: int = 0, *, integers: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An input and a weight for `spec`: uniform in [-1, 1), or small integers.

    Parameters
    ----------
    spec : ConvSpec
    seed : int
    integers : bool
        Integer-valued data whatever the dtype; integer dtypes always get it.

    Returns
    -------
    x : ndarray, ``spec.input_shape``
    weight : ndarray, ``spec.weight_shape``
    """
    rng = np.random.default_rng(seed)
    x = as_memory_format(_draw(rng, spec, spec.input_shape, integers), spec.memory_format)
    return x, _draw(rng, spec, spec.weight_shape, integers)


def _draw(rng, spec, shape, integers):
    dtype = np.dtype(spec.dtype)
    if integers or dtype.kind in "iu":
        lowest = 0 if dtype.kind == "u" else -INTEGER_RANGE
        values = rng.integers(lowest, INTEGER_RANGE, size=shape, endpoint=True)
    else:
        values = rng.uniform(-1, 1, size=shape)
    if dtype.kind == "c":
        values = values + 1j * _draw(rng, spec.replace(dtype="float64"), shape, integers)
    return values.astype(dtype)


def as_memory_format(array: np.ndarray, memory_format: str) -> np.ndarray:
    """`array` (N, C, *spatial) laid out in that format, itself where it already is."""
    if memory_format == "channels_last":
        last = np.moveaxis(array, 1, -1)
        return np.moveaxis(np.ascontiguousarray(last), -1, 1)
    return np.ascontiguousarray(array)
