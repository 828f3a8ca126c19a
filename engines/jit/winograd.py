"""Winograd's minimal filtering, fused: every task transforms, multiplies and transforms back what its cache holds.

    y = Aᵀ [ sum over c of (G g Gᵀ) ⊙ (Bᵀ d B) ] A

for tiles of d that overlap by r - 1 (`winograd_matrices`).  A task is a block of tiles (`winograd_layout`) and a
range of output channels; the transformed input of its block stays in the L2 cache while the weights of
each register block of channels stream past, frequency by frequency, and the sums of a few channels are transformed
back while they are in the cache (`winograd_kernel`).
"""

import itertools
import math

import numpy as np

from convbench import settings

from . import parallel
from . import winograd_kernel as kernels
from .dense_frame import ALIGN, aligned, table
from .dense_tiling import parts
from .target import cache_bytes, target
from .winograd_layout import Plane, input_table, output_table, runs
from .winograd_matrices import matrices, numbers

#: Part of the L2 cache for the transformed input of a block.
BLOCK_SHARE = 0.65
#: Vectors of tiles in a block, at most: 3 x 9 sums run as fast as 2 x 14, of 4 x 7 LLVM spills (Cascade Lake,
#: 2026-11: 0.89, 0.88 and 0.3 of the peak).
MOST_VECTORS = 3
#: Registers beside sums and tiles: a weight, and one in flight.
SPARE_REGISTERS = 2
MOST_FILTERS = 28


