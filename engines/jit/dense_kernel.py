"""The register-tile kernel of dense convolutions, and the driver that walks a task's tiles.

One tile is `rows` x `columns` output pixels times some vectors of output channels, held in registers while
k runs over all (channel, tap) pairs:

    out[pixel, oc] = bias[oc] + sum_k  x[origin(pixel) + offset[k]] * w[k, oc]

`offset` is a table ("indirect" addressing, as XNNPACK's and Dukhan's "The Indirect Convolution Algorithm",
2019), so channels, rows of taps and dimensions are data, not code. What is code is a *run*: some taps that are
neighbours along the width. Their weights stay in registers, and an input that several of them multiply, each
into another pixel, is broadcast once: 12 pixels x 2 vectors x 3 taps are 14 broadcasts and 6 loads for 72
multiply-adds, where single taps take 42 and 6.
"""

import dataclasses

from . import compile as compiler
from .ahead import LINE_BYTES, ask
from .dense_copy import SCRATCH_HEAD, Lines, copy_once
from .dense_order import in_turns
from .dense_tiling import PIXELS_PER_BASE, Run
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_TASKS
from .records import Record, size, slots
from .transpose import transposed
from .vector import Code, Kind

#: What is the same for all tiles of a plan.
FRAME = slots(
    "offsets weights bias positions blocks tasks kernels store k_count k_block "
    "x_row x_pixel out_row out_pixel out_channel "
    "scratch scratch_bytes partial_at partial_bytes copy_at copy_slices copy_taps copy_rows tap_step "
    "depth height slice_from row_from line_from slice_to row_to line_to",
    FRAME_HEAD,
)
#: A place in the output: where its tile's input and output begin, which row of the kernel table it takes,
#: and as how many runs of how many pixels its sums are stored, and the k that meet more than padding:
#: from `k` to `k_end`, and of each `k_step` of them those from `k_low` to `k_high`.
POSITION = slots("x out kernel runs length k k_end k_step k_low k_high")
#: A block of output channels: its packed weights, input group, output, bias, how many channels are real,
#: how many vectors, which column of the kernel table, and the bytes of one k's weights (and of one pixel's
#: sums).
BLOCK = slots("weights x out bias channels vectors kernel bytes")
#: A task: the image it reads and writes, its ranges of positions and of blocks, and what to copy: the first
#: slice and row, lines, where they begin in the input, what the blocks' places in the input are off by in the copy,
#: the lines' length, and the key under which the copy is known.
TASK = slots("x out position position_end block block_end slice row lines first shift length key")
#: One call of a kernel, and of the function that stores its sums; `ahead` is the next call's `x`, and lines to store to
#: are asked for from `asked` on, in steps of `asked_step` bytes as far as `asked_last`.
TILE = slots(
    "x ahead weights offsets k_count start start_step sums out channels vectors bytes runs length "
    "asked asked_step asked_last"
)
#: Inputs that are read in place, where a line serves a row of taps only, come into the first-level cache so many rounds
#: before their use.  Planes that want the same sets, 64 -> 64 channels at 224x224, 3x3, 17.66 and 17.51 ms, 128 -> 128
#: at 32x32 1.300 and 1.285; others the same (Zen 4, November 2026).
SOON_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a kernel is compiled for.

    Attributes
    ----------
    rows, columns : int
        Output pixels of a tile; columns are neighbours along the width, rows are `x_row` bytes apart in the input.
    channels : int
        Output channels: whole vectors, or half of one (half the work on processors that halve long vectors).
    dtype : str
    run : Run
        The taps that one round multiplies.
    beyond : tuple of int
        Inputs at the low and the high end of a row of pixels that lie in the padding: they are neither read nor
        multiplied.
    last : bool
        Whether inputs' pixels are `x_pixel` bytes apart, read from the frame (channels-last); else they are neighbours.
    asks : frozenset of str
        What it asks the memory for besides the next tile's inputs: "weights", "outputs", its own "inputs".
    level : int
        The cache that it asks the next tile's inputs into.
    """

    rows: int
    columns: int
    channels: int
    dtype: str
    run: Run
    beyond: tuple
    last: bool
    asks: frozenset
    level: int


def kernel_address(tile, target):
    """The compiled kernel, ``void kernel(frame, tile)``."""
    return compiler.address("kernel", tile, target, lambda module: write_kernel(module, tile, target))


def store_address(dtype, channels_last, target):
    """The compiled ``void store(frame, tile)``, the same for every plan of a dtype and layout."""
    write = write_store_channels_last if channels_last else write_store_channels_first
    return compiler.address("store", (dtype, channels_last), target, lambda module: write(module, dtype, target))


def task_address(dtype, copying, target):
    """The compiled driver, ``void task(frame, number, worker)``, the same for all plans of a dtype, but for copying."""
    return compiler.address("task", (dtype, copying), target, lambda module: write_task(module, dtype, copying, target))


def write_kernel(module, tile, target):
    """Write the kernel of `tile`."""
    code = Code(module, "kernel", target, "pp")
    frame, call = (Record(at, names) for at, names in zip(code.arguments, (FRAME, TILE), strict=True))
    kind = Kind(tile.dtype, min(tile.channels, target.lanes(tile.dtype)))
    vectors = range(tile.channels // kind.lanes)
    row_starts = [call.pointer("x") + frame["x_row"] * row for row in range(tile.rows)]
    next_starts = [call.pointer("ahead") + frame["x_row"] * row for row in range(tile.rows)]
    unit = frame["x_pixel"] if tile.last else kind.itemsize
    offsets = call.pointer("offsets")
    taps, inputs = range(tile.run.taps), tile.run.inputs(tile.columns, *tile.beyond)
    order = in_turns(inputs, tile.run, target.multiplies)
    ahead = fetched_ahead(tile.columns, tile.run.stride, kind.itemsize, tile.last)

    outputs, asked_step, asked_last = call.pointer("asked"), call["asked_step"], call["asked_last"]

    def multiply(k, weights, asked, *sums):
        sums = list(sums)
        if "outputs" in tile.asks:
            for back in range(0, tile.rows * tile.columns * kind.itemsize, LINE_BYTES):
                code.prefetch(outputs + (asked - back), write=True)
            asked = (asked + asked_step).least(asked_last)
        if "weights" in tile.asks:
            ask(code, weights, len(taps) * len(vectors) * kind.bytes)
        columns = [
            [
                (weights + (tap * len(vectors) + v) * kind.bytes).load(kind, align=target.vector_bytes // 2)
                for v in vectors
            ]
            for tap in taps
        ]
        offset = (offsets + k * 8).load()
        for row, start in enumerate(row_starts):
            places = _input_pointers(start + offset, list(inputs), unit)
            _add_row(sums, row * tile.columns, order, places, columns, kind)
        if "inputs" in tile.asks:
            soon = (offsets + (k + SOON_ROUNDS * len(taps)) * 8).load()
            for start in row_starts:
                for place in range(max(inputs, default=-1), -1, -LINE_BYTES // kind.itemsize):
                    code.prefetch(start + soon + unit * place)
        for start in next_starts:
            for place in ahead:
                code.prefetch(start + offset + unit * place, cache=tile.level)
        return [weights + len(taps) * len(vectors) * kind.bytes, asked, *sums]

    start, start_step = call.pointer("start"), call["start_step"]  # one bias for all pixels, or what earlier k left
    pixels = range(tile.rows * tile.columns)
    sums = [(start + start_step * pixel + v * kind.bytes).load(kind) for pixel in pixels for v in vectors]
    _, _, *sums = code.loop(call["k_count"], multiply, [call.pointer("weights"), code.value(0), *sums], step=len(taps))
    room = call.pointer("sums")
    for number, total in enumerate(sums):
        (room + number * kind.bytes).store(total)
    code.finish()


def _add_row(sums, first, order, places, weights, kind):
    """Add to the sums of a row's pixels, from pixel `first` of the tile on, the products of one round."""
    for place, products in order:
        value = places[place].broadcast(kind)
        for column, tap in products:
            for v, weight in enumerate(weights[tap]):
                at = (first + column) * len(weights[tap]) + v
                sums[at] = sums[at].fma(value, weight)


