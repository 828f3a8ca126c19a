"""The generated code of Winograd convolution: transform a block of tiles, multiply per frequency, transform back.

A block is some vectors of tiles, flattened over columns, rows and images; lane t of every vector is tile t.

gather    per channel and input row: vectors of the row, taken apart by column, times Bᵀ; then down the columns.
          A row serves every phase across (`winograd_strides`): each of them is a channel of V.
multiply  per frequency: sums[k, tiles] = sum over c of u[c, k] · v[c, tiles], all sums in registers.
scatter   per output channel: Aᵀ down the columns, then along the rows; whole rows of outputs are stored.

Which rows of the input make which tiles, and where rows begin and end, is data: tables of records that
`winograd_layout` makes. So the code depends on F(m, r) of both axes and the dtype only.
"""

import dataclasses
import math

from . import compile as compiler
from .ahead import LINE_BYTES, ask
from .pool_code import FRAME_HEAD
from .records import Record, slots
from .vector import Code
from .winograd_code import columns, mask_of, multiply, rows
from .winograd_matrices import matrices

#: What is the same for all tasks of a plan; `asks` is not 0 where outputs are asked for before they are stored; V and M
#: are a worker's own where `worker_bytes` is not 0; a record of an output row has `output_bytes`.
FRAME = slots(
    "inputs outputs blocks filters tasks kernels gather scatter weights spans bias flags scratch scratch_bytes "
    "channels piece parts adding phases x_channel out_channel frequencies itemsize together asks v m "
    "worker_bytes far_cycles output_bytes",
    FRAME_HEAD,
)
#: A block of tiles, once for each phase down: its records of input rows (first those that make one row of tiles, then
#: two, ...), the place of the first phase across among those with all taps, and of the first among the others if there
#: were as many before it; and the same in all of them: output rows, bytes of its vectors and of a frequency in V and M,
#: where it lies in V and M, and its kernels.
BLOCK = slots(
    "inputs one two three four full part outputs output_count vectors bytes v_frequency m_frequency v m kernel"
)
#: Where records of output rows say where they go.
OUTPUT_TO = 8
#: The phases that have a product at a frequency.
SPAN = slots("first count")
#: A register block of output channels: its weights, bytes of a frequency in them, first channel, how many, kernel.
FILTERS = slots("weights frequency first count kernel")
#: A task: blocks of tiles, a group's input, output and bias, ranges of filters, frequencies and channels (what it
#: does not need is 0), the key of its V, and its flag.
TASK = slots("block block_end x out bias filters filters_end frequency frequency_end channel channel_end key flag")
#: Channels that go down the columns together.
TOGETHER = 4
#: The product asks for weights ahead, and for tiles so many channels ahead; milliseconds without and with
#: (Cascade Lake, 2026-11, F(4, 3)): 64 channels at 56 x 56 0.43 and 0.39, 128 at 28 x 28 0.46 and 0.38, 256 at
#: 14 x 14 (F(2, 3) by F(4, 3)) 0.90 and 0.74.  With caches cold and weights asked for 2 KiB and 8 KiB ahead, 512
#: channels at 14 x 14 1.23 and 1.04, 256 0.38 and 0.34; in rounds with four other libraries 128 -> 128 channels of
#: stride 2 at 77 x 96 1.23 and 1.08; hot the same (Zen 5).
TILES_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class Form:
    """F(m, r) along the columns (down) and the rows (across), and what else decides over the code.

    Attributes
    ----------
    down, across : tuple of int
        m and r.
    dtype : str
    narrow : bool
        Whether no run of tiles sees over two vectors.
    stride, phases, full : int
        Across: inputs between two outputs, and the phases, all of them and those with r taps.
    """

    down: tuple[int, int]
    across: tuple[int, int]
    dtype: str
    narrow: bool
    stride: int = 1
    phases: int = 1
    full: int = 1

    @property
    def products(self):
        """Down and across."""
        return sum(self.down) - 1, sum(self.across) - 1

    @property
    def shared(self):
        """How many rows of tiles an input row may belong to."""
        return math.ceil(self.products[0] / self.down[0])

    def loads(self, lanes):
        """Vectors that a run of tiles sees: two if narrow, else whole ones and what the last tile sees behind."""
        if self.narrow:
            return 2
        whole = self.across[0] * self.stride
        return whole + math.ceil(max(0, self.seen(1) - whole) / lanes)

    def seen(self, tiles):
        """Elements of a row from the first to the last that so many tiles take."""
        return ((tiles - 1) * self.across[0] + self.products[1] - 1) * self.stride + self.phases

    @property
    def stores(self):
        """Vectors of outputs of a run of tiles."""
        return min(2, self.across[0]) if self.narrow else self.across[0]

    def row_bytes(self, vectors, channels, vector_bytes):
        """Of the scratch between the two directions, for so many channels of blocks of so many vectors."""
        down, across = self.products
        return (across * (down * channels * self.phases * vectors + 1) + 1) * vector_bytes


def input_slots(form, lanes):
    """A row of input as a record: where it begins, which tiles it makes, which elements exist, where results go."""
    masks = [f"mask{v}" for v in range(form.loads(lanes))]
    return slots(" ".join(["source tiles", *masks, *(f"to{d}" for d in range(form.shared))]))


