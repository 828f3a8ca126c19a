"""Generators of the depthwise family: the tile computes some pixels of an output row, the task walks the tiles.

A tile holds one vector of channels for each of its pixels, and goes over the channels vector by vector:

    sum[p] += x[line + (stride p + dilation kx) columns] * w[kz, ky, kx],    for every tap that all its pixels see.

With a *run* the taps of a row are unrolled: their weights stay in registers, and a pixel that several taps meet
is loaded once.  Without, columns of taps are a loop like the rows and depths, so the code does not depend on the
kernel.  Distances are data: a function depends on the run, the pixels, the dtype and the level.
"""

from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT

#: Words of a frame behind its head: what all tasks of a plan share.  Distances are in bytes.
FRAME = (
    "tasks",
    "rows",
    "row_table",
    "image_rows",
    "image_bytes",
    "row_bytes",
    "tiles",
    "tile_table",
    "channels",
    "bias",
    "weights",
    "pixel_bytes",
    "tap_bytes",
    "line_bytes",
    "slice_bytes",
    "weight_bytes",
    "weight_line",
    "weight_slice",
    "scratch",
    "scratch_bytes",
)
#: Words of the row table, one entry for each output row of an image: where its first tap that is not padding reads
#: and has its weights, and how many slices and rows of taps follow.
ROW = ("source", "weights", "slices", "lines")
#: Words of the tile table, one entry for each tile of a row; `taps` counts columns of taps.
TILE = ("source", "out", "weights", "taps", "function")
#: Arguments of a tile: the frame, source, out, weights, slices, lines and columns of taps.
TILE_ARGUMENTS = "ppppiii"


def _shared(frame):
    return {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}


def write_tile(code, dtype, pixels, run, stride, masked):
    """Body of ``tile(frame, source, out, weights, slices, lines, taps)``.

    Parameters
    ----------
    code : Code
    dtype : str
    pixels : int
        Neighbouring outputs.
    run : Run or None
        The columns of taps, unrolled; with None `taps` counts them.
    stride : int
        Columns from one pixel to the next.
    masked : bool
        Whether there are fewer channels than lanes.  Otherwise the last vector ends with the channels, and may
        compute some a second time.
    """
    kind = code.vector(dtype)
    frame, source, out, weights, slices, lines, taps = code.arguments
    shared = _shared(frame)
    mask = code.mask(shared["channels"], kind) if masked else None
    row = _unrolled(run, kind, shared, mask) if run else _looped(code, (pixels, stride), kind, shared, taps, mask)

    def channels(first):
        first = first if masked else first.least(shared["channels"] - kind.lanes)
        place = first * kind.itemsize
        bias = (code.pointer(shared["bias"]) + place).load(kind, mask)

        def line_of_taps(_, line, weight, *sums):
            return line + shared["line_bytes"], weight + shared["weight_line"], *row(line, weight, list(sums))

        def slice_of_taps(_, line, weight, *sums):
            sums = code.loop(lines, line_of_taps, (line, weight, *sums))[2:]
            return line + shared["slice_bytes"], weight + shared["weight_slice"], *sums

        sums = code.loop(slices, slice_of_taps, (source + place, weights + place, *[bias] * pixels))[2:]
        at = out + place
        for total in sums:
            at.store(total, mask)
            at = at + shared["channels"] * kind.itemsize

    code.loop(shared["channels"], channels, step=kind.lanes)
    code.finish()


def _unrolled(run, kind, shared, mask):
    """Writes a row of taps, whose inputs are loaded once each: ``row(line, weight, sums)`` -> sums."""

    def row(line, weight, sums):
        taps = []
        for _ in range(run.taps):
            taps.append(weight.load(kind, mask))
            weight = weight + shared["weight_bytes"]
        last = 0
        for place, pairs in run.inputs(len(sums)).items():
            if place > last:
                line = line + shared["pixel_bytes"] * (place - last)
            loaded, last = line.load(kind, mask), place
            for pixel, tap in pairs:
                sums[pixel] = sums[pixel].fma(loaded, taps[tap])
        return sums

    return row


def _looped(code, shape, kind, shared, taps, mask):
    """The same with a loop over the columns of taps."""
    pixels, stride = shape
    step = shared["pixel_bytes"] * stride

    def tap(_, at, weight, *sums):
        factor, pixel, sums = weight.load(kind, mask), at, list(sums)
        for number in range(pixels):
            sums[number] = sums[number].fma(pixel.load(kind, mask), factor)
            pixel = pixel + step
        return at + shared["tap_bytes"], weight + shared["weight_bytes"], *sums

    return lambda line, weight, sums: code.loop(taps, tap, (line, weight, *sums))[2:]


def write_task(code):
    """Body of ``task(frame, index, worker)``: an even share of the tiles of all images."""
    frame, index, _ = code.arguments
    shared = _shared(frame)
    total = shared["rows"] * shared["tiles"]

    def item(n):
        row, tile = n // shared["tiles"], n % shared["tiles"]
        image, y = row // shared["image_rows"], row % shared["image_rows"]
        at = code.pointer(shared["row_table"]) + y * (8 * len(ROW))
        line, weight_line, slices, lines = ((at + 8 * i).load() for i in range(len(ROW)))
        at = code.pointer(shared["tile_table"]) + tile * (8 * len(TILE))
        column, out, weight_column, taps, function = ((at + 8 * i).load() for i in range(len(TILE)))
        arguments = [
            frame,
            (frame + FRAME_INPUT).load_pointer() + image * shared["image_bytes"] + line + column,
            (frame + FRAME_OUTPUT).load_pointer() + row * shared["row_bytes"] + out,
            code.pointer(shared["weights"]) + weight_line + weight_column,
        ]
        code.call(code.pointer(function), [*arguments, slices, lines, taps])

    code.loop((index + 1) * total // shared["tasks"], item, start=index * total // shared["tasks"])
    code.finish()
