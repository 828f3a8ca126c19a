"""The generated code of Winograd convolution: transform a block of tiles, multiply per frequency, transform back.

A block is some vectors of tiles, flattened over columns, rows and images; lane t of every vector is tile t.

gather    per channel and input row: vectors of the row, taken apart by column, times Bᵀ; then down the columns.
multiply  per frequency: sums[k, tiles] = sum over c of u[c, k] · v[c, tiles], all sums in registers.
scatter   per output channel: Aᵀ down the columns, then along the rows; whole rows of outputs are stored.

Which rows of the input make which tiles, and where rows begin and end, is data: tables of records that
`winograd_layout` makes. So the code depends on F(m, r) of both axes and the dtype only.
"""

import dataclasses
import math

from . import compile as compiler
from .parallel import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_SERIAL
from .vector import Code
from .winograd_code import columns, mask_of, multiply, rows
from .winograd_matrices import matrices


def _slots(names, first=0):
    """Byte offsets of consecutive 64-bit slots."""
    return {name: 8 * number for number, name in enumerate(names.split(), first)}


#: What is the same for all tasks of a plan; `*_at` are places in a worker's scratch.
FRAME = _slots(
    "inputs outputs blocks filters tasks kernels gather scatter weights bias flags scratch scratch_bytes "
    "channels x_channel out_channel frequencies itemsize row_at v_at m_at",
    FRAME_HEAD,
)
#: A block of tiles: its records of input rows (first those that make one row of tiles, then two, ...) and of output
#: rows, bytes of its vectors and of a frequency in V and M, and its kernels.
BLOCK = _slots("inputs one two three four outputs output_count vectors bytes v_frequency m_frequency kernel")
#: A register block of output channels: its weights, bytes of a frequency in them, first channel, how many, kernel.
FILTERS = _slots("weights frequency first count kernel")
#: A task: a block of tiles, a group's input, output, bias and a range of filters, and the key of its V.
TASK = _slots("block x out bias filters filters_end key")
#: In front of a worker's scratch: the key of what V holds.
SCRATCH_HEAD = 64


@dataclasses.dataclass(frozen=True)
class Form:
    """F(m, r) along the rows' direction (down) and along the columns' (across), and the dtype."""

    down: tuple[int, int]
    across: tuple[int, int]
    dtype: str

    @property
    def products(self):
        """Down and across."""
        return sum(self.down) - 1, sum(self.across) - 1

    @property
    def shared(self):
        """How many rows of tiles an input row may belong to."""
        return math.ceil(self.products[0] / self.down[0])

    def tails(self, lanes):
        """Vectors behind the m whole ones that hold what the last tile sees."""
        return math.ceil((self.across[1] - 1) / lanes)


def input_slots(form, lanes):
    """A row of input as a record: where it begins, which tiles it makes, which elements exist, where results go."""
    masks = [f"mask{v}" for v in range(form.across[0] + form.tails(lanes))]
    return _slots(" ".join(["source tiles", *masks, *(f"to{d}" for d in range(form.shared))]))


def output_slots(form):
    """A row of outputs as a record: its sums, where they go, which tiles and which elements are real."""
    return _slots(" ".join(["source to tiles", *(f"mask{v}" for v in range(form.across[0]))]))


class _Record:
    """A row of 64-bit slots in memory, by name."""

    def __init__(self, at, slots):
        self.at, self.slots = at, slots

    def __getitem__(self, name):
        return (self.at + self.slots[name]).load()

    def pointer(self, name):
        """The slot's value as a pointer."""
        return (self.at + self.slots[name]).load_pointer()


def gather_address(form, target):
    """The compiled ``void gather(frame, block, x, rows, v, channels)``."""
    return compiler.address("gather", form, target, lambda module: write_gather(module, form, target))


def scatter_address(form, target):
    """The compiled ``void scatter(frame, block, m, rows, out, bias, count, flag)``."""
    return compiler.address("scatter", form, target, lambda module: write_scatter(module, form, target))


def multiply_address(vectors, filters, dtype, target):
    """The compiled ``void multiply(v, u, m, channels)`` of some vectors of tiles x some filters."""
    key = vectors, filters, dtype
    return compiler.address("multiply", key, target, lambda module: write_multiply(module, *key, target))


