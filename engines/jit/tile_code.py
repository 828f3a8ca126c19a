"""Generated code for one tile of a spectral convolution: load, transform, multiply, transform back, store.

A tile of 2·M rows and W columns of real numbers becomes M × W complex ones:

    z[h, w] = (x[h, w] + i · x[h + M, w]) · e^(iπh / 2M)

Its DFT is the spectrum of x at odd multiples of half a frequency along the rows' axis (R. Crandall and
B. Fagin, Discrete Weighted Transforms, 1994, §6: "right-angle convolution"), so products of such spectra
convolve around the tile with the sign changed where they wrap: those outputs are thrown away anyway.  No
real-to-complex transform is needed, and no symmetry.

A tile lies in scratch as strips of one vector of columns.  Transforms down the columns run in a strip; then
blocks of rows, one row per lane, are transposed into a buffer that stays in the first-level cache,
transformed, multiplied, transformed back and returned.

A long signal is a flat tile: element n lies in row n / W, column n % W, and between the transforms of columns
and rows every element is multiplied by a twiddle factor (D. Bailey, FFTs in External or Hierarchical Memory, 1990).
"""

from .compile import address
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, add
from .transform import load_element, multiply, run_steps, store_element
from .transpose import transposed
from .vector import Code, Kind, Value

#: Rows of an image fetched ahead: 1024 x 1024, k = 63 in tiles of 256 x 256 takes 1.81 ms without, 1.66 so
#: (Cascade Lake, 2026-11); storing past the caches instead gained nothing.
AHEAD = 2
#: Words of a frame behind its head; planes of spectra are a worker's own where `planes_bytes` is not 0.
FRAME = (
    "jobs",
    "scratch",
    "scratch_bytes",
    "tile_bytes",
    "spectra",
    "planes",
    "planes_bytes",
    "rows",
    "strips",
    "pitch",
    "out_pitch",
    "weights",
    "weights_back",
    "twiddles",
    "twiddles_back",
    "zeros",
    "down",
    "down_count",
    "up",
    "up_count",
    "along",
    "along_count",
    "middle",
    "middle_blocks",
    "back",
    "back_count",
    "load",
    "store",
    "turn",
    "turn_back",
    "scale",
    "pick",
    "pick_rows",
    "pick_columns",
    "line",
    "plain",
    "struck",
)
#: Words of a job: where a tile begins in the input (offset in bytes, may lie before it), which of its rows and
#: columns exist there (flat: positions), where its outputs go, how many rows and columns they are
#: (flat: one row of positions), where its spectrum begins, which plane of spectra it is, and the outputs kept at
#: a stride with the first position kept.
JOB = (
    "source",
    "first_row",
    "stop_row",
    "first",
    "stop",
    "out",
    "out_rows",
    "out_columns",
    "spectrum",
    "plane",
    "kept_rows",
    "kept_columns",
    "skipped",
)


def function(target, name, key, arguments, write):
    """Address of a function that ``write(code)`` writes."""
    return address(name, ("tile", *key), target, lambda module: write(Code(module, name, target, arguments)))


def _lanes_between(code, kind, first, stop):
    """The mask of lanes whose number is at least `first` and below `stop`."""
    below = code.mask(first, kind)
    return Value(code, code.builder.and_(code.mask(stop, kind).ir, code.builder.not_(below.ir)))


def write_load(code, dtype, flat):
    """``load(tile, source, pitch, rows, first_row, stop_row, first, stop, strips, strip_bytes, weights, zeros)``.

    Row by row, as the memory's prefetchers like it.  What does not exist is read from a row of zeros or masked.
    Flat: positions of a row are those of the one before and `pitch` more; first and stop count from the first row's.
    """
    tile, source, pitch, rows, first_row, stop_row, first, stop, strips, strip_bytes, weights, zeros = code.arguments
    kind = code.vector(dtype)
    step = pitch // kind.itemsize if flat else None
    width = strips * kind.lanes
    inside = first.compare("<=", 0) & stop.compare(">=", width * rows * 2 if flat else width)

    def line(number):
        if flat:
            return source + number * pitch
        there = number.compare("<", stop_row) & number.compare(">=", first_row)
        return there.choose(source + number * pitch, zeros)

    def row(h, at, weight, masked):
        turn = weight.broadcast(kind), (weight + kind.itemsize).broadcast(kind)
        lines = line(h), line(h + rows)
        starts = (h * step, (h + rows) * step) if flat else (None, None)

        def part(where, start, column):
            if not masked:
                return (where + column * kind.itemsize).load(kind)
            skipped = column if start is None else column + start
            mask = _lanes_between(code, kind, first - skipped, stop - skipped)
            return (where + column * kind.itemsize).load(kind, mask)

        def strip(c, to):
            values = [part(where, start, c * kind.lanes) for where, start in zip(lines, starts, strict=True)]
            for where in lines:
                code.prefetch(where + pitch * AHEAD + c * kind.bytes)
            store_element(to, multiply(values, turn))
            return (to + strip_bytes,)

        code.loop(strips, strip, (at,))
        return at + 2 * kind.bytes, weight + 2 * kind.itemsize

    with code.either(inside) as (yes, no):
        with yes:
            code.loop(rows, lambda h, at, weight: row(h, at, weight, False), (tile, weights))
        with no:
            code.loop(rows, lambda h, at, weight: row(h, at, weight, True), (tile, weights))
    code.finish()


