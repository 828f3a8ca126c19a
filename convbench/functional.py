"""The functions `conv1d`, `conv2d` and `conv3d`, and the cache of the layers behind them."""

from __future__ import annotations

import os
import weakref
from functools import partial

import numpy as np

from convbench import outputs, plans, selection
from convbench.candidates import Selection
from convbench.conv import AXES, Conv1d, Conv2d, Conv3d, _Conv
from convbench.spec import ConvSpec


class _Layers:
    """The layers behind the functions, each as long as it has a plan in the cache of plans.

    A layer is found by its options and by where the weight lies, and taken only if the weight's
    elements still are what it was planned with.
    """

    def __init__(self):
        self._layers: dict[tuple, _Conv] = {}

    def find(self, key, weight, bias):
        """The layer of `key`, or None."""
        layer = self._layers.get(key)
        if layer is None:
            return None
        same = np.array_equal(layer.weight, weight) and (bias is None or np.array_equal(layer.bias, bias))
        return layer if same else None

    def compute(self, key, layer, input, out):
        """The first call of a layer, which is remembered until its last plan is dropped."""
        layer._let_go_with_plans(partial(self._drop, key, weakref.ref(layer)))
        result = layer(input, out)
        self._layers[key] = layer
        if not layer._prepared:  # another thread's plans have already taken the place of its own
            self._drop(key, weakref.ref(layer))
        return result

    def clear(self):
        """Forget every layer."""
        self._layers = {}

    def _drop(self, key, layer):
        if self._layers.get(key) is layer():
            self._layers.pop(key, None)


_layers = _Layers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_layers.clear)


def clear_cache() -> None:
    """Drop the plans of all layers and functions, what the judge chose, and memory kept for outputs."""
    _layers.clear()
    plans.cache.clear()
    selection.forget()
    outputs.forget()


def _hashable(option):
    return tuple(map(_hashable, option)) if isinstance(option, (list, tuple)) else option


def _docstring(ndim):
    return f"""{ndim}-D convolution of `input` with `weight` by the fastest engine.

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
    The plan is kept (`convbench.cache_info`) and found again by the weight's place and elements,
    which costs one comparison of the weight; a `convbench.Conv{ndim}d` saves that.
    """


def _functional(cls):
    """The function whose layers are of `cls`."""

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
        return _layers.compute(key, layer, input, out)

    conv.__name__ = conv.__qualname__ = f"conv{cls.ndim}d"
    conv.__doc__ = _docstring(cls.ndim)
    return conv


conv1d = _functional(Conv1d)
conv2d = _functional(Conv2d)
conv3d = _functional(Conv3d)


def explain(
    problem,
    weight=None,
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
) -> Selection:
    """The judge's choice for a problem or for arrays: it prints as a table, and ``.as_dict()`` is the same as data.

    Parameters
    ----------
    problem : ConvSpec, str or array_like
        A spec; its text, benchdnn's or a oneDNN verbose line; or the input of a convolution.
    weight, bias, stride, padding, dilation, groups, padding_mode, flip
        With an input only, as `conv1d`, `conv2d` and `conv3d` take them; the weight's rank tells which is meant.
    engine, tuning, rtol, max_workspace
        As `convbench.select` takes them.  With "measure" the candidates are timed, nothing else is computed.

    Returns
    -------
    Selection

    Raises
    ------
    TypeError, ValueError
        Arguments that clash or are out of range, as the functions themselves raise them.

    Examples
    --------
    >>> convbench.explain("mb1ic64ih56oc64oh56kh3ph1").as_dict()["engine"]
    'winograd'
    """
    judging = {"engine": engine, "tuning": tuning, "rtol": rtol, "max_workspace": max_workspace}
    if isinstance(problem, (str, ConvSpec)):
        if weight is not None:
            raise TypeError(f"problem {problem!r} and a weight are both given; a weight goes with an input array")
        spec = ConvSpec.parse(problem) if isinstance(problem, str) else problem
        return selection.select(spec, **judging)
    if weight is None:
        raise TypeError(f"an input of type {type(problem).__name__} is given without a weight; both, or a problem, are")
    weight, x = np.asarray(weight), np.asarray(problem)
    if weight.ndim - 2 not in _LAYERS:
        raise ValueError(f"weight of shape {weight.shape} has rank {weight.ndim}; ranks 3, 4 and 5 are accepted")
    options = {"padding_mode": padding_mode, "flip": flip, **judging}
    return _LAYERS[weight.ndim - 2](weight, bias, stride, padding, dilation, groups, **options)._selection_for(x)


_LAYERS = {cls.ndim: cls for cls in (Conv1d, Conv2d, Conv3d)}
