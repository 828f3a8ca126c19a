"""Libraries for neural networks: PyTorch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from convbench.peers.library import Loaded, Peer, borrowed, highs, lows


class Torch(Peer):
    """PyTorch, the arrays in the problem's own memory format."""

    name = "torch"
    modules = ("torch",)
    dtypes = ("float32", "float64", "float16")
    survives_fork = False  # GNU OpenMP's threads are the parent's: the child waits for them for ever

    @contextlib.contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """No gradients, that many threads."""
        import torch

        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            if before != threads:
                torch.set_num_threads(before)

    def load(self, spec, weight, threads):
        """``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``."""
        return self._loaded(spec, weight, spec.memory_format == "channels_last")

    def _loaded(self, spec, weight, last):
        import torch
        from torch.nn import functional

        conv = getattr(functional, f"conv{spec.ndim}d")
        layout = _layout(spec, last)
        kernel = torch.from_numpy(borrowed(weight)).to(memory_format=layout)
        low, options = lows(spec), {"stride": spec.stride, "dilation": spec.dilation, "groups": spec.groups}
        both = [size for pair in reversed(spec.padding) for size in pair]

        def compute(x):
            if low == highs(spec):
                return conv(x, kernel, padding=low, **options)
            return conv(functional.pad(x, both), kernel, **options)

        return Loaded(
            compute,
            lambda x: torch.from_numpy(borrowed(x)).to(memory_format=layout),
            lambda x, out: torch.from_numpy(out).copy_(compute(x)),
        )


class TorchChannelsLast(Torch):
    """PyTorch with input, weight and output in its channels-last format."""

    name = "torch channels-last"

    def why_unsupported(self, spec):
        """Its format has two or three dimensions."""
        return f"{self.name} has no 1-D format" if spec.ndim == 1 else super().why_unsupported(spec)

    def load(self, spec, weight, threads):
        """The arrays are converted before: what a network that stays in this format pays."""
        return self._loaded(spec, weight, True)


def _layout(spec, last):
    import torch

    if not last or spec.ndim == 1:
        return torch.preserve_format
    return torch.channels_last if spec.ndim == 2 else torch.channels_last_3d


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider, a graph of one Conv with constant weights."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")

    def load(self, spec, weight, threads):
        """A session for the one node."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(_onnx_model(spec, weight), options, providers=["CPUExecutionProvider"])

        def fill(inputs, out):
            bound = session.io_binding()
            bound.bind_cpu_input("x", inputs["x"])
            bound.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
            session.run_with_iobinding(bound)

        return Loaded(lambda inputs: session.run(None, inputs)[0], lambda x: {"x": np.ascontiguousarray(x)}, fill)


def _onnx_model(spec, weight):
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=spec.stride,
        pads=lows(spec) + highs(spec),
        dilations=spec.dilation,
        group=spec.groups,
        kernel_shape=spec.kernel,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, spec.input_shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, spec.output_shape)
    graph = helper.make_graph([node], "conv", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


class OpenVino(Peer):
    """OpenVINO's CPU plug-in, a compiled model of one convolution with constant weights.

    A process that has compiled a model must not fork: the child waits within ``fork`` itself, for ever (2026.x).
    """

    name = "openvino"
    modules = ("openvino",)

    def why_unsupported(self, spec):
        """Images and volumes in float32."""
        return f"{self.name} is not called for 1-D problems" if spec.ndim == 1 else super().why_unsupported(spec)

    def load(self, spec, weight, threads):
        """A request whose tensors are the arrays themselves."""
        import openvino

        hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(_openvino_model(spec, weight), "CPU", hints)
        request = compiled.create_infer_request()

        def take(x):
            dense = borrowed(np.ascontiguousarray(x))  # the tensor borrows its memory, so the input must be kept
            request.set_input_tensor(openvino.Tensor(dense, shared_memory=True))
            return dense

        def compute(_borrowed):
            request.infer()
            return request.get_output_tensor().data

        def fill(_borrowed, out):
            request.set_output_tensor(openvino.Tensor(out, shared_memory=True))
            request.infer()

        return Loaded(compute, take, fill)


def _openvino_model(spec, weight):
    import openvino
    from openvino import opset13 as operations

    x = operations.parameter(list(spec.input_shape), np.float32)
    geometry = (list(spec.stride), list(lows(spec)), list(highs(spec)), list(spec.dilation))
    if spec.groups == 1:
        y = operations.convolution(x, operations.constant(weight), *geometry)
    else:
        grouped = weight.reshape(spec.groups, -1, *weight.shape[1:])
        y = operations.group_convolution(x, operations.constant(grouped), *geometry)
    return openvino.Model([y], [x])
