"""The kernel of pointwise convolutions, and the driver that walks a task's tiles.

    out[oc, pixel] = bias[oc] + sum_k  w[oc, k] * x[k, pixel]

is a matrix product. One tile is some output channels x some vectors of pixels, held in registers while k
runs: as many broadcasts of weights as channels and loads as vectors, for channels x vectors multiply-adds.
Sums are stored as they are, for a channel's pixels lie together.

The first tile of channels copies the inputs that it multiplies into a *panel*, a block of k at a time, which stays in
or near the L1 cache while all the task's other channels are computed from it; weights, in the order of their use,
stream past it.  So what a round takes from the L2 cache are 4 bytes for every channel, and reads of distant planes are
few (K. Goto and R. van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, 2008, with the sides exchanged).
Inputs between strides are sorted into the panel before.  Where few tiles of channels would read a panel, all read
inputs where they lie, and sums stay in registers for all of k.
"""

import contextlib
import dataclasses
import math

from . import compile as compiler
from . import residence
from .ahead import ask, share
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .records import Record, size, slots
from .transpose import SHUFFLED_STRIDE, deinterleaved
from .vector import INDEX, Code, Value

FRAME = slots(
    "weights bias tiles rows tasks kernels kernels_in_place rows_in_place pack k_count k_block x_channel out_channel"
    " asked_planes steps_bytes far_cycles scratch scratch_bytes",
    FRAME_HEAD,
)
#: Pixels of a tile: where they begin in the input and the output (bytes), where its segments are and how many,
#: elements in the last vector, vectors, column of the kernel tables, where the table of runs is that it asks for (bytes
#: from the image), how many, and, in place, planes of them that a turn of channels asks for.  Where tiles ask for
#: `product_runs.Run`s, where the table of its steps is, and where the next run's output begins (bytes from the image).
TILE = slots("x out segments count rest vectors kind runs run_count turn_planes steps out_run")
#: Neighbouring outputs of one row, at most a vector of them: their first input (bytes from the image), where they go
#: in a round of the panel (bytes), how many there are.
SEGMENT = slots("x panel count")
#: Channels of a tile: their weights, biases and output (bytes), how many there are, row of the kernel tables.
ROWS = slots("weights bias out channels kind")
#: An image (and group), its range of tiles and of rows.
TASK = slots("x out tile tile_end row row_end")
#: One call of a kernel: its inputs, the panel to copy them to, weights, rounds; where sums begin, and the distance to
#: the next channel's and vector's; where they go, elements in the last vector, the inputs to ask for, and whether sums
#: go past the caches; where a run's outputs begin, and the table of the steps that ask for it.
CALL = slots("inputs panel weights k_count start start_channel start_vector out rest asks past out_asks steps")
#: Some rounds that ask for a part of the next run, its inputs and its outputs (bytes from where they begin).
STEP = slots("inputs outputs")
#: One call of a pack: `k_count` rounds from `x` into the panel, the others as in `TILE`.
PACK = slots("x segments count k_count panel vectors")
#: Planes that a segment is copied from before the next segment is: each is a page of its own, of which the processor
#: remembers so many.  672 -> 48 channels at 96x96, stride 2: all of a block 572, 32 planes 511, 16 475 us (Zen 5,
#: November 2026).
PACKED_PLANES = 16
#: Inputs that were asked into the second-level cache come into the first so many rounds before their use.  Without, a
#: load across two lines waits for both; arrays of NumPy begin 16 bytes behind a line.  After PyTorch and OpenVINO had
#: computed the same, us without, 8, 16 and 32 rounds: 1024 -> 16 channels at 56x56 1115, 712, 681, 642 (at a line 549,
#: 543, 548), 512 -> 12 at 64x64 399, 334, 324, 419, 128 -> 12 at 256x256 2111, -, 1724, 2376 (Zen 4, November 2026).
#: 12 instead of 16, hot and cold: 1024 -> 16 at 56x56 1.16 and 1.01 of the speed, 512 -> 12 at 64x64 1.08 and 1.06, 256
#: -> 16 at 56x56 1.03 and 1.02, none slower; 6 and 24 are behind (Cascade Lake, November 2026).
SOON_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a kernel is compiled for.

    Attributes
    ----------
    channels, vectors : int
    dtype : str
    in_place : bool
        Whether inputs are read where they lie, `x_channel` bytes apart, instead of from a panel.
    copies : bool
        Whether they are copied to the panel as well, for other tiles of channels.
    from_zero : bool
        Whether sums begin at zero instead of where `start` points.
    lines, rounds : int
        Cache lines of each plane by which the inputs of later tiles are asked for, and the rounds that ask for them.
    level : int
        The cache that they are asked into.
    outputs : int
        Channels whose outputs are asked for by each `rounds` rounds, or 0: all before the first round.
    soon : bool
        Whether they are asked from there into the first-level cache before their use.
    streams : bool
        Whether sums go past the caches where the call says so.
    run : pair of int, optional
        Neighbouring lines of inputs and of outputs that `rounds` ask for where a table says, instead of the others.
    """

    channels: int
    vectors: int
    dtype: str
    in_place: bool
    copies: bool
    from_zero: bool
    lines: int
    rounds: int
    level: int
    outputs: int
    soon: bool
    streams: bool
    run: tuple | None = None


def kernel_address(tile, target):
    """The compiled ``void product(frame, call)``."""
    return compiler.address("product", tile, target, lambda module: write_kernel(module, tile, target))


def pack_address(dtype, stride, target):
    """The compiled ``void pack(frame, pack)``; `stride` along the width."""
    return compiler.address("pack", (dtype, stride), target, lambda module: write_pack(module, dtype, stride, target))


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

    ends = list(places(call.pointer("out"), frame["out_channel"], kind.bytes))
    through = call["past"].compare("==", 0)
    if not tile.outputs and not tile.run:
        with code.when(through) if tile.streams else contextlib.nullcontext():
            for place in ends:
                code.prefetch(place, write=True)
    if tile.from_zero:
        sums = [code.zero(kind)] * len(ends)
    else:
        begins = places(call.pointer("start"), call["start_channel"], call["start_vector"])
        sums = [at.load(kind, mask if number % tile.vectors == last else None) for number, at in enumerate(begins)]
    sums = _all_rounds(code, tile, frame, call, mask, sums)
    if tile.streams:
        with code.either(through) as (yes, no):
            with yes:
                _store(tile, ends, sums, mask)
            with no:
                for place, total in zip(ends, sums, strict=True):
                    place.stream(total)
    else:
        _store(tile, ends, sums, mask)
    code.finish()


def _all_rounds(code, tile, frame, call, mask, sums):
    """The sums after all rounds of k.

    Rounds that ask for one plane's lines are written one after the other, so that none divides or computes addresses:
    64 -> 256 channels at 56x56, batch 8, 1.14 of the speed, others 1.01 to 1.14.  They share the lines evenly, for a
    processor waits for a dozen of them at a time: see `product.MOST_ROUNDS` (Cascade Lake, November 2026).
    """
    kind, plane = code.vector(tile.dtype), frame["x_channel"]
    multiply = _round(code, tile, plane, call, mask)

    def one_plane_asked(k, out, *carried):
        for turn in range(tile.rounds):
            for line in share(tile.outputs * tile.vectors, turn, tile.rounds):
                channel, v = divmod(line, tile.vectors)
                code.prefetch(out + frame["out_channel"] * channel + v * kind.bytes, write=True)
            carried = multiply(k + turn, tile.lines, turn, tile.rounds, *carried)
        source, weights, asks, *sums = carried
        if tile.outputs:  # the last ones again and again, which are there
            last = tile.rounds * (math.ceil(tile.channels / tile.outputs) - 1)
            out = k.compare("<", last).choose(out + frame["out_channel"] * tile.outputs, out)
        return [out, source, weights, asks + plane, *sums]

    def of_a_run(k, steps, source, weights, asks, *sums):
        step, (inputs, outputs) = Record(steps, STEP), tile.run
        here, out = asks + step["inputs"], call.pointer("out_asks") + step["outputs"]
        for turn in range(tile.rounds):
            for line in share(outputs, turn, tile.rounds):
                code.prefetch(out + (line * kind.bytes + kind.bytes - 1), write=True)
            source, weights, _, *sums = multiply(k + turn, inputs, turn, tile.rounds, source, weights, here, *sums)
        return [steps + size(STEP), source, weights, asks, *sums]

    each = math.ceil(tile.lines / tile.rounds)

    def some_lines_asked(k, *carried):
        source, weights, asks, *sums = multiply(k, each, 0, 1, *carried)
        return [source, weights, asks + each * kind.bytes, *sums]

    body, first = (of_a_run, "steps") if tile.run else (one_plane_asked, "out")
    k_count, carried = call["k_count"], [*map(call.pointer, (first, "inputs", "weights", "asks")), *sums]
    carried = code.loop(k_count - (tile.rounds - 1), body, carried, step=tile.rounds)[1:]
    if tile.rounds > 1:
        carried = code.loop(k_count, some_lines_asked, carried, start=k_count // tile.rounds * tile.rounds)
    return carried[3:]


def _round(code, tile, plane, call, mask):
    """A function that writes a round: asks for its share of some lines of later tiles, and multiplies."""
    kind = code.vector(tile.dtype)
    reach = tile.vectors * kind.bytes
    step = plane if tile.in_place else reach
    masks = [*[None] * (tile.vectors - 1), mask if tile.in_place else None]
    align = None if tile.in_place else kind.bytes
    inside = plane * SOON_ROUNDS
    beyond = inside - plane * call["k_count"] + reach
    panel = call.pointer("panel")

    def ask_soon(k, x):
        """Of the same tile, and in the last rounds of the next one, which lies beside it."""
        there = x + (k + SOON_ROUNDS).compare("<", call["k_count"]).choose(inside, beyond)
        for at in (*range(0, reach, kind.bytes), reach - 1):
            code.prefetch(there + at)

    def multiply(k, lines, turn, turns, source, weights, asks, *sums):
        for line in share(lines, turn, turns):
            # That of a vector's last byte: the line of its first was asked for with the vector before.
            code.prefetch(asks + (line * kind.bytes + kind.bytes - 1), cache=tile.level)
        if tile.soon:
            ask_soon(k, source)
        inputs = [(source + v * kind.bytes).load(kind, masks[v], align=align) for v in range(tile.vectors)]
        if tile.copies:
            for v, value in enumerate(inputs):
                (panel + (k * reach + v * kind.bytes)).store(value, align=kind.bytes)
        ask(code, weights, tile.channels * kind.itemsize, turn, turns)
        following = iter(sums)
        products = []
        for channel in range(tile.channels):
            weight = (weights + channel * kind.itemsize).broadcast(kind)
            products += [next(following).fma(weight, value) for value in inputs]
        return [source + step, weights + tile.channels * kind.itemsize, asks, *products]

    return multiply


def _store(tile, places, sums, mask):
    """Store sums through the caches, each channel's last vector under `mask`."""
    for number, (place, total) in enumerate(zip(places, sums, strict=True)):
        place.store(total, mask if number % tile.vectors == tile.vectors - 1 else None)


