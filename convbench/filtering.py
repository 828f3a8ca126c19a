"""``convbench run``: filter an image with the engine that the judge picks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convbench import images, kernels
from convbench.conv import Conv2d
from convbench.timing import Timing, interleaved

VALUES = ("auto", "clip", "abs", "signed")
TIMING_SECONDS = 0.3
_ZERO_SUM = 1e-6  # of the absolute sum: rounding's share in a kernel that sums to zero


@dataclass(frozen=True)
class Filtered:
    """A filtered image, and how it was computed."""

    image: np.ndarray
    selection: object
    timing: Timing


def read_kernel(text: str) -> np.ndarray:
    """A kernel by name, or from a ``.npy`` file of shape (height, width).

    Raises
    ------
    ValueError
        Neither; the message says what is accepted.
    """
    if not text.endswith(".npy"):
        try:
            return kernels.named(text, "float32")
        except ValueError as error:
            raise ValueError(f"{error}, and files .npy of shape (height, width)") from None
    try:
        kernel = np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"kernel {text!r} cannot be read ({reason}); a .npy file of shape (height, width) is accepted"
        ) from None
    if kernel.ndim != 2 or kernel.dtype.kind not in "biuf" or not kernel.size:
        raise ValueError(
            f"kernel {text!r} holds {kernel.dtype} of shape {kernel.shape}; "
            "real numbers of shape (height, width) are accepted"
        )
    return kernel.astype("float32")


def filter_image(
    image: np.ndarray, kernel: np.ndarray, *, padding_mode="replicate", engine="auto", flip=False
) -> Filtered:
    """Apply `kernel` to every channel, the output as large as the input.

    Parameters
    ----------
    image : ndarray, (C, H, W), float32
    kernel : ndarray, (height, width)
    padding_mode, engine, flip
        As ``convbench.conv2d`` takes them.
    """
    channels = len(image)
    weight = np.repeat(kernel.astype(image.dtype)[np.newaxis, np.newaxis], channels, axis=0)
    layer = Conv2d(weight, padding="same", groups=channels, padding_mode=padding_mode, engine=engine, flip=flip)
    out = layer(image)
    timing = interleaved({"call": lambda: layer(image, out=out)}, TIMING_SECONDS)["call"]
    return Filtered(out, layer.selection(image.shape), timing)


def displayed(image: np.ndarray, kernel: np.ndarray, values: str = "auto") -> tuple[np.ndarray, str]:
    """Values brought into [0, 1], and a word on how.

    ``clip`` cuts, ``abs`` shows magnitudes (the largest white), ``signed`` maps 0 to mid grey;
    ``auto`` is signed for a kernel that sums to zero and clip for any other.
    """
    if values == "auto":
        derivative = abs(kernel.sum()) <= _ZERO_SUM * np.abs(kernel).sum()
        values = "signed" if derivative else "clip"
    largest = float(np.abs(image).max(initial=0)) or 1.0
    if values == "abs":
        return np.abs(image) / largest, f"magnitudes, white is {largest:.3g}"
    if values == "signed":
        return 0.5 + image / (2 * largest), f"mid grey is 0, white is {largest:.3g}"
    return np.clip(image, 0, 1), "clipped to [0, 1]"


@dataclass(frozen=True)
class Done:
    """What `run` did; it prints as two lines.

    Attributes
    ----------
    output : Path
    width, height, channels : int
        Of the image.
    kernel : str
        As given.
    kernel_shape : tuple of int
    values : str
        How values became brightness, in words.
    engine, source : str
        Which engine computed it, and where the choice came from.
    timing : Timing
    """

    output: Path
    width: int
    height: int
    channels: int
    kernel: str
    kernel_shape: tuple[int, int]
    values: str
    engine: str
    source: str
    timing: Timing

    def __str__(self):
        size = " × ".join(map(str, self.kernel_shape))
        image = f"{self.width} × {self.height} × {self.channels}"
        median, q1, q3 = (f"{seconds * 1e3:.3g}" for seconds in (self.timing.median, self.timing.q1, self.timing.q3))
        return (
            f"{self.output}: {image} with {self.kernel} ({size}), {self.values}\n"
            f"engine {self.engine} ({self.source}), {median} ms a call (quartiles {q1} to {q3})"
        )


def run(image_path: Path, kernel_text: str, output: Path, *, values="auto", **options) -> Done:
    """Read, filter, write; returns what to tell."""
    kernel = read_kernel(kernel_text)
    image = images.load(image_path)
    found = filter_image(image, kernel, **options)
    shown, how = (found.image, "as computed") if output.suffix == ".npy" else displayed(found.image, kernel, values)
    images.save(output, shown)
    channels, height, width = image.shape
    chosen = found.selection
    return Done(
        output, width, height, channels, kernel_text, kernel.shape, how, chosen.engine, chosen.source, found.timing
    )
