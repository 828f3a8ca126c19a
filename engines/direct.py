"""Direct convolution: the sum itself, by kernels generated for the shape and the processor.

Four families of code compute it, and `family` says which for a problem:

dense      vectors along the output channels, pixels broadcast (`jit.dense`): many output channels; or, for
           pointwise layers, the matrix product with vectors along the pixels (`jit.product`);
wide       vectors along the output width (`jit.wide`): images, depthwise and few output channels;
depthwise  vectors along the channels of channels-last arrays (`jit.depthwise`);
loops      compiled plain loops (`loops`): every other dtype.

No transform, no patch matrix: every product is made once, from the arrays as they lie.  It wins
wherever a transform does not save arithmetic.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable

import numpy as np

from convbench import forks, settings
from convbench.engine import Engine
from convbench.machine import CACHED_BYTES, FMA_PIPES, Machine
from convbench.shapes import pairs_inside
from convbench.spec import ConvSpec

from .jit import rolling_layout
from .jit.dense_shape import CONFLICT_BYTES
from .jit.dense_tiling import longest_run
from .jit.wide_steps import Geometry
from .loops import LoopPlan, computed_dtype

GENERATED_DTYPES = ("float32", "float64")
PROCESSORS = ("x86_64", "amd64", "aarch64", "arm64")  # that `jit.target` knows
LOOP_DTYPES = ("float16", "bfloat16", "complex64", "complex128")

# What the families cost, in multiply-adds of whole vectors at the processor's peak, fitted to the times of 1456 random
# problems of one to three dimensions and layers of networks that two or three families compute about as fast, on a
# 2-core Zen 5 VM, 2026-11. The choice is 1.023 times as slow as the fastest in the geometric mean, in 11 % of them more
# than 1.05 times. Where a machine's families differ otherwise, its profile says so. Products have become faster since:
# `PRODUCT_TAP` (it was 1.17), `PRODUCT_COPY` (0.7) and `PRODUCT_SPREAD` (30) are a fit to 54 pointwise layers, hot and
# with caches cold; the choice takes 1.016 times as long as the faster of both, it was 1.050 with 1.05, 0.7 and 30
# (Cascade Lake, November 2026).
HALF_VECTOR = 0.85  # of up to half a vector of output channels: half on processors that halve long vectors
DENSE_STORE = 29  # an output vector, besides its products: it is transposed
DENSE_COPY = 35  # a vector of an input that must be padded or spread over the cache's sets
WIDE_TAP = 0.96  # a product, and what loading inputs adds to it where a vector serves one kernel row
WIDE_LOAD = 2.9
WIDE_ROWS = 8  # kernel rows that a loaded vector serves at most, for each output channel of a tile; fewer sums wait
WIDE_REACH = 24  # output rows of a tile, and kernel rows that its pieces add on both sides of what its inputs need
WIDE_STORE = 3  # an output vector, besides its products
WIDE_TILE = 130  # rows of tiles, one or more output channels each; a row's ends are by themselves
WIDE_STAGE = 2.8  # a vector of an input that must be padded
WIDE_SPREAD = 20  # the same where the columns have a stride, too
ROLLING_SPREAD = 12  # an output vector of strips, where columns have a stride (not fitted: of two sizes, Zen 4)
PRODUCT_TAP = 0.95  # a product of a matrix product
PRODUCT_LOAD = 4.2  # a vector of its input, whose fetching few filters do not hide
PRODUCT_VECTOR = 25  # a vector of a group's pixels
PRODUCT_STORE = 5.8  # an output vector of a matrix product
PRODUCT_APART = 16  # the same where outputs compete for the cache's sets
PRODUCT_GROUP = 365  # a group of an image
PRODUCT_COPY = 4  # a vector of its input: each is copied
PRODUCT_SPREAD = 18  # the same where pixels have a stride
# Not fitted, but from counts of operations: a row of taps over a tile of 14 pixels is about 1.2 instructions for each
# slot of a multiply-add (the pixel's load, its address, the tap's load); an output vector begins and ends with two
# loads, a store and its part of a tile's 40 cycles. Transposing copies move about an element per cycle.
DEPTHWISE_TAP = 1.2
DEPTHWISE_STORE = 9
TRANSPOSED_ELEMENT = 2
PRODUCT_SCATTER = 2  # times the time of bytes that lie together in memory: it reads a few lines of each plane ...
PRODUCT_FEW = 14  # ... with more filters than this: tiles of fewer are longer
LOOP_SHARE = 0.04
WORTH_A_TRY = 4.0  # a family that costs so many times the best by the model is not measured
LANE_BYTES, REGISTERS = 64, 32
PLANES_WIDTH = 32  # depthwise planes up to this wide go along the channels instead
CALL_SECONDS = 1e-6
SMALL_MACS = 150_000  # computed by one thread
BAND_BYTES = 1 << 20  # scratch per thread at most: half of a second-level cache of 2 MiB, larger ones are few ...
BAND_ROWS = 3  # ... or so many times what one row of outputs sees


def family(spec: ConvSpec) -> str:
    """Which code computes `spec`: "dense", "product", "wide", "depthwise" or "loops"."""
    if spec.dtype not in GENERATED_DTYPES:
        return "loops"
    costs = works(spec, FMA_PIPES)
    return min(costs, key=costs.get)


def works(spec, pipes):
    """What each family that computes `spec` costs, in multiply-adds of whole vectors, `pipes` of which begin at once.

    The times that the constants are fitted to are of two; with one, as on a Zen 4, all that is not multiplied takes
    half of what they say: measured / predicted in 286 random and public problems 0.95 (wide, product), 0.96 (dense),
    0.74, 0.77 and 0.83 without it (November 2026).
    """
    other = pipes / FMA_PIPES
    costs = {"dense": _dense_work(spec, other), "wide": _wide_work(spec, other)}
    if _is_product(spec):
        costs["product"] = _product_work(spec, other)
    if _is_depthwise(spec):
        costs["depthwise"] = _depthwise_work(spec, other)
        elements = math.prod(spec.input_shape) + math.prod(spec.output_shape)
        costs["wide"] += other * TRANSPOSED_ELEMENT * elements
    return costs


def _is_product(spec):
    """Whether `spec` is a matrix product with neighbouring pixels next to each other."""
    return set(spec.kernel) == {1} and not any(map(any, spec.padding)) and spec.memory_format == "channels_first"


def _is_depthwise(spec):
    """Whether `spec` has one filter for each channel, and its channels next to each other."""
    one_each = 1 < spec.groups == spec.in_channels == spec.out_channels
    return one_each and spec.memory_format == "channels_last"


def _taps(spec):
    """Products of an output that dense kernels make, in the mean: they leave out what meets only padding.

    In rows where those are read in place.
    """
    inside = [seen / (n * k) for seen, n, k in zip(pairs_inside(spec), spec.output_spatial, spec.kernel, strict=True)]
    return math.prod(spec.weight_shape[1:]) * math.prod(inside if _is_whole(spec) else inside[:-1])


def _is_whole(spec):
    """Whether dense kernels multiply the taps of a row together, without its padding."""
    return spec.kernel[-1] <= longest_run(spec.stride[-1], spec.memory_format == "channels_last")


def _wide_taps(spec, lanes):
    """The same where a tile makes what any of its rows needs; of signals, any of its vectors of one channel."""
    reaches = [WIDE_REACH] * (spec.ndim - 1) + ([lanes] if spec.ndim == spec.weight_shape[1] == 1 else [])
    taps = math.prod(spec.weight_shape[1:])
    for reach, size, stride, extent in zip(reaches, spec.spatial, spec.stride, spec.extents, strict=False):
        taps *= min(1, (size + reach * stride) / extent)
    return taps


def _ceil(a, b):
    return -(-a // b)


def _dense_work(spec, other):
    """Cost of vectors along the output channels of one group; up to half a vector of them counts for less."""
    lanes = LANE_BYTES // spec.itemsize
    whole, rest = divmod(spec.out_channels // spec.groups, lanes)
    vectors = whole + (0 if not rest else HALF_VECTOR if rest <= lanes // 2 else 1)
    pixels = spec.batch * spec.groups * math.prod(spec.output_spatial)
    work = pixels * vectors * (_taps(spec) + other * DENSE_STORE)
    apart = math.prod(spec.spatial) * spec.itemsize % CONFLICT_BYTES == 0
    if (not _is_whole(spec) and any(map(any, spec.padding))) or (set(spec.kernel) == {1} and apart):
        work += other * DENSE_COPY * spec.batch * spec.in_channels * math.prod(spec.spatial) / lanes
    return work


def _wide_work(spec, other):
    """Cost of vectors along the output width, or along the channels of small depthwise planes."""
    lanes = LANE_BYTES // spec.itemsize
    if rolling_layout.suits(Geometry.of(spec), lanes, REGISTERS):
        return min(_rows_work(spec, other, lanes), _rolling_work(spec, other, lanes))
    return _rows_work(spec, other, lanes)


def _rolling_work(spec, other, lanes):
    """Cost of strips of vectors that roll down the rows."""
    rest = WIDE_STORE + (ROLLING_SPREAD if spec.stride[-1] > 1 else 0)
    vectors = math.prod(spec.output_spatial[:-1]) * _ceil(spec.output_spatial[-1], lanes)
    return spec.batch * spec.out_channels * vectors * (WIDE_TAP * math.prod(spec.kernel) + other * rest)


def _rows_work(spec, other, lanes):
    """Cost of tiles of rows, and of depthwise planes."""
    *rows, width = spec.output_spatial
    depthwise = spec.weight_shape[1] == 1 == spec.out_channels // spec.groups
    vectors = width / lanes if depthwise and spec.ndim == 2 and width <= PLANES_WIDTH else _ceil(width, lanes)
    height, unit = (spec.kernel[-2], math.lcm(spec.stride[-2], spec.dilation[-2])) if spec.ndim > 1 else (1, 1)
    along = spec.kernel[-1] * spec.dilation[-1] / spec.stride[-1] / lanes
    served = height * spec.dilation[-2] / unit if height > 1 else along
    filters = next(count for count in (4, 3, 2, 1) if spec.out_channels // spec.groups % count == 0)
    served = min(WIDE_ROWS, max(1, served)) * filters
    sums = filters * (rows[-1] if rows else vectors)
    waiting = max(1.0, WIDE_ROWS / sums) if not depthwise else 1.0
    products = _wide_taps(spec, lanes) * (WIDE_TAP + other * WIDE_LOAD / served) * waiting + other * WIDE_STORE
    work = spec.batch * spec.out_channels * math.prod(rows) * vectors * products
    if not depthwise or spec.ndim == 3:
        bands = math.prod(rows[:-1]) * _ceil(rows[-1] if rows else vectors, WIDE_ROWS)
        parts = min(vectors, 2 + (spec.padding[-1][0] > 0)) if rows else 1  # rows' ends are computed by themselves
        work += other * WIDE_TILE * spec.batch * spec.out_channels / filters * bands * parts
    stage = WIDE_SPREAD if spec.stride[-1] > 1 else WIDE_STAGE if any(map(any, spec.padding)) else 0
    return work + other * stage * spec.batch * spec.in_channels * math.prod(spec.spatial) / lanes


def _product_work(spec, other):
    """Cost of vectors along the pixels of a pointwise problem."""
    lanes = LANE_BYTES // spec.itemsize
    vectors = spec.batch * _ceil(math.prod(spec.output_spatial), lanes)
    copy = PRODUCT_SPREAD if any(stride > 1 for stride in spec.stride) else PRODUCT_COPY
    inputs = spec.in_channels * max(PRODUCT_TAP * spec.out_channels / spec.groups, other * PRODUCT_LOAD)
    apart = math.prod(spec.output_spatial) * spec.itemsize % CONFLICT_BYTES == 0
    store = PRODUCT_APART if apart else PRODUCT_STORE
    each = PRODUCT_VECTOR * spec.groups + copy * spec.in_channels + store * spec.out_channels
    return vectors * (inputs + other * each) + other * PRODUCT_GROUP * spec.batch * spec.groups


def _depthwise_work(spec, other):
    """Cost of vectors along the channels of a channels-last depthwise problem."""
    vectors = spec.batch * math.prod(spec.output_spatial) * _ceil(spec.groups, LANE_BYTES // spec.itemsize)
    return vectors * (DEPTHWISE_TAP * math.prod(spec.kernel) + other * DEPTHWISE_STORE)


class Direct(Engine):
    """The sum itself, by kernels generated for the shape and the processor."""

    name = "direct"
    version = "23"
    summary = "the sum itself, by vector code generated for the shape and the processor"
    exact_integers = True
    fuses_bias = True

    def __init__(self, variant: str = ""):
        self.variant = variant

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """Every numeric dtype that processors compute."""
        if spec.dtype in GENERATED_DTYPES + LOOP_DTYPES or np.dtype(spec.dtype).kind in "iu":
            return None
        return f"direct computes floating, complex and integer types that processors have, not {spec.dtype}"

    def variants(self, spec: ConvSpec) -> tuple[Engine, ...]:
        """A variant for each family that computes `spec` and is not far behind by the model."""
        known = platform.machine().lower() in PROCESSORS  # asked without loading the compiler
        one_way = spec.memory_format == "channels_last" and not _is_depthwise(spec)
        if spec.dtype not in GENERATED_DTYPES or one_way or not known:
            return (self,)
        costs = works(spec, FMA_PIPES)
        near = [name for name in sorted(costs, key=costs.get) if costs[name] <= WORTH_A_TRY * min(costs.values())]
        return tuple(Direct(name) for name in near)

    def takes_channels_last(self, spec: ConvSpec) -> bool:
        """The dense kernels read and write both formats, the depthwise ones this."""
        return (self.variant or family(spec)) in ("dense", "depthwise")

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Packed weights, with lanes filled up, and each thread's band of the input.

        Depthwise and channels-last, the transposed arrays of the variant that needs them, too.
        """
        packed = math.prod(spec.weight_shape) * np.dtype(computed_dtype(spec.dtype)).itemsize
        if family(spec) == "loops":
            return packed
        lanes = LANE_BYTES // spec.itemsize
        filters = spec.out_channels // spec.groups
        width = spec.spatial[-1] + sum(spec.padding[-1])
        row = spec.weight_shape[1] * math.prod(spec.extents[:-1]) * width * spec.itemsize
        bands = max(BAND_BYTES, BAND_ROWS * row) * settings.get_num_threads()
        copies = spec.data_bytes if _is_depthwise(spec) and not self.variant else 0
        return packed * -(-filters // lanes) * lanes // filters + min(bands, spec.data_bytes) + copies

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """The family's work at the peak, or the arrays through memory, whichever takes longer."""
        kind, moved = self.variant or family(spec), spec.data_bytes
        if kind == "loops":
            seconds = 2 * spec.macs / (machine.peak_flops("float32") * LOOP_SHARE)
        else:
            work = works(spec, machine.fma_pipes)[kind]
            seconds = 2 * (LANE_BYTES // spec.itemsize) * work / machine.peak_flops(spec.dtype)
        if kind == "product" and moved > CACHED_BYTES and spec.out_channels // spec.groups > PRODUCT_FEW:
            moved *= PRODUCT_SCATTER
        memory = machine.traffic_seconds(moved, spec.data_bytes)
        seconds *= machine.threads if spec.macs < SMALL_MACS else 1
        # A soft maximum, so that families whose time is the memory's still differ.
        return CALL_SECONDS + (seconds**4 + memory**4) ** 0.25

    def plan(self, spec: ConvSpec, weight: np.ndarray, bias: np.ndarray | None = None):
        """Generate what kernels are not there yet, and pack the weight."""
        chosen = self.variant or family(spec)
        if chosen == "loops" or not generates_code():
            return LoopPlan(spec, weight, bias)
        return _plan_class(chosen)(spec, weight, bias)

    def peak_call(self, dtype: str, flops: int | None = None) -> tuple[Callable[[], object], int] | None:
        """A call that only makes multiply-adds of "float32" or "float64" on all threads, and its FLOP (`jit.peak`).

        About `flops`, or what takes some milliseconds.  None where the generators do not know this processor.
        """
        if not generates_code():
            return None
        with forks.held_off:
            from .jit.peak import caller

        return caller(dtype, flops)


def _plan_class(family):
    """The plan of generated code."""
    with forks.held_off:
        from .jit import dense, depthwise, product, wide

    plans = {"dense": dense.DensePlan, "product": product.ProductPlan, "wide": wide.WidePlan}
    return {**plans, "depthwise": depthwise.DepthwisePlan}[family]


def generates_code() -> bool:
    """Whether the generators know this processor's architecture; the plain loops run on any."""
    with forks.held_off:
        from .jit.target import target

    try:
        target()
    except NotImplementedError:
        return False
    return True
