"""Winograd's minimal filtering: transform tiles, one matrix product per frequency, transform back.

    y = Aᵀ [ sum over c of (G g Gᵀ) ⊙ (Bᵀ d B) ] A

for tiles of d that overlap by r - 1 (`winograd_matrices`), in blocks of whole vectors of tiles
(`winograd_layout`), by generated code (`winograd_kernel`, `winograd_tasks`).  Three ways of doing it:

fused   a task takes a block through all three steps; its transformed input stays in the L2 cache, while the
        weights of a few output channels after the other stream past.
pieces  the same for some input channels after the others, where not all of them fit; the sums of all output channels
        stay in the L2 cache, too.
shared  three rounds of tasks over more tiles at once: blocks are transformed, then each task multiplies all of
        them at some frequencies, whose weights it alone reads, then blocks are transformed back.

Fused wins while two or three vectors of tiles fit the L2 cache with all their channels, pieces while all sums of as
many vectors leave room for some channels.
"""

import dataclasses
import itertools
import math

import numpy as np

from convbench import settings

from . import residence
from . import winograd_kernel as kernels
from . import winograd_tasks as drivers
from .records import ALIGN, table
from .target import cache_bytes, target
from .winograd_frames import Frame, RoundsPlan
from .winograd_layout import Plane, input_table, output_table, runs
from .winograd_strides import phases, places, spans
from .winograd_tiling import SHARED_BYTES, choose, gather_cycles, piece_of, ranges, way_of
from .winograd_weights import pack

#: Part of the L2 cache for V of all blocks of a round at one frequency.
FREQUENCY_SHARE = 0.5
#: Channels whose columns are transformed together in shared rounds, so that V and M are passed in fewer, longer
#: streams; where V stays in the L2 cache, one is best (milliseconds of both transforms, 1 / 4 / 8 channels: 256
#: channels at 56 x 56, shared, 2.2 / 1.7 / 1.8; 64 at 224 x 224, fused, 2.3 / 3.0 / 3.3; Cascade Lake, 2026-11).
TOGETHER = 4
#: Tasks per thread that even out delays.
TASKS_PER_THREAD = 4
#: Cycles that a vector of outputs, which come in bursts, takes at most where they are written past the caches: F(6, 3),
#: us through and past them, caches cold, 3 -> 64 channels at 224x224 1446 and 1073, 64 -> 64 6445 and 5831, 64 -> 128
#: at 112x112 2892 and 2719, 64 -> 64 at 96x96 1299 and 1230; but 128 -> 128 at 112x112 6418 and 6424; 1 -> 64 at
#: 576x576, 85 MB, 8409 and 4576.  Where most vectors lie across lines, 32 -> 64 at 150x150 1883 and 2045, 64 -> 64 at
#: 64x64, batch 8, 3969 and 4205 (Zen 4, November 2026).
STREAMED_CYCLES = 128


