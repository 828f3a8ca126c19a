"""The problem: one convolution, described once and validated once.

With input ``x`` (N, C, *spatial), weight ``w`` (O, C/groups, *kernel), stride s,
dilation d and low padding l, every engine computes

    out[n, o, p] = sum over c, t of  x[n, g(o)·C/groups + c, p·s + t·d - l] · w[o, c, t]

with x taken as zero outside its bounds, or as periodic where the padding mode is "circular".
That is cross-correlation, as in every deep-learning library; the mathematician's convolution is
the same sum with the kernel reversed (``flip=True`` in the interface, lowered before a spec is made).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from convbench import forks
from convbench.forks import cached_property

MEMORY_FORMATS = ("channels_first", "channels_last")
PADDING_MODES = ("zeros", "circular")
MAX_SPATIAL_DIMS = 3


def per_dimension(name: str, value, ndim: int, minimum: int) -> tuple[int, ...]:
    """Spread an int over the dimensions, or check a sequence of ints.

    Parameters
    ----------
    name : str
        What the value is, for the message.
    value : int or sequence of int
    ndim : int
        Number of spatial dimensions, 1 to 3.
    minimum : int
        The smallest value accepted.

    Raises
    ------
    TypeError
        An entry is not an integer.
    ValueError
        The wrong number of entries, or one below `minimum`.
    """
    entries = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,) * ndim
    if len(entries) != ndim:
        raise ValueError(
            f"{name} {value!r} has {len(entries)} entries for {ndim} spatial dimensions; give one int or {ndim} of them"
        )
    for entry in entries:
        if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (int, np.integer)):
            raise TypeError(f"{name} {value!r} holds {entry!r}, a {type(entry).__name__}; ints are accepted")
        if entry < minimum:
            raise ValueError(f"{name} {value!r} holds {int(entry)}; at least {minimum} is accepted")
    return tuple(int(entry) for entry in entries)


def extent(kernel: int, dilation: int) -> int:
    """Number of input positions that one window spans: d·(k - 1) + 1."""
    return dilation * (kernel - 1) + 1


def output_size(size: int, kernel: int, stride: int, dilation: int, low: int, high: int) -> int:
    """Output positions along one axis: floor((in + low + high - extent) / stride) + 1."""
    return (size + low + high - extent(kernel, dilation)) // stride + 1


@dataclass(frozen=True)
class ConvSpec:
    """One dense, zero-padded, strided, dilated, grouped correlation.

    Engines receive it validated and never check shapes again.  Equal specs
    describe the same computation: high padding that no window reaches (it
    happens with strides) is dropped, so that one problem has one key.

    Parameters
    ----------
    batch, in_channels, out_channels : int
    spatial : tuple of int
        Input size per spatial dimension, 1 to 3 of them.
    kernel : int or tuple of int
    stride, dilation : int or tuple of int, default 1
        Dilation 1 is a dense kernel (benchdnn counts from 0; only the text does).
    padding : int, tuple of int or tuple of (low, high), default 0
    groups : int, default 1
    dtype : str, default "float32"
        NumPy's name of the element type of input, weight and output.
    memory_format : {"channels_first", "channels_last"}
        Order of the elements in memory, of input and output alike.  The axes
        are N, C, *spatial in both.
    padding_mode : {"zeros", "circular"}
        What the padding holds.  Other modes are lowered before a spec is made, and most engines
        see this one lowered, too (`padded`).  Without any padding it is "zeros".

    Raises
    ------
    TypeError
        A size that is not an integer, or an unknown dtype.
    ValueError
        Sizes that clash; the message states both values.

    Examples
    --------
    >>> spec = ConvSpec.parse("mb1ic64ih56oc64oh56kh3ph1")
    >>> spec.output_shape, spec.macs
    ((1, 64, 56, 56), 115605504)
    >>> str(spec)
    'mb1ic64ih56oc64oh56kh3ph1'
    """

    batch: int
    in_channels: int
    out_channels: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = 1
    padding: tuple[tuple[int, int], ...] = 0
    dilation: tuple[int, ...] = 1
    groups: int = 1
    dtype: str = "float32"
    memory_format: str = "channels_first"
    padding_mode: str = "zeros"

    def __post_init__(self):
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (the dataclass is frozen)
        spatial = self.spatial if isinstance(self.spatial, (tuple, list, np.ndarray)) else (self.spatial,)
        ndim = len(spatial)
        if not 1 <= ndim <= MAX_SPATIAL_DIMS:
            raise ValueError(f"spatial {self.spatial!r} has {ndim} dimensions; 1 to {MAX_SPATIAL_DIMS} are accepted")
        put("spatial", per_dimension("spatial", spatial, ndim, 0))
        put("kernel", per_dimension("kernel", self.kernel, ndim, 1))
        put("stride", per_dimension("stride", self.stride, ndim, 1))
        put("dilation", per_dimension("dilation", self.dilation, ndim, 1))
        for name, minimum in (("batch", 0), ("in_channels", 1), ("out_channels", 0), ("groups", 1)):
            put(name, per_dimension(name, getattr(self, name), 1, minimum)[0])
        put("dtype", dtype_name(self.dtype))
        put("padding", self._reached_padding(padding_pairs(self.padding, ndim)))
        self._check_channels()
        if self.memory_format not in MEMORY_FORMATS:
            raise ValueError(f"memory_format {self.memory_format!r} is none of {', '.join(MEMORY_FORMATS)}")
        self._check_padding_mode()
        if not any(map(any, self.padding)):
            put("padding_mode", "zeros")

    def _check_padding_mode(self):
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode {self.padding_mode!r} is none of {', '.join(PADDING_MODES)}")
        if self.padding_mode == "circular" and 0 in self.spatial:
            raise ValueError(
                f"padding_mode 'circular' has nothing to repeat in spatial {self.spatial}; 'zeros' is accepted"
            )

    def _check_channels(self):
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} {getattr(self, name)} is not a multiple of groups {self.groups}")

    def _reached_padding(self, pairs):
        """Check that a window fits, and drop the high padding that none reaches."""
        reached = []
        for axis, (low, high) in enumerate(pairs):
            size, k, s, d = self.spatial[axis], self.kernel[axis], self.stride[axis], self.dilation[axis]
            span = extent(k, d)
            if span > size + low + high:
                raise ValueError(
                    f"kernel {k} with dilation {d} spans {span} positions on spatial axis {axis}, the padded input has "
                    f"{size} + {low} + {high} = {size + low + high}; at most that many are accepted"
                )
            out = output_size(size, k, s, d, low, high)
            reached.append((low, min(high, max(0, (out - 1) * s + span - size - low))))
        return tuple(reached)

    @classmethod
    def from_shapes(
        cls,
        input_shape,
        weight_shape,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        dtype="float32",
        memory_format="channels_first",
        padding_mode="zeros",
    ):
        """The spec of ``conv(input, weight)`` from the two shapes.

        Parameters
        ----------
        input_shape : tuple of int
            (N, C, *spatial).
        weight_shape : tuple of int
            (O, C/groups, *kernel).

        Raises
        ------
        ValueError
            The ranks differ, or the channels do not match.
        """
        input_shape, weight_shape = tuple(input_shape), tuple(weight_shape)
        if len(input_shape) != len(weight_shape):
            raise ValueError(
                f"input of shape {input_shape} has {len(input_shape) - 2} spatial dimensions, weight of shape "
                f"{weight_shape} has {len(weight_shape) - 2}; they must be equal"
            )
        if len(input_shape) < 3:
            raise ValueError(
                f"input of shape {input_shape} and weight of shape {weight_shape} have no spatial dimensions; "
                f"1 to {MAX_SPATIAL_DIMS} are accepted"
            )
        groups = per_dimension("groups", groups, 1, 1)[0]
        channels, per_group = input_shape[1], weight_shape[1]
        if channels != per_group * groups:
            raise ValueError(
                f"weight has {per_group} input channels per group, input has {channels} in {groups} groups; "
                f"{per_group * groups} input channels are accepted"
            )
        return cls(
            batch=input_shape[0],
            in_channels=channels,
            out_channels=weight_shape[0],
            spatial=input_shape[2:],
            kernel=weight_shape[2:],
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            dtype=dtype,
            memory_format=memory_format,
            padding_mode=padding_mode,
        )

    @classmethod
    def parse(cls, text: str) -> ConvSpec:
        """Read benchdnn's problem text or a oneDNN verbose line (see `convbench.text`)."""
        with forks.held_off:
            from convbench.text import parse_problem

        return parse_problem(text)

    def __str__(self):
        return self._text

    @cached_property
    def _text(self) -> str:
        with forks.held_off:
            from convbench.text import format_problem

        return format_problem(self)

    def replace(self, **changes) -> ConvSpec:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)

    def padded(self) -> ConvSpec:
        """The same outputs from an input that is extended first; itself where what is outside is zero."""
        if self.padding_mode == "zeros":
            return self
        spatial = tuple(size + low + high for size, (low, high) in zip(self.spatial, self.padding, strict=True))
        return self.replace(spatial=spatial, padding=0, padding_mode="zeros")

    @property
    def is_one_period(self) -> bool:
        """Whether the outputs, at stride 1, are no more than one period of a periodic input has."""
        axes = zip(self.output_spatial, self.stride, self.spatial, strict=True)
        return all((outputs - 1) * s < size for outputs, s, size in axes)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.spatial)

    @cached_property
    def output_spatial(self) -> tuple[int, ...]:
        """Output size per spatial dimension."""
        return tuple(
            output_size(i, k, s, d, low, high)
            for i, k, s, d, (low, high) in zip(
                self.spatial, self.kernel, self.stride, self.dilation, self.padding, strict=True
            )
        )

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, *spatial)."""
        return (self.batch, self.in_channels, *self.spatial)

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """(O, C/groups, *kernel)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """(N, O, *output_spatial)."""
        return (self.batch, self.out_channels, *self.output_spatial)

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Input positions that one window spans, per spatial dimension."""
        return tuple(extent(k, d) for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def taps(self) -> int:
        """Products summed into one output element: C/groups · prod(kernel)."""
        return math.prod(self.weight_shape[1:])

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense sum, border taps included."""
        return math.prod(self.output_shape) * self.taps

    @property
    def is_empty(self) -> bool:
        """True when the output has no elements."""
        return 0 in self.output_shape

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return np.dtype(self.dtype).itemsize

    @property
    def data_bytes(self) -> int:
        """Bytes of input, weight and output together."""
        shapes = (self.input_shape, self.weight_shape, self.output_shape)
        return sum(math.prod(shape) for shape in shapes) * self.itemsize