def task_address(target):
    """The compiled driver, ``void task(frame, number, worker)``, the same for every plan."""
    return compiler.address("task", "winograd", target, lambda module: write_task(module, target))


def write_multiply(module, vectors, filters, dtype, target):
    """Write the product of one frequency: weights are broadcast, tiles are the lanes."""
    code = Code(module, "multiply", target, "pppi")
    v, u, m, channels = code.arguments
    kind = code.vector(dtype)

    def channel(_, v, u, *sums):
        tiles = [(v + n * kind.bytes).load(kind, align=kind.bytes) for n in range(vectors)]
        products = []
        for k in range(filters):
            weight = (u + k * kind.itemsize).broadcast(kind)
            products += [total.fma(weight, tile) for total, tile in zip(sums[k * vectors :], tiles, strict=False)]
        return [v + vectors * kind.bytes, u + filters * kind.itemsize, *products]

    _, _, *sums = code.loop(channels, channel, [v, u, *[code.zero(kind)] * (vectors * filters)])
    for number, total in enumerate(sums):
        (m + number * kind.bytes).store(total, align=kind.bytes)
    code.finish()


def write_gather(module, form, target):
    """Write the transform of a block's tiles, channel by channel: along the rows, then down the columns."""
    code = Code(module, "gather", target, "pppppi")
    frame, block, x, rows_at, v, channels = code.arguments
    fixed, block = _Record(frame, FRAME), _Record(block, BLOCK)
    kind, slots = code.vector(form.dtype), input_slots(form, target.lanes(form.dtype))
    down, across = form.products
    bt = matrices(*form.down).bt
    width, frequency, x_channel = block["bytes"], block["v_frequency"], fixed["x_channel"]
    counts = [block[name] for name in ("one", "two", "three", "four")[: form.shared]]

    def channel(number):
        at = fixed.pointer("inputs") + block["inputs"]
        source = x + x_channel * number
        for shared, count in enumerate(counts, 1):
            code.loop(count, lambda i, at=at, shared=shared: _gather_row(
                code, form, _Record(at + i * (8 * len(slots)), slots), source, rows_at, width, shared, kind))
            at = at + count * (8 * len(slots))
        to = v + width * number

        def vector(n):
            for j in range(across):
                lines = [(rows_at + width * (i * across + j) + n * kind.bytes).load(kind) for i in range(down)]
                for i, line in enumerate(multiply(code, bt, lines, kind)):
                    (to + frequency * (i * across + j) + n * kind.bytes).store(line, align=kind.bytes)

        code.loop(block["vectors"], vector)

    code.loop(channels, channel)
    code.finish()


