"""The generated code of Winograd convolution whose lanes are channels.

A *cell* is a vector of channels, one element of each: as many as there are lanes.

gather    the cells of a plane, transposed where channels lie plane by plane; then Bᵀ d B of each tile, a cell per
          frequency.
multiply  per frequency: sums[tile, filter] = sum over c of v[tile, c] · u[c, filter], all sums in registers; inputs are
          broadcast, filters are the lanes.
scatter   Aᵀ m A of each tile, a cell per output; then the cells of a plane, back to where channels lie.

Which elements make a tile is data (`winograd_cells_layout`): the code depends on F(m, r) and the dtype only.  No lane
is left empty whatever the number of tiles, and only the transpositions shuffle.
"""

import math

from . import compile as compiler
from .ahead import LINE_BYTES
from .pool_code import FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT
from .records import Record, size, slots
from .transpose import transposed
from .vector import Code, Kind
from .winograd_code import multiply
from .winograd_matrices import matrices

#: What is the same for all tasks: tables, weights, V and M; functions; elements of an input and of an output channel,
#: and bytes from one channel to the next (channels last: from one element to the next); bytes of a channel's cells and
#: of a frequency in V, of as many filters as lanes and of a frequency in M, of a frequency in the weights, and of the
#: table of a copy's inputs; how many copies, cells of a group's channels, tiles of an image in V and with outputs,
#: blocks of tiles, those multiplied one after the other, and rounds.
FRAME = slots(
    "tasks scratch scratch_bytes worker_bytes flags sources targets numbers steps blocks filters weights bias v m "
    "to_cells from_cells inputs outputs x_pitch out_pitch v_cell v_frequency m_vector m_frequency u_frequency "
    "copy_bytes copies cells seen tiles tile_blocks together rounds",
    FRAME_HEAD,
)
#: A round of the product: where its inputs begin in V, those of the round a cell later, and its number in the cell.
STEP = slots("here next number")
#: A block of tiles that are multiplied at once: bytes of those before it in a cell, and the number of its size.
BLOCK = slots("tiles number")
#: A block of filters: where its weights begin, where its sums do in M, its kernels for each size of a block of tiles,
#: and bytes of its weights.
FILTERS = slots("weights sums kernels bytes")
#: A task: where its channels begin in the input or output, how many they are, their bias, their number among the cells
#: of a group, the first tile of the image; a group's V, M and weights; ranges of frequencies and of blocks of filters;
#: and its flag.
TASK = slots("at count bias cell tile v m u frequency frequency_end filters filters_end flag")
#: Channels per round of the product, at most.
UNROLLED = 4
#: Numbers of elements in tables, in bytes of cells.
PLACE = Kind("int32")


def task_address(name, form, target):
    """The compiled ``void task(frame, number, worker)`` of a step; `form` is (m, r) down and across, and the dtype."""
    return compiler.address("task", ("cells", name, form), target, lambda module: TASKS[name](module, *form, target))


def cells_address(gathers, channels_last, dtype, target):
    """The compiled ``void cells(channels, cells, elements, pitch, count)``; `gathers` where not back to channels."""
    key, write = (gathers, dtype), write_copy if channels_last else write_transpose
    return compiler.address(write.__name__, key, target, lambda module: write(module, *key, target))


def product_address(vectors, tiles, dtype, asks, target):
    """The compiled ``void cell_product(frame, v, u, m, ahead)`` of some vectors of filters × some tiles."""
    key = vectors, tiles, dtype, asks
    return compiler.address("cell_product", key, target, lambda module: write_product(module, *key, target))


def unrolled(lanes):
    """Channels per round of the product; weights are zero for those that a group lacks in its last one."""
    return min(UNROLLED, lanes)


def write_transpose(module, gathers, dtype, target):
    """Write what takes `count` channels, `pitch` bytes apart, of so many elements to their cells, or back.

    Cells are written for whole vectors of elements, and have zeros in the lanes of missing channels.
    """
    code = Code(module, "write_transpose", target, "ppiii")
    channels, cells, elements, pitch, count = code.arguments
    kind = code.vector(dtype)

    def block(first, masks):
        lines = [channels + pitch * lane + first * kind.itemsize for lane in range(kind.lanes)]
        ranks = [cells + (first + number) * kind.bytes for number in range(kind.lanes)]
        if gathers:
            loaded = [line.load(kind, mask) for line, mask in zip(lines, masks, strict=True)]
            for rank, cell in zip(ranks, transposed(loaded), strict=True):
                rank.store(cell, align=kind.bytes)
        else:
            loaded = [rank.load(kind, align=kind.bytes) for rank in ranks]
            for line, channel, mask in zip(lines, transposed(loaded), masks, strict=True):
                line.store(channel, mask)

    def partly(first):
        nothing, there = code.mask(code.value(0), kind), code.mask(elements - first, kind)
        block(first, [count.compare(">", lane).choose(there, nothing) for lane in range(kind.lanes)])

    whole = count.compare("==", kind.lanes).choose(elements - elements % kind.lanes, 0)
    code.loop(whole, lambda first: block(first, [None] * kind.lanes), step=kind.lanes)
    code.loop(elements, partly, start=whole, step=kind.lanes)
    code.finish()