def write_store(code, dtype, flat):
    """``store(tile, out, pitch, rows, out_rows, columns, strips, strip_bytes, weights)``.

    Real parts are rows, imaginary ones those `rows` below.  Flat: `columns` counts positions.  Afterwards the tile's
    first vector says whether all that was stored is finite: it is zeros then, and else has a NaN.
    """
    tile, out, pitch, rows, out_rows, columns, strips, strip_bytes, weights = code.arguments
    kind = code.vector(dtype)
    step = pitch // kind.itemsize if flat else None

    def half(first, count, imaginary, rest):
        def row(h, at, weight, rest):
            c, s = weight.broadcast(kind), (weight + kind.itemsize).broadcast(kind)
            minus = Value(code, code.builder.fneg(s.ir))
            number = h + first
            wide = (columns - number * step).least(strips * kind.lanes) if flat else columns

            def strip(_, at, to, left, rest):
                real, other = load_element(at, kind)
                value = (other * c).fma(real, minus) if imaginary else (real * c).fma(other, s)
                with code.either(left.compare(">=", kind.lanes)) as (yes, no):
                    with yes:
                        code.prefetch(to + pitch * AHEAD, write=True)
                        to.store(value)
                    with no:
                        to.store(value, code.mask(left, kind))
                return at + strip_bytes, to + kind.bytes, left - kind.lanes, rest + (value - value)

            strips_of_row = (wide + (kind.lanes - 1)) // kind.lanes
            *_, rest = code.loop(strips_of_row, strip, (at, out + number * pitch, wide, rest))
            return at + 2 * kind.bytes, weight + 2 * kind.itemsize, rest

        return code.loop(count, row, (tile, weights, rest))[-1]

    rest = half(code.value(0), out_rows.least(rows), False, code.zero(kind))
    tile.store(half(rows, out_rows - rows, True, rest))
    code.finish()


def write_turn(code, dtype, back):
    """``turn(buffer, strips, count, distance)``: a block of rows, one vector of each strip, to one row per lane.

    Strips lie `distance` bytes apart.  `back`: the other way.
    """
    buffer, strips, count, distance = code.arguments
    kind = code.vector(dtype)
    element = 2 * kind.bytes

    def block(_, at, strip):
        source, to = (at, strip) if back else (strip, at)
        for part in (0, kind.bytes):
            rows = [(source + i * element + part).load(kind, align=kind.bytes) for i in range(kind.lanes)]
            for i, column in enumerate(transposed(rows)):
                (to + i * element + part).store(column, align=kind.bytes)
        return at + kind.lanes * element, strip + distance

    code.loop(count, block, (buffer, strips))
    code.finish()


def write_scale(code, dtype):
    """``scale(data, count, nothing, table)``: every element times the table's."""
    data, count, _, table = code.arguments
    kind = code.vector(dtype)

    def one(_, at, factor):
        store_element(at, multiply(load_element(at, kind), load_element(factor, kind)))
        return at + 2 * kind.bytes, factor + 2 * kind.bytes

    code.loop(count, one, (data, table))
    code.finish()


def write_pick(code, dtype):
    """``pick(source, pitch, step, out, out_pitch, rows, columns)``: one number per `step` bytes of every row."""
    source, pitch, step, out, out_pitch, rows, columns = code.arguments
    kind = Kind(dtype)

    def row(_, at, to):
        def one(_, at, to):
            to.store(at.load(kind))
            return at + step, to + kind.itemsize

        code.loop(columns, one, (at, to))
        return at + pitch, to + out_pitch

    code.loop(rows, row, (source, out))
    code.finish()