def output_slots(form):
    """A row of outputs as a record: its sums, where they go, which tiles and which elements are real."""
    return slots(" ".join(["source to tiles", *(f"mask{v}" for v in range(form.stores))]))


def gather_address(form, target):
    """The compiled ``void gather(frame, block, x, rows, v, channels, distance)``."""
    return compiler.address("gather", form, target, lambda module: write_gather(module, form, target))


def scatter_address(form, streams, target):
    """The compiled ``void scatter(frame, block, m, rows, out, bias, count, flag, past)``, the same for all strides.

    If it `streams`, whole lines of outputs are written past the caches where `past` is not 0.
    """
    key = dataclasses.replace(form, stride=1, phases=1, full=1), streams
    return compiler.address("scatter", key, target, lambda module: write_scatter(module, *key, target))


def multiply_address(vectors, filters, dtype, adds, target):
    """The compiled ``void multiply(v, u, m, channels)`` of some vectors of tiles x some filters; added to M or not."""
    key = vectors, filters, dtype, adds
    return compiler.address("multiply", key, target, lambda module: write_multiply(module, *key, target))


def write_multiply(module, vectors, filters, dtype, adds, target):
    """Write the product of one frequency: weights are broadcast, tiles are the lanes."""
    code = Code(module, "multiply", target, "pppi")
    v, u, m, channels = code.arguments
    kind = code.vector(dtype)

    def channel(_, v, u, *sums):
        tiles = [(v + n * kind.bytes).load(kind, align=kind.bytes) for n in range(vectors)]
        products = []
        ask(code, u, LINE_BYTES)
        for n in range(vectors):
            code.prefetch(v + (TILES_AHEAD * vectors + n) * kind.bytes)
        for k in range(filters):
            weight = (u + k * kind.itemsize).broadcast(kind)
            products += [total.fma(weight, tile) for total, tile in zip(sums[k * vectors :], tiles, strict=False)]
        return [v + vectors * kind.bytes, u + filters * kind.itemsize, *products]

    places = [m + number * kind.bytes for number in range(vectors * filters)]
    sums = [place.load(kind, align=kind.bytes) if adds else code.zero(kind) for place in places]
    _, _, *sums = code.loop(channels, channel, [v, u, *sums])
    for place, total in zip(places, sums, strict=True):
        place.store(total, align=kind.bytes)
    code.finish()


def write_gather(module, form, target):
    """Write the transform of a block's tiles: channel by channel along the rows, then some channels down the columns.

    How many channels go down together decides in how many streams V is written (see `winograd.TOGETHER`).  A phase's
    channels in V begin `distance` channels behind those of the one before.
    """
    code = Code(module, "gather", target, "pppppii")
    frame, block, x, rows_at, v, channels, distance = code.arguments
    fixed, block = Record(frame, FRAME), Record(block, BLOCK)
    kind, slots = code.vector(form.dtype), input_slots(form, target.lanes(form.dtype))
    down, across = form.products
    bt = matrices(*form.down).bt
    width, frequency, x_channel = block["bytes"], block["v_frequency"], fixed["x_channel"]
    most = fixed["together"]
    line = width * down
    column = line * most * form.phases + kind.bytes
    begins = [(block["full" if p < form.full else "part"] + p) * distance * width for p in range(form.phases)]
    counts = [block[name] for name in ("one", "two", "three", "four")[: form.shared]]

    def together(first):
        count = (channels - first).least(most)

        def along(number):
            at = fixed.pointer("inputs") + block["inputs"]
            source, to = x + x_channel * (first + number), rows_at + line * form.phases * number
            for shared, records in enumerate(counts, 1):

                def row(i, at=at, shared=shared):
                    record = Record(at + i * (8 * len(slots)), slots)
                    _gather_row(code, form, record, source, to, column, line, shared, kind)
                    for v in range(form.loads(kind.lanes)):  # the same row of the next channel
                        code.prefetch(source + record["source"] + x_channel + v * kind.bytes)

                code.loop(records, row)
                at = at + records * (8 * len(slots))

        def downwards(j):
            def channel(number):
                source = rows_at + column * j + line * form.phases * number
                for p, begin in enumerate(begins):
                    to = v + frequency * j + width * (first + number) + begin

                    def vector(n, source=source + line * p, to=to):
                        lines = [(source + width * i + n * kind.bytes).load(kind) for i in range(down)]
                        for i, result in enumerate(multiply(code, bt, lines, kind)):
                            (to + frequency * (i * across) + n * kind.bytes).store(result, align=kind.bytes)

                    code.loop(block["vectors"], vector)

            code.loop(count, channel)

        code.loop(count, along)
        code.loop(across, downwards)

    code.loop(channels, together, step=most)
    code.finish()


