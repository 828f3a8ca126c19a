"""The kernel of pointwise convolutions, and the driver that walks a task's tiles.

    out[oc, pixel] = bias[oc] + sum_k  w[oc, k] * x[k, pixel]

is a matrix product. One tile is some output channels x some vectors of pixels, held in registers while k
runs: as many broadcasts of weights as channels and loads as vectors, for channels x vectors multiply-adds.
Sums are stored as they are, for a channel's pixels lie together.

The inputs of a tile are copied into a *panel* first, a block of k at a time, which stays in the L1 cache while
all the task's channels are computed from it; weights, in the order of their use, stream past it.  So what a
round takes from the L2 cache are 4 bytes for every channel, and reads of distant planes are few (K. Goto and
R. van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, 2008, with the sides exchanged).  Where one
tile has all the channels a panel would be read once only, and inputs are read where they lie.
"""

import dataclasses

from . import compile as compiler
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .records import Record, size, slots
from .vector import INDEX, Code
from .weights_ahead import ask

FRAME = slots(
    "weights bias tiles rows tasks kernels pack k_count k_block x_channel out_channel in_place scratch scratch_bytes",
    FRAME_HEAD,
)
#: Pixels of a tile: where they begin in the input and the output (bytes), where their inputs' distances are,
#: elements in the last vector, vectors, column of the kernel table, and where the inputs begin that it asks for.
TILE = slots("x out places rest vectors kind asks")
#: Channels of a tile: their weights, biases and output (bytes), how many there are, row of the kernel table.
ROWS = slots("weights bias out channels kind")
#: An image (and group), its range of tiles and of rows.
TASK = slots("x out tile tile_end row row_end")
#: One call of a kernel: the panel, weights, rounds; where sums begin, and the distance to the next channel's
#: and vector's; where they go, elements in the last vector, and the inputs to ask for.
CALL = slots("panel weights k_count start start_channel start_vector out rest asks")
#: One call of a pack: `k_count` rounds from `x` into the panel, `places` as in `TILE`.
PACK = slots("x places k_count panel vectors rest")
#: Planes ahead of the one being copied that are asked for.
PLANES_AHEAD = 8
#: Tiles of pixels whose inputs, read in place, are asked for together, for memory likes long runs of a plane.
#: Caches cold, 256 -> 16 channels at 56x56, one tile 308, two 149, four 140 us; hot 69, 73, 73, and 512 -> 12 at 64x64
#: 113, 113, 115 (Zen 5, November 2026; more in docs/kernels.md).
RUN_TILES = 2


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a kernel is compiled for.

    Attributes
    ----------
    channels, vectors : int
    dtype : str
    in_place : bool
        Whether inputs are read where they lie, `x_channel` bytes apart, instead of from a panel.
    asks : bool
        Whether weights are asked for ahead.
    """

    channels: int
    vectors: int
    dtype: str
    in_place: bool
    asks: bool


def kernel_address(tile, target):
    """The compiled ``void product(frame, call)``."""
    return compiler.address("product", tile, target, lambda module: write_kernel(module, tile, target))


def pack_address(dtype, strided, target):
    """The compiled ``void pack(frame, pack)``."""
    key = dtype, strided
    return compiler.address("pack", key, target, lambda module: write_pack(module, *key, target))


def task_address(dtype, target):
    """The compiled driver, ``void task(frame, number, worker)``."""
    return compiler.address("product_task", dtype, target, lambda module: write_task(module, dtype, target))


def write_kernel(module, tile, target):
    """Write the kernel of `tile`."""
    code = Code(module, "product", target, "pp")
    frame, call = Record(code.arguments[0], FRAME), Record(code.arguments[1], CALL)
    kind = code.vector(tile.dtype)
    last = tile.vectors - 1
    mask = code.mask(call["rest"], kind)

    def places(start, channel_bytes, vector_bytes):
        for channel in range(tile.channels):
            here = start + channel_bytes * channel if channel else start
            yield from (here + vector_bytes * v if v else here for v in range(tile.vectors))

    def multiply(k, panel, weights, *sums):
        if tile.in_place:
            ahead = call.pointer("asks") + (k // RUN_TILES) * frame["x_channel"]
            for v in range(tile.vectors):
                code.prefetch(ahead + (k % RUN_TILES) * (tile.vectors * kind.bytes) + v * kind.bytes)
            masks = [*[None] * last, mask]
            inputs = [(panel + v * kind.bytes).load(kind, masks[v]) for v in range(tile.vectors)]
        else:
            inputs = [(panel + v * kind.bytes).load(kind, align=kind.bytes) for v in range(tile.vectors)]
        if tile.asks:
            ask(code, weights, tile.channels * kind.itemsize)
        following = iter(sums)
        products = []
        for channel in range(tile.channels):
            weight = (weights + channel * kind.itemsize).broadcast(kind)
            products += [next(following).fma(weight, value) for value in inputs]
        step = frame["x_channel"] if tile.in_place else tile.vectors * kind.bytes
        return [panel + step, weights + tile.channels * kind.itemsize, *products]

    ends = list(places(call.pointer("out"), frame["out_channel"], kind.bytes))
    for place in ends:  # 64 -> 256 channels at 56x56, batch 8: 139 -> 149 GFLOP/s (Cascade Lake, November 2026)
        code.prefetch(place, write=True)
    begins = places(call.pointer("start"), call["start_channel"], call["start_vector"])
    sums = [place.load(kind, mask if number % tile.vectors == last else None) for number, place in enumerate(begins)]
    _, _, *sums = code.loop(call["k_count"], multiply, [call.pointer("panel"), call.pointer("weights"), *sums])
    for number, (place, total) in enumerate(zip(ends, sums, strict=True)):
        place.store(total, mask if number % tile.vectors == last else None)
    code.finish()


def write_pack(module, dtype, strided, target):
    """Write the copy of vectors x k inputs into a panel; `strided` one by one, by a table of distances.

    Gathers would be shorter, and take 150 cycles where the processor is guarded against what others could learn
    from them (Cascade Lake, November 2026).
    """
    code = Code(module, "pack", target, "pp")
    frame, call = Record(code.arguments[0], FRAME), Record(code.arguments[1], PACK)
    kind = code.vector(dtype)
    mask = code.mask(call["rest"], kind)
    places, plane, last = call.pointer("places"), frame["x_channel"], (call["vectors"] - 1) * kind.bytes

    def neighbours(x, panel, at, mask=None):
        code.prefetch(x + at + plane * PLANES_AHEAD)
        (panel + at).store((x + at).load(kind, mask), align=kind.bytes)

    def scattered(x, panel, at, _=None):
        distances = [
            (places + at * (INDEX.bytes // kind.itemsize) + lane * INDEX.bytes).load() for lane in range(kind.lanes)
        ]
        for distance in distances[:: kind.lanes // 2]:  # with a stride of 2, a line each
            code.prefetch(x + distance + plane * PLANES_AHEAD)
        for lane, distance in enumerate(distances):
            (panel + at + lane * kind.itemsize).store((x + distance).load(kind.scalar))

    one = scattered if strided else neighbours

    def copy(_, x, panel):
        code.loop(last, lambda at: one(x, panel, at), step=kind.bytes)
        one(x, panel, last, mask)
        return [x + plane, panel + last + kind.bytes]

    code.loop(call["k_count"], copy, [call.pointer("x"), call.pointer("panel")])
    code.finish()


def write_task(module, dtype, target):
    """Write the driver: blocks of k, tiles of pixels, and tiles of channels, innermost."""
    code = Code(module, "product_task", target, "pii")
    frame, number, worker = code.arguments
    fixed = Record(frame, FRAME)
    task = Record(fixed.pointer("tasks") + number * size(TASK), TASK)
    x = (frame + FRAME_INPUT).load_pointer() + task["x"]
    out = (frame + FRAME_OUTPUT).load_pointer() + task["out"]
    panel = fixed.pointer("scratch") + worker * fixed["scratch_bytes"]
    kind = code.vector(dtype)
    pack, call = Record(code.stack(size(PACK)), PACK), Record(code.stack(size(CALL)), CALL)
    pack["panel"] = panel
    packing = fixed["in_place"].compare("==", 0)

    def over_k(k):
        first = k.compare("==", 0)
        call["k_count"] = pack["k_count"] = (fixed["k_count"] - k).least(fixed["k_block"])
        call["start_channel"] = first.choose(kind.bytes, fixed["out_channel"])
        call["start_vector"] = first.choose(0, kind.bytes)

        def over_tiles(number):
            tile = Record(fixed.pointer("tiles") + number * size(TILE), TILE)
            pack["x"] = x + tile["x"] + k * fixed["x_channel"]
            pack["places"] = tile["places"]
            call["rest"] = pack["rest"] = tile["rest"]
            pack["vectors"] = tile["vectors"]
            call["panel"] = packing.choose(panel, pack.pointer("x"))
            call["asks"] = x + tile["asks"]
            with code.when(packing):
                code.call(fixed.pointer("pack"), [frame, pack.at])

            def over_rows(number):
                rows = Record(fixed.pointer("rows") + number * size(ROWS), ROWS)
                call["weights"] = fixed.pointer("weights") + rows["weights"] + k * rows["channels"] * kind.itemsize
                here = out + tile["out"] + rows["out"]
                call["out"] = here
                call["start"] = first.choose(fixed.pointer("bias") + rows["bias"], here)
                function = fixed.pointer("kernels") + (rows["kind"] + tile["kind"]) * INDEX.bytes
                code.call(function.load_pointer(), [frame, call.at])

            code.loop(task["row_end"], over_rows, start=task["row"])

        code.loop(task["tile_end"], over_tiles, start=task["tile"])

    code.loop(fixed["k_count"], over_k, step=fixed["k_block"])
    code.finish()
