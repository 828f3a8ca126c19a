"""Random problems for every family of kernels, as `edge_sweep` draws them."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st

from convbench import ConvSpec


def _axes(draw, ndim, kernels, outputs, strides, most_padding):
    """Size, kernel, stride, dilation and padding of every axis, made so that there are outputs."""
    for _ in range(ndim):
        kernel, stride = draw(st.integers(1, kernels[ndim])), draw(st.sampled_from(strides))
        dilation = draw(st.sampled_from((1, 1, 1, 2, 3, 4)))
        low, high = draw(st.integers(0, most_padding)), draw(st.integers(0, most_padding))
        spare = draw(st.integers(0, stride - 1))
        covered = (draw(st.integers(1, outputs[ndim])) - 1) * stride + dilation * (kernel - 1) + 1
        yield max(1, covered + spare - low - high), kernel, stride, dilation, (low, high)


@st.composite
def dense_specs(draw, formats=("channels_first", "channels_last")):
    """Several output channels, both memory formats."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 3)))
    axes = _axes(draw, ndim, {1: 9, 2: 5, 3: 3}, {1: 120, 2: 20, 3: 7}, (1, 1, 2, 3), draw(st.sampled_from((0, 3))))
    if draw(st.booleans()) and draw(st.booleans()):
        axes = ((size, 1, 1, 1, (0, 0)) for size, *_ in axes)  # a matrix product
    filters = draw(st.sampled_from((1, 3, 7, 8, 13, 16, 17, 24, 32, 40, 64)))
    return _spec(draw, groups, draw(st.integers(1, 20)), filters, axes, formats)


@st.composite
def dilated_specs(draw):
    """Kernels about as large as what they see: columns in parts, and rows of input that no tap of a band meets."""
    ndim = draw(st.integers(1, 3))
    axes = []
    for axis in range(ndim):
        dilation, kernel = draw(st.integers(2, 8)), draw(st.sampled_from((2, 3)))
        low, high = draw(st.integers(0, dilation)), draw(st.integers(0, dilation))
        if draw(st.booleans()) or axis == ndim - 1:
            low = high = dilation
        size = max(1, dilation * (kernel - 1) + 1 - low - high) + draw(st.integers(0, 24 if axis == ndim - 1 else 6))
        axes.append((size, kernel, draw(st.sampled_from((1, 1, 1, 2))), dilation, (low, high)))
    filters = draw(st.sampled_from((1, 8, 17)))
    return _spec(draw, draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 20)), filters, axes)


@st.composite
def product_specs(draw):
    """Pointwise, channels first."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 3)))
    axes = _axes(draw, ndim, {1: 1, 2: 1, 3: 1}, {1: 300, 2: 24, 3: 7}, (1, 1, 2, 3), 0)
    filters = draw(st.sampled_from((1, 3, 8, 13, 17, 29, 64)))
    return _spec(draw, groups, draw(st.integers(1, 60)), filters, axes)


@st.composite
def line_specs(draw):
    """Pointwise, output planes of whole cache lines."""
    axes = [(16 * draw(st.integers(1, 30)), 1, 1, 1, (0, 0))]
    filters = draw(st.sampled_from((1, 3, 8, 13, 17, 29, 64)))
    return _spec(draw, draw(st.sampled_from((1, 1, 2, 3))), draw(st.integers(1, 60)), filters, axes)


@st.composite
def row_specs(draw):
    """Few output channels: images, signals, channel multipliers."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 5)))
    sizes = {1: 600, 2: 60, 3: 12}
    axes = _axes(draw, ndim, {1: 70, 2: 12, 3: 5}, sizes, (1, 1, 1, 2, 3, 9, 11), draw(st.sampled_from((0, 2, 20))))
    return _spec(draw, groups, draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 3, 4, 8))), axes)


@st.composite
def plane_specs(draw):
    """Depthwise, in small planes."""
    axes = _axes(draw, 2, {2: 9}, {2: 20}, (1, 1, 2, 3), draw(st.sampled_from((0, 5))))
    return _spec(draw, draw(st.sampled_from((16, 17, 33, 40))), 1, 1, axes)


@st.composite
def depthwise_specs(draw):
    """Depthwise, channels-last: fewer channels than lanes, some vectors of them, and every kind of border."""
    ndim, most_padding = draw(st.integers(1, 3)), draw(st.sampled_from((0, 2, 9)))
    axes = _axes(draw, ndim, {1: 12, 2: 9, 3: 3}, {1: 90, 2: 20, 3: 6}, (1, 1, 2, 3), most_padding)
    channels = draw(st.sampled_from((1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 40)))
    return _spec(draw, channels, 1, 1, axes, ("channels_last",))


