"""Sizes on paper: what comes out, how many parameters, and how far an output sees.

    output          floor((in + low + high - d·(k - 1) - 1) / s) + 1        per axis
    parameters      O · C/groups · prod(kernel), and O more for a bias
    receptive field 1 + sum over layers l of  d_l · (k_l - 1) · s_1 ⋯ s_{l-1}

The last is 1 + L·(K - 1) for L layers of kernel K with stride 1 (the rule with strides and
dilations: A. Araujo, W. Norris, J. Sim, Computing Receptive Fields, Distill 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from convbench.padding import resolve
from convbench.spec import ConvSpec, extent, per_dimension

LAYER_FIELDS = ("kernel", "stride", "dilation")


def output_shape(input_shape, weight_shape, stride=1, padding=0, dilation=1, groups=1) -> tuple[int, ...]:
    """The shape of ``conv(input, weight, …)``.

    Parameters
    ----------
    input_shape : tuple of int
        (N, C, *spatial), or (C, *spatial) without a batch.
    weight_shape : tuple of int
        (O, C/groups, *kernel): six 5×5 filters on three channels are (6, 3, 5, 5).
    stride, dilation, groups : as in `convbench.conv2d`
    padding : int, tuple, (low, high) pairs, "valid", "same" or "full"
        "same" gives ceil(in / stride), see `convbench.padding`.

    Returns
    -------
    tuple of int
        (N, O, *output_spatial), or (O, *output_spatial) without a batch.

    Raises
    ------
    ValueError
        Shapes that clash; the message states both.

    Examples
    --------
    >>> output_shape((3, 32, 32), (6, 3, 5, 5))
    (6, 28, 28)
    >>> output_shape((1, 3, 100, 100), (32, 3, 5, 5), padding="same")
    (1, 32, 100, 100)
    """
    input_shape, weight_shape = tuple(input_shape), tuple(weight_shape)
    ndim = len(weight_shape) - 2
    if ndim < 1:
        raise ValueError(
            f"weight shape {weight_shape} has {len(weight_shape)} dimensions; (O, C/groups, *kernel) is accepted"
        )
    if len(input_shape) not in (ndim + 1, ndim + 2):
        raise ValueError(
            f"input shape {input_shape} has {len(input_shape)} dimensions, weight shape {weight_shape} has {ndim} "
            f"spatial ones; an input of {ndim + 2}, or {ndim + 1} without a batch, is accepted"
        )
    batched = len(input_shape) == ndim + 2
    stride = per_dimension("stride", stride, ndim, 1)
    dilation = per_dimension("dilation", dilation, ndim, 1)
    spec = ConvSpec.from_shapes(
        input_shape if batched else (1, *input_shape),
        weight_shape,
        stride=stride,
        padding=resolve(padding, input_shape[-ndim:], weight_shape[2:], stride, dilation),
        dilation=dilation,
        groups=groups,
    )
    return spec.output_shape if batched else spec.output_shape[1:]


def parameter_count(weight_shape, bias=True) -> int:
    """Trainable numbers of a layer.

    Parameters
    ----------
    weight_shape : tuple of int
        (O, C/groups, *kernel).
    bias : bool, default True
        Whether each of the O outputs has one.

    Raises
    ------
    ValueError
        Fewer than two dimensions, or a negative size.

    Examples
    --------
    32 kernels of 5×5 on 3 channels: 5 · 5 · 3 · 32 + 32.

    >>> parameter_count((32, 3, 5, 5))
    2432
    """
    sizes = tuple(weight_shape)
    if len(sizes) < 2:
        raise ValueError(f"weight shape {sizes} has {len(sizes)} dimensions; (O, C/groups, *kernel) is accepted")
    sizes = per_dimension("weight shape", sizes, len(sizes), 0)
    return math.prod(sizes) + (sizes[0] if bias else 0)


def receptive_field(layers) -> int | tuple[int, ...]:
    """Input positions, per dimension, that one output of a stack of layers depends on.

    Parameters
    ----------
    layers : sequence
        From input to output.  Each is a kernel size, a tuple (kernel, stride, dilation) whose last
        ones may be left out, a mapping with those names, or anything with these attributes: a
        `ConvSpec`, a `convbench.Conv2d`.  A size is an int or one per dimension.  A pooling layer
        counts like a convolution of its window.

    Returns
    -------
    int or tuple of int
        A tuple when any layer gives its sizes per dimension.  Of no layers it is 1.

    Raises
    ------
    ValueError
        A layer of unknown form, or layers of different dimensions.

    Examples
    --------
    >>> receptive_field([3, 3, 3])
    7
    >>> receptive_field([(7, 2), {"kernel": 3, "stride": 2}, (3, 1, 2)])
    27
    >>> receptive_field([(3, 1), ((3, 5), 1)])
    (5, 7)
    """
    layers = [_layer(layer) for layer in layers]
    ranks = {len(size) for layer in layers for size in layer if isinstance(size, (tuple, list))}
    if len(ranks) > 1:
        raise ValueError(f"layers of {' and '.join(map(str, sorted(ranks)))} dimensions cannot follow each other")
    ndim = max(ranks, default=1)
    field, jump = [1] * ndim, [1] * ndim
    for layer in layers:
        sizes = (per_dimension(name, size, ndim, 1) for name, size in zip(LAYER_FIELDS, layer, strict=True))
        for axis, (kernel, stride, dilation) in enumerate(zip(*sizes, strict=True)):
            field[axis] += (extent(kernel, dilation) - 1) * jump[axis]
            jump[axis] *= stride
    return tuple(field) if ranks else field[0]


def products_inside(spec: ConvSpec) -> int:
    """Products of one batch item that read an element of the input, those with padding zeros left out.

    It is the number of stored entries of `convbench.matrices.correlation_matrix`, counted without
    building anything.  Circular padding holds elements of the input, too.
    """
    spec = spec.padded()
    return spec.out_channels * spec.weight_shape[1] * math.prod(pairs_inside(spec))


def pairs_inside(spec: ConvSpec) -> list[int]:
    """For each axis the pairs (output, tap) that read an element of the input, those with padding zeros left out."""
    counts = []
    axes = zip(spec.spatial, spec.output_spatial, spec.kernel, spec.stride, spec.dilation, spec.padding, strict=True)
    for size, outputs, kernel, stride, dilation, (low, _) in axes:
        # Output p reads tap t inside the input for 0 <= p·s + t·d - low < size.
        offsets = [low - tap * dilation for tap in range(kernel)]
        first = (max(0, -(-offset // stride)) for offset in offsets)
        end = (min(outputs, -(-(size + offset) // stride)) for offset in offsets)
        counts.append(sum(max(0, e - f) for f, e in zip(first, end, strict=True)))
    return counts


def _layer(layer):
    """(kernel, stride, dilation) of a layer in any of the accepted forms."""
    if isinstance(layer, Mapping):
        unknown = sorted(set(layer) - set(LAYER_FIELDS), key=str)
        if unknown or "kernel" not in layer:
            raise ValueError(
                f"layer {layer!r} has {', '.join(map(str, layer)) or 'no fields'}; kernel, and if need be "
                "stride and dilation, are accepted"
            )
        return layer["kernel"], layer.get("stride", 1), layer.get("dilation", 1)
    if isinstance(layer, (tuple, list)):
        if not 1 <= len(layer) <= len(LAYER_FIELDS):
            raise ValueError(f"layer {layer!r} has {len(layer)} entries; (kernel, stride, dilation) is accepted")
        return (*layer, *(1,) * (len(LAYER_FIELDS) - len(layer)))
    if all(hasattr(layer, name) for name in LAYER_FIELDS):
        return layer.kernel, layer.stride, layer.dilation
    return layer, 1, 1
