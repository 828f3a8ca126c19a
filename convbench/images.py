"""Images as arrays: (channels, height, width), float32 in [0, 1], one channel for grey and three for colour.

Needs pillow, which is imported when an image is read or written.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

ACCEPTED = "PNG, JPEG, TIFF, BMP, WebP and what else pillow reads, and .npy arrays (H, W) or (C, H, W)"
_GREY_MODES = {"1": 1, "L": 255, "LA": 255, "I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I": 65535, "F": 1}
_SAMPLE = ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


def load(path: str | Path) -> np.ndarray:
    """Read an image.

    Parameters
    ----------
    path : str or Path
        A camera's orientation mark is followed; transparency is dropped; a palette becomes colour.

    Returns
    -------
    ndarray, (1, H, W) or (3, H, W), float32
        Brightness from 0 to 1, as stored (no gamma is undone).

    Raises
    ------
    ValueError
        The file cannot be read as an image; the message says what is accepted.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _load_array(path)
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in _GREY_MODES:
                full = _GREY_MODES[image.mode]
                grey = image.convert("L") if image.mode == "LA" else image
                return np.asarray(grey, "float32")[np.newaxis] / np.float32(full)
            colour = np.asarray(image.convert("RGB"), "float32") / np.float32(255)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {str(path)!r} cannot be read ({_reason(error)}); {ACCEPTED} are accepted") from None
    return np.ascontiguousarray(np.moveaxis(colour, -1, 0))


def save(path: str | Path, image: np.ndarray) -> None:
    """Write (1, H, W) or (3, H, W) as 8-bit, values outside [0, 1] clipped; ``.npy`` keeps every bit.

    Raises
    ------
    ValueError
        The file cannot be written: its folder or its kind.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            np.save(path, image)
            return
        from PIL import Image

        levels = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype("uint8")
        Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)).save(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"image {str(path)!r} cannot be written ({_reason(error)}); .png, .jpg, .tif, .bmp, .webp or .npy "
            "in a folder that exists is accepted"
        ) from None


def sample_path() -> Path:
    """The photograph that the benchmarks take: Grace Hopper, 512×600, shipped with matplotlib."""
    package, inside = _SAMPLE
    found = importlib.util.find_spec(package)
    path = Path(found.origin).parent / inside if found and found.origin else None
    if path is None or not path.exists():
        raise ValueError(f"the sample photograph is {package}'s, which is not installed; give --image FILE")
    return path


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W) luma of an image (1 or 3 channels): 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""
    if len(image) == 1:
        return image[0]
    return np.tensordot(np.array([0.299, 0.587, 0.114], image.dtype), image, 1)


def resize(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) float32 resampled to (height, width) with pillow's Lanczos filter."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(plane, "float32"), mode=None)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS), "float32")


def _load_array(path):
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"image {str(path)!r} cannot be read ({_reason(error)}); {ACCEPTED} are accepted") from None
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or len(array) not in (1, 3) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"image {str(path)!r} holds {array.dtype} of shape {array.shape}; "
            "real numbers of shape (H, W), (1, H, W) or (3, H, W) are accepted"
        )
    full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
    return np.ascontiguousarray(array, "float32") / np.float32(full)


def _reason(error):
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = str(error).split(": ")[0] if isinstance(error, OSError) and error.errno else str(error)
    return error.strerror if isinstance(error, OSError) and error.strerror else text.splitlines()[0] if text else ""
