"""Other libraries, called for the same convolution on the same arrays: all optional.

A `Peer` prepares a call that does no more than compute: models are built, arrays converted and memory
formats changed before.  Every one is asked for the same number of threads.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from convbench.spec import ConvSpec

Call = Callable[[], object]
_SINGLE = "float32"  # what the graph runtimes are built for


class Peer:
    """A library's way to compute a convolution.

    Attributes
    ----------
    name : str
    modules : tuple of str
        What has to be installed.
    """

    name: str
    modules: tuple[str, ...]

    def installed(self) -> str | None:
        """The version of the library, or None where it cannot be imported."""
        try:
            found = [importlib.import_module(module) for module in self.modules]
        except ImportError:
            return None
        return found[0].__version__

    def session(self, threads: int) -> contextlib.AbstractContextManager:
        """A block in which the library uses that many threads."""
        return contextlib.nullcontext()

    def prepare(self, spec: ConvSpec, x: np.ndarray, weight: np.ndarray, threads: int) -> Call | None:
        """A call that returns the output, as anything that `numpy.asarray` takes, or None where there is no way to.

        Parameters
        ----------
        spec : ConvSpec
        x, weight : ndarray
            Of ``spec.input_shape`` and ``spec.weight_shape``.
        threads : int
        """
        raise NotImplementedError


class Torch(Peer):
    """PyTorch, the arrays in the problem's own memory format."""

    name = "torch"
    modules = ("torch",)

    @contextlib.contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """No gradients, that many threads."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    def prepare(self, spec, x, weight, threads):
        """``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``."""
        import torch

        return self._call(spec, torch.from_numpy(x), torch.from_numpy(weight))

    def _call(self, spec, x, weight):
        from torch.nn import functional

        conv = getattr(functional, f"conv{spec.ndim}d")
        low, options = _lows(spec), {"stride": spec.stride, "dilation": spec.dilation, "groups": spec.groups}
        if low == _highs(spec):
            return lambda: conv(x, weight, padding=low, **options)
        both = [size for pair in reversed(spec.padding) for size in pair]
        return lambda: conv(functional.pad(x, both), weight, **options)


class TorchChannelsLast(Torch):
    """PyTorch with input, weight and output in its channels-last format."""

    name = "torch channels-last"

    def prepare(self, spec, x, weight, threads):
        """The arrays are converted before: what a network that stays in this format pays."""
        import torch

        if spec.ndim == 1:
            return None
        layout = torch.channels_last if spec.ndim == 2 else torch.channels_last_3d
        arrays = (torch.from_numpy(array).to(memory_format=layout) for array in (x, weight))
        return self._call(spec, *arrays)


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider, a graph of one Conv with constant weights."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")

    def prepare(self, spec, x, weight, threads):
        """A session for the one node."""
        import onnxruntime

        if spec.dtype != _SINGLE:
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(_onnx_model(spec, weight), options, providers=["CPUExecutionProvider"])
        inputs = {"x": np.ascontiguousarray(x)}
        return lambda: session.run(None, inputs)[0]


def _onnx_model(spec, weight):
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=spec.stride,
        pads=_lows(spec) + _highs(spec),
        dilations=spec.dilation,
        group=spec.groups,
        kernel_shape=spec.kernel,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, spec.input_shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, spec.output_shape)
    graph = helper.make_graph([node], "conv", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


class OpenVino(Peer):
    """OpenVINO's CPU plug-in, a compiled model of one convolution with constant weights."""

    name = "openvino"
    modules = ("openvino",)

    def prepare(self, spec, x, weight, threads):
        """A request whose input is the array itself."""
        import openvino

        if spec.dtype != _SINGLE or spec.ndim == 1:
            return None
        hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(_openvino_model(spec, weight), "CPU", hints)
        request = compiled.create_infer_request()
        dense = np.ascontiguousarray(x)  # the tensor borrows its memory, so the call must keep it
        request.set_input_tensor(openvino.Tensor(dense, shared_memory=True))

        def call(_borrowed=dense):
            request.infer()
            return request.get_output_tensor().data

        return call


def _openvino_model(spec, weight):
    import openvino
    from openvino import opset13 as operations

    x = operations.parameter(list(spec.input_shape), np.float32)
    geometry = (list(spec.stride), list(_lows(spec)), list(_highs(spec)), list(spec.dilation))
    if spec.groups == 1:
        y = operations.convolution(x, operations.constant(weight), *geometry)
    else:
        grouped = weight.reshape(spec.groups, -1, *weight.shape[1:])
        y = operations.group_convolution(x, operations.constant(grouped), *geometry)
    return openvino.Model([y], [x])


class OpenCV(Peer):
    """OpenCV's ``filter2D``: one channel, odd kernels, zeros around."""

    name = "opencv"
    modules = ("cv2",)

    @contextlib.contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """OpenCV's own pool, with that many threads."""
        import cv2

        before = cv2.getNumThreads()
        cv2.setNumThreads(threads)
        try:
            yield
        finally:
            cv2.setNumThreads(before)

    def prepare(self, spec, x, weight, threads):
        """Without conversion: the channel is OpenCV's image."""
        import cv2

        odd = all(size % 2 for size in spec.kernel)
        if spec.ndim != 2 or _mode(spec) != "same" or not odd:
            return None
        image, kernel = x[0, 0], weight[0, 0]
        return lambda: cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)[None, None]


