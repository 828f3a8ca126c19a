"""The vector layer, instruction set levels, and what is compiled, how often and for how long."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

import convbench
from convbench import ConvSpec, registry
from convbench.engines.jit import compile as compiler
from convbench.engines.jit.dense import DensePlan
from convbench.engines.jit.depthwise import DepthwisePlan
from convbench.engines.jit.target import levels, target
from convbench.engines.jit.transpose import transposed
from convbench.engines.jit.vector import Code, Kind
from convbench.engines.jit.wide import WidePlan
from convbench.verify import expected, measured_error

PROBLEMS = (
    (DensePlan, ConvSpec(2, 19, 37, spatial=(13, 17), kernel=(3, 3), padding=((1, 2), (0, 1)), stride=(1, 2))),
    (DensePlan, ConvSpec(1, 24, 66, spatial=(9, 9), kernel=(1, 1), dtype="float64", memory_format="channels_last")),
    (
        DepthwisePlan,
        ConvSpec(2, 37, 37, spatial=(9, 31), kernel=3, padding=1, groups=37, memory_format="channels_last"),
    ),
    (WidePlan, ConvSpec(1, 1, 1, spatial=(40, 53), kernel=(5, 7), padding=(2, 3))),
    (WidePlan, ConvSpec(1, 3, 2, spatial=(300,), kernel=(31,), dilation=2, dtype="float64")),
    (WidePlan, ConvSpec(2, 36, 36, spatial=(14, 14), kernel=(3, 3), padding=1, stride=2, groups=36)),
)
level_of = pytest.mark.parametrize("level", levels())
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def function(name, level, arguments, write, key):
    """The generated function that ``write(code)`` writes, to be called from Python."""
    machine = target(level)

    def module(module):
        code = Code(module, name, machine, arguments)
        write(code)
        code.finish()

    types = [ctypes.c_void_p if letter == "p" else ctypes.c_int64 for letter in arguments]
    return ctypes.CFUNCTYPE(None, *types)(compiler.address(name, key, machine, module))


def place(array):
    return array.ctypes.data


def computed(make, spec, level):
    """A plan's result, and its error."""
    rng = np.random.default_rng(1)
    x, weight = (rng.uniform(-1, 1, shape).astype(spec.dtype) for shape in (spec.input_shape, spec.weight_shape))
    exact, scale = expected(spec, x, weight)
    out = np.empty(spec.output_shape, spec.dtype)
    if spec.memory_format == "channels_last":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        out = np.moveaxis(np.empty(np.moveaxis(out, 1, -1).shape, spec.dtype), -1, 1)
    make(spec, weight, isa=level)(x, out)
    return out, measured_error("componentwise", out, exact, scale)


@level_of
@pytest.mark.parametrize(("make", "spec"), PROBLEMS, ids=str)
def test_every_level_gives_the_same(make, spec, level):
    out, error = computed(make, spec, level)
    assert error <= registry.get("direct").error_bound(spec), f"{spec} at {level}"
    best, _ = computed(make, spec, None)
    bound = 2 * registry.get("direct").error_bound(spec)
    np.testing.assert_allclose(out, best, rtol=0, atol=bound * spec.taps, err_msg=f"{spec} at {level}")


@level_of
def test_a_level_from_the_environment(level):
    code = (
        "import numpy as np, convbench; from convbench.engines.jit.target import target\n"
        "x = np.arange(2 * 5 * 9 * 11, dtype='float32').reshape(2, 5, 9, 11) % 7\n"
        "for shape, groups in (((33, 5, 3, 3), 1), ((5, 1, 3, 3), 5)):\n"
        "    w = (np.arange(np.prod(shape), dtype='float32') % 5 - 2).reshape(shape)\n"
        "    y, z = (convbench.conv2d(x, w, padding=1, groups=groups, engine=e) for e in ('direct', 'reference'))\n"
        "    assert np.array_equal(y, z)\n"
        "print(target().level, target().vector_bytes)"
    )
    environment = {**os.environ, "CONVBENCH_ISA": level}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [level, str(target(level).vector_bytes)]


def test_an_unknown_level_is_refused_with_the_known_ones(monkeypatch):
    with pytest.raises(ValueError, match="mmx") as caught:
        target("mmx")
    assert all(level in str(caught.value) for level in levels())
    monkeypatch.setenv("CONVBENCH_ISA", "sse9")
    with pytest.raises(ValueError, match="sse9"):
        target()


