"""Winograd's minimal filtering with channels as lanes: strides, dilation, many taps and few tiles are all one to it.

    y = Aᵀ [ sum over c of (G g Gᵀ) ⊙ (Bᵀ d B) ] A

as in `winograd`, whose lanes are tiles.  Here they are channels, those of the input in the first step and those of the
output in the others (`winograd_cells_kernel`), so a tile may be made of any elements (`winograd_cells_layout`).  Three
rounds of tasks: inputs of all tiles are transformed; each task multiplies all tiles at some frequencies, whose weights
it alone reads; sums are transformed back.
"""

import itertools
import math

import numpy as np

from convbench import settings

from . import winograd_cells_kernel as kernels
from .dense_tiling import parts
from .records import ALIGN, aligned, table
from .target import cache_bytes, target
from .winograd_cells_layout import axes, input_places, output_places, part_sources, parted
from .winograd_cells_tiling import blocks
from .winograd_frames import Frame, RoundsPlan
from .winograd_matrices import matrices, numbers
from .winograd_tiling import SHARED_BYTES, ranges

#: Part of the L2 cache for V of the tiles that are multiplied one after the other, at one frequency.
FREQUENCY_SHARE = 0.5
#: Tasks per thread that even out delays.
TASKS_PER_THREAD = 4