def write_copy(module, gathers, dtype, target):
    """Write the same of channels that lie side by side, elements `pitch` bytes apart."""
    code = Code(module, "write_copy", target, "ppiii")
    channels, cells, elements, pitch, count = code.arguments
    kind = code.vector(dtype)
    there = code.mask(count, kind)

    def element(number):
        outside, cell = channels + pitch * number, cells + number * kind.bytes
        if gathers:
            cell.store(outside.load(kind, there), align=kind.bytes)
        else:
            outside.store(cell.load(kind, align=kind.bytes), there)

    code.loop(elements, element)
    code.finish()


class _Task:
    """What the tasks have in common."""

    def __init__(self, module, target):
        self.code = Code(module, "task", target, "pii")
        self.frame, number, worker = self.code.arguments
        self.fixed = Record(self.frame, FRAME)
        self.task = Record(self.fixed.pointer("tasks") + number * size(TASK), TASK)
        self.cells = self.fixed.pointer("scratch") + worker * self.fixed["scratch_bytes"]

    def table(self, name, number, count=1):
        """The pointer to entry `number` of a table of places, of `count` places each."""
        return self.fixed.pointer(name) + number * (PLACE.itemsize * count)

    def place(self, table, number=0):
        """A place of a table, as a number of bytes."""
        return self.code.widen((table + PLACE.itemsize * number).load(PLACE))

    def take(self, name, channels, elements, pitch):
        """Take the task's channels to cells, or back."""
        arguments = [channels, self.cells, elements, pitch, self.task["count"]]
        self.code.call(self.fixed.pointer(name), arguments)


def _write_gather(module, down, across, dtype, target):
    """Some channels' transformed inputs: of every copy and tile."""
    this = _Task(module, target)
    code, fixed, task, cells = this.code, this.fixed, this.task, this.cells
    kind, rows, columns = code.vector(dtype), sum(down) - 1, sum(across) - 1
    x = (this.frame + FRAME_INPUT).load_pointer() + task["at"]
    this.take("to_cells", x, fixed["inputs"], fixed["x_pitch"])
    (cells + fixed["inputs"] * kind.bytes).store(code.zero(kind), align=kind.bytes)

    def copy(number):
        to = fixed.pointer("v") + task["v"] + fixed["v_cell"] * (fixed["cells"] * number + task["cell"])
        sources = fixed.pointer("sources") + fixed["copy_bytes"] * number

        def tile(t):
            table, lines = sources + t * (PLACE.itemsize * rows * columns), []
            for i in range(rows):
                places = [this.place(table, i * columns + j) for j in range(columns)]
                loaded = [(cells + place).load(kind, align=kind.bytes) for place in places]
                lines.append(multiply(code, matrices(*across).bt, loaded, kind))
            for j, column in enumerate(zip(*lines, strict=True)):
                for i, value in enumerate(multiply(code, matrices(*down).bt, column, kind)):
                    at = to + fixed["v_frequency"] * (i * columns + j) + (task["tile"] + t) * kind.bytes
                    at.store(value, align=kind.bytes)

        code.loop(fixed["seen"], tile)

    code.loop(fixed["copies"], copy)
    code.finish()


