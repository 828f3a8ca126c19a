"""Generators of the wide family: the tile computes, the task runs it, and before it the stage (`wide_stage`).

The tile holds ``rows`` vectors of outputs, one above the other, and walks a list of *steps*.  A step is an
address and ``height`` weights of one kernel column: input row i, loaded once, is multiplied into every
output row r that it touches,

    sum[r] += weight[i - r] * input[i],        i = 0 ... rows + height - 2,

so ``rows * height`` multiply-adds cost ``rows + height - 1`` loads of inputs and ``height`` of weights.
Kernel columns, input channels, kernel depths and pieces of tall kernels are further steps: the code does
not depend on the size of the kernel.
"""

import contextlib

from llvmlite import ir

from . import residence
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .vector import Kind, Value

#: Words of a frame behind its head: what all tasks of a plan share.
FRAME = (
    "tasks",
    "blocks",
    "block_table",
    "images",
    "image_table",
    "outputs",
    "filters",
    "out_step",
    "stage",
    "scratch",
    "scratch_bytes",
    "channels",
    "channel_step",
    "depth_step",
    "staged_rows",
    "source_pitch",
    "stage_pitch",
    "stage_plane",
    "phase_pitch",
    "bias",
    "weights",
    "weights_step",
    "offsets_a",
    "offsets_b",
    "staged_offsets_a",
    "staged_offsets_b",
    "shifts_a",
    "shifts_b",
    "pitch",
    "staged_pitch",
    "out_pitch",
    "itemsize",
    "far_cycles",
)
#: Words of an entry of the image table: one image, group and range of output channels.
IMAGE = ("source", "out", "weights", "bias")
#: Words of an entry of the block table: one rectangle of an output image, the code of its tiles, and whether they read
#: a staged patch.
BLOCK = (
    "source",
    "out",
    "rows",
    "columns",
    "function",
    "staged",
    "first_a",
    "count_a",
    "skip_a",
    "first_b",
    "count_b",
    "skip_b",
    "depth_first",
    "depth_count",
    "row_low",
    "row_high",
    "column_low",
    "column_high",
    "edge_low",
    "edge_high",
    "vectors",
    "last",
)


def _pick(code, condition, yes, no):
    return Value(code, code.builder.select(condition.ir, yes.ir, no.ir))


def _lane_numbers(code, kind):
    numbers = ir.VectorType(ir.IntType(32), kind.lanes)
    return Value(code, ir.Constant(numbers, list(range(kind.lanes))))


def _inside(code, first, low, high, kind):
    """Mask of the lanes whose number, counted from `first`, lies in [low, high)."""

    def narrow(value):
        short = Value(code, code.builder.trunc(value.ir, ir.IntType(32)))
        return code.splat(short, Kind("int32", kind.lanes))

    shifted = _lane_numbers(code, kind) + narrow(first - low)
    return Value(code, code.builder.icmp_unsigned("<", shifted.ir, narrow(high - low).ir))


