"""The task of a separable filter: rows filtered into a ring of lines in the cache, columns from there to the output.

    line[i, x] = sum over kx of  row[kx] * input[i, s x + d kx - p]
    out[y, x]  = sum over ky of  column[ky] * line[s y + d ky - p, x]

A task walks *strips*, columns of the image that stay in the cache for as many lines as one output row needs,
downwards in *segments* of output rows.  A segment moves the lines that it shares with the one above to the
beginning of the ring, filters the input rows that are new, and sums columns by `wide_kernel`'s tile, *block* by
block of a tile's height.  Several terms (an output channel may sum several input channels, and a kernel several
products) have a ring each, and the tile sums over all of them.
"""

from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT

#: Words of a frame behind its head.
FRAME = (
    "tasks",
    "images",
    "strips",
    "strip_table",
    "bands",
    "band_table",
    "segment_table",
    "image_table",
    "source_table",
    "terms",
    "row_filter",
    "column_tile",
    "stage",
    "masks",
    "scratch",
    "scratch_bytes",
    "patch",
    "ring_plane",
    "ring_pitch",
    "line_bytes",
    "phase_pitch",
    "source_pitch",
    "ahead",
    "out_plane",
    "out_pitch",
    "block",
    "block_lines",
    "tile_pitch",
    "tile_out_pitch",
    "phases",
    "phase_lines",
    "row_weights",
    "row_weights_step",
    "row_offsets",
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
#: Words of an entry of the strip table: where a range of output columns begins, and which of its inputs exist.
STRIP = ("source", "out", "columns", "lanes", "tiles", "masks", "low", "high", "vectors")
#: Words of an entry of the segment table: lines moved back first, lines to make, output rows to write.
SEGMENT = ("moved_from", "moved", "source", "line", "above", "inside", "below", "out", "rows")
#: Lines that are staged together: they stay in the first-level cache.
STAGED_LINES = 8


def _get(pointer, names):
    return {name: (pointer + 8 * n).load() for n, name in enumerate(names)}


def write_task(code, dtype, shifted):
    """Body of ``task(frame, index, worker)``: an even share of the bands of all strips of all output planes.

    With `shifted` rows are filtered by `separable_rows`, without it by `wide_kernel`'s tile after its stage.
    """
    frame, index, worker = code.arguments
    kind = code.vector(dtype)
    shared = _get(frame + 8 * FRAME_HEAD, FRAME)
    scratch = code.pointer(shared["scratch"]) + worker * shared["scratch_bytes"]
    total = shared["images"] * shared["strips"] * shared["bands"]
    filter_rows = _shifted_rows if shifted else _staged_rows

    def item(n):
        band = code.pointer(shared["band_table"]) + n % shared["bands"] * 8
        place = n // shared["bands"]
        strip = _get(code.pointer(shared["strip_table"]) + place % shared["strips"] * (8 * len(STRIP)), STRIP)
        image = place // shared["strips"]
        sources = code.pointer(shared["source_table"]) + image * shared["terms"] * 8
        which = (code.pointer(shared["image_table"]) + image * 8).load()
        out = (frame + FRAME_OUTPUT).load_pointer() + image * shared["out_plane"] + strip["out"]
        source = (frame + FRAME_INPUT).load_pointer() + strip["source"]

        def segment(s):
            entry = _get(code.pointer(shared["segment_table"]) + s * (8 * len(SEGMENT)), SEGMENT)

            def term(t):
                ring = scratch + t * shared["ring_plane"]
                weights = code.pointer(shared["row_weights"])
                weights = weights + (which * shared["terms"] + t) * shared["row_weights_step"]
                at = source + (sources + t * 8).load() + entry["source"]
                first = _open_lines(code, shared, kind, entry, strip, ring)
                filter_rows(code, shared, kind, entry["inside"], strip, at, first, weights, scratch + shared["patch"])

            code.loop(shared["terms"], term)
            _filter_columns(code, shared, entry, strip, scratch, out + entry["out"], which)

        code.loop((band + 8).load(), segment, start=band.load())

    code.loop((index + 1) * total // shared["tasks"], item, start=index * total // shared["tasks"])
    code.finish()


def _call(code, function, *arguments):
    code.call(code.pointer(function), arguments)


def _fill(code, line, pitch, count, width, kind, vector):
    """`count` lines of `width` bytes; ``vector(at)`` gives what is stored at a pointer."""

    def row(j):
        at = line + j * pitch
        code.loop(width, lambda q: (at + q).store(vector(at + q)), step=kind.bytes)

    code.loop(count, row)


def _open_lines(code, shared, kind, entry, strip, ring):
    """Move the lines that stay, clear those outside of the image, and return the first that is to be filtered."""
    pitch, width = shared["ring_pitch"], strip["lanes"] * kind.itemsize
    behind = entry["moved_from"] * pitch  # they never overlap
    _fill(code, ring, pitch, entry["moved"], width, kind, lambda at: (at + behind).load(kind))
    line = ring + entry["line"] * pitch
    first = line + entry["above"] * pitch
    _fill(code, line, pitch, entry["above"], width, kind, lambda _: code.zero(kind))
    _fill(code, first + entry["inside"] * pitch, pitch, entry["below"], width, kind, lambda _: code.zero(kind))
    return first


def _shifted_rows(code, shared, kind, count, strip, source, lines, weights, patch):
    _call(
        code,
        shared["row_filter"],
        source,
        lines,
        weights,
        code.pointer(shared["masks"]) + strip["masks"],
        count,
        shared["source_pitch"],
        shared["ring_pitch"],
        strip["tiles"],
        shared["ahead"],
    )


def _staged_rows(code, shared, kind, count, strip, source, lines, weights, patch):
    offsets = code.pointer(shared["row_offsets"])

    def some(first):
        staged = (count - first).least(STAGED_LINES)
        _call(
            code,
            shared["stage"],
            source + first * shared["source_pitch"],
            patch,
            staged,
            0,
            staged,
            shared["source_pitch"],
            shared["line_bytes"],
            strip["low"],
            strip["high"],
            strip["vectors"],
            shared["phase_pitch"],
        )

        def row(j):
            _call(
                code,
                shared["row_filter"],
                patch + j * shared["line_bytes"],
                lines + (first + j) * shared["ring_pitch"],
                code.pointer(shared["zero"]),
                offsets,
                shared["row_tall"],
                weights,
                offsets + shared["row_short_offset"],
                shared["row_short"],
                weights + shared["row_tall_bytes"],
                kind.bytes,
                0,
                kind.bytes,
                shared["row_vectors"],
                strip["lanes"],
                *(0, offsets, offsets, 0, 0),  # through the caches; of tiles at an edge
            )

        code.loop(staged, row)

    code.loop(count, some, step=STAGED_LINES)


def _filter_columns(code, shared, entry, strip, lines, out, which):
    """The output rows of a segment, block by block; with a dilation, tiles take every so many-th row."""
    blocks = (entry["rows"] + (shared["block"] - 1)) // shared["block"]

    def block(b):
        def phase(f):
            line, row = b * shared["block_lines"] + f * shared["phase_lines"], b * shared["block"] + f
            rows = (entry["rows"] - row + (shared["phases"] - 1)) // shared["phases"]
            at, to = lines + line * shared["ring_pitch"], out + row * shared["out_pitch"]
            _column_tile(code, shared, which, at, to, rows, strip["columns"])

        code.loop(shared["phases"].least(entry["rows"] - b * shared["block"]), phase)

    code.loop(blocks, block)


def _column_tile(code, shared, which, lines, out, rows, columns):
    offsets = code.pointer(shared["column_offsets"])
    weights = code.pointer(shared["column_weights"]) + which * shared["column_weights_step"]
    _call(
        code,
        shared["column_tile"],
        lines,
        out,
        code.pointer(shared["bias"]) + which * shared["itemsize"],
        offsets,
        shared["column_tall"],
        weights,
        offsets + shared["column_short_offset"],
        shared["column_short"],
        weights + shared["column_tall_bytes"],
        shared["tile_pitch"],
        0,  # the tile has one output channel
        shared["tile_out_pitch"],
        rows,
        columns,
        *(0, offsets, offsets, 0, 0),  # through the caches; of tiles at an edge
    )
