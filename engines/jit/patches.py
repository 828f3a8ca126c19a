"""Patch matrices in blocks that stay in the cache, each multiplied where it was made, by one thread.

    Y (O x P) = W (O x K) . X~ (K x P)

A task is a block of output pixels and some output channels.  It gathers the block's part of X~ into
scratch of its thread and runs a matrix product's frame (`dense`) on it, so nothing is shared and nothing
leaves the second-level cache.  Where rows have no stride only columns of the kernel are copied: row t of
the kernel reads the same copy t rows further down, a view (M. Cho, D. Brand, "MEC: Memory-efficient
Convolution", 2017).  The pixels of a block lie in one row; for the kernel it is a 1-D problem, C * kw
channels long, whose taps are a whole row of the block apart.
"""

import math

import numpy as np

from convbench import settings

from . import dense_kernel as kernels
from . import parallel, patches_kernel, pool_code
from .dense import DensePlan
from .frames import Framed
from .patches_layout import Layout
from .records import ALIGN, aligned, table
from .target import target
from .wide import WidePlan
from .wide_kernel import BLOCK, IMAGE


class PatchPlan(Framed):
    """A planned convolution: ``plan(x, out)`` computes.

    Parameters
    ----------
    spec : ConvSpec
        float32 or float64, channels-first.
    weight : ndarray, shape (out_channels, in_channels // groups, *kernel)
        Packed here, not referenced later.
    wide : bool
        Whether the products' vectors lie along the rows of pixels; else along the output channels.  A patch
        matrix of one row per group goes along the channels.
    isa : str, optional
        Instruction set level, as `target` takes it.

    Attributes
    ----------
    nbytes : int
        Bytes of packed weights, tables and scratch of one caller.

    Notes
    -----
    What a block computes does not depend on who runs it, so neither do the results, to the bit.
    Concurrent calls are safe; each takes scratch of its own.
    """

    def __init__(self, spec, weight, *, wide=False, isa=None):
        wide = wide and spec.weight_shape[1] * spec.kernel[-1] > 1
        self._layout = layout = Layout.of(spec, settings.get_num_threads(), wide)
        machine, weight = target(isa), layout.lowered_weight(np.asarray(weight, spec.dtype))
        self._products = {}
        make = _WideProduct if wide else _DenseProduct
        for kind in layout.kinds:
            for number, chunk in enumerate(layout.chunks):
                inner = layout.lowered(kind, chunk)
                twins = [self._products[other, number] for other in layout.kinds if (other, number) in self._products]
                self._products[kind, number] = make(
                    layout, kind, inner, weight[chunk.filters].reshape(inner.weight_shape), twins, isa
                )
        self._taps, self._tasks = self._tap_table(), self._task_table()
        needed = kernels.SCRATCH_HEAD + layout.block_bytes() + machine.vector_bytes
        self._scratch_bytes = -(-needed // ALIGN) * ALIGN + ALIGN
        self._function = patches_kernel.task_address(spec.dtype, layout.stride[2], machine)
        self._call, self.summon = parallel.caller(), parallel.summoner(len(self._tasks))
        self._frames = [self._new_frame()]
        self._frame_bytes = self._frames[0].scratch.nbytes

    @property
    def nbytes(self):
        """Bytes that the plan holds."""
        products = sum(product.nbytes for product in self._products.values())
        return products + self._taps.nbytes + self._tasks.nbytes + self._frame_bytes

    def _tap_table(self):
        """A record for each copied tap: how far from a window's first element it reads, along each dimension."""
        layout = self._layout
        far = np.indices(layout.copied).reshape(3, -1) * np.reshape(layout.dilation, (3, 1))
        return table(patches_kernel.TAP, dict(zip(patches_kernel.TAP, far, strict=True)))

    def _task_table(self):
        """A record for each (image, slice, block, chunk)."""
        layout, item = self._layout, np.dtype(self._layout.dtype).itemsize
        image = np.arange(layout.batch)[:, None, None, None]
        level = np.arange(layout.output[0])[:, None, None]
        row, column, kind = (values[:, None] for values in layout.blocks)
        rows, columns, pitch = (
            np.array(values)[kind]
            for values in zip(*((layout.copied_rows(k), k[1], layout.pitch(k)) for k in layout.kinds), strict=True)
        )
        first, filters = (np.array([getattr(c, name).start for c in layout.chunks]) for name in ("channels", "filters"))
        out_plane, out_volume = math.prod(layout.output[1:]), math.prod(layout.output)
        block = (image * layout.output[0] + level) * len(row) + np.arange(len(row))[:, None]
        x = (image * layout.channels + first) * math.prod(layout.spatial)
        out = (image * layout.out_channels + filters) * out_volume
        out = out + level * out_plane + row * layout.output[2] + column
        rows = {
            "x": x * item,
            "out": out * item,
            "groups": [c.groups for c in layout.chunks],
            "slice": level * layout.stride[0] - layout.low[0],
            "row": row * layout.stride[1] - layout.low[1],
            "column": column * layout.stride[2] - layout.low[2],
            "rows": rows,
            "columns": columns,
            "pitch": pitch * item,
            "product": kind * len(layout.chunks) + np.arange(len(layout.chunks)),
            "patches": block * len(layout.chunks) + (np.arange(len(layout.chunks)) if layout.groups > 1 else 0),
        }
        return table(patches_kernel.TASK, rows).reshape(-1, len(patches_kernel.TASK))

    def _new_frame(self):
        """Constants and scratch for one caller at a time."""
        layout, item = self._layout, np.dtype(self._layout.dtype).itemsize
        _, height, width = layout.spatial
        constants = {
            "tasks": self._tasks.ctypes.data,
            "taps": self._taps.ctypes.data,
            "tap_count": len(self._taps),
            "product_count": len(self._products),
            "scratch_bytes": self._scratch_bytes,
            "depth": layout.spatial[0],
            "height": height,
            "width": width,
            "channel_bytes": math.prod(layout.spatial) * item,
            "slice_bytes": height * width * item,
            "row_bytes": width * item,
            "row_stride": layout.stride[1],
            "group_channels": layout.channels // layout.groups,
        }
        threads = settings.get_num_threads()
        products = [product.words(threads) for product in self._products.values()]
        return _Frame(constants, self._function, len(self._tasks), products, threads)


class _DenseProduct(DensePlan):
    """A lowered problem, whose rows of patches, output rows and output channels lie further apart than it is long."""

    def __init__(self, layout, kind, spec, weight, twins, isa):
        self._twins, self._whole = twins, kind[1] == layout.output[2]
        self._distances = (
            (0, layout.pitch(kind), 0, kind[1], 1),
            (0, math.prod(layout.output), 0, layout.output[2], 1),
        )
        super().__init__(spec, weight, isa=isa)

    def _pack(self, weight, bias):
        super()._pack(weight, bias)
        for twin in self._twins:  # blocks of another size may need the weights in the same order
            if np.array_equal(twin._weights, self._weights):
                self._weights = twin._weights

    def _position_table(self, kinds):
        positions, ends = super()._position_table(kinds)
        # A tile as wide as its block is several runs of output, but for blocks of whole rows.
        if not self._whole and len(self._tiling.columns) == 1:
            width = self._tiling.columns[0]
            run, length = (positions[:, kernels.POSITION[name] // 8] for name in ("runs", "length"))
            run[:], length[:] = run * length // width, width
        return positions, ends

    def words(self, threads):
        """The words of a frame with scratch for `threads` threads, and that scratch."""
        frame = self._new_frame()
        return frame.words, frame.scratch


class _WideProduct(WidePlan):
    """The same with vectors along the rows."""

    def __init__(self, layout, kind, spec, weight, twins, isa):
        super().__init__(spec, weight, isa=isa)
        item, columns, width = np.dtype(spec.dtype).itemsize, kind[1], layout.output[2]
        blocks, images = self._arrays["block_table"], self._arrays["image_table"]
        row, column = np.divmod(blocks[:, BLOCK.index("out")], columns * item)
        blocks[:, BLOCK.index("out")] = row * width * item + column
        images[:, IMAGE.index("out")] *= math.prod(layout.output)
        images[:, IMAGE.index("out")] //= math.prod(kind)
        self._constants["out_step"] = math.prod(layout.output) * item
        if kind[0] > 1:  # one row alone may be folded, and then its vectors follow each other
            self._constants["out_pitch"] = self._constants["out_pitch"] * width // columns

    def words(self, threads):
        """The words of a frame with scratch for `threads` threads, and that scratch."""
        frame = self._new_frame(threads)
        return frame.words, frame.scratch


class _Frame:
    """What one call owns: its words, patches for each thread, and for each thread a frame of each product."""

    def __init__(self, constants, function, tasks, products, threads):
        self.threads = threads
        self.scratch = aligned(constants["scratch_bytes"] * threads // 8, np.int64)
        self._products = products  # whose scratch the copies of their words point to
        self._copies = [[words.copy() for words, _ in products] for _ in range(threads)]
        self._pointers = np.array([[words.ctypes.data for words in row] for row in self._copies], np.int64)
        self.words = np.zeros(pool_code.FRAME_HEAD + len(patches_kernel.FRAME), np.int64)
        self.words[pool_code.FRAME_FUNCTION // 8] = function
        self.words[pool_code.FRAME_TASKS // 8] = tasks
        self.words[pool_code.FRAME_THREADS // 8] = threads
        known = {**constants, "scratch": self.scratch.ctypes.data, "products": self._pointers.ctypes.data}
        for name, at in patches_kernel.FRAME.items():
            self.words[at // 8] = known[name]
        self.addresses = [self.words.ctypes.data]
