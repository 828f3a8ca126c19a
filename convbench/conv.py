"""The layers `Conv1d`, `Conv2d` and `Conv3d`, which plan once per input shape.

A call: arguments -> `ConvSpec` -> lowering of what no engine needs to know (padding modes, true
convolution, odd strides of the arrays) -> selection -> plan -> ``plan(x, out)``.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from convbench import limits, planning, plans, registry, selection, settings
from convbench import padding as paddings
from convbench.candidates import Selection
from convbench.data import as_memory_format
from convbench.engine import Engine, Plan
from convbench.incremental import IncrementalPlan
from convbench.outputs import maker
from convbench.prepared import Prepared
from convbench.spec import ConvSpec, dtype_name, per_dimension

AXES = {1: "W", 2: "H, W", 3: "D, H, W"}


class _Conv:
    """What `Conv1d`, `Conv2d` and `Conv3d` share.

    Parameters
    ----------
    weight : array_like, (O, C/groups, *kernel)
        Copied; real floating, complex or integer.
    bias : array_like, (O,), optional
        Of the same dtype.
    stride, dilation : int or tuple of int, default 1
    padding : int, tuple of int, tuple of (low, high), "same", "valid" or "full", default 0
        See `convbench.padding` for the rules.
    groups : int, default 1
    padding_mode : str, default "zeros"
        "zeros", "replicate", "reflect", "symmetric", "circular", or another library's name of
        one of them (`convbench.padding.MODE_ALIASES`).  Zeros and circular padding are left to the engines, of which
        `fft` knows circular problems without any padding; others copy the input into a longer one first.
    flip : bool, default False
        False is cross-correlation, True the mathematician's convolution.
    engine : str, default "auto"
        "auto" lets the judge choose; a name pins that engine.
    tuning : {"estimate", "measure", "incremental", "replay"}
        How "auto" chooses, see `convbench.select`.
    rtol : {"exact", "standard", "fast"} or float, optional
        How exact the result must be, see `convbench.select`.
    max_workspace : int, optional
        Limit on the engine's workspace in bytes.

    Raises
    ------
    TypeError, ValueError
        Arguments that clash or are out of range, each message with both values.

    Notes
    -----
    A call with an input shape seen before only computes.  The plans of all layers and functions together
    are bounded in bytes (`convbench.cache_info`), the least recently used go first, and every layer keeps its
    last one.  Layers may be called from several threads; of calls with one shape at most two compute at a time.
    """

    ndim: ClassVar[int]

    def __init__(
        self,
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
    ):
        ndim = self.ndim
        self.weight = _frozen_copy("weight", weight)
        if self.weight.ndim != ndim + 2:
            raise ValueError(
                f"weight of shape {self.weight.shape} has rank {self.weight.ndim}; "
                f"conv{ndim}d accepts rank {ndim + 2}: (O, C/groups, {AXES[ndim]})"
            )
        self.dtype = self.weight.dtype
        self.bias = None if bias is None else self._checked_bias(bias)
        self.kernel = self.weight.shape[2:]
        self.stride = per_dimension("stride", stride, ndim, 1)
        self.dilation = per_dimension("dilation", dilation, ndim, 1)
        self.groups = per_dimension("groups", groups, 1, 1)[0]
        self.padding = padding
        paddings.resolve(padding, (1,) * ndim, self.kernel, self.stride, self.dilation)  # refuses bad ones now
        self.padding_mode = paddings.canonical_mode(padding_mode)
        self.flip = bool(flip)
        if engine != settings.AUTO:
            registry.get(engine)
        selection.check_arguments(tuning, rtol, max_workspace)
        self._judging = {"engine": engine, "tuning": tuning, "rtol": rtol, "max_workspace": max_workspace}
        self._prepared = plans.Store(plans.cache)

    def __call__(self, x, out=None):
        """Compute the layer.

        Parameters
        ----------
        x : array_like, (N, C, *spatial) or (C, *spatial)
            Of the weight's dtype.
        out : ndarray, optional
            Takes the result; of the output's shape and dtype, any strides.

        Returns
        -------
        ndarray
            (N, O, *output_spatial) or (O, *output_spatial); `out` where it was given.
        """
        if out is None and self._prepared.shortcut is not None:
            result = self._prepared.shortcut(x)
            if result is not None:
                return result
        return self._compute(x, out)

    def _compute(self, x, out):
        """The layer's call, whatever the input; the next one like it may take the plan's shortcut."""
        if type(x) is not np.ndarray:
            x = np.asarray(x)
        key = (x.shape, x.strides, x.dtype, settings.scope(), settings.epoch())
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepare(x, key, out)
        if prepared.summon is not None:
            prepared.summon()
        makes_output = out is None
        if makes_output:
            result = out = prepared.new_output()
        else:
            result = self._usable_output(out, x, prepared)
        if not prepared.dense:
            x = self._lowered_input(x, prepared)
        with prepared.lock:
            prepared.computed += 1
            if prepared.batched:
                prepared.plan(x, result)
            else:
                prepared.plan(x[np.newaxis], result[np.newaxis])
            if makes_output and prepared.make_shortcut():
                plans.cache.recount(self._prepared, key)
        self._prepared.shortcut = prepared.shortcut and prepared.shortcut.call
        if result is not out:
            out[...] = result
        return out

    def selection(self, shape, memory_format="channels_first") -> Selection:
        """The judge's choice for inputs of that shape, batched or not; it prints with the reasons.

        Parameters
        ----------
        shape : sequence of int
            (N, C, *spatial) or (C, *spatial).
        memory_format : {"channels_first", "channels_last"}
            How the inputs lie in memory.

        Returns
        -------
        Selection
        """
        shape = tuple(shape)
        batched = self._is_batched(shape)
        _, spec = self._lowered_spec(shape if batched else (1, *shape), memory_format)
        return self._select(spec)

    def _selection_for(self, x) -> Selection:
        """The judge's choice for an input as it lies in memory."""
        self._check_input(x)
        full = x if self._is_batched(x.shape) else x[np.newaxis]
        return self.selection(full.shape, _memory_format(full))

    def plan_bytes(self) -> int:
        """Bytes that the layer holds: weights, packed weights and scratch of every planned shape."""
        return self.weight.nbytes + sum(prepared.nbytes for prepared in list(self._prepared.values()))

    def _checked_bias(self, bias):
        bias = _frozen_copy("bias", bias)
        if bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"bias has shape {bias.shape}, weight has {self.weight.shape[0]} output channels; "
                f"shape {self.weight.shape[:1]} is accepted"
            )
        if bias.dtype != self.dtype:
            raise TypeError(f"bias is {bias.dtype}, weight is {self.dtype}; they must be equal")
        return bias

    def _check_input(self, x):
        if x.dtype != self.dtype and x.dtype.newbyteorder("=") != self.dtype:
            raise TypeError(f"input is {x.dtype}, weight is {self.dtype}; they must be equal: convert one with astype")

    def _is_batched(self, shape):
        if len(shape) not in (self.ndim + 1, self.ndim + 2):
            axes = AXES[self.ndim]
            raise ValueError(
                f"input of shape {shape} has rank {len(shape)}; conv{self.ndim}d accepts rank {self.ndim + 2}: "
                f"(N, C, {axes}), or rank {self.ndim + 1}: (C, {axes})"
            )
        return len(shape) == self.ndim + 2

    def _lowered_spec(self, shape, memory_format):
        """Pairs to extend the input by (None for zero padding), and the spec that engines see."""
        pairs = paddings.resolve(self.padding, shape[2:], self.kernel, self.stride, self.dilation)
        options = {
            "stride": self.stride,
            "dilation": self.dilation,
            "groups": self.groups,
            "dtype": dtype_name(self.dtype),
            "memory_format": memory_format,
        }
        spec = ConvSpec.from_shapes(shape, self.weight.shape, padding=pairs, **options)
        if self.padding_mode == "zeros" or not any(map(any, pairs)):
            return None, spec
        if self.padding_mode == "circular" and spec.is_one_period:
            return None, spec.replace(padding_mode="circular")  # an engine may know how to do without the padding
        padded = [size + low + high for size, (low, high) in zip(shape[2:], pairs, strict=True)]
        return pairs, ConvSpec.from_shapes((*shape[:2], *padded), self.weight.shape, **options)

    def _select(self, spec):
        return selection.select(spec, weight=self._kernels(), **self._judging)

    def _kernels(self):
        """The weight as engines see it."""
        return self.weight[(..., *(slice(None, None, -1),) * self.ndim)] if self.flip else self.weight

    def _prepare(self, x, key, out):
        batched = self._is_batched(x.shape)
        self._check_input(x)
        full = x if batched else x[np.newaxis]
        memory_format = _memory_format(full)
        pads, spec = self._lowered_spec(full.shape, memory_format)
        shape = spec.output_shape if batched else spec.output_shape[1:]
        if out is not None:
            self._check_output(out, shape)
        chosen = self._select(spec)
        dense = pads is None and x.dtype.isnative and _lies_as(full, memory_format)
        prepared = Prepared(spec, None, shape, chosen, pads, dense, batched, self._output_maker(spec, shape), key)
        trial = selection.trial(spec, chosen, weight=self._kernels(), **self._judging)
        if trial is None:
            prepared.use(self._plan_chosen(chosen))
        else:
            place = prepared, key
            prepared.use(IncrementalPlan(trial, partial(self._candidate, *place), partial(self._settle, *place)))
        plans.cache.keep(self._prepared, key, prepared)
        return prepared

    def _plan(self, spec: ConvSpec, engine: Engine) -> Plan:
        with settings.planning_for(self._judging["tuning"]):
            return planning.make_plan(engine, spec, self._kernels(), self.bias)

    def _plan_chosen(self, chosen: Selection) -> Plan:
        spec = chosen.spec
        loss = limits.tolerance(self._judging["rtol"], spec.dtype)
        engine = planning.for_weight(registry.get(chosen.engine), spec, self._kernels(), loss)
        return self._plan(spec, planning.variant_of(engine, spec, chosen.variant))

    def _candidate(self, prepared: Prepared, key, engine: Engine) -> Plan:
        """The plan of one candidate of an incremental choice; those before it are counted."""
        plans.cache.recount(self._prepared, key)
        return self._plan(prepared.spec, engine)

    def _settle(self, prepared: Prepared, key, chosen: Selection, plan: Plan | None) -> Plan:
        """Calls have found the fastest: from now on its plan alone computes."""
        prepared.use(plan or self._plan_chosen(chosen))
        prepared.selection = chosen
        plans.cache.recount(self._prepared, key)
        return prepared.plan

    def _let_go_with_plans(self, emptied) -> None:
        """No program holds this layer: it may lose its last plan, and `emptied` is called when it does."""
        store = self._prepared
        store.ownerless, store.held, store.emptied = True, self.weight.nbytes, emptied

    def _lowered_input(self, x, prepared):
        full = (x if prepared.batched else x[np.newaxis]).astype(self.dtype, copy=False)
        if prepared.pads is not None:
            full = paddings.pad(full, prepared.pads, self.padding_mode)
        full = as_memory_format(full, prepared.spec.memory_format)
        return full if prepared.batched else full[0]

    def _output_maker(self, spec, shape):
        """What makes outputs of `shape` that lie as the plan wants them."""
        if spec.memory_format == "channels_first":
            return maker(shape, self.dtype)
        make = maker((*shape[: -self.ndim - 1], *spec.output_spatial, spec.out_channels), self.dtype)
        return lambda: np.moveaxis(make(), -1, -self.ndim - 1)

    def _check_output(self, out, shape):
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out is a {type(out).__name__}; a NumPy array is accepted")
        if out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, the output has {shape}; they must be equal")
        if out.dtype != self.dtype and out.dtype.newbyteorder("=") != self.dtype:
            raise TypeError(f"out is {out.dtype}, the output is {self.dtype}; they must be equal")
        if not out.flags.writeable:
            raise ValueError("out is read-only; a writeable array is accepted")

    def _usable_output(self, out, x, prepared):
        """`out` itself, or a buffer to copy from where the plan cannot write into it."""
        self._check_output(out, prepared.shape)
        full = out if prepared.batched else out[np.newaxis]
        fits = out.dtype.isnative and _lies_as(full, prepared.spec.memory_format)
        return out if fits and not np.may_share_memory(x, out) else prepared.new_output()

    def __getstate__(self):
        # Plans hold locks, buffers and compiled code: a copy, or another process, makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_prepared"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._prepared = plans.Store(plans.cache)

    def __repr__(self):
        return (
            f"{type(self).__name__}(weight {self.weight.shape} {self.dtype}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"engine={self._judging['engine']!r})"
        )


class Conv1d(_Conv):
    __doc__ = f"A 1-D convolution layer, planned once per input shape.\n{_Conv.__doc__.partition(chr(10))[2]}"
    ndim = 1


class Conv2d(_Conv):
    __doc__ = f"A 2-D convolution layer, planned once per input shape.\n{_Conv.__doc__.partition(chr(10))[2]}"
    ndim = 2


class Conv3d(_Conv):
    __doc__ = f"A 3-D convolution layer, planned once per input shape.\n{_Conv.__doc__.partition(chr(10))[2]}"
    ndim = 3


def _frozen_copy(name, values):
    array = np.array(values, order="C")
    if array.dtype.kind not in "iufc" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} is {array.dtype}; floating, complex and integer types are accepted")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return array


def _lies_as(x, memory_format) -> bool:
    """Whether the elements of `x` (N, C, *spatial) lie in memory without gaps in that format."""
    return (x if memory_format == "channels_first" else np.moveaxis(x, 1, -1)).flags.c_contiguous


def _memory_format(x) -> str:
    """channels_last where the elements lie so and not also channels-first, as PyTorch has it."""
    last = _lies_as(x, "channels_last") and not _lies_as(x, "channels_first")
    return "channels_last" if last else "channels_first"