def _write_scatter(module, down, across, dtype, target):
    """The outputs of some filters; the task's flag is NaN if one of them is NaN or Inf, otherwise zero."""
    this = _Task(module, target)
    code, fixed, task, cells = this.code, this.fixed, this.task, this.cells
    kind, rows, columns = code.vector(dtype), sum(down) - 1, sum(across) - 1
    m = fixed.pointer("m") + task["m"] + fixed["m_vector"] * task["cell"] + task["tile"] * kind.bytes
    bias = (fixed.pointer("bias") + task["bias"]).load(kind)

    def tile(t, wrong):
        source, table = m + this.place(this.table("numbers", t)), this.table("targets", t, down[0] * across[0])
        lines = []
        for j in range(columns):
            places = [source + fixed["m_frequency"] * (i * columns + j) for i in range(rows)]
            lines.append(multiply(code, matrices(*down).at, [at.load(kind, align=kind.bytes) for at in places], kind))
        for i, line in enumerate(zip(*lines, strict=True)):
            for j, total in enumerate(multiply(code, matrices(*across).at, line, kind)):
                output = total + bias
                wrong = wrong.fma(output, code.zero(kind))
                (cells + this.place(table, i * across[0] + j)).store(output, align=kind.bytes)
        return [wrong]

    (wrong,) = code.loop(fixed["tiles"], tile, [code.zero(kind)])
    (fixed.pointer("flags") + task["flag"]).store(wrong)
    out = (this.frame + FRAME_OUTPUT).load_pointer() + task["at"]
    this.take("from_cells", out, fixed["outputs"], fixed["out_pitch"])
    code.finish()


def _write_multiply(module, target):
    """Some frequencies of some blocks of filters, each with as many blocks of tiles as the cache holds V of."""
    this = _Task(module, target)
    code, fixed, task = this.code, this.fixed, this.task

    def frequency(f):
        u, v, m = (
            fixed.pointer(array) + task[of_group] + fixed[f"{of_group}_frequency"] * f
            for array, of_group in (("weights", "u"), ("v", "v"), ("m", "m"))
        )

        def together(first):
            count = (fixed["tile_blocks"] - first).least(fixed["together"])

            def filters(number):
                some = Record(fixed.pointer("filters") + number * size(FILTERS), FILTERS)
                weights = u + some["weights"]

                def tiles(number):
                    block = Record(fixed.pointer("blocks") + (first + number) * size(BLOCK), BLOCK)
                    kernel = (some.pointer("kernels") + block["number"] * 8).load_pointer()
                    ahead = weights + some["bytes"] + (some["bytes"] * number) // count
                    sums = m + some["sums"] + block["tiles"]
                    code.call(kernel, [this.frame, v + block["tiles"], weights, sums, ahead])

                code.loop(count, tiles)

            code.loop(task["filters_end"], filters, start=task["filters"])

        code.loop(fixed["tile_blocks"], together, step=fixed["together"])

    code.loop(task["frequency_end"], frequency, start=task["frequency"])
    code.finish()


def write_product(module, vectors, tiles, dtype, asks, target):
    """Write the product of a block of filters and a block of tiles at one frequency.

    Rounds are one loop, not one per part and cell: sums that are carried through nested loops were spilled (0.55 of the
    peak instead of 0.85).  Each round asks for `asks` lines from `ahead` on, the next filters' weights, and for some of
    the next cells: without these 11 taps at 2264 take 1.08 to 1.14 of the time, others 1.00 to 1.06 (Cascade Lake).
    """
    code = Code(module, "cell_product", target, "ppppp")
    frame, v, u, m, ahead = code.arguments
    fixed, kind = Record(frame, FRAME), code.vector(dtype)
    steps, channels = fixed.pointer("steps"), unrolled(kind.lanes)
    lines = math.ceil(tiles * channels / kind.lanes)

    def some(number, u, ahead, *sums):
        step = Record(steps + number * size(STEP), STEP)
        here, following = v + step["here"], v + step["next"] + step["number"] * (lines * kind.bytes)
        for line in range(asks):
            code.prefetch(ahead + LINE_BYTES * line, cache=2)
        for line in range(lines):
            code.prefetch(following + kind.bytes * line)
        for channel in range(channels):
            weights = [(u + (channel * vectors + n) * kind.bytes).load(kind, align=kind.bytes) for n in range(vectors)]
            products = []
            for t in range(tiles):
                value = (here + t * kind.bytes + channel * kind.itemsize).broadcast(kind)
                products += [s.fma(w, value) for s, w in zip(sums[t * vectors :], weights, strict=False)]
            sums = products
        return [u + channels * vectors * kind.bytes, ahead + LINE_BYTES * asks, *sums]

    _, _, *sums = code.loop(fixed["rounds"], some, [u, ahead, *[code.zero(kind)] * (vectors * tiles)])
    for number, total in enumerate(sums):
        t, n = divmod(number, vectors)
        (m + fixed["m_vector"] * n + t * kind.bytes).store(total, align=kind.bytes)
    code.finish()


TASKS = {
    "gather": _write_gather,
    "multiply": _write_multiply,
    "scatter": _write_scatter,
}