@level_of
@dtypes
def test_arithmetic(level, dtype):
    kind = Kind(dtype, target(level).lanes(dtype))

    def write(code):
        a, b, out = code.arguments
        x, y = a.load(kind), b.load(kind)
        for number, value in enumerate((x + y, x - y, x * y, x.fma(y, y), code.splat(2.5, kind) * x)):
            (out + number * kind.bytes).store(value)

    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (2, kind.lanes)).astype(dtype)
    out = np.zeros((5, kind.lanes), dtype)
    function("arithmetic", level, "ppp", write, dtype)(place(a), place(b), place(out))
    np.testing.assert_array_equal(out, [a + b, a - b, a * b, a + b * b, a * 2.5])


@level_of
@dtypes
def test_masks_touch_only_their_lanes(level, dtype):
    kind = Kind(dtype, target(level).lanes(dtype))

    def write(code):
        source, out, count = code.arguments
        mask = code.mask(count, kind)
        out.store(source.load(kind, mask), mask)
        (out + kind.bytes).store(source.load(kind, mask))

    copy = function("masked", level, "ppi", write, dtype)
    source = np.arange(1, kind.lanes + 1).astype(dtype)
    for count in range(-2, kind.lanes + 3):
        out = np.full(2 * kind.lanes, -1, dtype)
        copy(place(source), place(out), count)
        kept = np.arange(kind.lanes) < count
        np.testing.assert_array_equal(out[: kind.lanes], np.where(kept, source, -1))
        np.testing.assert_array_equal(out[kind.lanes :], np.where(kept, source, 0))


@level_of
@dtypes
def test_transpose(level, dtype):
    kind = Kind(dtype, target(level).lanes(dtype))

    def write(code):
        source, out = code.arguments
        rows = [(source + row * kind.bytes).load(kind) for row in range(kind.lanes)]
        for number, column in enumerate(transposed(rows)):
            (out + number * kind.bytes).store(column)

    matrix = np.arange(kind.lanes**2).reshape(kind.lanes, -1).astype(dtype)
    out = np.zeros_like(matrix)
    function("transpose", level, "pp", write, dtype)(place(matrix), place(out))
    np.testing.assert_array_equal(out, matrix.T)


@level_of
def test_loops_carry_values(level):
    def write(code):
        out, count = code.arguments

        def body(i, total, twice):
            return total + i, twice * 2

        for number, value in enumerate(code.loop(count, body, (code.value(0), code.value(1)), start=3, step=2)):
            (out + 8 * number).store(value)
        with code.either(count.compare(">", 10)) as (yes, no):
            with yes:
                (out + 16).store(code.value(1))
            with no:
                (out + 16).store(code.value(-1))

    run = function("loops", level, "pi", write, ())
    for count in (0, 3, 4, 10, 11, 30):
        out = np.zeros(3, np.int64)
        run(place(out), count)
        rounds = range(3, count, 2)
        assert out.tolist() == [sum(rounds), 2 ** len(rounds), 1 if count > 10 else -1]


def test_nothing_is_compiled_twice():
    spec = PROBLEMS[0][1]
    weight = np.zeros(spec.weight_shape, spec.dtype)
    batches = range(1, 5)  # where tasks are few their number may decide between tiles, so each once before
    plans = [DensePlan(spec.replace(batch=batch), weight) for batch in batches]
    before = compiler.compiled_count()
    for batch, plan in zip(batches, plans, strict=True):
        again = DensePlan(spec.replace(batch=batch), weight)
        assert np.array_equal(again._kernels, plan._kernels), str(spec.replace(batch=batch))
    assert compiler.compiled_count() == before


def test_what_two_modules_write_under_one_name_and_key_are_two_functions():
    """Keys are plain numbers: (2, 14, True) of the one is (2, 14, 1) of the other."""

    def writing(value):
        code_of = lambda module: Code(module, "number", target(), "p")  # noqa: E731

        def write(module):
            code = code_of(module)
            code.arguments[0].store(code.value(value))
            code.finish()

        write.__module__ = f"of {value}"
        return write

    found = np.zeros(1, np.int64)
    for value in (3, 4, 3):
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiler.address("number", (1,), target(), writing(value)))
        function(found.ctypes.data)
        assert found[0] == value