class WinogradPlan:
    """A planned convolution: ``plan(x, out)`` computes and says whether every number was finite.

    Parameters
    ----------
    spec : ConvSpec
        Stride 1, dilation 1, channels first, one or two dimensions.
    weight : ndarray, shape (out_channels, in_channels // groups, *kernel)
    bias : ndarray, shape (out_channels,), optional
    outputs : tuple of int
        m of F(m, r), per spatial dimension.
    isa : str, optional
        Level to generate code for; see `target`.

    Attributes
    ----------
    nbytes : int

    Notes
    -----
    Sums run in the same order whatever the number of threads, so results do not depend on it, to the bit.
    Concurrent calls are safe; each takes scratch of its own.
    """

    def __init__(self, spec, weight, bias=None, *, outputs, isa=None):
        self._target = target(isa)
        self._itemsize, self._lanes = spec.itemsize, self._target.lanes(spec.dtype)
        self._plane = Plane.of(spec)
        taps = (1,) * (2 - spec.ndim) + spec.kernel
        sizes = (1,) * (2 - spec.ndim) + tuple(outputs)
        self._form = kernels.Form(*zip(sizes, taps, strict=True), spec.dtype)
        self._group = spec.in_channels // spec.groups, spec.out_channels // spec.groups
        self._vectors = self._blocks_of_vectors()
        self._filters = self._blocks_of_filters()
        self._tabulate()
        self._pack(np.asarray(weight, np.float64).reshape(*weight.shape[:2], *taps), bias)
        self._tasks = self._task_table()
        self._call = parallel.caller()
        self._frames = [self._new_frame()]
        self._scratch_bytes = self._frames[0][2].nbytes

    def __call__(self, x, out):
        """Compute `out` from `x`, both C-contiguous; true if all outputs are finite (others may be wrong)."""
        threads = parallel.ready()
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        if frame[1] < threads:
            frame = self._new_frame()
        self._call(frame[0], id(x), id(out))
        finite = not frame[3].any()
        self._frames.append(frame)
        return finite

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        return sum(array.nbytes for array in self._arrays.values()) + self._scratch_bytes

    def _blocks_of_vectors(self):
        """Vectors of each block of tiles."""
        height, width = self._plane.tiles(self._form)
        total = math.ceil(self._plane.batch * height * width / self._lanes)
        bytes_of_vector = math.prod(self._form.products) * self._group[0] * self._target.vector_bytes
        most = max(1, min(MOST_VECTORS, int(BLOCK_SHARE * cache_bytes() / bytes_of_vector)))
        threads = settings.get_num_threads()
        count = max(math.ceil(total / most), min(total, threads))
        return parts(total, math.ceil(count / threads) * threads if total >= threads * math.ceil(count / threads) else count)

    def _blocks_of_filters(self):
        """Output channels of each register block of a group."""
        vectors = max(self._vectors)
        most = min(MOST_FILTERS, (self._target.registers - SPARE_REGISTERS - vectors) // vectors)
        return parts(self._group[1], math.ceil(self._group[1] / most))

    def _tabulate(self):
        """The tables of input rows, output rows and blocks."""
        plane, form, lanes, item = self._plane, self._form, self._lanes, self._itemsize
        found = runs(plane, form, self._vectors, lanes)
        inputs, counts = input_table(plane, form, found, self._vectors, lanes, item)
        outputs, output_counts = output_table(plane, form, found, self._vectors, lanes, item)
        sizes = sorted(set(self._vectors))
        vectors = np.array(self._vectors)
        width = vectors * self._target.vector_bytes
        kinds = sorted(set(self._filters))
        before = lambda count, table: (np.cumsum(count) - count) * table.shape[1] * item_bytes  # noqa: E731
        item_bytes = outputs.itemsize
        counts = np.pad(counts, ((0, 0), (0, 4 - counts.shape[1])))
        fields = {
            "inputs": before(counts.sum(1), inputs),
            **dict(zip(("one", "two", "three", "four"), counts.T, strict=True)),
            "outputs": before(output_counts, outputs),
            "output_count": output_counts,
            "vectors": vectors,
            "bytes": width,
            "v_frequency": self._group[0] * width + ALIGN,
            "m_frequency": max(self._filters) * width + ALIGN,
            "kernel": np.searchsorted(sizes, vectors) * len(kinds),
        }
        addresses = [
            kernels.multiply_address(size, kind, form.dtype, self._target) for size in sizes for kind in kinds
        ]
        self._arrays = {
            "inputs": inputs,
            "outputs": outputs,
            "blocks": table(kernels.BLOCK, fields),
            "kernels": np.array(addresses, np.int64),
        }
        self._v_bytes, self._m_bytes = (
            math.prod(form.products) * int(fields[name].max()) for name in ("v_frequency", "m_frequency")
        )

    def _pack(self, weight, bias):
        """Transformed weights as [group][register block][frequency][channel][filter], and the bias."""
        form, (channels, filters) = self._form, self._group
        both = np.kron(*(numbers(matrices(*axis).g) for axis in (form.down, form.across)))
        frequencies = len(both)
        packed = aligned(frequencies * weight[..., 0, 0].size, form.dtype)
        filled, fields = 0, []
        ends = np.cumsum(self._filters)
        kinds = sorted(set(self._filters))
        for group in range(self._plane.groups):
            for end, count in zip(ends, self._filters, strict=True):
                first = group * filters + end - count
                part = weight[first : first + count].reshape(count, channels, -1)
                transformed = np.einsum("ft,kct->fck", both, part, optimize=True)
                packed[filled : filled + transformed.size] = transformed.ravel()
                fields.append((filled * self._itemsize, channels * count * self._itemsize, end - count, count, kinds.index(count)))
                filled += transformed.size
        biases = np.zeros(self._plane.out_channels, form.dtype)
        if bias is not None:
            biases[:] = bias
        self._arrays.update(weights=packed, bias=biases, filters=np.array(fields, np.int64))

    def _task_table(self):
        """A record for each (block of tiles, group, range of filters)."""
        plane, item = self._plane, self._itemsize
        per_group = len(self._filters)
        wanted = settings.get_num_threads()
        cuts = min(per_group, math.ceil(wanted / (len(self._vectors) * plane.groups)))
        ends = np.cumsum(parts(per_group, cuts))
        rows = []
        for group, block in itertools.product(range(plane.groups), range(len(self._vectors))):
            for begin, end in zip([0, *ends[:-1]], ends, strict=True):
                rows.append(
                    {
                        "block": block,
                        "x": group * self._group[0] * math.prod(plane.size) * item,
                        "out": group * self._group[1] * math.prod(plane.out) * item,
                        "bias": group * self._group[1] * item,
                        "filters": group * per_group + begin,
                        "filters_end": group * per_group + end,
                        "key": 1 + group * len(self._vectors) + block,
                    }
                )
        return np.array([[row[name] for name in kernels.TASK] for row in rows], np.int64)

    def _new_frame(self):
        """What one call at a time owns: its words' address, threads it has scratch for, scratch, flags and words."""
        form, plane, item, threads = self._form, self._plane, self._itemsize, settings.get_num_threads()
        row_bytes = math.prod(form.products) * max(self._vectors) * self._target.vector_bytes + self._target.vector_bytes
        v_at = kernels.SCRATCH_HEAD + -(-row_bytes // ALIGN) * ALIGN
        m_at = v_at + self._v_bytes
        scratch_bytes = m_at + self._m_bytes + ALIGN
        scratch = aligned(scratch_bytes * threads // 8, np.int64)
        flags = aligned(len(self._tasks) * kernels.SCRATCH_HEAD // 4, np.float32)
        values = {
            **{name: array.ctypes.data for name, array in self._arrays.items()},
            "tasks": self._tasks.ctypes.data,
            "gather": kernels.gather_address(form, self._target),
            "scatter": kernels.scatter_address(form, self._target),
            "flags": flags.ctypes.data,
            "scratch": scratch.ctypes.data,
            "scratch_bytes": scratch_bytes,
            "channels": self._group[0],
            "x_channel": math.prod(plane.size) * item,
            "out_channel": math.prod(plane.out) * item,
            "frequencies": math.prod(form.products),
            "itemsize": item,
            "row_at": kernels.SCRATCH_HEAD,
            "v_at": v_at,
            "m_at": m_at,
        }
        words = np.zeros(parallel.FRAME_HEAD + len(kernels.FRAME), np.int64)
        words[parallel.FRAME_FUNCTION // 8] = kernels.task_address(self._target)
        words[parallel.FRAME_TASKS // 8] = len(self._tasks)
        words[parallel.FRAME_THREADS // 8] = threads
        for name, value in values.items():
            words[kernels.FRAME[name] // 8] = value
        return words.ctypes.data, threads, scratch, flags, words
