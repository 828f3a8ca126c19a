"""The task of a separable filter: rows filtered into a ring of lines in the cache, columns from there to the output.

    line[i, x] = sum over kx of  row[kx] * input[i, s x + d kx - p]
    out[y, x]  = sum over ky of  column[ky] * line[s y + d ky - p, x]

Both sums are `wide_kernel`'s tiles: the rows' with vectors that follow each other in one line, the columns' with
vectors one above the other.  A task walks *strips*, columns of the image narrow enough for the lines that one tile
meets to stay in the cache, downwards in *blocks* of a tile's height.  Every block filters the input rows that are
new to it; when the ring is full, the lines still needed move back to its beginning.  Several terms (an output
channel may sum several input channels, and a kernel several products) have a ring each, and the column tile sums
over all of them.
"""

from .parallel import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .wide_kernel import _pick, _pointer

#: Words of a frame behind its head.
FRAME = (
    "tasks",
    "images",
    "strips",
    "strip_table",
    "bands",
    "band_table",
    "block_table",
    "image_table",
    "source_table",
    "terms",
    "row_tile",
    "column_tile",
    "stage",
    "spread",
    "scratch",
    "scratch_bytes",
    "ring_bytes",
    "ring_plane",
    "ring_pitch",
    "line_bytes",
    "phase_pitch",
    "source_pitch",
    "out_plane",
    "out_row",
    "out_pitch",
    "tile_pitch",
    "phases",
    "row_weights",
    "row_weights_step",
    "row_offsets",
    "staged_row_offsets",
    "row_tall",
    "row_short",
    "row_tall_bytes",
    "row_short_offset",
    "column_weights",
    "column_weights_step",
    "column_offsets",
    "column_tall",
    "column_short",
    "column_tall_bytes",
    "column_short_offset",
    "row_vectors",
    "bias",
    "zero",
    "itemsize",
)
#: Words of an entry of the image table: which factors an output plane takes.
IMAGE = ("filter",)
#: Words of an entry of the strip table: where a range of output columns begins, and what of it must be staged.
STRIP = ("source", "out", "columns", "lanes", "staged", "low", "high", "vectors")
#: Words of an entry of the block table: lines moved back first, lines to make, output rows to write.
BLOCK = ("moved_from", "moved", "source", "line", "above", "inside", "below", "tile", "out", "rows")


def _get(pointer, names):
    return {name: (pointer + 8 * n).load() for n, name in enumerate(names)}