class CellPlan(RoundsPlan):
    """A planned convolution: ``plan(x, out)`` computes and says whether every number was finite.

    Parameters
    ----------
    spec : ConvSpec
        Up to three dimensions, any stride, padding, dilation and memory format.
    weight : ndarray, shape (out_channels, in_channels // groups, *kernel)
    bias : ndarray, shape (out_channels,), optional
    outputs, taps : tuple of int
        m and r of F(m, r), per spatial dimension; both are 1 along the first of three.
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

    def __init__(self, spec, weight, bias=None, *, outputs, taps, isa=None):
        self._target = target(isa)
        self._spec, self._item, self._lanes = spec, spec.itemsize, self._target.lanes(spec.dtype)
        self._unrolled = kernels.unrolled(self._lanes)
        self._axes = axes(spec, outputs, taps)
        self._frequencies = math.prod(axis.products for axis in self._axes)
        self._group = spec.in_channels // spec.groups, spec.out_channels // spec.groups
        self._cells, self._vectors = (math.ceil(count / self._lanes) for count in self._group)
        self._threads = settings.get_num_threads()
        self._divide()
        self._tabulate()
        self._pack(np.asarray(weight, np.float64), bias)
        self._steps = [step for groups, images in self._rounds for step in self._round(groups, images)]
        self._begin(max(len(tasks) for _, tasks in self._steps))

    def _divide(self):
        """Decide on rounds of groups and images, and on blocks of filters and of tiles."""
        width, batch, groups = self._target.vector_bytes, self._spec.batch, self._spec.groups
        self._copies = math.prod(axis.copies for axis in self._axes)
        self._grid = math.prod(axis.grid for axis in self._axes)
        most = SHARED_BYTES // (self._frequencies * (self._copies * self._cells + self._vectors) * self._grid * width)
        images = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= max(1, most))
        together = max(1, most // batch)
        self._rounds = [
            (range(group, min(group + together, groups)), range(image, image + images))
            for group, image in itertools.product(range(0, groups, together), range(0, batch, images))
        ]
        self._tiles = images * self._grid
        self._v_cell = self._m_vector = self._tiles * width
        # A line more, so that frequencies do not lie in the same sets of a cache.
        self._v_frequency = self._copies * self._cells * self._v_cell + ALIGN
        self._m_frequency = self._vectors * self._m_vector + ALIGN
        registers = self._target.registers, self._target.multiplies
        filters, tiles, _ = blocks(self._vectors, self._tiles, *registers)
        self._filters, self._blocks = parts(self._vectors, filters), parts(self._tiles, tiles)
        most = FREQUENCY_SHARE * cache_bytes() / (self._copies * self._cells * width * max(self._blocks))
        times = math.ceil(len(self._blocks) / max(1, int(most)))
        self._together = math.ceil(len(self._blocks) / times)

    def _tabulate(self):
        """The tables of elements of tiles, of blocks of tiles, and of the rounds of a product."""
        width, sizes = self._target.vector_bytes, np.array(self._blocks)
        targets, places = output_places(self._axes)
        records = {"tiles": (np.cumsum(sizes) - sizes) * width, "number": np.unique(sizes, return_inverse=True)[1]}
        self._arrays = {
            "sources": _places(input_places(self._axes), width),
            "targets": _places(targets, width),
            "numbers": _places(places, width),
            "blocks": table(kernels.BLOCK, records),
            "steps": self._product_steps(),
        }

    def _product_steps(self):
        """A record for each round of the product."""
        copies, shifts = part_sources(self._axes)
        begins = copies * self._cells * self._v_cell + shifts * self._target.vector_bytes
        per_cell, rounds = self._lanes // self._unrolled, math.ceil(self._group[0] / self._unrolled)
        cell, number = np.divmod(np.arange(rounds), per_cell)
        cells, number = (begins[:, None] + cell * self._v_cell).ravel(), np.tile(number, len(begins))
        fields = {
            "here": cells + number * self._unrolled * self._item,
            "next": np.append(cells, [cells[-1]] * per_cell)[per_cell:],
            "number": number,
        }
        return table(kernels.STEP, fields)

    def _pack(self, weight, bias):
        """Weights [group][frequency][block of filters][part][channel][filter], their records, and the bias."""
        spec, lanes, dtype = self._spec, self._lanes, self._spec.dtype
        weight = parted(weight.reshape(*weight.shape[:2], *(axis.taps for axis in self._axes)), self._axes)
        weight = weight.reshape(spec.groups, self._group[1], *weight.shape[1:3], -1)
        g = np.ones((1, 1))
        for axis in self._axes:
            g = np.kron(g, numbers(matrices(axis.m, axis.r).g))
        channels = -(-self._group[0] // self._unrolled) * self._unrolled
        lines = weight.shape[2] * channels
        packed = aligned(spec.groups * len(g) * lines * self._vectors * lanes, dtype)
        rows = packed.reshape(spec.groups, len(g), -1)
        kernel_sizes, addresses, records, first = sorted(set(self._blocks)), [], [], 0
        for vectors in self._filters:
            part = weight[:, first * lanes : (first + vectors) * lanes]
            whole = np.zeros((spec.groups, len(g), weight.shape[2], channels, vectors * lanes), dtype)
            with np.errstate(all="ignore"):  # NaN and Inf are data here
                found = np.einsum("ft,gkpct->gfpck", g, part, optimize=True)
                whole[:, :, :, : self._group[0], : part.shape[1]] = found
            start, length = lines * first * lanes, lines * vectors * lanes
            rows[:, :, start : start + length] = whole.reshape(spec.groups, len(g), -1)
            records.append([start, first * self._m_vector, len(addresses), length])
            asks = math.ceil(self._unrolled * vectors * lanes * self._item / (ALIGN * self._together))
            addresses += [kernels.product_address(vectors, size, dtype, asks, self._target) for size in kernel_sizes]
            first += vectors
        addresses = np.array(addresses, np.int64)
        records = np.array(records) * (self._item, 1, 8, self._item) + (0, 0, addresses.ctypes.data, 0)
        biases = np.zeros((spec.groups, self._vectors * lanes), dtype)
        if bias is not None:
            biases[:, : self._group[1]] = np.reshape(bias, (spec.groups, -1))
        self._arrays.update(weights=packed, bias=biases, filters=records, kernels=addresses)
        self._u_frequency = rows[0, 0].nbytes

    def _round(self, groups, images):
        """The three steps of some groups of some images: functions and tables of tasks."""
        form = *((axis.m, axis.r) for axis in self._axes[1:]), self._spec.dtype
        steps = {
            "gather": (form, self._plane_tasks(groups, images, self._group[0], self._spec.spatial)),
            "multiply": ((), self._product_tasks(groups)),
            "scatter": (form, self._plane_tasks(groups, images, self._group[1], self._spec.output_spatial)),
        }
        for name, (form, tasks) in steps.items():
            found = np.array(tasks, np.int64)
            found[:, list(kernels.TASK).index("flag")] = np.arange(len(found)) * ALIGN
            yield kernels.task_address(name, form, self._target), found

    def _task(self, group, number, **fields):
        """A task's record, zero where nothing is said; the group is one of the whole, and `number` of the round."""
        places = {
            "v": number * self._frequencies * self._v_frequency,
            "m": number * self._frequencies * self._m_frequency,
            "u": group * self._frequencies * self._u_frequency,
        }
        return [{**places, **fields}.get(name, 0) for name in kernels.TASK]

    def _plane_tasks(self, groups, images, channels, spatial):
        """A task for each group, image, and cell of channels, of planes of this size."""
        cells, elements = range(math.ceil(channels / self._lanes)), math.prod(spatial)
        apart = 1 if self._is_last else elements
        return [
            self._task(
                group,
                number,
                at=(image * self._spec.groups * elements * channels + (group * channels + first) * apart) * self._item,
                count=min(self._lanes, channels - first),
                bias=(group * self._vectors * self._lanes + first) * self._item,
                cell=cell,
                tile=(image - images[0]) * self._grid,
            )
            for (number, group), image, cell in itertools.product(enumerate(groups), images, cells)
            for first in [cell * self._lanes]
        ]

    def _product_tasks(self, groups):
        """Frequencies for each thread; where there are few, some blocks of filters of them."""
        wanted = math.ceil(TASKS_PER_THREAD * self._threads / len(groups))
        frequencies = ranges(self._frequencies, min(self._frequencies, max(wanted, self._threads)))
        filters = ranges(len(self._filters), min(len(self._filters), math.ceil(wanted / len(frequencies))))
        return [
            self._task(group, number, frequency=f.start, frequency_end=f.stop, filters=k.start, filters_end=k.stop)
            for (number, group), f, k in itertools.product(enumerate(groups), frequencies, filters)
        ]

    @property
    def _is_last(self):
        return self._spec.memory_format == "channels_last"

    def _new_frame(self):
        spec, item, width = self._spec, self._item, self._target.vector_bytes
        inputs, outputs = math.prod(spec.spatial), math.prod(spec.output_spatial)
        last = self._is_last
        constants = {
            **{name: array.ctypes.data for name, array in self._arrays.items() if name in kernels.FRAME},
            "to_cells": kernels.cells_address(True, last, spec.dtype, self._target),
            "from_cells": kernels.cells_address(False, last, spec.dtype, self._target),
            "inputs": inputs,
            "outputs": outputs,
            "x_pitch": (spec.in_channels if last else inputs) * item,
            "out_pitch": (spec.out_channels if last else outputs) * item,
            "v_cell": self._v_cell,
            "v_frequency": self._v_frequency,
            "m_vector": self._m_vector,
            "m_frequency": self._m_frequency,
            "u_frequency": self._u_frequency,
            "copy_bytes": self._arrays["sources"][0].nbytes,
            "copies": self._copies,
            "cells": self._cells,
            "seen": self._grid,
            "tiles": len(self._arrays["numbers"]),
            "tile_blocks": len(self._blocks),
            "together": self._together,
            "rounds": len(self._arrays["steps"]),
        }
        groups = max(len(groups) for groups, _ in self._rounds)
        each = {"v": self._v_frequency, "m": self._m_frequency}
        sizes = {name: groups * self._frequencies * size for name, size in each.items()}
        cells = (max(inputs, outputs) + self._lanes) * width
        return Frame(kernels.FRAME, constants, self._steps, cells, sizes, settings.get_num_threads(), False)


def _places(numbers, width):
    """A table of elements, in bytes of cells."""
    return np.ascontiguousarray(numbers * width, np.int32)