class OpenCVSeparable(OpenCV):
    """OpenCV's ``sepFilter2D``, told that the kernel is a product; ``GaussianBlur`` takes as long."""

    name = "opencv separable"

    def prepare(self, spec, x, weight, threads):
        """The factors are found before."""
        import cv2

        factors = _factors(weight[0, 0])
        if super().prepare(spec, x, weight, threads) is None or factors is None:
            return None
        image, (column, row) = x[0, 0], factors
        return lambda: cv2.sepFilter2D(image, -1, row, column, borderType=cv2.BORDER_CONSTANT)[None, None]


class SciPySeparable(Peer):
    """``scipy.ndimage.correlate1d`` along both axes, as its Gaussian filter does."""

    name = "scipy separable"
    modules = ("scipy",)

    def prepare(self, spec, x, weight, threads):
        """The factors are found before."""
        from scipy import ndimage

        factors = _factors(weight[0, 0])
        if spec.ndim != 2 or _mode(spec) != "same" or factors is None:
            return None
        image, (column, row) = x[0, 0], factors

        def both():
            lines = ndimage.correlate1d(image, row, 1, mode="constant")
            return ndimage.correlate1d(lines, column, 0, mode="constant")[None, None]

        return both


def _factors(kernel):
    """Column and row of a kernel that is their product, those through its largest element; None for any other."""
    if kernel.ndim != 2:
        return None
    i, j = np.unravel_index(np.abs(kernel).argmax(), kernel.shape)
    column, row = np.ascontiguousarray(kernel[:, j]), kernel[i] / kernel[i, j]
    return (column, row) if np.allclose(np.outer(column, row), kernel, rtol=1e-5, atol=0) else None


class NumPy(Peer):
    """``numpy.convolve``: one channel, one dimension."""

    name = "numpy"
    modules = ("numpy",)

    def prepare(self, spec, x, weight, threads):
        """The taps are reversed before."""
        mode = _mode(spec)
        if spec.ndim != 1 or mode is None:
            return None
        signal, taps = x[0, 0], np.ascontiguousarray(weight[0, 0, ::-1])
        return lambda: np.convolve(signal, taps, mode)[None, None]


class SciPy(Peer):
    """A function of ``scipy.signal``: one channel, with ``scipy.fft`` on all threads."""

    modules = ("scipy",)

    def __init__(self, function: str):
        self.name, self._function = f"scipy {function}", function

    def session(self, threads: int):
        """Transforms on that many threads; the direct method has one."""
        from scipy import fft

        return fft.set_workers(threads)

    def prepare(self, spec, x, weight, threads):
        """The kernel is reversed before."""
        from scipy import signal

        mode = _mode(spec)
        if mode is None:
            return None
        function, image = getattr(signal, self._function), x[0, 0]
        kernel = np.ascontiguousarray(np.flip(weight[0, 0]))
        return lambda: function(image, kernel, mode)[None, None]


class SciPyImage(Peer):
    """``scipy.ndimage.correlate``: one channel, zeros around."""

    name = "scipy ndimage"
    modules = ("scipy",)

    def prepare(self, spec, x, weight, threads):
        """As the definition has it: no reversal."""
        from scipy import ndimage

        if _mode(spec) != "same":
            return None
        image, kernel = x[0, 0], weight[0, 0]
        return lambda: ndimage.correlate(image, kernel, mode="constant")[None, None]


class Direct(Peer):
    """This library's own engine `direct`: what its other engines are compared with."""

    name = "direct engine"
    modules = ("convbench",)

    def prepare(self, spec, x, weight, threads):
        """A planned layer at its best."""
        from convbench import conv

        layer = (conv.Conv1d, conv.Conv2d, conv.Conv3d)[spec.ndim - 1](
            weight,
            stride=spec.stride,
            padding=spec.padding,
            dilation=spec.dilation,
            groups=spec.groups,
            engine="direct",
            tuning="measure",
        )
        return lambda: layer(x)


PEERS = (
    Torch(),
    TorchChannelsLast(),
    OnnxRuntime(),
    OpenVino(),
    OpenCV(),
    OpenCVSeparable(),
    NumPy(),
    SciPy("convolve"),
    SciPy("oaconvolve"),
    SciPyImage(),
    SciPySeparable(),
    Direct(),
)


def installed(peers: tuple[Peer, ...] = PEERS) -> tuple[tuple[Peer, ...], dict[str, str | None]]:
    """The peers that can be imported, and every peer's version (None: not installed)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own, about each other
        versions = {peer.name: peer.installed() for peer in peers}
    return tuple(peer for peer in peers if versions[peer.name]), versions


def _lows(spec):
    return tuple(low for low, _ in spec.padding)


def _highs(spec):
    return tuple(high for _, high in spec.padding)


def _mode(spec) -> str | None:
    """SciPy's name of what is kept of a single channel's convolution, or None where it has none."""
    single = spec.batch == spec.in_channels == spec.out_channels == 1
    ones = (1,) * spec.ndim
    fits = all(size >= k for size, k in zip(spec.spatial, spec.kernel, strict=True))
    if not single or not fits or spec.stride != ones or spec.dilation != ones:
        return None
    modes = {
        "same": tuple((k // 2, k - 1 - k // 2) for k in spec.kernel),
        "full": tuple((k - 1, k - 1) for k in spec.kernel),
        "valid": tuple((0, 0) for _ in spec.kernel),
    }
    return next((mode for mode, padding in modes.items() if padding == spec.padding), None)