def write_task(code, dtype):
    """Body of ``task(frame, index, worker)``: an even share of the bands of all strips of all output planes."""
    frame, index, worker = code.arguments
    kind = code.vector(dtype)
    shared = _get(frame + 8 * FRAME_HEAD, FRAME)
    scratch = _pointer(code, shared["scratch"]) + worker * shared["scratch_bytes"]
    total = shared["images"] * shared["strips"] * shared["bands"]

    def item(n):
        band = _pointer(code, shared["band_table"]) + n % shared["bands"] * 8
        place = n // shared["bands"]
        strip = _get(_pointer(code, shared["strip_table"]) + place % shared["strips"] * (8 * len(STRIP)), STRIP)
        image = place // shared["strips"]
        sources = _pointer(code, shared["source_table"]) + image * shared["terms"] * 8
        which = (_pointer(code, shared["image_table"]) + image * (8 * len(IMAGE))).load()
        out = (frame + FRAME_OUTPUT).load_pointer() + image * shared["out_plane"] + strip["out"]
        source = (frame + FRAME_INPUT).load_pointer() + strip["source"]

        def block(b):
            entry = _get(_pointer(code, shared["block_table"]) + b * (8 * len(BLOCK)), BLOCK)

            def term(t):
                ring = scratch + t * shared["ring_plane"]
                _move(code, shared, kind, entry, strip, ring)
                weights = (which * shared["terms"] + t) * shared["row_weights_step"]
                at = source + (sources + t * 8).load() + entry["source"]
                _filter_rows(code, shared, kind, entry, strip, at, ring, scratch, weights)

            code.loop(shared["terms"], term)
            _filter_columns(code, shared, entry, strip, scratch, out, which)

        code.loop((band + 8).load(), block, start=band.load())

    code.loop((index + 1) * total // shared["tasks"], item, start=index * total // shared["tasks"])
    code.finish()


def _fill(code, line, pitch, count, width, kind, vector):
    """`count` lines of `width` bytes; ``vector(at)`` gives what is stored at a pointer."""

    def row(j):
        at = line + j * pitch
        code.loop(width, lambda q: (at + q).store(vector(at + q)), step=kind.bytes)

    code.loop(count, row)


def _move(code, shared, kind, entry, strip, ring):
    """The last lines of a full ring to its beginning; they never overlap."""
    behind = entry["moved_from"] * shared["ring_pitch"]
    width = strip["lanes"] * kind.itemsize
    _fill(code, ring, shared["ring_pitch"], entry["moved"], width, kind, lambda at: (at + behind).load(kind))


def _filter_rows(code, shared, kind, entry, strip, source, ring, scratch, weights):
    """The lines that are new to a block: zeros above and below the image, filtered rows between."""
    pitch = shared["ring_pitch"]
    width = strip["lanes"] * kind.itemsize
    line = ring + entry["line"] * pitch
    first = line + entry["above"] * pitch

    def clear(at, count):
        _fill(code, at, pitch, count, width, kind, lambda _: code.zero(kind))

    clear(line, entry["above"])
    clear(first + entry["inside"] * pitch, entry["below"])
    staged = strip["staged"].compare("!=", 0)
    patch = scratch + shared["ring_bytes"]
    with code.when(staged & entry["inside"].compare(">", 0)):
        code.call(
            _pointer(code, shared["stage"]),
            [
                source,
                patch,
                entry["inside"],
                0,
                entry["inside"],
                shared["source_pitch"],
                shared["line_bytes"],
                strip["low"],
                strip["high"],
                strip["vectors"],
                shared["phase_pitch"],
            ],
        )
    begin, step = _pick(code, staged, patch, source), _pick(code, staged, shared["line_bytes"], shared["source_pitch"])
    offsets = _pointer(code, _pick(code, staged, shared["staged_row_offsets"], shared["row_offsets"]))
    weights = _pointer(code, shared["row_weights"]) + weights

    def row(j):
        code.call(
            _pointer(code, shared["row_tile"]),
            [
                begin + j * step,
                first + j * pitch,
                _pointer(code, shared["zero"]),
                offsets,
                shared["row_tall"],
                weights,
                offsets + shared["row_short_offset"],
                shared["row_short"],
                weights + shared["row_tall_bytes"],
                kind.bytes,
                kind.bytes,
                shared["row_vectors"],
                strip["lanes"],
            ],
        )

    code.loop(entry["inside"], row)


def _filter_columns(code, shared, entry, strip, ring, out, which):
    """The output rows of a block; with a dilation, those that share lines are several rows apart."""
    offsets = _pointer(code, shared["column_offsets"])
    weights = _pointer(code, shared["column_weights"]) + which * shared["column_weights_step"]
    at, out = ring + entry["tile"] * shared["ring_pitch"], out + entry["out"]

    def phase(f):
        code.call(
            _pointer(code, shared["column_tile"]),
            [
                at + f * shared["spread"],
                out + f * shared["out_row"],
                _pointer(code, shared["bias"]) + which * shared["itemsize"],
                offsets,
                shared["column_tall"],
                weights,
                offsets + shared["column_short_offset"],
                shared["column_short"],
                weights + shared["column_tall_bytes"],
                shared["tile_pitch"],
                shared["out_pitch"],
                (entry["rows"] - f + (shared["phases"] - 1)) // shared["phases"],
                strip["columns"],
            ],
        )

    code.loop(shared["phases"].least(entry["rows"]), phase)
