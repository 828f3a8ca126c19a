"""Padding: how much on which side, and what with.

"same" gives an output of ceil(in / stride) elements; when the padding is odd, the extra element
goes to the high side.  That is PyTorch's rule (which accepts stride 1 only), TensorFlow's
``SAME`` and ONNX' ``SAME_UPPER``; ONNX' ``SAME_LOWER`` and SciPy's ``mode="same"`` put the extra
on the low side instead: write ``padding=((k // 2, (k - 1) // 2),)`` for those.

An input is copied into a longer one for every mode but zeros, and but for circular padding where an
engine computes it without any (`convbench.Engine.circular`).

"valid" is no padding, "full" is every position where window and input overlap:
dilation·(k - 1) on both sides.
"""

from __future__ import annotations

import numpy as np

from convbench.spec import extent, padding_pairs

NAMED_PADDING = ("same", "valid", "full")

MODE_ALIASES = {
    "zeros": ("zero", "constant", "fill", "grid-constant", "border_constant"),
    "replicate": ("edge", "nearest", "border_replicate"),
    "reflect": ("mirror", "reflect101", "reflect_101", "border_reflect_101", "border_reflect101", "border_default"),
    "symmetric": ("symm", "grid-mirror", "border_reflect"),
    "circular": ("wrap", "grid-wrap", "border_wrap"),
}
"""Padding modes and the names that other libraries have for them, in any case of letters.

| mode | pads ``a b c d`` to | NumPy | scipy.signal | scipy.ndimage | OpenCV |
|---|---|---|---|---|---|
| zeros | 0 0 a b c d 0 0 | constant | fill | constant, grid-constant | BORDER_CONSTANT |
| replicate | a a a b c d d d | edge | | nearest | BORDER_REPLICATE |
| reflect | c b a b c d c b | reflect | | mirror | BORDER_REFLECT_101, BORDER_DEFAULT |
| symmetric | b a a b c d d c | symmetric | symm | grid-mirror | BORDER_REFLECT |
| circular | c d a b c d a b | wrap | wrap | grid-wrap, wrap | BORDER_WRAP |

``reflect`` alone is NumPy's and PyTorch's, which does not repeat the edge; scipy.ndimage's
``reflect`` is ``symmetric`` here.
"""

_NUMPY_MODES = {"replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
_BY_NAME = {name: mode for mode, aliases in MODE_ALIASES.items() for name in (mode, *aliases)}


def canonical_mode(name: str) -> str:
    """The padding mode that `name` is an alias of; ValueError with every accepted name."""
    mode = _BY_NAME.get(name.lower()) if isinstance(name, str) else None
    if mode is None:
        raise ValueError(f"padding_mode {name!r} is unknown; accepted are {', '.join(_BY_NAME)}")
    return mode


def resolve(padding, spatial, kernel, stride, dilation) -> tuple[tuple[int, int], ...]:
    """Padding as (low, high) per dimension.

    Parameters
    ----------
    padding : int, tuple of int, tuple of (low, high), or {"same", "valid", "full"}
    spatial, kernel, stride, dilation : tuple of int
        One entry per spatial dimension.

    Raises
    ------
    ValueError
        An unknown name, the wrong number of entries, or a negative one.
    """
    if not isinstance(padding, str):
        return padding_pairs(padding, len(spatial))
    if padding == "valid":
        return ((0, 0),) * len(spatial)
    spans = [extent(k, d) for k, d in zip(kernel, dilation, strict=True)]
    if padding == "full":
        return tuple((span - 1, span - 1) for span in spans)
    if padding == "same":
        pairs = []
        for size, span, s in zip(spatial, spans, stride, strict=True):
            total = max((-(-size // s) - 1) * s + span - size, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    raise ValueError(f"padding {padding!r} is unknown; an int, ints, (low, high) pairs or {NAMED_PADDING} are accepted")


def pad(x: np.ndarray, pairs, mode: str) -> np.ndarray:
    """`x` (N, C, *spatial) padded along its spatial axes by a canonical non-zero `mode`.

    As in NumPy, a reflection wider than the input continues back and forth, and a circular one
    goes round more than once.

    Raises
    ------
    ValueError
        A spatial axis is empty, so there is nothing to repeat.
    """
    for size, (low, high) in zip(x.shape[2:], pairs, strict=True):
        if size == 0 and low + high:
            raise ValueError(
                f"padding_mode {mode!r} cannot extend an axis of size 0 by ({low}, {high}); 'zeros' is accepted there"
            )
    return np.pad(x, ((0, 0), (0, 0), *pairs), mode=_NUMPY_MODES[mode])
