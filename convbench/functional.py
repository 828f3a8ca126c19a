"""The functions `conv1d`, `conv2d` and `conv3d`, and the cache of the layers behind them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import numpy as np

from convbench import outputs, selection
from convbench.conv import AXES, Conv1d, Conv2d, Conv3d, _Conv

CACHE_BYTES = 256 << 20  # what the plans and weights behind conv1d/2d/3d may hold


class _LayerCache:
    """Layers behind the functions, the latest used kept, bounded in bytes.

    A layer is found by its options and by where the weight lies, and taken only if the weight's
    elements still are what it was planned with.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._layers: OrderedDict[tuple, tuple[_Conv, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key, weight, bias):
        """The layer of `key`, or None."""
        found = self._layers.get(key)
        if found is None:
            return None
        layer = found[0]
        same = np.array_equal(layer.weight, weight) and (bias is None or np.array_equal(layer.bias, bias))
        if not same:
            return None
        with self._lock:
            if key in self._layers:
                self._layers.move_to_end(key)
        return layer

    def keep(self, key, layer):
        """Remember a layer that has just computed, and drop the oldest over the limit."""
        with self._lock:
            self._layers[key] = (layer, layer.plan_bytes())
            self._layers.move_to_end(key)
            while sum(size for _, size in self._layers.values()) > self._limit and len(self._layers) > 1:
                self._layers.popitem(last=False)

    def clear(self):
        """Forget every layer; in a forked child, the lock that another thread may have held too."""
        self._lock = threading.Lock()
        self._layers = OrderedDict()


_layers = _LayerCache(CACHE_BYTES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_layers.clear)


def clear_cache() -> None:
    """Drop the plans behind `conv1d`, `conv2d` and `conv3d`, what the judge chose, and memory kept for outputs."""
    _layers.clear()
    selection.forget()
    outputs.forget()


def _hashable(option):
    return tuple(map(_hashable, option)) if isinstance(option, (list, tuple)) else option


def _functional(cls):
    def conv(
        input,
        weight,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        *,
        padding_mode="zeros",
        flip=False,
        engine="auto",
        tuning="estimate",
        rtol=None,
        max_workspace=None,
        out=None,
    ):
        input, weight = np.asarray(input), np.asarray(weight)
        bias = None if bias is None else np.asarray(bias)
        where = (cls, input.shape, input.strides, weight.ctypes.data, weight.shape, weight.strides, weight.dtype)
        options = (stride, padding, dilation, groups, padding_mode, flip, engine, tuning, rtol, max_workspace)
        key = (*where, None if bias is None else (bias.shape, bias.dtype), *map(_hashable, options))
        try:
            layer = _layers.find(key, weight, bias)
        except TypeError:  # an option that can't be hashed is refused with its own message by the layer
            layer = None
        if layer is not None:
            return layer(input, out)
        layer = cls(
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
            padding_mode=padding_mode,
            flip=flip,
            engine=engine,
            tuning=tuning,
            rtol=rtol,
            max_workspace=max_workspace,
        )
        result = layer(input, out)
        _layers.keep(key, layer)
        return result

    ndim = cls.ndim
    conv.__name__ = conv.__qualname__ = f"conv{ndim}d"
    conv.__doc__ = f"""{ndim}-D convolution of `input` with `weight` by the fastest engine.

    Cross-correlation, as in every deep-learning library; ``flip=True`` is true convolution.

    Parameters
    ----------
    input : array_like, (N, C, {AXES[ndim]}) or (C, {AXES[ndim]})
    weight : array_like, (O, C/groups, {AXES[ndim].lower().replace("d", "kd").replace("h", "kh").replace("w", "kw")})
        Of the same dtype.
    bias, stride, padding, dilation, groups, padding_mode, flip, engine, tuning, rtol, max_workspace
        As `convbench.Conv{ndim}d` takes them; the first four as ``torch.nn.functional.conv{ndim}d``.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, (N, O, ...) or (O, ...)

    Raises
    ------
    TypeError, ValueError
        Arguments that clash or are out of range, each message with both values.

    Notes
    -----
    The plan is kept (256 MiB of them in all) and found again by the weight's place and elements,
    which costs one comparison of the weight; a `convbench.Conv{ndim}d` saves that.
    """
    return conv


conv1d = _functional(Conv1d)
conv2d = _functional(Conv2d)
conv3d = _functional(Conv3d)