class WinogradPlan(RoundsPlan):
    """A planned convolution: ``plan(x, out)`` computes and says whether every number was finite.

    Parameters
    ----------
    spec : ConvSpec
        Dilation 1, channels first, one or two dimensions.
    weight : ndarray, shape (out_channels, in_channels // groups, *kernel)
    bias : ndarray, shape (out_channels,), optional
    outputs : tuple of int
        m of F(m, r), per spatial dimension; r are the taps of a phase (`winograd_strides`).
    slices : int
        The batch's images are slices of volumes of so many, which lie (N, C, slices, *spatial) in memory.
    way : str, optional
        "fused", "pieces" or "shared"; by default the one that fits the cache.
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

    def __init__(self, spec, weight, bias=None, *, outputs, way=None, slices=1, isa=None):
        self._target = target(isa)
        self._itemsize, self._lanes = spec.itemsize, self._target.lanes(spec.dtype)
        self._plane = Plane.of(spec, slices)
        taps = (1,) * (2 - spec.ndim) + spec.kernel
        sizes = (1,) * (2 - spec.ndim) + tuple(outputs)
        self._tiles = self._plane.tiles(sizes)
        self._form = self._form_of(sizes, spec.dtype)
        self._channels = spec.in_channels // spec.groups
        self._group = self._channels * phases(self._plane.axes), spec.out_channels // spec.groups
        self._threads = settings.get_num_threads()
        self._divide(way)
        self._tabulate()
        self._pack(np.asarray(weight, np.float64).reshape(*weight.shape[:2], *taps), bias)
        self._steps = self._shared_steps() if self._shares else self._block_steps()
        self._begin(max(len(tasks) for _, tasks in self._steps))

    @property
    def _shares(self):
        """Whether threads share V and M, in three rounds."""
        return self._way == "shared"

    def _divide(self, way):
        """Decide on the way of computing, blocks of tiles and of filters, rounds of blocks, and pieces of channels."""
        products = math.prod(self._form.products)
        total = math.ceil(self._plane.batch * math.prod(self._tiles) / self._lanes)
        cache = self._target.vector_bytes, cache_bytes()
        fitting, fits = way_of(products, *self._group, total, *cache)
        self._way = way or fitting
        machine = self._target.registers, self._target.multiplies
        own = fits, self._threads, gather_cycles(self._form.products, self._form.stride, self._target.multiplies)
        most, threads, gather = (total, 1, 0) if self._shares else own
        self._vectors, self._filters, _ = choose(total, self._group[1], most, *machine, threads, gather)
        self._rounds = self._blocks_of_rounds() if self._shares else [range(len(self._vectors))]
        most = self._channels
        if self._way == "pieces":
            most = max(1, piece_of(products, self._group[1], fits, *cache) // phases(self._plane.axes))
        self._pieces = [range(c, min(c + most, self._channels)) for c in range(0, self._channels, most)]

    def _form_of(self, outputs, dtype):
        """What decides over the code."""
        down, across = self._plane.axes
        both = (outputs[0], down.reduced), (outputs[1], across.reduced)
        form = kernels.Form(*both, dtype, False, across.stride, across.phases, across.full)
        narrow = form.seen(min(self._tiles[1], self._lanes)) <= 2 * self._lanes
        return dataclasses.replace(form, narrow=narrow)

    def _blocks_of_rounds(self):
        """Ranges of blocks whose V and M stay in the last-level cache, and V of a frequency in the second."""
        products, width = math.prod(self._form.products), self._target.vector_bytes
        most = min(
            SHARED_BYTES // (products * sum(self._group) * width),
            int(FREQUENCY_SHARE * cache_bytes()) // (self._group[0] * width),
        )
        blocks = len(self._vectors)
        count = min(blocks, math.ceil(sum(self._vectors) / max(1, most)))
        return ranges(blocks, count)

    def _tabulate(self):
        """The tables of input rows, output rows and blocks."""
        plane, form, lanes, item = self._plane, self._form, self._lanes, self._itemsize
        found = runs(plane, form, self._vectors, lanes)
        outputs, output_counts = output_table(plane, form, found, self._vectors, lanes, item)
        sizes = sorted(set(self._vectors))
        vectors = np.array(self._vectors)
        width = vectors * self._target.vector_bytes
        kinds = sorted(set(self._filters))
        fields = {
            "outputs": _before(output_counts, outputs),
            "output_count": output_counts,
            "vectors": vectors,
            "bytes": width,
            "v_frequency": len(self._pieces[0]) * phases(plane.axes) * width + ALIGN,
            "m_frequency": (max(self._filters) if self._way == "fused" else self._group[1]) * width + ALIGN,
            "kernel": np.searchsorted(sizes, vectors) * len(kinds),
        }
        for name in ("v", "m"):
            sizes_of = math.prod(form.products) * fields[f"{name}_frequency"]
            ends = np.cumsum(sizes_of) - sizes_of
            starts = np.repeat([ends[blocks[0]] for blocks in self._rounds], [len(blocks) for blocks in self._rounds])
            fields[name] = ends - starts if self._shares else 0 * ends
        found_kinds = itertools.product([False, True] if len(self._pieces) > 1 else [False], sizes, kinds)
        addresses = [
            kernels.multiply_address(size, kind, form.dtype, adds, self._target) for adds, size, kind in found_kinds
        ]
        inputs, blocks = self._input_tables(found, fields)
        self._arrays = {
            "inputs": inputs,
            "outputs": outputs,
            "blocks": blocks,
            "spans": spans(*plane.axes, (form.down[0], form.across[0])),
            "kernels": np.array(addresses, np.int64),
        }
        self._bytes = {
            name: int((fields[name] + math.prod(form.products) * fields[f"{name}_frequency"]).max()) for name in "vm"
        }

    def _input_tables(self, found, fields):
        """The table of input rows, and that of blocks with a record for each phase down, all else in `fields`."""
        plane, tables, records, start = self._plane, [], [], 0
        for phase, row in enumerate(places(*plane.axes)):
            inputs, counts = input_table(plane, self._form, found, self._vectors, self._lanes, self._itemsize, phase)
            counts = np.pad(counts, ((0, 0), (0, 4 - counts.shape[1])))
            mine = {
                "inputs": start + _before(counts.sum(1), inputs),
                **dict(zip(("one", "two", "three", "four"), counts.T, strict=True)),
                "full": row[0],
                "part": row[-1] - len(row) + 1,
            }
            records.append(table(kernels.BLOCK, {**fields, **mine}))
            tables.append(inputs)
            start += inputs.nbytes
        return np.concatenate(tables), np.ascontiguousarray(np.stack(records, axis=1)).reshape(-1, len(kernels.BLOCK))

    def _pack(self, weight, bias):
        """The weights, their records, and the bias."""
        packed, records = pack(weight, self._plane, self._form, self._filters, self._pieces, not self._shares)
        biases = np.zeros(self._plane.out_channels, self._form.dtype)
        if bias is not None:
            biases[:] = bias
        self._arrays.update(weights=packed, bias=biases, filters=records)

    def _task(self, group, **fields):
        """A task's record, zero where nothing is said."""
        plane, item = self._plane, self._itemsize
        x_channel, out_channel = plane.channel_sizes
        places = {
            "x": group * self._channels * x_channel * item,
            "out": group * self._group[1] * out_channel * item,
            "bias": group * self._group[1] * item,
        }
        return [{**places, **fields}.get(name, 0) for name in kernels.TASK]

    def _block_steps(self):
        """One round: a task for each (group, block of tiles, range of filters)."""
        blocks, parts = range(len(self._vectors)), len(self._filters)
        per_group, wanted = len(self._pieces) * parts, math.ceil(self._threads / (len(blocks) * self._plane.groups))
        pieces = ranges(parts, min(parts, wanted))
        tasks = [
            self._task(
                group, block=block, key=1 + group * len(blocks) + block, **_range("filters", filters, group * per_group)
            )
            for group, block, filters in itertools.product(range(self._plane.groups), blocks, pieces)
        ]
        return [self._step(self._way, tasks)]

    def _shared_steps(self):
        """Three rounds for each (group, range of blocks), one after the other."""
        steps = []
        for group, blocks in itertools.product(range(self._plane.groups), self._rounds):
            steps += [
                self._step("gather", self._channel_tasks(group, blocks, self._channels)),
                self._step("multiply", self._product_tasks(group, blocks)),
                self._step("scatter", self._channel_tasks(group, blocks, self._group[1])),
            ]
        return steps

    def _channel_tasks(self, group, blocks, channels):
        wanted = math.ceil(TASKS_PER_THREAD * self._threads / len(blocks))
        pieces = ranges(channels, min(channels, wanted))
        return [self._task(group, block=block, **_range("channel", piece)) for block in blocks for piece in pieces]

    def _product_tasks(self, group, blocks):
        """Frequencies for each thread; where there are few, some filters of them."""
        frequencies, per_group = math.prod(self._form.products), len(self._filters)
        wanted = TASKS_PER_THREAD * self._threads
        pieces = ranges(per_group, min(per_group, math.ceil(wanted / frequencies)))
        return [
            self._task(
                group,
                **_range("block", blocks),
                **_range("filters", piece, group * per_group),
                **_range("frequency", frequency),
            )
            for frequency in ranges(frequencies, min(frequencies, max(wanted, frequencies)))
            for piece in pieces
        ]

    def _step(self, name, tasks):
        """A driver, its table of tasks, and whether they have flags."""
        found = np.array(tasks, np.int64)
        if name in ("fused", "pieces", "scatter"):
            column = list(kernels.TASK).index("flag")
            found[:, column] = np.arange(len(found)) * ALIGN
        return drivers.task_address(name, self._target), found

    def _streams(self):
        """Whether outputs are written past the caches where their memory is in none; most must be whole lines."""
        plane, form = self._plane, self._form
        written = plane.batch * plane.out_channels * math.prod(plane.out) * self._itemsize
        products = self._group[0] * math.prod(form.products) / (form.down[0] * form.across[0])
        whole = plane.out[1] % self._lanes == 0 and self._tiles[1] >= self._lanes
        return whole and residence.pays(self._target, written, products, STREAMED_CYCLES)

    def _new_frame(self):
        form, plane, item = self._form, self._plane, self._itemsize
        outputs = plane.batch * plane.out_channels * math.prod(plane.out) * item
        streams = self._streams()
        constants = {
            **{name: array.ctypes.data for name, array in self._arrays.items()},
            "gather": kernels.gather_address(form, self._target),
            "scatter": kernels.scatter_address(form, streams, self._target),
            "channels": self._channels,
            "piece": len(self._pieces[0]),
            "parts": len(self._filters),
            "adding": len(self._arrays["kernels"]) // 2,
            "phases": self._plane.axes[0].phases,
            "x_channel": plane.channel_sizes[0] * item,
            "out_channel": plane.channel_sizes[1] * item,
            "frequencies": math.prod(form.products),
            "itemsize": item,
            "asks": outputs > cache_bytes(),
            "together": TOGETHER if self._shares else 1,
            "far_cycles": residence.far_cycles(self._target) if streams else 0,
            "output_bytes": 8 * len(kernels.output_slots(form)),
        }
        rows = form.row_bytes(max(self._vectors), constants["together"], self._target.vector_bytes)
        return Frame(
            kernels.FRAME, constants, self._steps, rows, self._bytes, settings.get_num_threads(), not self._shares
        )


def _before(counts, rows):
    """Bytes of a table in front of the rows of each, where they have so many."""
    return (np.cumsum(counts) - counts) * rows.shape[1] * rows.itemsize


def _range(name, numbers, base=0):
    """The two fields of a task that hold a range."""
    return {name: base + numbers.start, f"{name}_end": base + numbers.stop}
