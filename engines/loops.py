"""Direct convolution as plain compiled loops, for every dtype: the row-by-row sum of scaled rows.

    for each output plane, channel and tap:  out row += w · (shifted, strided) x row

Compiled by Numba for the dtype, without its threading layers (which abort a process that forks or
calls from two threads): rows of output planes are shared among Python threads, and the loops run
without the interpreter's lock.  Integer sums wrap modulo 2^bits, as NumPy's and PyTorch's do;
half-precision types are summed in float32.
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np

from convbench import forks, settings
from convbench.spec import ConvSpec

from .workers import run_all

PARALLEL_MACS = 200_000  # below it one thread is done before a Python pool has started (45 µs)
_COMPUTED_IN = {"float16": "float32", "bfloat16": "float32"}


def computed_dtype(dtype: str) -> str:
    """The type that loops compute `dtype` in."""
    return _COMPUTED_IN.get(dtype, dtype)


class LoopPlan:
    """``plan(x, out)`` for a spec of any rank: everything is lifted to three spatial dimensions."""

    def __init__(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        self._spec = spec
        self._dtype = computed_dtype(spec.dtype)
        lift = 3 - spec.ndim
        self._weight = np.array(weight, self._dtype).reshape(*weight.shape[:2], *(1,) * lift, *spec.kernel)
        ones = (1,) * lift
        geometry = (
            ones + spec.stride,
            ones + spec.dilation,
            (0,) * lift + tuple(low for low, _ in spec.padding),
        )
        self._geometry = np.array(geometry, dtype=np.int64)
        self._x_shape = (*spec.input_shape[:2], *ones, *spec.spatial)
        self._out_shape = (*spec.output_shape[:2], *ones, *spec.output_spatial)
        self._bias = np.zeros(spec.out_channels, self._dtype) if bias is None else np.array(bias, self._dtype)
        planes = spec.batch * spec.out_channels
        threads = settings.get_num_threads() if spec.macs >= PARALLEL_MACS else 1
        cuts = np.linspace(0, planes, min(threads, planes) + 1).astype(int).tolist()
        self._parts = list(itertools.pairwise(cuts))
        self.nbytes = self._weight.nbytes

    def __call__(self, x, out):
        x = x.astype(self._dtype, copy=False).reshape(self._x_shape)
        result = np.empty(self._out_shape, self._dtype) if self._dtype != self._spec.dtype else None
        target = out.reshape(self._out_shape) if result is None else result
        run = _compiled()
        arguments = (x, self._weight, self._bias, target, self._geometry, self._spec.groups)
        run_all([partial(run, *arguments, *part) for part in self._parts])
        if result is not None:
            out[...] = result.reshape(out.shape)


@cache
def _compiled():
    with forks.held_off:
        import numba

    return numba.njit(nogil=True, error_model="numpy")(_planes)


def _planes(x, weight, bias, out, geometry, groups, first, last):
    """Output planes first to last, counted over (batch, channel)."""
    filters = out.shape[1] // groups
    channels = weight.shape[1]
    for plane in range(first, last):
        n, o = divmod(plane, out.shape[1])
        base = o // filters * channels
        out[n, o] = bias[o]
        for c in range(channels):
            for kd in range(weight.shape[2]):
                for kh in range(weight.shape[3]):
                    for kw in range(weight.shape[4]):
                        w = weight[o, c, kd, kh, kw]
                        stride = geometry[0, 2]
                        shift = kw * geometry[1, 2] - geometry[2, 2]
                        begin = max(0, -(shift // stride))  # the first output whose tap is inside
                        end = min(out.shape[4], (x.shape[4] - 1 - shift) // stride + 1)
                        for d in range(out.shape[2]):
                            z = d * geometry[0, 0] + kd * geometry[1, 0] - geometry[2, 0]
                            if z < 0 or z >= x.shape[2]:
                                continue
                            for h in range(out.shape[3]):
                                y = h * geometry[0, 1] + kh * geometry[1, 1] - geometry[2, 1]
                                if y < 0 or y >= x.shape[3]:
                                    continue
                                if stride == 1:
                                    for p in range(begin, end):
                                        out[n, o, d, h, p] += w * x[n, base + c, z, y, p + shift]
                                else:
                                    for p in range(begin, end):
                                        out[n, o, d, h, p] += w * x[n, base + c, z, y, p * stride + shift]
