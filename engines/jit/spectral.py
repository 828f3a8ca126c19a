"""Convolution of planes by their spectra, in tiles: `SpectralPlan` prepares and runs the code of `tile_code`.

Where every output channel has an input channel of its own, a task does a tile from image to image.  Otherwise each
input channel is transformed once and each output channel back once, and `product_code` sums the channels in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convbench.padding import pad

from .. import fft_folding, fft_tiles
from . import parallel, product_code, shortcut, tile_code, tile_groups, tile_jobs
from .pool_code import FRAME_FUNCTION, FRAME_HEAD, FRAME_TASKS, FRAME_THREADS
from .target import target
from .tile_code import function
from .tile_tables import Tables, aligned, kernel_exponent, kernel_spectra

#: Frequencies of one product task at most.
MOST_ELEMENTS = 16
#: What a plan holds that is made a second time, for calls without Python.
TWIN_BYTES = 1 << 20


@dataclass
class _Run:
    """One job of the pool: its frame, and for every task the batch item and tile that it computes."""

    frame: np.ndarray
    items: np.ndarray | None = None
    tiles: np.ndarray | None = None
    struck: np.ndarray | None = None

    @property
    def met_nonfinite(self):
        """Whether a tile of the last call had outputs that are not finite."""
        return self.struck is not None and self.struck[0] != 0


class SpectralPlan:
    """``plan(x, out)`` of a one- or two-dimensional problem in float32 or float64.

    Parameters
    ----------
    spec : ConvSpec
    weight : numpy.ndarray
    tiling : fft_tiles.Tiling

    Attributes
    ----------
    nbytes : int
        Bytes that the plan holds.
    """

    def __init__(self, spec, weight, tiling):
        self._spec, self._tiling = spec, tiling
        self._machine = target()
        self._lanes = self._machine.lanes(spec.dtype)
        self._plane = fft_tiles.tile_bytes(tiling.tile, spec.itemsize)
        self._vectors = tiling.tile.elements // self._lanes
        self._held = []
        self._weight = self._keep(np.array(weight))
        self._direct_plans = {}
        self._call = parallel.caller()
        self._threads = parallel.ready()
        self._tables = {}
        self._room = 0  # scratch of a worker, at least: where it goes from job to job on its own
        self._runs, self._frames = self._separate() if fft_tiles.separate(spec) else self._mixed()
        self._addresses = [frame.ctypes.data for frame in self._frames]
        self.nbytes = sum(array.nbytes for array in self._held)
        self.summon = parallel.summoner(max(frame[FRAME_TASKS // 8] for frame in self._frames))

    def __call__(self, x, out):
        """Compute the convolution of `x` into `out`, both C-contiguous; nothing is checked."""
        parallel.ready()
        for address in self._addresses:
            self._call(address, id(x), id(out))
        for run in self._runs:
            if run.met_nonfinite:
                self._compute_directly(run, x, out)

    def shortcut(self, known):
        """See `convbench.engine.Plan`: of a twin, where one is small, for a plan has scratch for one call at a time."""
        if self.nbytes > TWIN_BYTES or len(self._runs) > 1:
            return None
        twin = self._twin()
        self.nbytes += twin.nbytes
        (run,) = twin._runs
        return shortcut.make(known, twin._addresses, twin._call, twin.summon, run.struck[:1], kept=twin)

    def _twin(self):
        return SpectralPlan(self._spec, self._weight, self._tiling)

    def _keep(self, array):
        self._held.append(array)
        return array

    def _kernel_spectra(self):
        return kernel_spectra(self._spec, self._weight, self._tiling.tile, self._lanes)

    def _separate(self):
        """One job: every tile of every plane."""
        spec, tiling = self._spec, self._tiling
        spectra = self._keep(aligned((spec.out_channels, self._vectors, 2 * self._lanes), spec.dtype))
        for output, _, values in self._kernel_spectra():
            spectra[output] = values
        item, channel, tile = tile_jobs.grid(spec.batch, spec.out_channels, tiling.per_plane)
        plane = item * spec.out_channels + channel
        places = {"source": plane, "out": plane, "spectrum": channel * self._plane, "plane": 0 * plane, "tile": tile}
        run = self._tile_run("whole", item, places, {"spectra": spectra.ctypes.data})
        return [run], [run.frame]

    def _mixed(self):
        """Three jobs per group of tiles: input channels forward, products, output channels back.

        A job after the other, by all threads; or all three as one task of the only job (`tile_groups`).
        """
        spec, tiling = self._spec, self._tiling
        slots = fft_tiles.own_group(spec, tiling, self._threads)
        owners = self._threads if slots else 1
        slots = slots or fft_tiles.group_size(spec, tiling)
        inputs, outputs = (
            self._keep(aligned((owners, channels, slots, self._plane), np.uint8))
            for channels in (spec.in_channels, spec.out_channels)
        )
        filters, columns = product_code.blocking(self._machine.registers, slots)
        per_group = spec.out_channels // spec.groups
        filters = -(-per_group // -(-per_group // filters))
        words = {
            "inputs": inputs.ctypes.data,
            "outputs": outputs.ctypes.data,
            "inputs_bytes": inputs[0].nbytes if owners > 1 else 0,
            "outputs_bytes": outputs[0].nbytes if owners > 1 else 0,
            "kernels": self._packed_kernels(filters).ctypes.data,
            "plane_bytes": self._plane,
            "slots": slots,
            "channels": spec.in_channels // spec.groups,
            "filters": per_group,
            "filter_blocks": -(-per_group // filters),
            "elements": self._vectors,
        }
        total = spec.batch * tiling.per_plane
        groups = [(first, min(slots, total - first)) for first in range(0, total, slots)]
        if owners > 1:
            return self._own_groups(groups, inputs, outputs, (filters, columns), words)
        runs = []
        for group in groups:
            runs.append(self._channel_run("forward", inputs, [group]))
            runs.append(self._product_run(filters, columns, group[1], words))
            runs.append(self._channel_run("inverse", outputs, [group]))
        return runs, [run.frame for run in runs]

    def _packed_kernels(self, filters):
        """Kernels' spectra as [group][vector of frequencies][block of filters][channel][filter]."""
        spec = self._spec
        per_group, channels = spec.out_channels // spec.groups, spec.in_channels // spec.groups
        shape = (spec.groups, self._vectors, -(-per_group // filters), channels, filters, 2 * self._lanes)
        kernels = self._keep(aligned(shape, spec.dtype))
        for output, channel, values in self._kernel_spectra():
            group, number = divmod(output, per_group)
            kernels[group, :, number // filters, channel, number % filters] = values
        return kernels

    def _own_groups(self, groups, inputs, outputs, blocking, words):
        """One job, a task of it for each group: it goes through all three with the same scratch."""
        sizes = [count for _, count in groups]
        gathered = self._gathered_bytes(blocking[1], max(sizes), words["channels"])
        self._room = max(fft_tiles.GATHER_BYTES, gathered, self._tile_scratch(True))
        forward, inverse = self._channel_run("forward", inputs, groups), self._channel_run("inverse", outputs, groups)
        products = {count: self._product_run(*blocking, count, words) for count in sorted(set(sizes))}
        stops = np.cumsum(sizes)
        records = {
            "first_in": inputs.shape[1] * (stops - sizes),
            "stop_in": inputs.shape[1] * stops,
            "first_out": outputs.shape[1] * (stops - sizes),
            "stop_out": outputs.shape[1] * stops,
            "product": [products[count].frame.ctypes.data for count in sizes],
        }
        table = np.ascontiguousarray(np.stack([records[name] for name in tile_groups.GROUP], -1), np.int64)
        own = {
            "groups": self._keep(table).ctypes.data,
            "forward": forward.frame.ctypes.data,
            "inverse": inverse.frame.ctypes.data,
        }
        task = tile_groups.task_address(self._machine)
        frame = self._frame(task, len(groups), tile_groups.FRAME, own, 0)
        return [forward, *products.values(), inverse], [frame]

    def _channel_run(self, part, planes, groups):
        """All channels of groups of tiles, each its first one and how many, to or from their planes of spectra."""
        owners, channels, slots, _ = planes.shape
        grids = [(first, *tile_jobs.grid(channels, count)) for first, count in groups]
        channel = np.concatenate([channel for _, channel, _ in grids])
        slot = np.concatenate([slot for *_, slot in grids])
        number = np.concatenate([first + slot for first, _, slot in grids])
        item, tile = np.divmod(number, self._tiling.per_plane)
        image, none = item * channels + channel, 0 * item
        places = {"source": image, "out": image, "spectrum": none, "plane": (channel * slots + slot) * self._plane}
        words = {"planes": planes.ctypes.data, "planes_bytes": planes[0].nbytes if owners > 1 else 0}
        return self._tile_run(part, item, places | {"tile": tile}, words)

    def _tile_run(self, part, items, places, words):
        spec, tile = self._spec, self._tiling.tile
        strided = part != "forward" and max(spec.stride) > 1
        if (part, strided) not in self._tables:
            self._tables[part, strided] = Tables(spec.dtype, tile, kernel_exponent(self._weight), part, strided)
        tables = self._tables[part, strided]
        jobs = self._keep(tile_jobs.job_table(spec, self._tiling, places, spec.itemsize))
        struck = np.zeros(1 + len(jobs), np.int64)
        line = tile.columns * spec.itemsize
        vertical, across = (1, spec.stride[0]) if spec.ndim == 1 else spec.stride
        words = tables.words | words
        words |= {
            "jobs": jobs.ctypes.data,
            "struck": struck.ctypes.data,
            "pitch": line if tile.flat else spec.spatial[1] * spec.itemsize,
            "out_pitch": line if tile.flat and not strided else spec.output_spatial[-1] * spec.itemsize,
            "line": line,
            "plain": self._tile_scratch(False),
            "pick_rows": vertical * line,
            "pick_columns": across * spec.itemsize,
        }
        frame = self._frame(tables.task, len(jobs), tile_code.FRAME, words, self._tile_scratch(strided))
        return _Run(frame, items, places["tile"], struck)

    def _tile_scratch(self, strided):
        """Bytes of a tile, a block of its rows, and of its outputs before some are picked."""
        buffer = 2 * self._tiling.tile.columns * self._lanes * self._spec.itemsize
        return self._plane + buffer + (self._plane if strided else 0)

    def _product_run(self, filters, columns, count, words):
        per_frequency = self._gathered_bytes(columns, count, words["channels"])
        elements = max(1, min(MOST_ELEMENTS, fft_tiles.GATHER_BYTES // per_frequency))
        tasks = -(-self._vectors // elements)
        key = self._spec.dtype, filters, columns
        task = function(self._machine, "task", ("product", *key), "pii", lambda c: product_code.write_task(c, *key))
        words = words | {
            "tiles": count,
            "tile_blocks": -(-count // columns),
            "elements_per_task": elements,
            "tasks_per_group": tasks,
        }
        scratch = elements * per_frequency
        return _Run(self._frame(task, tasks * self._spec.groups, product_code.FRAME, words, scratch))

    def _gathered_bytes(self, columns, count, channels):
        """Of the inputs of one vector of frequencies: whole blocks of tiles."""
        return -(-count // columns) * columns * channels * 2 * self._lanes * self._spec.itemsize

    def _frame(self, task, tasks, names, words, scratch_bytes):
        """A frame of one pool job, with scratch for every thread."""
        frame = np.zeros(FRAME_HEAD + len(names), np.int64)
        frame[FRAME_FUNCTION // 8], frame[FRAME_TASKS // 8] = task, tasks
        threads = self._threads if self._room else max(1, min(self._threads, tasks))
        frame[FRAME_THREADS // 8] = threads
        scratch_bytes = max(scratch_bytes, self._room)
        words = words | {"scratch": self._scratch(threads * scratch_bytes), "scratch_bytes": scratch_bytes}
        for number, name in enumerate(names):
            frame[FRAME_HEAD + number] = words.get(name, 0)
        return frame

    def _scratch(self, size):
        """Address of scratch; jobs run one after the other, so they share what is large enough."""
        fitting = [array for array in self._held if array.dtype == np.int8 and array.nbytes >= size]
        return (fitting[0] if fitting else self._keep(aligned((size,), np.int8))).ctypes.data

    def _compute_directly(self, run, x, out):
        """The tiles whose transform met a NaN or Inf, or overflowed: by the sum itself."""
        tasks = np.flatnonzero(run.struck[1:])
        run.struck[:] = 0
        for item, tile in sorted({(int(run.items[task]), int(run.tiles[task])) for task in tasks}):
            found = tile_jobs.window(self._spec, self._tiling, tile)
            if found is None:
                continue
            inputs, padding, outputs = found
            part = np.ascontiguousarray(x[(slice(item, item + 1), slice(None), *inputs)])
            plan, result = self._direct(part.shape[2:], tuple(padding))
            plan(part, result)
            out[(item, slice(None), *outputs)] = result[0]

    def _direct(self, spatial, padding):
        """A plan of the direct engine for a tile of this shape, and its output."""
        from ..direct import Direct

        key = spatial, padding
        if key not in self._direct_plans:
            spec = self._spec.replace(batch=1, spatial=spatial, padding=padding)
            self._direct_plans[key] = Direct().plan(spec, self._weight), np.empty(spec.output_shape, spec.dtype)
        return self._direct_plans[key]


class CircularSpectralPlan(SpectralPlan):
    """``plan(x, out)`` of a circular two-dimensional problem whose image has the size of a cyclic tile."""

    def __init__(self, spec, weight, tiling):
        self._circular = spec
        super().__init__(fft_folding.unturned(spec), weight, tiling)

    def _twin(self):
        return CircularSpectralPlan(self._circular, self._weight, self._tiling)

    def _kernel_spectra(self):
        return kernel_spectra(self._circular, self._weight, self._tiling.tile, self._lanes)

    def _compute_directly(self, run, x, out):
        tasks = np.flatnonzero(run.struck[1:])
        run.struck[:] = 0
        padded = self._circular.padded()
        for item in sorted({int(run.items[task]) for task in tasks}):
            plan, result = self._direct(padded.spatial, padded.padding)
            plan(pad(x[item : item + 1], self._circular.padding, "circular"), result)
            out[item] = result[0]