def _gather_row(code, form, record, source, rows_at, width, shared, kind):
    """A row of one channel: taken apart by column, times Bᵀ, stored for each row of tiles that it belongs to."""
    m, lanes = form.across[0], kind.lanes
    begin = source + record["source"]
    loaded = [
        (begin + v * kind.bytes).load(kind, mask_of(code, record[f"mask{v}"], kind))
        for v in range(m + form.tails(lanes))
    ]
    phases = columns(loaded[:m], lanes)
    for j in range(m, form.products[1]):
        phases.append(_shifted(phases[j % m], loaded[m:], j // m, j % m, m, lanes))
    tiles = mask_of(code, record["tiles"], kind)
    results = multiply(code, matrices(*form.across).bt, phases, kind)
    for copy in range(shared):
        to = rows_at + record[f"to{copy}"]
        for j, result in enumerate(results):
            (to + width * j).store(result, tiles)


def _shifted(phase, tails, by, column, m, lanes):
    """A phase `by` tiles further on: its last lanes come from the elements behind the whole vectors."""
    order = [lane + by if lane + by < lanes else lane for lane in range(lanes)]
    result = phase
    for number, tail in enumerate(tails):
        for lane in range(lanes):
            where = divmod(m * (lane + by - lanes) + column, lanes)
            if lane + by >= lanes and where[0] == number:
                order[lane] = lanes + where[1]
        result, order = result.shuffle(tail, order), list(range(lanes))
    return result


def write_scatter(module, form, target):
    """Write the way back, channel by channel: down the columns, then along the rows, with the bias."""
    code = Code(module, "scatter", target, "ppppppip")
    frame, block, m, rows_at, out, bias, count, flag = code.arguments
    fixed, block = _Record(frame, FRAME), _Record(block, BLOCK)
    kind, slots = code.vector(form.dtype), output_slots(form)
    down, across = form.products
    at = matrices(*form.down).at
    width, frequency, out_channel = block["bytes"], block["m_frequency"], fixed["out_channel"]
    records, number_of_rows = fixed.pointer("outputs") + block["outputs"], block["output_count"]

    def channel(number, *wrong):
        source = m + width * number

        def vector(n):
            for j in range(across):
                lines = [(source + frequency * (i * across + j) + n * kind.bytes).load(kind) for i in range(down)]
                for i, line in enumerate(multiply(code, at, lines, kind)):
                    (rows_at + width * (i * across + j) + n * kind.bytes).store(line, align=kind.bytes)

        code.loop(block["vectors"], vector)
        to, added = out + out_channel * number, (bias + number * kind.itemsize).broadcast(kind)

        def row(i, wrong):
            record = _Record(records + i * (8 * len(slots)), slots)
            return [_scatter_row(code, form, record, rows_at, width, to, added, wrong, kind)]

        return code.loop(number_of_rows, row, wrong)

    (wrong,) = code.loop(count, channel, [flag.load(kind)])
    flag.store(wrong)
    code.finish()


def _scatter_row(code, form, record, rows_at, width, out, bias, wrong, kind):
    """A row of outputs: times Aᵀ, columns put together, stored.  `wrong` is NaN from the first NaN or Inf on."""
    source, to = rows_at + record["source"], out + record["to"]
    lines = [(source + width * j).load(kind) for j in range(form.products[1])]
    sums = [total + bias for total in multiply(code, matrices(*form.across).at, lines, kind)]
    together = sums[0]
    for total in sums[1:]:
        together = together + total
    together = mask_of(code, record["tiles"], kind).choose(together, code.zero(kind))
    for v, vector in enumerate(rows(sums, kind.lanes)):
        word = record[f"mask{v}"]
        with code.when(word.compare("!=", 0)):
            (to + v * kind.bytes).store(vector, mask_of(code, word, kind))
    return wrong.fma(together, code.zero(kind))


def write_task(module, target):
    """Write the driver of one task: gather unless this worker's V is already there, then its filters one by one."""
    code = Code(module, "task", target, "pii")
    frame, number, worker = code.arguments
    fixed = _Record(frame, FRAME)
    task = _Record(fixed.pointer("tasks") + number * (8 * len(TASK)), TASK)
    block = _Record(fixed.pointer("blocks") + task["block"] * (8 * len(BLOCK)), BLOCK)
    scratch = fixed.pointer("scratch") + worker * fixed["scratch_bytes"]
    rows_at, v, m = (scratch + fixed[name] for name in ("row_at", "v_at", "m_at"))
    channels = fixed["channels"]
    key = task["key"] + ((frame + FRAME_SERIAL).load() << 32)
    with code.when(scratch.load().compare("!=", key)):
        scratch.store(key)
        x = (frame + FRAME_INPUT).load_pointer() + task["x"]
        code.call(fixed.pointer("gather"), [frame, block.at, x, rows_at, v, channels])
    out = (frame + FRAME_OUTPUT).load_pointer() + task["out"]
    bias = fixed.pointer("bias") + task["bias"]
    flag = fixed.pointer("flags") + number * SCRATCH_HEAD
    kind = code.vector("float32")
    flag.store(code.zero(kind))
    itemsize = fixed["itemsize"]

    def filters(number):
        part = _Record(fixed.pointer("filters") + number * (8 * len(FILTERS)), FILTERS)
        kernel = (fixed.pointer("kernels") + (block["kernel"] + part["kernel"]) * 8).load_pointer()
        weights = fixed.pointer("weights") + part["weights"]

        def frequency(f):
            arguments = [v + block["v_frequency"] * f, weights + part["frequency"] * f, m + block["m_frequency"] * f]
            code.call(kernel, [*arguments, channels])

        code.loop(fixed["frequencies"], frequency)
        first = part["first"]
        arguments = [m, rows_at, out + fixed["out_channel"] * first, bias + itemsize * first, part["count"], flag]
        code.call(fixed.pointer("scatter"), [frame, block.at, *arguments])

    code.loop(task["filters_end"], filters, start=task["filters"])
    code.finish()