def write_tile(code, dtype, filters, rows, heights, fold, asks, edge, spans, streams):
    """Body of ``tile(source, out, bias, steps a, steps b, pitch, out_step, out_pitch, rows, columns, past, ...)``.

    Steps are three arguments each: their offsets, how many, and their weights.  Last come, for tiles at an `edge`, the
    steps' distances along the row (two tables), and which elements of it, counted from `source`, exist: from `low` to
    before `high`.  Of the input vectors of a step those of its height's span are read (`wide_rectangles`).  If it
    `streams`, whole lines of outputs are written past the caches where `past` is not 0.

    A tile holds `filters` output channels, `out_step` bytes apart, that share the inputs.  With `fold`, output row r
    is the r-th vector of one long row, and a tile advances by all of them.  If it `asks`, the rows below those that a
    tile of a step's height reads, which the next tile down needs, are fetched into the second-level cache.
    """
    kind = code.vector(dtype)
    source, out, bias, *lists = code.arguments[:9]
    pitch, out_step, out_pitch, valid_rows, columns, past, *edges = code.arguments[9:]
    past = _past(past, (out.number(), out_pitch, out_step), kind) if streams else None
    reach = kind.lanes * (rows if fold else 1)

    def steps(sums, height, span, offsets, count, weights, x, shifts):
        at = source + x * kind.itemsize

        def step(n, weight, *sums):
            sums = list(sums)
            taps = [(weight + k * kind.itemsize).broadcast(kind) for k in range(filters * height)]
            line = at + (offsets + n * 8).load() + pitch * span[0]
            mask = None
            if edge:
                mask = _inside(code, x + (shifts + n * 8).load(), edges[2], edges[3], kind)
            for i in range(*span):
                loaded = line.load(kind, mask)
                if filters > 1:  # the next tile's: rows of many channels, 64 -> 64 channels, 3x3: +4 %
                    code.prefetch(line + kind.bytes)
                for k in range(max(0, i - rows + 1), min(height, i + 1)):
                    for f in range(filters):
                        total = f * rows + i - k
                        sums[total] = sums[total].fma(loaded, taps[f * height + k])
                line = line + pitch
            return weight + filters * height * kind.itemsize, *sums

        return code.loop(count, step, (weights, *sums))[1:]

    def tile(x):
        to = out + x * kind.itemsize
        if filters > 1:  # outputs lie too far apart for the hardware to ask for them: 3 -> 24 channels, 7x7: +8 %
            with code.when(past.choose(0, 1).compare("!=", 0)) if streams else contextlib.nullcontext():
                for f in range(filters):
                    for r in range(rows):
                        code.prefetch(to + out_step * f + out_pitch * r, write=True)
        if asks:
            below = source + x * kind.itemsize + pitch * (rows + max(heights) - 1)
            for r in range(rows):
                code.prefetch(below + pitch * r, cache=2)
        sums = [(bias + f * kind.itemsize).broadcast(kind) for f in range(filters) for _ in range(rows)]
        for number, (height, span) in enumerate(zip(heights, spans, strict=True)):
            if span[0] < span[1]:
                sums = steps(sums, height, span, *lists[3 * number : 3 * number + 3], x, edges[number])
        for f in range(filters):
            _store(code, sums[f * rows : (f + 1) * rows], to, out_pitch, valid_rows, columns - x, kind, fold, past)
            to = to + out_step

    code.loop(columns, tile, step=reach)
    code.finish()


def _past(past, distances, kind):
    """Whether `past` is not 0, and all distances are whole lines."""
    past = past.compare("!=", 0)
    for distance in distances:
        past = past & (distance % kind.bytes).compare("==", 0)
    return past


def _store(code, sums, out, out_pitch, valid_rows, columns, kind, fold, past):
    """Store the tile, masked where it reaches over the end, or past the caches if that may be and is so."""
    rows = len(sums)
    reach = kind.lanes * (rows if fold else 1)
    whole = columns.compare(">=", reach) & valid_rows.compare("==", rows)

    def lines(write):
        line = out
        for total in sums:
            write(line, total)
            line = line + out_pitch

    with code.either(whole) as (yes, no):
        with yes:
            if past is None:
                lines(Value.store)
            else:
                with code.either(past) as (beyond, through):
                    with beyond:
                        lines(Value.stream)
                    with through:
                        lines(Value.store)
        with no:
            line = out
            for r, total in enumerate(sums):
                left = columns - (r * kind.lanes if fold else 0)
                with code.when(valid_rows.compare(">", r)):
                    line.store(total, code.mask(left, kind))
                line = line + out_pitch