def fetched_ahead(columns, stride, itemsize, last):
    """Inputs of the next tile that are asked for, one in each line that is new if that tile is to the right.

    The cache would fetch them one after the other: 256 -> 16 channels at 56x56, 1x1, batch 16, tiles of 28 x 1: the
    last input's line only 159, both lines 318 GFLOP/s (Zen 5, November 2026).
    """
    final = stride * (columns - 1)
    return [final] if last else list(range(final, -1, -LINE_BYTES // itemsize))


def _input_pointers(start, inputs, unit):
    """Where inputs lie, by place; with a variable distance, few base registers and short distances from them."""
    if isinstance(unit, int):
        return {place: start + place * unit for place in inputs}
    places = {}
    for number, place in enumerate(inputs):
        if number % PIXELS_PER_BASE == 0:
            first, base = place, start + unit * place if place else start
        places[place] = base + unit * (place - first) if place > first else base
    return places


def write_store_channels_last(module, dtype, target):
    """Write the store where a pixel's channels lie together: vectors as they are, the last under a mask."""
    code = Code(module, "store", target, "pp")
    frame, call = (Record(at, names) for at, names in zip(code.arguments, (FRAME, TILE), strict=True))
    kind = code.vector(dtype)
    length, channels, pixel_bytes = call["length"], call["channels"], call["bytes"]

    def over_runs(run):
        sums = call.pointer("sums") + run * length * pixel_bytes
        out = call.pointer("out") + run * frame["out_row"]

        def over_pixels(pixel):
            here, there = sums + pixel * pixel_bytes, out + pixel * frame["out_pixel"]

            def over_vectors(first):
                at = first * kind.itemsize
                (there + at).store((here + at).load(kind), code.mask(channels - first, kind))

            code.loop(channels, over_vectors, step=kind.lanes)

        code.loop(length, over_pixels)

    code.loop(call["runs"], over_runs)
    code.finish()


def write_store_channels_first(module, dtype, target):
    """Write the store where a channel's pixels lie together: blocks of lanes x lanes are transposed in registers."""
    code = Code(module, "store", target, "pp")
    frame, call = (Record(at, names) for at, names in zip(code.arguments, (FRAME, TILE), strict=True))
    kind = code.vector(dtype)
    length, pixel_bytes, channel_bytes = call["length"], call["bytes"], frame["out_channel"]

    def over_runs(run):
        sums = call.pointer("sums") + run * length * pixel_bytes
        out = call.pointer("out") + run * frame["out_row"]

        def over_vectors(vector):
            channels = call["channels"] - vector * kind.lanes

            def over_blocks(first):
                here = sums + first * pixel_bytes + vector * kind.bytes
                there = out + vector * kind.lanes * channel_bytes + first * kind.itemsize
                lines = transposed([(here + pixel_bytes * row).load(kind) for row in range(kind.lanes)])
                mask = code.mask(length - first, kind)
                with code.either(channels.compare(">=", kind.lanes)) as (full, part):
                    with full:
                        for channel, line in enumerate(lines):
                            (there + channel_bytes * channel).store(line, mask)
                    with part:
                        for channel, line in enumerate(lines):
                            with code.when(channels.compare(">", channel)):
                                (there + channel_bytes * channel).store(line, mask)

            code.loop(length, over_blocks, step=kind.lanes)

        code.loop(call["vectors"], over_vectors)

    code.loop(call["runs"], over_runs)
    code.finish()


def write_task(module, dtype, copying, target):
    """Write the driver: copy the input if it must be, then blocks of channels, of k, and positions, innermost."""
    code = Code(module, "task", target, "pii")
    frame, number, worker = code.arguments
    fixed = Record(frame, FRAME)
    task = Record(fixed.pointer("tasks") + number * size(TASK), TASK)
    source = (frame + FRAME_INPUT).load_pointer() + task["x"]
    out = (frame + FRAME_OUTPUT).load_pointer() + task["out"]
    scratch = fixed.pointer("scratch") + worker * fixed["scratch_bytes"]
    kind = code.vector(dtype)
    if copying:
        copy_once(code, frame, fixed, task, source, scratch, Lines(code, fixed, task, kind))
    x = scratch + SCRATCH_HEAD + task["shift"] if copying else source
    partials = scratch + fixed["partial_at"]
    tile_room = code.stack(
        kind.bytes * target.registers * (kind.lanes + 1)
    )  # a transposition reads whole blocks of pixels
    call = Record(code.stack(size(TILE)), TILE)
    beyond = _first_input(frame, fixed, (number + 1).least((frame + FRAME_TASKS).load() - 1))

    def over_blocks(number):
        block = Record(fixed.pointer("blocks") + number * size(BLOCK), BLOCK)
        leaves = (number + 1).compare(">=", task["block_end"])
        for name in ("channels", "vectors", "bytes"):
            call[name] = block[name]

        def over_k(k):
            bias = fixed.pointer("bias") + block["bias"]
            first, last = k.compare("==", 0), (k + fixed["k_block"]).compare(">=", fixed["k_count"])

            def over_positions(number):
                position = Record(fixed.pointer("positions") + number * size(POSITION), POSITION)
                partial = partials + (number - task["position"]) * fixed["partial_bytes"]
                call["start"] = first.choose(bias, partial)
                call["start_step"] = first.choose(0, block["bytes"])
                call["sums"] = last.choose(tile_room, partial)
                is_last = (number + 1).compare(">=", task["position_end"])
                following = is_last.choose(task["position"], number + 1)
                ahead = Record(fixed.pointer("positions") + following * size(POSITION), POSITION)
                call["x"] = x + block["x"] + position["x"]
                following_x = x + block["x"] + ahead["x"]
                call["ahead"] = following_x if copying else (is_last & leaves).choose(beyond, following_x)
                call["out"] = out + block["out"] + position["out"]
                _ask(fixed, position, call, last)
                _one_tile(code, fixed, block, position, call, k, last)

            code.loop(task["position_end"], over_positions, start=task["position"])

        code.loop(fixed["k_count"], over_k, step=fixed["k_block"])

    code.loop(task["block_end"], over_blocks, start=task["block"])
    code.finish()


def _first_input(frame, fixed, number):
    """Where the input of the task of that number begins, if it is read in place.

    The last tile of the task before asks for it: 256 -> 128 channels at 56x56, 1x1, stride 2, batch 8, caches cold
    1038 and 972 us, hot 894 and 881 (Zen 5, November 2026).
    """
    task = Record(fixed.pointer("tasks") + number * size(TASK), TASK)
    block = Record(fixed.pointer("blocks") + task["block"] * size(BLOCK), BLOCK)
    position = Record(fixed.pointer("positions") + task["position"] * size(POSITION), POSITION)
    return (frame + FRAME_INPUT).load_pointer() + task["x"] + block["x"] + position["x"]


def _ask(fixed, position, call, last):
    """Where a kernel that asks for outputs does: each channel's last pixel.  Not before the last k."""
    pixel, channel = fixed["out_pixel"], fixed["out_channel"]
    call["asked"] = last.choose(call["out"] + (position["length"] - 1) * pixel, call["sums"])
    call["asked_step"] = last.choose(channel, 0)
    call["asked_last"] = (call["channels"] - 1) * channel


def _one_tile(code, fixed, block, position, call, k, last):
    """Compute one tile over the block of k that begins at `k`, less padding, and store it after the last."""
    kernel = (fixed.pointer("kernels") + (position["kernel"] + block["kernel"]) * 8).load_pointer()
    low, high = position["k_low"], position["k_high"]

    def over_lines(line):
        begin = k.most(line + low)
        call["weights"] = fixed.pointer("weights") + block["weights"] + begin * block["bytes"]
        call["offsets"] = fixed.pointer("offsets") + begin * 8
        call["k_count"] = (k + fixed["k_block"]).least(line + high) - begin
        code.call(kernel, [fixed.at, call.at])
        call["start"], call["start_step"] = call["sums"], block["bytes"]

    code.loop(position["k_end"], over_lines, start=position["k"], step=position["k_step"])
    with code.when(last):
        call["runs"], call["length"] = position["runs"], position["length"]
        code.call(fixed.pointer("store"), [fixed.at, call.at])
