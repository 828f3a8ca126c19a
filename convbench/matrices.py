"""Convolution as a matrix: the sparse matrices that multiply vec(x), for study and for the engine `toeplitz`.

A correlation is linear in its input, so it is a matrix A with ``vec(y) = A · vec(x)``, where vec
lays an array out in C order.  Row (o, p) holds the weights ``w[o, c, t]`` in the columns
``(c, p·s + t·d - l)`` that lie inside the input:

- one signal, stride 1: A is Toeplitz, constant along each diagonal;
- one image: doubly block Toeplitz, Toeplitz blocks in a Toeplitz pattern of blocks;
- one image, periodic: doubly block circulant, which the 2-D DFT diagonalises: with F the DFT,
  ``A = F⁻¹ · diag(λ) · F`` and λ the kernel's spectrum (P. Davis, Circulant Matrices, §5.8).

Every matrix is a `scipy.sparse.csr_array` with sorted columns.  A zero of the kernel is a stored
entry like any other: 0 · NaN is NaN, in a sparse product as in a dense one.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from convbench.padding import resolve
from convbench.shapes import products_inside
from convbench.spec import ConvSpec, output_size, per_dimension


def correlation_matrix(spec: ConvSpec, weight) -> csr_array:
    """The matrix of one batch item of any problem.

    Parameters
    ----------
    spec : ConvSpec
        1-D, 2-D or 3-D, with any stride, dilation, groups and padding.  Its batch and memory
        format play no part.
    weight : array of shape ``spec.weight_shape``

    Returns
    -------
    csr_array
        Shape (O · prod(output_spatial), C · prod(spatial)), in the weight's dtype.  For ``x`` of
        shape (C, *spatial), ``(A @ x.ravel()).reshape(O, *output_spatial)`` is the output.  It stores
        `convbench.shapes.products_inside` entries.

    Raises
    ------
    ValueError
        The weight's shape is not the problem's, or its padding is not zeros.

    Examples
    --------
    >>> spec = ConvSpec(1, 1, 1, spatial=4, kernel=2)
    >>> correlation_matrix(spec, [[[-1, 1]]]).toarray()
    array([[-1,  1,  0,  0],
           [ 0, -1,  1,  0],
           [ 0,  0, -1,  1]])
    """
    weight = np.asarray(weight)
    if weight.shape != spec.weight_shape:
        raise ValueError(f"weight has shape {weight.shape}, the problem {spec} needs {spec.weight_shape}")
    if spec.padding_mode != "zeros":
        raise ValueError(
            f"problem {spec} has padding_mode {spec.padding_mode!r}; 'zeros' is accepted: take spec.padded()"
        )
    outputs, per_group, pixels = spec.out_channels, spec.weight_shape[1], int(np.prod(spec.spatial))
    columns_total = spec.in_channels * pixels
    index_type = _index_type(max(products_inside(spec), columns_total))
    position, inside = _windows(spec, index_type)
    taps = position.shape[1]
    # The entries of one output channel, in the order pixel, input channel, tap: columns ascend in each row.
    channel = np.arange(per_group, dtype=index_type)[:, None] * pixels
    chosen = np.broadcast_to(inside[:, None, :], (len(inside), per_group, taps))
    columns = (position[:, None, :] + channel)[chosen]
    lengths = np.tile(inside.sum(axis=1) * per_group, outputs)
    group = np.arange(outputs, dtype=index_type) // max(outputs // spec.groups, 1)
    indices = columns + (group * per_group * pixels)[:, None]
    which = np.broadcast_to(np.arange(per_group * taps).reshape(per_group, taps), chosen.shape)[chosen]
    values = np.take(weight.reshape(outputs, per_group * taps), which, axis=1)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(index_type)
    return csr_array((values.ravel(), indices.ravel(), starts), shape=(len(lengths), columns_total))


def toeplitz(values, size: int, *, of="kernel", stride=1, padding="valid", dilation=1, flip=False) -> csr_array:
    """The matrix of a 1-D correlation, from the kernel or from the signal.

    Parameters
    ----------
    values : array (n,)
        The kernel, or with ``of="signal"`` the signal.
    size : int
        Length of the other of the two.
    of : {"kernel", "signal"}, default "kernel"
        ``toeplitz(kernel, len(signal)) @ signal`` and ``toeplitz(signal, len(kernel), of="signal") @ kernel``
        are the same vector.
    stride, dilation : int, default 1
    padding : "valid", "same", "full", int or [(low, high)], default "valid"
        As in `convbench.conv1d`.
    flip : bool, default False
        True convolution: the kernel reversed.

    Returns
    -------
    csr_array
        Shape (outputs, size).  Of the kernel it is Toeplitz (with stride 1), flipped or not; of the
        signal it is Toeplitz when flipped and Hankel, constant along anti-diagonals, when not.

    Raises
    ------
    ValueError
        `values` is not 1-D, `of` is unknown, or the kernel does not fit.

    Examples
    --------
    >>> toeplitz([3, 2, 1], 5, padding="full", flip=True) @ np.array([1, 2, 3, 4, 5])
    array([ 3,  8, 14, 20, 26, 14,  5])
    """
    values = _array("kernel" if of == "kernel" else "signal", values, 1)
    if of not in ("kernel", "signal"):
        raise ValueError(f"of is {of!r}; 'kernel' and 'signal' are accepted")
    lengths = (size, len(values)) if of == "kernel" else (len(values), size)
    spec = _single_channel((lengths[0],), (lengths[1],), stride, padding, dilation)
    if of == "kernel":
        return correlation_matrix(spec, (values[::-1] if flip else values)[None, None])
    position, inside = _windows(spec, np.int64)
    if flip:
        position, inside = position[:, ::-1], inside[:, ::-1]
    starts = np.concatenate(([0], np.cumsum(inside.sum(axis=1))))
    return csr_array((values[position[inside]], np.nonzero(inside)[1], starts), shape=inside.shape)


def doubly_block_toeplitz(kernel, image_shape, *, stride=1, padding="valid", dilation=1, flip=False) -> csr_array:
    """The matrix of a 2-D correlation of an image with a kernel.

    Parameters
    ----------
    kernel : array (kh, kw)
    image_shape : (int, int)
        (h, w) of the image.
    stride, dilation : int or (int, int), default 1
    padding : "valid", "same", "full", int, (int, int) or ((low, high), (low, high)), default "valid"
        As in `convbench.conv2d`.
    flip : bool, default False
        True convolution: the kernel reversed along both axes.

    Returns
    -------
    csr_array
        Shape (oh · ow, h · w): oh × h blocks of ow × w elements each.  With stride 1 every block is
        Toeplitz, and blocks on one block diagonal are equal.  ``(A @ image.ravel()).reshape(oh, ow)``
        is the output.

    Raises
    ------
    ValueError
        The kernel is not 2-D, or larger than the padded image.
    """
    kernel = _array("kernel", kernel, 2)
    spec = _single_channel(per_dimension("image_shape", image_shape, 2, 0), kernel.shape, stride, padding, dilation)
    return correlation_matrix(spec, (kernel[::-1, ::-1] if flip else kernel)[None, None])


def doubly_block_circulant(kernel, image_shape, *, shift=0, flip=False) -> csr_array:
    """The matrix of a periodic 2-D correlation of an image with a kernel.

    Parameters
    ----------
    kernel : array (kh, kw)
        Larger than the image it wraps around, and what falls on one element adds up.
    image_shape : (int, int)
        (h, w) of the image, and of the output.
    shift : int or (int, int), default 0
        The tap that looks at the output's own position: output p is the sum over t of
        ``image[(p + t - shift) mod (h, w)] · kernel[t]``, with `flip` that of
        ``image[(p - t + shift) mod (h, w)] · kernel[t]``.
        A 3×3 kernel with shift 1 is ``conv2d(…, padding=1, padding_mode="circular")``.
    flip : bool, default False
        True convolution.

    Returns
    -------
    csr_array
        Shape (h · w, h · w): h × h circulant blocks of w × w elements, the blocks themselves in a
        circulant pattern.  The 2-D DFT diagonalises it.  With shift 0 its eigenvalues are, flipped, the
        2-D DFT of the kernel padded with zeros to the image's size, and that of a real kernel's
        conjugated when not flipped; a shift multiplies each by its phase.

    Raises
    ------
    ValueError
        The kernel or the image is not 2-D, or has no elements.
    """
    kernel = _array("kernel", kernel, 2)
    height, width = per_dimension("image_shape", image_shape, 2, 1)
    shift = per_dimension("shift", shift, 2, -max(height, width))
    sign = -1 if flip else 1
    rows, columns = (
        (np.arange(size)[:, None] + sign * (np.arange(taps) - low)) % size
        for size, taps, low in zip((height, width), kernel.shape, shift, strict=True)
    )
    # (output row, output column, kernel row, kernel column) -> the image element that is read
    column = rows[:, None, :, None] * width + columns[None, :, None, :]
    row = np.broadcast_to(np.arange(height * width).reshape(height, width, 1, 1), column.shape)
    values = np.broadcast_to(kernel, column.shape)
    return coo_array((values.ravel(), (row.ravel(), column.ravel())), shape=(height * width,) * 2).tocsr()


def _single_channel(spatial, kernel, stride, padding, dilation):
    """The spec of one image and one kernel."""
    ndim = len(spatial)
    kernel = per_dimension("kernel", kernel, ndim, 1)
    stride = per_dimension("stride", stride, ndim, 1)
    dilation = per_dimension("dilation", dilation, ndim, 1)
    pairs = resolve(padding, spatial, kernel, stride, dilation)
    return ConvSpec(1, 1, 1, spatial, kernel, stride=stride, padding=pairs, dilation=dilation, dtype="float64")


def _axes(spec, index_type):
    """Per axis: the input position (outputs, taps) that each output's tap reads, and whether it exists."""
    for size, kernel, stride, dilation, (low, high) in zip(
        spec.spatial, spec.kernel, spec.stride, spec.dilation, spec.padding, strict=True
    ):
        outputs = output_size(size, kernel, stride, dilation, low, high)
        position = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - low
        yield position.astype(index_type), (position >= 0) & (position < size)


def _windows(spec, index_type):
    """The same over all axes together: flat positions and their mask, (prod(output_spatial), prod(kernel))."""
    position, inside = np.zeros((1, 1), index_type), np.ones((1, 1), dtype=bool)
    for size, (axis_position, axis_inside) in zip(spec.spatial, _axes(spec, index_type), strict=True):
        shape = (len(position) * len(axis_position), position.shape[1] * axis_position.shape[1])
        position = (position[:, None, :, None] * size + axis_position[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & axis_inside[None, :, None, :]).reshape(shape)
    return position, inside


def _array(name, values, ndim):
    values = np.asarray(values)
    if values.ndim != ndim or not values.size:
        raise ValueError(
            f"{name} of shape {values.shape} has {values.ndim} dimensions; {ndim}, none of them 0, are needed"
        )
    return values


def _index_type(largest):
    """The narrowest index type SciPy's sparse arrays take."""
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64
