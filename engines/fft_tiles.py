"""Tiles of a spectral convolution: what sizes there are, what they cost, and which one a problem takes.

Overlap-save (A. Oppenheim & R. Schafer, Discrete-Time Signal Processing, §8.7): a tile of F positions yields
F - (extent - 1) outputs per axis; the rest is spoilt by the wrap-around.  Large tiles waste less, small ones
stay in the cache: `choose` takes the least predicted time.  Pure arithmetic, nothing is imported that computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from convbench.machine import CACHED_BYTES, CACHED_SPEED
from convbench.spec import ConvSpec

#: Lengths of butterflies.  Radix 8 keeps its 16 vectors in AVX-512's 32 registers; 16 would spill.
RADICES = (2, 3, 4, 5, 8)

# Cycles of 2.4 GHz per complex vector of a tile, both cores of a 2-core Cascade Lake VM, 2026-11: 2048 x 2048, k = 31
# in 14 tiles from 64 x 64 to 1024 x 1024 takes 1.13 to 1.31 times the prediction in float64 (and direct, whose
# predictions these are compared with, 2 to 3 times).  A butterfly with twiddles; its share without; loading from the
# image, storing to it, turning rows into lanes or back, twiddles of a flat tile:
PASS_CYCLES = {2: 3.0, 3: 6.0, 4: 4.4, 5: 7.0, 8: 6.3}
LEAF_SHARE = 0.6
LOAD_CYCLES, STORE_CYCLES, TURN_CYCLES, SCALE_CYCLES = 42.0, 42.0, 8.0, 4.0
CALL_CYCLES = 12.0  # each call of a pass
TILE_CYCLES = 500.0
FMA_PIPES = 2  # of the processor that these were measured on ...
CYCLES_SHARE = 0.6  # ... and what a newer one takes of them (Zen 5, 2026-11; see `traffic` for how) ...
SUMMED_SHARE = 0.27  # ... where channels are summed, and the bytes that are moved are counted besides
TILE_BYTES = 512 << 10  # a tile and its kernel's spectrum that stay in the second-level cache ...
UNCACHED = 0.11  # ... and what each doubling beyond costs
JOIN_SECONDS = 1e-6  # a call of the thread pool, with a second thread that must be found
PRODUCT_CYCLES = 3.0  # four multiply-adds of one complex vector, with what their loads cost
# How often tiles' spectra are moved where channels are summed: those that threads share (4 while cores are near each
# other; more while they are not), a thread's own, for each doubling of them beyond `OWN_BYTES`; and kernels' spectra,
# by every group that reads them.
SHARED_MOVES, OWN_MOVES, OVERFLOW_MOVES, KERNEL_MOVES = 6, 3.4, 1.8, 0.3
JOB_BYTES = 112
MOST_VECTOR_BYTES = 64
# Lengths of tiles that are compared: whole axes cut into so many equal parts; and from this many extents to this
# many, in such steps.
EQUAL_PARTS = 4
LEAST_SHARE, MOST_SHARE, LENGTH_STEP = 1.3, 16, 1.25
#: Spectra of a thread's own group that stay near it; what a doubling of it costs, for each byte of all spectra, and a
#: tile that a thread waits for, for each byte of it, in bytes of kernels' spectra read for each group; and how many of
#: these threads may read, and how many tiles wait, before they share.  (2-core Zen 5 VM, 2026-11, milliseconds of
#: groups of 1 / 3 / 6 tiles / shared: 1 -> 16 channels at 512×512, k = 15, 1.4 / 1.8 / 2.3 / 2.5; of 1 / 2 / 4 /
#: shared: 64 -> 64 at 64×64, k = 13, 2.0 / 1.5 / 1.3 / 1.3.)
OWN_BYTES, OVERFLOW, IDLE, OWN_SPECTRA, MOST_IDLE = 2 << 20, 3, 12, 8, 0.25
GATHER_BYTES = 256 << 10  # scratch of one task's gathered inputs: well inside the second-level cache
MAX_GROUP_BYTES = 64 << 20  # spectra of tiles that are held at once to share the kernels' spectra


@cache
def factors(length: int) -> tuple[int, ...] | None:
    """Radices of the passes of a transform, the last one (whose butterflies need no twiddles) included; None if none.

    As few passes as possible.
    """
    if length in RADICES:
        return (length,)
    rests = [(radix, factors(length // radix)) for radix in RADICES if length % radix == 0 and length > radix]
    found = [tuple(sorted((radix, *rest), reverse=True)) for radix, rest in rests if rest]
    return min(found, key=lambda radices: (len(radices), sum(radices)), default=None)


@cache
def _passes(length):
    """Cycles per vector of one transform in one direction, calls left out."""
    *radices, last = factors(length)
    return sum(PASS_CYCLES[radix] for radix in radices) + LEAF_SHARE * PASS_CYCLES[last]


@cache
def fast_length(length: int, multiple: int) -> int:
    """The smallest number >= `length` that is a multiple of `multiple` and has a transform."""
    length = -(-length // multiple) * multiple
    while factors(length) is None:
        length += multiple
    return length


@dataclass(frozen=True)
class Tile:
    """Size of a tile: `rows` complex rows (twice as many real ones) and `columns`.  Flat: one run of numbers.

    What goes round the rows of a tile comes back with its sign changed, but for a cyclic one, of whose real rows the
    second half stays zero.
    """

    rows: int
    columns: int
    flat: bool = False
    cyclic: bool = False

    @property
    def elements(self) -> int:
        """Complex numbers."""
        return self.rows * self.columns

    @property
    def lengths(self) -> tuple[int, ...]:
        """Real positions per axis of the problem."""
        return (2 * self.elements,) if self.flat else (2 * self.rows, self.columns)


@dataclass(frozen=True)
class Tiling:
    """A tile, and per spatial axis the outputs at stride 1 that it yields and how many tiles there are."""

    tile: Tile
    steps: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def per_plane(self) -> int:
        """Tiles of one plane."""
        return math.prod(self.counts)


def positions(spec: ConvSpec) -> tuple[int, ...]:
    """Outputs at stride 1 that the outputs of `spec` are among, per axis."""
    return tuple((size - 1) * s + 1 for size, s in zip(spec.output_spatial, spec.stride, strict=True))


def separate(spec: ConvSpec) -> bool:
    """Whether every output channel comes from an input channel of its own."""
    return spec.in_channels == spec.groups == spec.out_channels


def tile_bytes(tile: Tile, itemsize: int) -> int:
    """Bytes of its complex numbers."""
    return 2 * itemsize * tile.elements


def kernel_bytes(spec: ConvSpec, tile: Tile) -> int:
    """Bytes of all kernels' spectra."""
    return spec.out_channels * (spec.in_channels // spec.groups) * tile_bytes(tile, spec.itemsize)


def group_size(spec: ConvSpec, tiling: Tiling) -> int:
    """Tiles whose spectra are held at once where channels are summed and threads share them."""
    each = (spec.in_channels + spec.out_channels) * tile_bytes(tiling.tile, spec.itemsize)
    return max(1, min(spec.batch * tiling.per_plane, MAX_GROUP_BYTES // each))


def own_group(spec: ConvSpec, tiling: Tiling, threads: int) -> int:
    """Tiles of a group that a thread takes from image to image; 0 where threads had better share larger groups.

    Every thread reads all kernels' spectra for each of its groups, and spectra of large groups leave its cache.
    Threads share where they would read too much, or some of them had nothing to do for long.
    """
    total = spec.batch * tiling.per_plane
    each = (spec.in_channels + spec.out_channels) * tile_bytes(tiling.tile, spec.itemsize)
    if total < threads:
        return 0
    kernels = kernel_bytes(spec, tiling.tile)
    fewest = max(1, math.ceil(total * each / MAX_GROUP_BYTES))

    def slots(rounds):
        return math.ceil(total / (rounds * threads))

    def idle(rounds):
        groups = math.ceil(total / slots(rounds))
        return math.ceil(groups / threads) * threads * slots(rounds) - total

    def moved(rounds):
        beyond = max(0.0, math.log2(slots(rounds) * each / OWN_BYTES))
        return rounds * threads * kernels + each * (OVERFLOW * total * beyond + IDLE * idle(rounds))

    rounds = min(_some_between(fewest, max(fewest, total // threads)), key=moved)
    shares = idle(rounds) > MOST_IDLE * total or (rounds * threads - 1) * kernels > OWN_SPECTRA * each * total
    return 0 if shares else slots(rounds)


def _some_between(first, last):
    """Whole numbers from the first to the last, in ever larger steps."""
    found = [first]
    while found[-1] < last:
        found.append(min(last, max(found[-1] + 1, int(found[-1] * LENGTH_STEP))))
    return found


def cycles(spec: ConvSpec, tiling: Tiling, lanes: int, threads: int) -> float:
    """Predicted cycles of the busiest thread, and of waiting for memory in units of a core's cycles."""
    tile = tiling.tile
    kept = min(1.0, tiling.steps[-1] / tile.columns) if not tile.flat else 1.0
    into = LOAD_CYCLES + TURN_CYCLES + _passes(tile.rows) + _passes(tile.columns)
    back = STORE_CYCLES * kept + TURN_CYCLES + _passes(tile.rows) * kept + _passes(tile.columns)
    if tile.flat:
        into, back = into + SCALE_CYCLES, back + SCALE_CYCLES
    if max(spec.stride) > 1:
        back += STORE_CYCLES * kept  # stored, and picked from there
    vectors = tile.elements / lanes
    held = tile_bytes(tile, spec.itemsize) * (2 if separate(spec) else 1)
    slow = 1.0 + UNCACHED * max(0.0, math.log2(held / TILE_BYTES))
    calls = CALL_CYCLES * (tile.columns + tile.rows) / lanes * 2.5
    tiles = spec.batch * tiling.per_plane
    if separate(spec):
        each = slow * (vectors * (into + back) + 2 * calls) + TILE_CYCLES
        return CYCLES_SHARE * each * -(-tiles * spec.in_channels // threads)
    change = slow * (vectors * into + calls) * -(-tiles * spec.in_channels // threads)
    change += slow * (vectors * back + calls) * -(-tiles * spec.out_channels // threads)
    pairs = spec.out_channels * spec.in_channels // spec.groups
    return SUMMED_SHARE * change + PRODUCT_CYCLES * vectors * pairs * tiles / threads


def traffic(spec: ConvSpec, tiling: Tiling, threads: int) -> tuple[int, int]:
    """Bytes moved besides what `cycles` counts, and bytes held.

    They are spectra of kernels, once for each group of tiles, and of tiles, which passes and sums of channels move.

    `CYCLES_SHARE` was fitted to 501 problems that take 3 us to 20 ms on a 2-core Zen 5 VM: the logarithms of the
    ratios of time and prediction spread by 0.30, without it by 0.49.  What concerns sums of channels was fitted to
    2069 tilings of problems of 1 to 64 channels there, and then raised by about half by hand, as layers with small
    kernels, many channels or cores far from each other take longer.
    """
    each = tile_bytes(tiling.tile, spec.itemsize) * spec.batch * tiling.per_plane
    spectra, kernels = each * (spec.in_channels + spec.out_channels), kernel_bytes(spec, tiling.tile)
    if separate(spec):
        return spectra + (kernels if spec.in_channels > 1 else 0), spectra + kernels
    tiles, own = spec.batch * tiling.per_plane, own_group(spec, tiling, threads)
    groups = math.ceil(tiles / (own or group_size(spec, tiling)))
    near = own * (spec.in_channels + spec.out_channels) * tile_bytes(tiling.tile, spec.itemsize)
    held = kernels + (near * threads if own else spectra)
    read = groups * kernels * (KERNEL_MOVES if held <= CACHED_BYTES else 1)
    moves = OWN_MOVES + OVERFLOW_MOVES * max(0.0, math.log2(near / OWN_BYTES)) if own else SHARED_MOVES
    return moves * spectra + read, held


@lru_cache(maxsize=1024)
def choose(spec: ConvSpec, lanes: int, threads: int, seconds_per_cycle: float, seconds_per_byte: float):
    """The fastest tiling of `spec` by prediction, and its seconds."""
    best = None
    for tiling in tilings(spec, lanes):
        moved, held = traffic(spec, tiling, threads)
        seconds = cycles(spec, tiling, lanes, threads) * seconds_per_cycle
        seconds += moved * seconds_per_byte / (CACHED_SPEED if held <= CACHED_BYTES else 1)
        if best is None or seconds < best[1]:
            best = tiling, seconds
    tiling, seconds = best
    joins = 1 if separate(spec) or own_group(spec, tiling, threads) else 3
    return tiling, seconds + joins * JOIN_SECONDS


def tilings(spec: ConvSpec, lanes: int) -> Iterator[Tiling]:
    """Every tiling worth a look, for vectors of `lanes`; a circular problem has one, a cyclic tile of the image."""
    outputs = positions(spec)
    if spec.padding_mode == "circular":
        yield Tiling(Tile(*spec.spatial, cyclic=True), outputs, (1, 1))
        return
    if spec.ndim == 1:
        for length in _lengths(outputs[0], spec.extents[0], 2 * lanes * lanes):
            yield _tiling(spec, Tile(*_flat_shape(length // 2, lanes), True), lanes)
        return
    heights = _lengths(outputs[0], spec.extents[0], 2 * lanes)
    widths = _lengths(outputs[1], spec.extents[1], lanes)
    for height in heights:
        for width in widths:
            yield _tiling(spec, Tile(height // 2, width), lanes)


def is_tile(spec: ConvSpec) -> bool:
    """Whether the image of a circular problem has just the size of a tile, whatever the processor's vectors are."""
    if spec.ndim != 2 or not spec.is_one_period:
        return False
    lanes = MOST_VECTOR_BYTES // spec.itemsize
    return all(size % lanes == 0 and factors(size) is not None for size in spec.spatial)


def _lengths(outputs, extent, multiple):
    """Tiles that cut an axis into one, two, three or four equal parts, and some in steps of a quarter between them."""
    found = {fast_length(-(-outputs // parts) + extent - 1, multiple) for parts in range(1, EQUAL_PARTS + 1)}
    whole = max(found)
    few = {length for length in found if length <= 4 * MOST_SHARE * max(extent, multiple)}
    found = few or {whole}
    length = max(LEAST_SHARE * extent, 2 * multiple)
    while length < min(whole, MOST_SHARE * max(extent, multiple)):
        found.add(fast_length(int(length), multiple))
        length *= LENGTH_STEP
    return sorted(found)


@cache
def _flat_shape(elements, lanes):
    """Rows and columns, multiples of the lanes, as square as can be."""
    rows = range(lanes, elements // lanes + 1, lanes)
    shapes = [(n, elements // n) for n in rows if elements % (n * lanes) == 0]
    shapes = [shape for shape in shapes if factors(shape[0]) and factors(shape[1])]
    return min(shapes, key=lambda shape: max(shape) / min(shape))


def _tiling(spec, tile, lanes):
    steps, counts = [], []
    for outputs, length, extent in zip(positions(spec), tile.lengths, spec.extents, strict=True):
        step = length - extent + 1
        if step < outputs and step % lanes <= step // 16:
            step -= step % lanes  # whole vectors, that may lie on whole cache lines
        step = min(step, outputs)
        steps.append(step)
        counts.append(-(-outputs // step))
    return Tiling(tile, tuple(steps), tuple(counts))


def workspace_bytes(spec: ConvSpec, tiling: Tiling, threads: int) -> int:
    """Bytes that a plan holds: kernels' spectra, spectra of groups of tiles, each thread's tile, and jobs."""
    tile, plane = tiling.tile, tile_bytes(tiling.tile, spec.itemsize)
    tiles = spec.batch * tiling.per_plane
    scratch = plane * (2 if max(spec.stride) > 1 else 1) + 128 * tile.columns
    held = kernel_bytes(spec, tile) + math.prod(spec.weight_shape) * spec.itemsize + threads * scratch
    if not separate(spec):
        own = threads * own_group(spec, tiling, threads)
        held += (spec.in_channels + spec.out_channels) * (own or group_size(spec, tiling)) * plane
        held += threads * GATHER_BYTES if own else 0
    if tile.flat:
        held += 2 * plane
    return held + JOB_BYTES * tiles * (spec.out_channels if separate(spec) else spec.in_channels + spec.out_channels)