def write_task(code):
    """Body of ``task(frame, index, worker)``: an even share of the blocks of all images."""
    frame, index, worker = code.arguments

    def get(pointer, names, name, start=0):
        return (pointer + 8 * (start + names.index(name))).load()

    shared = {name: get(frame, FRAME, name, FRAME_HEAD) for name in FRAME}
    total = shared["images"] * shared["blocks"]
    scratch, past = code.pointer(shared["scratch"]) + worker * shared["scratch_bytes"], code.stack(8)

    def item(n, image_at, block_at):
        image = {name: get(image_at, IMAGE, name) for name in IMAGE}
        block = {name: get(block_at, BLOCK, name) for name in BLOCK}
        source = (frame + FRAME_INPUT).load_pointer() + image["source"] + block["source"]
        out = (frame + FRAME_OUTPUT).load_pointer() + image["out"] + block["out"]
        staged = block["staged"].compare("!=", 0)
        with code.when(staged):
            _stage_patch(code, shared, block, source, scratch)
        _compute_block(code, shared, image, block, _pick(code, staged, scratch, source), out, staged, past.load())
        last = block["last"].compare("!=", 0)
        first_block = code.pointer(shared["block_table"])
        return _pick(code, last, image_at + 8 * len(IMAGE), image_at), _pick(
            code, last, first_block, block_at + 8 * len(BLOCK)
        )

    def places(number):
        image_at = code.pointer(shared["image_table"]) + number // shared["blocks"] * (8 * len(IMAGE))
        return image_at, code.pointer(shared["block_table"]) + number % shared["blocks"] * (8 * len(BLOCK))

    first, end = (number * total // shared["tasks"] for number in (index, index + 1))
    past.store(0)
    with code.when(shared["far_cycles"].compare(">", 0)):
        image_at, block_at = places(end - 1)
        array = (frame + FRAME_OUTPUT).load_pointer()
        out = array + get(image_at, IMAGE, "out") + get(block_at, BLOCK, "out")
        past.store(_is_far(code, shared, array, out).choose(1, 0))
    code.loop(end, item, places(first), start=first)
    code.finish()


def _stage_patch(code, shared, block, source, scratch):
    """Every channel and kernel depth of the block's inputs into the scratch."""

    def depth(z):
        def channel(c):
            at = source + z * shared["depth_step"] + c * shared["channel_step"]
            to = scratch + (z * shared["channels"] + c) * shared["stage_plane"]
            code.call(
                code.pointer(shared["stage"]),
                [
                    at,
                    to,
                    shared["staged_rows"],
                    block["row_low"],
                    block["row_high"],
                    shared["source_pitch"],
                    shared["stage_pitch"],
                    block["column_low"],
                    block["column_high"],
                    block["vectors"],
                    shared["phase_pitch"],
                ],
            )

        code.loop(shared["channels"], channel)

    code.loop(block["depth_first"] + block["depth_count"], depth, start=block["depth_first"])


def _is_far(code, shared, array, out):
    """Whether any of some lines of a block of outputs is in no cache: where rows of channels begin.

    Of a task's last block: behind the one that is being written the processor fetches ahead.
    """
    numbers = residence.some(code.value(0), shared["outputs"])
    places = [out + number * shared["filters"] * shared["out_step"] for number in numbers]
    return residence.is_far(code, array, places, shared["far_cycles"])


def _compute_block(code, shared, image, block, source, out, staged, past):
    """The block of every output channel of the image."""

    def table(name, first):
        chosen = _pick(code, staged, shared["staged_offsets_" + name], shared["offsets_" + name])
        return code.pointer(chosen) + first * 8

    weights, bias = code.pointer(shared["weights"]) + image["weights"], code.pointer(shared["bias"]) + image["bias"]
    pitch = _pick(code, staged, shared["staged_pitch"], shared["pitch"])

    def output(o):
        weight, first = weights + o * shared["weights_step"], o * shared["filters"]
        arguments = [
            source,
            out + first * shared["out_step"],
            bias + first * shared["itemsize"],
            table("a", block["first_a"]),
            block["count_a"],
            weight + block["skip_a"],
            table("b", block["first_b"]),
            block["count_b"],
            weight + block["skip_b"],
            pitch,
            shared["out_step"],
            shared["out_pitch"],
            block["rows"],
            block["columns"],
            past,
            *(code.pointer(shared["shifts_" + name]) + block["first_" + name] * 8 for name in "ab"),
            block["edge_low"],
            block["edge_high"],
        ]
        code.call(code.pointer(block["function"]), arguments)

    code.loop(shared["outputs"], output)