def _gather_row(code, form, record, source, rows_at, column, line, shared, kind):
    """A row of one channel: taken apart by column, times Bᵀ, stored for each row of tiles that it belongs to."""
    step, lanes = form.across[0] * form.stride, kind.lanes
    begin = source + record["source"]
    loaded = [
        (begin + v * kind.bytes).load(kind, mask_of(code, record[f"mask{v}"], kind)) for v in range(form.loads(lanes))
    ]
    apart = None if form.narrow else columns(loaded[:step], lanes)
    tiles = mask_of(code, record["tiles"], kind)
    for phase in range(form.phases):
        inputs = []
        for first in range(phase, form.products[1] * form.stride, form.stride):
            if form.narrow:
                inputs.append(_every(loaded, step, first, lanes))
            else:
                inputs.append(_shifted(apart[first % step], loaded[step:], *divmod(first, step), step, lanes))
        results = multiply(code, matrices(*form.across).bt, inputs, kind)
        for copy in range(shared):
            to = rows_at + record[f"to{copy}"] + line * phase
            for j, result in enumerate(results):
                (to + column * j).store(result, tiles)


def _every(pair, step, first, lanes):
    """Elements ``first + step * t`` of two vectors as lane t, as many as they have."""
    return pair[0].shuffle(pair[1], [min(first + step * lane, 2 * lanes - 1) for lane in range(lanes)])


def _shifted(column, tails, by, number, step, lanes):
    """Column `number`, of elements `step` apart, `by` tiles further on: its last lanes come from behind the columns."""
    order = [lane + by if lane + by < lanes else lane for lane in range(lanes)]
    result = column
    for place, tail in enumerate(tails):
        for lane in range(lanes):
            where = divmod(step * (lane + by - lanes) + number, lanes)
            if lane + by >= lanes and where[0] == place:
                order[lane] = lanes + where[1]
        result, order = result.shuffle(tail, order), list(range(lanes))
    return result


def write_scatter(module, form, streams, target):
    """Write the way back: some channels down the columns, then one by one along the rows, with the bias."""
    code = Code(module, "scatter", target, "ppppppipi")
    frame, block, m, rows_at, out, bias, channels, flag, past = code.arguments
    fixed, block = Record(frame, FRAME), Record(block, BLOCK)
    kind, slots = code.vector(form.dtype), output_slots(form)
    down, across = form.products
    at = matrices(*form.down).at
    width, frequency, out_channel = block["bytes"], block["m_frequency"], fixed["out_channel"]
    most = fixed["together"]
    column = width * form.down[0] * most + kind.bytes
    records, number_of_rows = fixed.pointer("outputs") + block["outputs"], block["output_count"]
    asks = fixed["asks"].compare("!=", 0) & past.compare("==", 0)
    past = past.compare("!=", 0) if streams else None

    def together(first, wrong):
        count = (channels - first).least(most)

        def downwards(j):
            def channel(number):
                source = m + frequency * j + width * (first + number)
                to = rows_at + column * j + width * form.down[0] * number

                def vector(n):
                    lines = [
                        (source + frequency * (i * across) + n * kind.bytes).load(kind, align=kind.bytes)
                        for i in range(down)
                    ]
                    for i, line in enumerate(multiply(code, at, lines, kind)):
                        (to + width * i + n * kind.bytes).store(line)

                code.loop(block["vectors"], vector)

            code.loop(count, channel)

        def along(number, wrong):
            to = out + out_channel * (first + number)
            added = (bias + (first + number) * kind.itemsize).broadcast(kind)

            def row(i, wrong):
                record = Record(records + i * (8 * len(slots)), slots)
                source = rows_at + width * form.down[0] * number
                with code.when(asks):
                    for v in range(form.stores):  # the same row of the next channel
                        code.prefetch(to + record["to"] + out_channel + v * kind.bytes, write=True)
                return [_scatter_row(code, form, record, source, column, to, added, wrong, kind, past)]

            return code.loop(number_of_rows, row, [wrong])

        code.loop(across, downwards)
        return code.loop(count, along, [wrong])

    (wrong,) = code.loop(channels, together, [flag.load(kind)], step=most)
    flag.store(wrong)
    code.finish()


def _scatter_row(code, form, record, rows_at, column, out, bias, wrong, kind, past):
    """A row of outputs: times Aᵀ, columns put together, stored.  `wrong` is NaN from the first NaN or Inf on."""
    source, to = rows_at + record["source"], out + record["to"]
    lines = [(source + column * j).load(kind) for j in range(form.products[1])]
    sums = [total + bias for total in multiply(code, matrices(*form.across).at, lines, kind)]
    together = sums[0]
    for total in sums[1:]:
        together = together + total
    together = mask_of(code, record["tiles"], kind).choose(together, code.zero(kind))
    for v, vector in enumerate(rows(sums, kind.lanes)[: form.stores]):
        word, at = record[f"mask{v}"], to + v * kind.bytes

        def store(at=at, vector=vector, word=word):
            with code.when(word.compare("!=", 0)):
                at.store(vector, mask_of(code, word, kind))

        if past is None:
            store()
            continue
        whole = word.compare("==", (1 << kind.lanes) - 1) & (at.number() % kind.bytes).compare("==", 0)
        with code.either(past & whole) as (beyond, through):
            with beyond:
                at.stream(vector)
            with through:
                store()
    return wrong.fma(together, code.zero(kind))