class _Task:
    """The words of a frame and of one job, and the parts of a task that use them."""

    def __init__(self, code, dtype, flat):
        frame, index, worker = code.arguments
        self.code, self.kind, self.flat = code, code.vector(dtype), flat
        self.frame = frame
        self.word = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}
        at = self.pointer("jobs") + index * (8 * len(JOB))
        self.job = {name: (at + 8 * n).load() for n, name in enumerate(JOB)}
        self.element = 2 * self.kind.bytes
        self.worker = worker
        self.tile = self.pointer("scratch") + worker * self.word["scratch_bytes"]
        self.buffer = self.tile + self.word["tile_bytes"]
        self.strip = self.word["rows"] * self.element

    def pointer(self, name):
        return Value(self.code, self.code.builder.inttoptr(self.word[name].ir, self.frame.ir.type))

    def steps(self, name, data):
        run_steps(self.code, self.pointer(name), self.word[f"{name}_count"], data)

    def columns_in(self):
        """The tile loaded, and its strips transformed where they are not all zeros."""
        word, job, kind = self.word, self.job, self.kind
        source = (self.frame + FRAME_INPUT).load_pointer() + job["source"]
        valid = [job[name] for name in ("first_row", "stop_row", "first", "stop")]
        layout = [word["strips"], self.strip, self.pointer("weights"), self.pointer("zeros")]
        self.code.call(self.pointer("load"), [self.tile, source, word["pitch"], word["rows"], *valid, *layout])

        def strip(number):
            with self.code.when(job["stop"].compare(">", number * kind.lanes)):
                self.steps("down", self.tile + number * self.strip)

        self.code.loop(word["strips"], strip)

    def rows(self, forward, inverse):
        """Every block of rows turned into the buffer, or into the plane of spectra, and back."""
        code, word = self.code, self.word
        length = word["strips"] * (self.kind.lanes * self.element)
        whole = forward and inverse
        plane = None if whole else self.pointer("planes") + self.worker * word["planes_bytes"] + self.job["plane"]
        spectrum = self.pointer("spectra") + self.job["spectrum"] if whole else None

        def scaled(buffer, name, start):
            if self.flat:
                count = word["strips"] * self.kind.lanes
                code.call(self.pointer("scale"), [buffer, count, 0, self.pointer(name) + start])

        def block(number):
            start = number * length
            buffer = self.buffer if whole else plane + start
            strips = self.tile + number * (self.kind.lanes * self.element)
            if forward:
                code.call(self.pointer("turn"), [buffer, strips, word["strips"], self.strip])
                scaled(buffer, "twiddles", start)
                self.steps("along", buffer)
            if whole:
                code.call(self.pointer("middle"), [buffer, word["middle_blocks"], 0, spectrum + start])
            if inverse:
                self.steps("back", buffer)
                scaled(buffer, "twiddles_back", start)
                code.call(self.pointer("turn_back"), [buffer, strips, word["strips"], self.strip])

        code.loop(word["rows"] // self.kind.lanes, block)

    def columns_out(self, strided):
        """Strips that hold outputs transformed back and stored, which tells whether all are finite."""
        code, word, job, kind = self.code, self.word, self.job, self.kind
        out = (self.frame + FRAME_OUTPUT).load_pointer() + job["out"]
        plain = self.tile + word["plain"]
        to = plain if strided else out
        pitch = word["line"] if strided else word["out_pitch"]
        needed = word["strips"] if self.flat else (job["out_columns"] + (kind.lanes - 1)) // kind.lanes

        code.loop(needed, lambda number: self.steps("up", self.tile + number * self.strip))
        kept = [job["out_rows"], job["out_columns"]]
        layout = [word["strips"], self.strip, self.pointer("weights_back")]
        code.call(self.pointer("store"), [self.tile, to, pitch, word["rows"], *kept, *layout])
        self._probe()
        if strided:
            source = plain + job["skipped"]
            arguments = [source, word["pick_rows"], word["pick_columns"], out, word["out_pitch"]]
            code.call(self.pointer("pick"), [*arguments, job["kept_rows"], job["kept_columns"]])

    def _probe(self):
        """Note a tile that met a NaN or Inf, or overflowed: the store has left a NaN then, zeros for all others.

        A NaN among the inputs reaches every output, but a pass back may overflow for some of them only.
        """
        code, kind = self.code, self.kind
        rest = self.tile.load(kind.scalar)
        for lane in range(1, kind.lanes):
            rest = rest + (self.tile + lane * kind.itemsize).load(kind.scalar)
        wrong = Value(code, code.builder.fcmp_unordered("!=", rest.ir, code.value(0.0, rest.ir.type).ir))
        with code.when(wrong):
            add(self.pointer("struck"), 1)
            (self.pointer("struck") + 8 + code.arguments[1] * 8).store(code.value(1))


def write_task(code, dtype, part, flat, strided):
    """``task(frame, index, worker)``: a job of `part` "whole", or of its "forward" or "inverse" part only."""
    task = _Task(code, dtype, flat)
    if part != "inverse":
        task.columns_in()
    task.rows(part != "inverse", part != "forward")
    if part != "forward":
        task.columns_out(strided)
    code.finish()