def write_pack(module, dtype, stride, target):
    """Write the copy of inputs `stride` apart into a panel: some planes of a segment, then of the next one.

    Gathers would be shorter, and take 150 cycles where the processor is guarded against what others could learn from
    them (Cascade Lake, November 2026).
    """
    code = Code(module, "pack", target, "pp")
    frame, call = Record(code.arguments[0], FRAME), Record(code.arguments[1], PACK)
    kind = code.vector(dtype)
    plane, round_bytes = frame["x_channel"], call["vectors"] * kind.bytes

    def planes(k):
        x, panel = call.pointer("x") + k * plane, call.pointer("panel") + k * round_bytes
        end = (call["k_count"] - k).least(PACKED_PLANES)
        code.loop(call["count"], lambda number: segment(number, x, panel, end))

    def segment(number, x, panel, end):
        here = Record(call.pointer("segments") + number * size(SEGMENT), SEGMENT)
        count = here["count"]
        some = code.mask(count, kind)
        inputs = [code.mask((count - 1) * stride + 1 - v * kind.lanes, kind) for v in range(stride)]

        def sorted_(x, panel):
            read = [(x + v * kind.bytes).load(kind, inputs[v]) for v in range(stride)]
            panel.store(deinterleaved(read, kind.lanes)[0], some)

        def single(x, panel):
            def element(i):
                (panel + i * kind.itemsize).store((x + i * (stride * kind.itemsize)).load(kind.scalar))

            code.loop(count, element)

        def copy(_, x, panel):
            (sorted_ if stride <= SHUFFLED_STRIDE else single)(x, panel)
            return [x + plane, panel + round_bytes]

        code.loop(end, copy, [x + here["x"], panel + here["panel"]])

    code.loop(call["k_count"], planes, step=PACKED_PLANES)
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
    pack["panel"] = call["panel"] = panel
    call["past"] = 0
    with code.when(fixed["far_cycles"].compare(">", 0) & (out.number() % kind.bytes).compare("==", 0)):
        call["past"] = _is_far(code, fixed, task, out).choose(1, 0)
    row_count = task["row_end"] - task["row"]

    def over_k(k):
        first = k.compare("==", 0)
        call["k_count"] = pack["k_count"] = (fixed["k_count"] - k).least(fixed["k_block"])
        call["start_channel"] = first.choose(kind.bytes, fixed["out_channel"])
        call["start_vector"] = first.choose(0, kind.bytes)

        def over_tiles(number):
            tile = Record(fixed.pointer("tiles") + number * size(TILE), TILE)
            there = x + tile["x"] + k * fixed["x_channel"]
            call["rest"] = tile["rest"]
            with code.when(fixed["rows_in_place"].compare("==", 0)):
                pack["x"], pack["vectors"] = there, tile["vectors"]
                pack["segments"], pack["count"] = tile["segments"], tile["count"]
                code.call(fixed.pointer("pack"), [frame, pack.at])

            turns = (row_count // tile["run_count"]).most(1)  # in which a run's planes are asked for

            def over_rows(number):
                row = number - task["row"]
                with code.either(fixed["steps_bytes"].compare(">", 0)) as (yes, no):
                    with yes:
                        _ask_for_run(fixed, tile, call, row, x, out)
                    with no:
                        call["asks"] = x + _next_tiles_inputs(code, fixed, tile, call["k_count"], k, row, turns)
                rows = Record(fixed.pointer("rows") + number * size(ROWS), ROWS)
                call["weights"] = fixed.pointer("weights") + rows["weights"] + k * rows["channels"] * kind.itemsize
                here = out + tile["out"] + rows["out"]
                call["out"] = here
                call["start"] = first.choose(fixed.pointer("bias") + rows["bias"], here)
                in_place = row.compare("<", fixed["rows_in_place"])
                call["inputs"] = in_place.choose(there, panel)
                table = in_place.choose(fixed.pointer("kernels_in_place"), fixed.pointer("kernels"))
                function = table + (rows["kind"] + tile["kind"]) * INDEX.bytes
                code.call(function.load_pointer(), [frame, call.at])

            code.loop(task["row_end"], over_rows, start=task["row"])

        code.loop(task["tile_end"], over_tiles, start=task["tile"])

    code.loop(fixed["k_count"], over_k, step=fixed["k_block"])
    code.finish()


def _ask_for_run(fixed, tile, call, row, x, out):
    """Where a tile, with the task's channels number `row`, asks for a `product_runs.Run`."""
    call["asks"] = x + tile.pointer("runs").load()
    call["out_asks"] = out + tile["out_run"]
    call["steps"] = tile["steps"] + row * fixed["steps_bytes"]


def _next_tiles_inputs(code, fixed, tile, k_count, k, row, turns):
    """How far from the image's first input those are that a tile asks for, with the task's channels number `row`."""
    turn, run = _divided(code, row, tile["run_count"])
    share, _ = _divided(code, k_count + turns - 1, turns)
    begin = turn * tile["turn_planes"].compare("==", 0).choose(share, tile["turn_planes"])
    planes = k + begin.compare("<", fixed["asked_planes"]).choose(begin, 0)
    return (tile.pointer("runs") + run * INDEX.bytes).load() + planes * fixed["x_channel"]


def _divided(code, number, by):
    """Quotient and rest of two small numbers, in 32 bits: a division of 64 takes 40 to 90 cycles on some processors."""
    numbers = code.narrow(number).ir, code.narrow(by).ir
    return [code.widen(Value(code, operation(*numbers))) for operation in (code.builder.sdiv, code.builder.srem)]


def _is_far(code, fixed, task, out):
    """Whether any of some lines of a task's output is in no cache: of its last tile, far from what is written first."""
    last = Record(fixed.pointer("tiles") + (task["tile_end"] - 1) * size(TILE), TILE)["out"]
    rows = residence.some(task["row"], task["row_end"] - task["row"])
    places = [out + last + Record(fixed.pointer("rows") + row * size(ROWS), ROWS)["out"] for row in rows]
    return residence.is_far(code, out, places, fixed["far_cycles"])