def resnet50():
    """The convolutions of ResNet-50: (channels, filters, size, kernel, stride, groups)."""
    yield 3, 64, 224, 7, 2, 1
    channels = 64
    for stage, (width, size) in enumerate(((64, 56), (128, 28), (256, 14), (512, 7))):
        stride = 1 if stage == 0 else 2
        yield channels, 4 * width, size * stride, 1, stride, 1
        yield channels, width, size * stride, 1, stride, 1
        yield width, width, size, 3, 1, 1
        yield width, 4 * width, size, 1, 1, 1
        channels = 4 * width
        yield channels, width, size, 1, 1, 1


def mobilenet():
    """The convolutions of MobileNet: depthwise and pointwise in turn."""
    yield 3, 32, 224, 3, 2, 1
    channels, size = 32, 112
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2), (1024, 1)):
        yield channels, channels, size, 3, stride, channels
        size //= stride
        yield channels, filters, size, 1, 1, 1
        channels = filters


@pytest.mark.parametrize(("network", "most"), [(resnet50, 39), (mobilenet, 36)])
def test_a_network_needs_few_kernels(network, most):
    code = (
        "import numpy as np\nfrom test_jit_vector import *\n"
        f"layers = list({network.__name__}())\n"
        "for (channels, filters, size, kernel, stride, groups), batch in product(layers, (1, 8)):\n"
        "    spec = ConvSpec(batch, channels, filters, spatial=(size, size), kernel=(kernel, kernel), stride=stride,\n"
        "                    padding=kernel // 2, groups=groups)\n"
        "    registry.get('direct').plan(spec, np.zeros(spec.weight_shape, spec.dtype))\n"
        "print(len(layers), compiler.compiled_count())"
    )
    folder = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    # 39 for 42 plans, 34 for 38 on AVX-512 that multiplies two vectors a cycle, 37 and 36 where it halves vectors: two
    # families, of products those of the first tile of channels, which copies, those that write past the caches, those
    # that ask for runs or for lines between strides, and of MobileNet's depthwise layers strips for each width.
    layers, compiled = map(int, done.stdout.split())
    assert 1 < compiled <= most < 2 * layers


def test_neither_files_nor_a_compiler_are_needed(tmp_path):
    code = (
        "import sys, numpy as np, convbench\n"
        "opened = []\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[2], int) and arguments[2] & 3:\n"
        "        opened.append(arguments[0])\n"
        "    if event in ('subprocess.Popen', 'os.system', 'socket.connect', 'os.mkdir', 'os.posix_spawn'):\n"
        "        opened.append(event)\n"
        "sys.addaudithook(hook)\n"
        "x = np.ones((1, 20, 30, 30), 'float32')\n"
        "convbench.conv2d(x, np.ones((40, 20, 3, 3), 'float32'), engine='direct')\n"
        "convbench.conv2d(x, np.ones((20, 1, 3, 3), 'float32'), groups=20, engine='direct')\n"
        "print(opened)"
    )
    environment = {**os.environ, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HALVES = ["float16", pytest.param("bfloat16", marks=pytest.mark.filterwarnings("ignore"))]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_integer_sums_wrap(dtype):
    rng = np.random.default_rng(3)
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, (2, 3, 9, 8), dtype, endpoint=True)
    weight = rng.integers(limits.min, limits.max, (4, 3, 3, 3), dtype, endpoint=True)
    result = convbench.conv2d(x, weight, padding=1, engine="direct")
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    exact = (windows[:, None].astype(object) * weight[None, :, :, None, None].astype(object)).sum((2, 5, 6))
    np.testing.assert_array_equal(result, (exact & (2**limits.bits - 1)).astype(f"u{x.itemsize}").view(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_summed_in_float32(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x = np.ones((1, 1, 5000), dtype)
    weight = np.ones((1, 1, 5000), dtype)
    weight[..., 0] = 100
    result = convbench.conv1d(x, weight, engine="direct")
    assert result.dtype == x.dtype  # a sum in half precision itself would stop growing at 2048 (bfloat16: 256)
    assert result.item() == np.float32(5099).astype(result.dtype)


@pytest.mark.parametrize(("dtype", "groups"), list(product(["complex64", "complex128"], [1, 3])))
def test_complex_products(dtype, groups):
    rng = np.random.default_rng(2)
    x, weight = (
        (rng.integers(-3, 4, s) + 1j * rng.integers(-3, 4, s)).astype(dtype)
        for s in ((2, 6, 7, 9), (6, 6 // groups, 3, 2))
    )
    results = (convbench.conv2d(x, weight, groups=groups, engine=name) for name in ("direct", "reference"))
    np.testing.assert_array_equal(*results)