def padding_pairs(padding, ndim: int) -> tuple[tuple[int, int], ...]:
    """Padding as (low, high) per dimension, from an int, ints or pairs."""
    if isinstance(padding, (tuple, list)) and any(isinstance(entry, (tuple, list)) for entry in padding):
        if len(padding) != ndim:
            raise ValueError(
                f"padding {padding!r} has {len(padding)} entries for {ndim} spatial dimensions; "
                f"give {ndim} (low, high) pairs"
            )
        # A plain int among the pairs pads both sides alike.
        return tuple(per_dimension("padding", entry, 2, 0) for entry in padding)
    return tuple((entry, entry) for entry in per_dimension("padding", padding, ndim, 0))


def dtype_name(dtype) -> str:
    """NumPy's name of a dtype; bfloat16 is known once ml_dtypes is installed."""
    try:
        return np.dtype(dtype).name
    except TypeError:
        pass
    if dtype == "bfloat16":
        try:
            import ml_dtypes  # registers the name with NumPy
        except ImportError:
            raise TypeError("dtype bfloat16 needs the package ml_dtypes, which is not installed") from None
        return np.dtype(ml_dtypes.bfloat16).name
    raise TypeError(f"dtype {dtype!r} is not one that NumPy knows; float32 or float64, for example, are accepted")