@st.composite
def sweep_specs(draw):
    """Kernels of a few taps over one input channel, in rows of some vectors."""
    kernel = draw(st.sampled_from(((2, 1), (3, 3), (2, 5), (4, 3), (5, 2), (2, 6), (1, 2), (1, 3), (1, 8))))
    axes = _axes(draw, 2, {2: 1}, {2: 80}, (1, 1, 2), draw(st.sampled_from((0, 3, 9))))
    axes = [
        (size + dilation * k, k, stride, dilation, pads)
        for k, (size, _, stride, dilation, pads) in zip(kernel, axes, strict=True)
    ]
    return _spec(draw, draw(st.integers(1, 4)), 1, 1 if kernel[0] == 1 else draw(st.integers(1, 2)), axes)


@st.composite
def rolling_specs(draw):
    """Kernels of a few rows over one input channel, in images and in every slice of volumes."""
    kernel = draw(st.sampled_from(((2, 1), (3, 3), (3, 2), (2, 4), (5, 5), (4, 7), (7, 3), (3, 15))))
    axes = _axes(draw, 2, {2: 1}, {2: 70}, (1, 1, 2), draw(st.sampled_from((0, 3, 9))))
    axes = [
        (max(1, size + dilation * (k - 1) - draw(st.integers(0, 4))), k, stride, dilation, pads)
        for k, (size, _, stride, dilation, pads) in zip(kernel, axes, strict=True)
    ]
    assume(all(size + sum(pads) > dilation * (k - 1) for size, k, _, dilation, pads in axes))
    if draw(st.booleans()):
        axes.insert(0, (draw(st.integers(1, 3)), 1, 1, 1, (0, 0)))
    return _spec(draw, draw(st.integers(1, 4)), 1, draw(st.integers(1, 2)), axes)


@st.composite
def separable_specs(draw):
    """Images and volumes of any kernel: of full rank, which is several terms."""
    ndim, groups = draw(st.integers(2, 3)), draw(st.sampled_from((1, 1, 3)))
    axes = _axes(draw, ndim, {2: 24, 3: 4}, {2: 90, 3: 9}, (1, 1, 1, 2, 3, 9), draw(st.sampled_from((0, 2, 20))))
    axes = [axis if n < ndim - 1 else (axis[0] + axis[1] * axis[3], *axis[1:]) for n, axis in enumerate(axes)]
    return _spec(draw, groups, draw(st.integers(1, 2)), draw(st.integers(1, 2)), axes)


@st.composite
def winograd_specs(draw):
    """Strides to four, dilation 1, up to seven taps; also slices of volumes."""
    ndim, groups = draw(st.integers(1, 2)), draw(st.sampled_from((1, 1, 2, 3)))
    strides = draw(st.sampled_from(((1,), (1, 2, 3, 4))))
    axes = _axes(draw, ndim, {1: 7, 2: 7}, {1: 200, 2: 30}, strides, draw(st.sampled_from((0, 1, 3))))
    axes = [(max(size, 1 + k - sum(pads)), k, s, 1, pads) for size, k, s, _, pads in axes]
    filters = draw(st.sampled_from((1, 3, 8, 13, 30)))
    if ndim == 2 and draw(st.booleans()):
        axes.insert(0, (draw(st.integers(1, 3)), 1, 1, 1, (0, 0)))
    return _spec(draw, groups, draw(st.integers(1, 12)), filters, axes)


@st.composite
def cell_specs(draw):
    """Any stride, dilation and number of taps, volumes, both memory formats."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 3)))
    most_padding = draw(st.sampled_from((0, 3, 7)))
    axes = _axes(draw, ndim, {1: 12, 2: 6, 3: 3}, {1: 90, 2: 18, 3: 6}, (1, 1, 2, 3), most_padding)
    filters = draw(st.sampled_from((1, 3, 8, 17, 30)))
    return _spec(draw, groups, draw(st.integers(1, 20)), filters, axes, ("channels_first", "channels_last"))


@st.composite
def tile_specs(draw, channels):
    """Signals and images of one or a few tiles; with `channels`, several on one side at least."""
    ndim = draw(st.integers(1, 2))
    kernels = {1: draw(st.sampled_from((9, 300))), 2: draw(st.sampled_from((4, 30)))}
    axes = _axes(draw, ndim, kernels, {1: 900, 2: 60}, (1, 1, 1, 2, 5), draw(st.sampled_from((0, 3, 40))))
    if not channels:
        return _spec(draw, draw(st.integers(1, 3)), 1, 1, axes)
    return _spec(draw, draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(2, 9)), axes)


def _spec(draw, groups, channels, filters, axes, formats=("channels_first",)):
    spatial, kernel, stride, dilation, padding = zip(*axes, strict=True)
    return ConvSpec(
        draw(st.integers(1, 3)),
        groups * channels,
        groups * filters,
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        dtype=draw(st.sampled_from(("float32", "float64"))),
        memory_format=draw(st.sampled_from(formats)),
    )
