"""Libraries for images and signals of one channel: OpenCV, NumPy, SciPy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from convbench.peers.library import Loaded, Peer

REALS = ("float32", "float64")


class OneChannel(Peer):
    """A library that knows one channel, and paddings by name.

    Attributes
    ----------
    dimensions : tuple of int
        Of the problems it is called for.
    modes : tuple of str
        SciPy's names of what it keeps of the whole convolution.
    """

    dtypes = REALS
    dimensions: tuple[int, ...] = (1, 2, 3)
    modes: tuple[str, ...] = ("same", "full", "valid")

    def why_unsupported(self, spec):
        """One image of one channel, stride and dilation 1, a padding that has a name."""
        if spec.ndim not in self.dimensions:
            return f"{self.name} is called for {_listed(self.dimensions)} dimensions, not for {spec.ndim}"
        if not spec.batch == spec.in_channels == spec.out_channels == 1:
            return f"{self.name} knows one image of one channel, not {spec.batch} of {spec.in_channels} channels"
        if mode_of(spec) not in self.modes:
            return (
                f"{self.name} keeps what it calls {_listed(self.modes)}, at stride and dilation 1, of an input as "
                "large as the kernel at least"
            )
        return super().why_unsupported(spec)


class OpenCV(OneChannel):
    """OpenCV's ``filter2D``: odd kernels, zeros around."""

    name = "opencv"
    modules = ("cv2",)
    dimensions = (2,)
    modes = ("same",)

    @contextlib.contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """OpenCV's own pool, with that many threads."""
        import cv2

        before = cv2.getNumThreads()
        if before != threads:
            cv2.setNumThreads(threads)
        try:
            yield
        finally:
            if before != threads:
                cv2.setNumThreads(before)

    def why_unsupported(self, spec):
        """As any library of one channel, and its kernels have a middle."""
        if any(size % 2 == 0 for size in spec.kernel):
            return f"{self.name} is called with odd kernels, not with {spec.kernel}"
        return super().why_unsupported(spec)

    def load(self, spec, weight, threads):
        """Without conversion: the channel is OpenCV's image."""
        import cv2

        kernel, border = weight[0, 0], cv2.BORDER_CONSTANT
        return Loaded(
            lambda image: cv2.filter2D(image, -1, kernel, borderType=border)[None, None],
            _channel,
            lambda image, out: cv2.filter2D(image, -1, kernel, dst=out[0, 0], borderType=border),
        )


class OpenCVSeparable(OpenCV):
    """OpenCV's ``sepFilter2D``, told that the kernel is a product; ``GaussianBlur`` takes as long."""

    name = "opencv separable"

    def load(self, spec, weight, threads):
        """The factors are found before."""
        import cv2

        factors = _factors(weight[0, 0])
        if factors is None:
            return None
        (column, row), border = factors, cv2.BORDER_CONSTANT
        return Loaded(lambda image: cv2.sepFilter2D(image, -1, row, column, borderType=border)[None, None], _channel)


class NumPy(OneChannel):
    """``numpy.convolve``."""

    name = "numpy"
    modules = ("numpy",)
    dimensions = (1,)

    def load(self, spec, weight, threads):
        """The taps are reversed before."""
        mode, taps = mode_of(spec), np.ascontiguousarray(weight[0, 0, ::-1])
        return Loaded(lambda signal: np.convolve(signal, taps, mode)[None, None], _channel)


class SciPy(OneChannel):
    """A function of ``scipy.signal``, with ``scipy.fft`` on all threads."""

    modules = ("scipy",)

    def __init__(self, function: str, name: str = ""):
        self.name, self._function = name or f"scipy {function}", function

    def session(self, threads: int):
        """Transforms on that many threads; the direct method has one."""
        from scipy import fft

        return fft.set_workers(threads)

    def load(self, spec, weight, threads):
        """The kernel is reversed before."""
        from scipy import signal

        function, mode = getattr(signal, self._function), mode_of(spec)
        kernel = np.ascontiguousarray(np.flip(weight[0, 0]))
        return Loaded(lambda image: function(image, kernel, mode)[None, None], _channel)


class SciPyImage(OneChannel):
    """``scipy.ndimage.correlate``: zeros around."""

    name = "scipy ndimage"
    modules = ("scipy",)
    modes = ("same",)

    def load(self, spec, weight, threads):
        """As the definition has it: no reversal."""
        from scipy import ndimage

        kernel = weight[0, 0]
        return Loaded(lambda image: ndimage.correlate(image, kernel, mode="constant")[None, None], _channel)


class SciPySeparable(OneChannel):
    """``scipy.ndimage.correlate1d`` along both axes, as its Gaussian filter does."""

    name = "scipy separable"
    modules = ("scipy",)
    dimensions = (2,)
    modes = ("same",)

    def load(self, spec, weight, threads):
        """The factors are found before."""
        from scipy import ndimage

        factors = _factors(weight[0, 0])
        if factors is None:
            return None
        column, row = factors

        def both(image):
            lines = ndimage.correlate1d(image, row, 1, mode="constant")
            return ndimage.correlate1d(lines, column, 0, mode="constant")[None, None]

        return Loaded(both, _channel)


def mode_of(spec) -> str | None:
    """SciPy's name of what is kept of a single channel's convolution, or None where it has none."""
    ones = (1,) * spec.ndim
    fits = all(size >= k for size, k in zip(spec.spatial, spec.kernel, strict=True))
    if not fits or spec.stride != ones or spec.dilation != ones:
        return None
    modes = {
        "same": tuple((k // 2, k - 1 - k // 2) for k in spec.kernel),
        "full": tuple((k - 1, k - 1) for k in spec.kernel),
        "valid": tuple((0, 0) for _ in spec.kernel),
    }
    return next((mode for mode, padding in modes.items() if padding == spec.padding), None)


def _channel(x):
    return x[0, 0]


def _factors(kernel):
    """Column and row of a kernel that is their product, those through its largest element; None for any other."""
    i, j = np.unravel_index(np.abs(kernel).argmax(), kernel.shape)
    column, row = np.ascontiguousarray(kernel[:, j]), kernel[i] / kernel[i, j]
    return (column, row) if np.allclose(np.outer(column, row), kernel, rtol=1e-5, atol=0) else None


def _listed(names):
    return " or ".join(map(str, names))
