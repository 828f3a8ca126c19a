"""Other libraries as engines: what each promises, and the plan that calls it.

The predictions count operations: a library for networks multiplies whole vectors of output channels, so few
channels cost as much as many; the shares of the machine's peak are those of ``docs/performance.md``, rounded.
"""

from __future__ import annotations

import math
import os

from convbench import settings
from convbench.engine import UNROUNDED_GUARD, Engine, gamma, unit_roundoff
from convbench.peers.images import OpenCV, SciPy
from convbench.peers.library import Peer
from convbench.peers.networks import OnnxRuntime, OpenVino, Torch

# One level of a transform multiplies and adds: 7 roundings bound it (N. Higham, Accuracy and Stability, Theorem 24.2);
# a convolution takes three transforms.
TRANSFORM_ROUNDINGS = 3 * 7
FFT_FLOPS = 2.5  # of a real transform, per element and level
CALL_SECONDS = 5e-6  # of a library's own call, beside the planned call's
NETWORK_SHARE, PLAIN_SHARE, IMAGE_SHARE = 0.75, 0.35, 0.2  # of the peak: oneDNN or MLAS, a GEMM of patches, filter2D
PACKED_CHANNELS = 16  # oneDNN and MLAS keep channels in blocks of a vector


class PeerEngine(Engine):
    """A `Peer` as an engine; subclasses say what it promises."""

    peer: Peer
    _used_in: int | None = None  # the process that first planned with it, of the adapter's class

    def __init__(self, automatic: bool = False):
        self.name = self.peer.name
        self.automatic = automatic
        self.version = self.peer.installed() or "not installed"

    def why_unsupported(self, spec):
        """The library's own reason, no input without elements, and no process that would wait for ever."""
        if self._used_in not in (None, os.getpid()):
            return (
                f"{self.name}'s threads do not survive a fork: process {self._used_in} used them before {os.getpid()} "
                "was forked off; processes started by the method 'spawn' are accepted"
            )
        if 0 in spec.input_shape:
            return f"{self.name} is not called with an input without elements, as {spec.input_shape} is"
        return self.peer.why_unsupported(spec)

    def plan(self, spec, weight):
        """The library's call for this weight, on as many threads as are set now."""
        if not self.peer.survives_fork:
            type(self)._used_in = os.getpid()
        return _PeerPlan(self.peer, spec, weight)

    def workspace_bytes(self, spec):
        """As far as it is known: the weight and, packed or before it is copied, input and output."""
        sizes = (math.prod(shape) for shape in (spec.input_shape, spec.weight_shape, spec.output_shape))
        return sum(sizes) * spec.itemsize

    def predict_seconds(self, spec, machine):
        """The larger of arithmetic and traffic, and a call."""
        traffic = 2 * self.workspace_bytes(spec) * self._packing(spec) / machine.bandwidth
        return machine.call_seconds + CALL_SECONDS + max(self._arithmetic_seconds(spec, machine), traffic)

    def _packing(self, spec):
        """How many times the useful elements it computes."""
        return 1.0

    def _arithmetic_seconds(self, spec, machine):
        raise NotImplementedError


class _PeerPlan:
    def __init__(self, peer, spec, weight):
        self._peer, self._threads = peer, settings.get_num_threads()
        kept = weight.copy()
        with peer.session(self._threads):
            self._loaded = peer.load(spec, kept, self._threads)
        self.nbytes = 2 * kept.nbytes  # the copy, and the library's own

    def __call__(self, x, out):
        with self._peer.session(self._threads):
            self._loaded.into(x, out)


class _Network(PeerEngine):
    """Sums of products in an order of the library's: the bound of any order holds, whole numbers are exact."""

    exact_integers = True

    def _packing(self, spec):
        channels = spec.groups if spec.groups == spec.in_channels else spec.out_channels // spec.groups
        return -(-channels // PACKED_CHANNELS) * PACKED_CHANNELS / channels

    def _arithmetic_seconds(self, spec, machine):
        share = NETWORK_SHARE if spec.dtype == "float32" else PLAIN_SHARE
        dtype = "float64" if spec.dtype == "float64" else "float32"
        return 2 * spec.macs * self._packing(spec) / (share * machine.peak_flops(dtype))


class TorchEngine(_Network):
    """``torch.nn.functional.conv1d``, ``conv2d``, ``conv3d``, also in channels-last memory."""

    peer = Torch()
    summary = "PyTorch's convolution (oneDNN)"

    def takes_channels_last(self, spec):
        """For images and volumes."""
        return spec.ndim > 1


class OnnxRuntimeEngine(_Network):
    """ONNX Runtime, a graph of one Conv, which writes where the output is wanted."""

    peer = OnnxRuntime()
    summary = "ONNX Runtime's Conv on its CPU provider"


class OpenVinoEngine(_Network):
    """OpenVINO, a model of one convolution, which writes where the output is wanted."""

    peer = OpenVino()
    summary = "OpenVINO's convolution on its CPU plug-in"


class _Transforming(PeerEngine):
    """A library that transforms where it holds that to be faster, and doesn't say where.

    So it is held to the measure of those that mix elements, rounds whole numbers, and a NaN may spread.
    """

    error_measure = "l2"
    propagates_nonfinite = False

    def error_bound(self, spec):
        """That of any order of summation, or of three transforms of input and kernel together: their sum."""
        levels = math.log2(max(2, _transformed(spec)))
        return gamma(spec.taps + UNROUNDED_GUARD, spec.dtype) + TRANSFORM_ROUNDINGS * levels * unit_roundoff(spec.dtype)

    def _transform_seconds(self, spec, flops):
        size = _transformed(spec)
        return 3 * FFT_FLOPS * size * math.log2(max(2, size)) / flops


class OpenCVEngine(_Transforming):
    """``cv2.filter2D``: one channel, odd kernels; larger ones by a transform."""

    peer = OpenCV()
    summary = "OpenCV's filter2D"

    def _arithmetic_seconds(self, spec, machine):
        direct = 2 * spec.macs / (IMAGE_SHARE * machine.peak_flops(spec.dtype))
        return min(direct, self._transform_seconds(spec, 4 * machine.scalar_flops))  # its transform has SSE's vectors


class SciPyEngine(_Transforming):
    """``scipy.signal.convolve``: one channel, directly or by a transform as its own model says."""

    peer = SciPy("convolve", name="scipy")
    summary = "scipy.signal.convolve, one channel"

    def _arithmetic_seconds(self, spec, machine):
        direct = 2 * spec.macs / machine.scalar_flops
        return min(direct, self._transform_seconds(spec, machine.scalar_flops * machine.threads))


def _transformed(spec):
    """Elements of the transform that holds input and kernel."""
    return math.prod(size + k - 1 for size, k in zip(spec.spatial, spec.kernel, strict=True))
