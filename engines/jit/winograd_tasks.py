"""The tasks of Winograd convolution: what one thread does between two looks at the pool's list.

*fused*: a block of tiles through all three steps.  *pieces*: the same, through the first two of them for some input
channels after the others.  *gather*, *multiply*, *scatter*: one step for a part of the problem, for plans that go
through the steps in three rounds (`winograd.py` tells when).  All of them are loops over records
that `winograd_layout` made, and call the code of `winograd_kernel`; they are compiled once for all plans.
"""

from . import compile as compiler
from . import residence
from .pool_code import FRAME_INPUT, FRAME_OUTPUT, FRAME_SERIAL
from .records import Record
from .vector import Code
from .winograd_frames import SCRATCH_HEAD
from .winograd_kernel import BLOCK, FILTERS, FRAME, OUTPUT_TO, SPAN, TASK


def task_address(name, target):
    """The compiled ``void task(frame, number, worker)``, the same for every plan: see `TASKS`."""
    return compiler.address("task", ("winograd", name), target, lambda module: TASKS[name](module, target))


class _Task:
    """What the drivers have in common: the records of a task, and where its arrays lie."""

    def __init__(self, module, target):
        self.code = Code(module, "task", target, "pii")
        self.frame, self.number, self.worker = self.code.arguments
        self.fixed = Record(self.frame, FRAME)
        self.task = Record(self.fixed.pointer("tasks") + self.number * (8 * len(TASK)), TASK)
        self.scratch = self.fixed.pointer("scratch") + self.worker * self.fixed["scratch_bytes"]
        self.rows_at = self.scratch + SCRATCH_HEAD

    def place(self, name):
        """Where V or M is: in the worker's scratch, or where all workers share it."""
        return self.fixed.pointer(name) + self.worker * self.fixed["worker_bytes"]

    def block(self, number, phase=0):
        """The record of a block of tiles, of a phase down."""
        return Record(self.fixed.pointer("blocks") + (self.fixed["phases"] * number + phase) * (8 * len(BLOCK)), BLOCK)

    def filters(self, number):
        """The record of a register block of output channels."""
        return Record(self.fixed.pointer("filters") + number * (8 * len(FILTERS)), FILTERS)

    def gather(self, number, channel, count, place, distance):
        """Transform the input of block `number`, all phases of some channels, to `place` and on among V's channels."""
        x = (self.frame + FRAME_INPUT).load_pointer() + self.task["x"] + self.fixed["x_channel"] * channel

        def phase(q):
            block = self.block(number, q)
            v = self.place("v") + block["v"] + block["bytes"] * place
            self.code.call(self.fixed.pointer("gather"), [self.frame, block.at, x, self.rows_at, v, count, distance])

        self.code.loop(self.fixed["phases"], phase)

    def multiply(self, block, part, frequency, m, channels, adding=0):
        """One product with all phases of so many channels: `m` is where the part's first sums go at frequency 0."""
        kernel = (self.fixed.pointer("kernels") + (block["kernel"] + part["kernel"] + adding) * 8).load_pointer()
        span = Record(self.fixed.pointer("spans") + frequency * (8 * len(SPAN)), SPAN)
        u = self.fixed.pointer("weights") + part["weights"] + part["frequency"] * frequency
        u = u + part["count"] * self.fixed["itemsize"] * span["first"] * channels
        v = self.place("v") + block["v"] + block["v_frequency"] * frequency + block["bytes"] * span["first"] * channels
        self.code.call(kernel, [v, u, m + block["m_frequency"] * frequency, span["count"] * channels])

    def first_channels(self, begin, end):
        """The first channels of some register blocks of those from `begin` to `end`."""
        return [self.filters(number)["first"] for number in residence.some(begin, end - begin)]

    def past(self, block, channels):
        """Whether to write a block of outputs past the caches: its last rows of some of these channels are in none.

        Behind the block that was written before the processor fetches ahead.
        """
        room, far = self.code.stack(8), self.fixed["far_cycles"]
        room.store(0)
        with self.code.when(far.compare(">", 0)):
            array = (self.frame + FRAME_OUTPUT).load_pointer()
            last = block["outputs"] + (block["output_count"] - 1) * self.fixed["output_bytes"]
            out = array + self.task["out"] + (self.fixed.pointer("outputs") + last + OUTPUT_TO).load()
            places = [out + self.fixed["out_channel"] * channel for channel in channels]
            room.store(residence.is_far(self.code, array, places, far).choose(1, 0))
        return room.load()

    def scatter(self, block, m, channel, count, past):
        """Transform `count` channels of sums back, and watch for NaN and Inf."""
        out = (self.frame + FRAME_OUTPUT).load_pointer() + self.task["out"] + self.fixed["out_channel"] * channel
        bias = self.fixed.pointer("bias") + self.task["bias"] + self.fixed["itemsize"] * channel
        arguments = [self.frame, block.at, m, self.rows_at, out, bias, count, self.flag(), past]
        self.code.call(self.fixed.pointer("scatter"), arguments)

    def flag(self):
        """The vector that tells whether this task met a NaN or Inf."""
        return self.fixed.pointer("flags") + self.task["flag"]


def _write_fused(module, target):
    """A block of tiles through all three steps: gathered unless it is there from the worker's last task."""
    this = _Task(module, target)
    code, task, scratch = this.code, this.task, this.scratch
    block, channels = this.block(task["block"]), this.fixed["channels"]
    key = task["key"] + ((this.frame + FRAME_SERIAL).load() << 32)
    with code.when(scratch.load().compare("!=", key)):
        scratch.store(key)
        this.gather(task["block"], code.value(0), channels, code.value(0), channels)
    this.flag().store(code.zero(code.vector("float32")))
    m, past = this.place("m"), this.past(block, this.first_channels(task["filters"], task["filters_end"]))

    def filters(number):
        part = this.filters(number)
        code.loop(this.fixed["frequencies"], lambda frequency: this.multiply(block, part, frequency, m, channels))
        this.scatter(block, m, part["first"], part["count"], past)

    code.loop(task["filters_end"], filters, start=task["filters"])
    code.finish()


def _write_pieces(module, target):
    """A block of tiles, some input channels after the others: the sums of all output channels stay in the cache."""
    this = _Task(module, target)
    code, task, fixed = this.code, this.task, this.fixed
    block, m, channels = this.block(task["block"]), this.place("m"), fixed["channels"]
    first, end = task["filters"], task["filters_end"]
    this.flag().store(code.zero(code.vector("float32")))

    def sums_of(part):
        return m + block["bytes"] * part["first"]

    def piece(channel, parts, adding):
        count = (channels - channel).least(fixed["piece"])
        this.gather(task["block"], channel, count, code.value(0), count)

        def filters(number):
            part = this.filters(parts + number)
            each = lambda frequency: this.multiply(block, part, frequency, sums_of(part), count, adding)  # noqa: E731
            code.loop(fixed["frequencies"], each)

        code.loop(end, filters, start=first)
        return parts + fixed["parts"], fixed["adding"]

    past = this.past(block, this.first_channels(first, end))

    def back(number):
        part = this.filters(number)
        this.scatter(block, sums_of(part), part["first"], part["count"], past)

    code.loop(channels, piece, [code.value(0), code.value(0)], step=fixed["piece"])
    code.loop(end, back, start=first)
    code.finish()


def _write_gather_task(module, target):
    """Some channels of a block of tiles into the shared V."""
    this = _Task(module, target)
    first = this.task["channel"]
    this.gather(this.task["block"], first, this.task["channel_end"] - first, first, this.fixed["channels"])
    this.code.finish()


def _write_multiply_task(module, target):
    """Some frequencies of some filters: their weights, and V of all blocks of tiles, stay in the cache."""
    this = _Task(module, target)
    code, task = this.code, this.task

    def frequencies(frequency):
        def filters(number):
            part = this.filters(number)

            def blocks(number):
                block = this.block(number)
                m = this.place("m") + block["m"] + block["bytes"] * part["first"]
                this.multiply(block, part, frequency, m, this.fixed["channels"])

            code.loop(task["block_end"], blocks, start=task["block"])

        code.loop(task["filters_end"], filters, start=task["filters"])

    code.loop(task["frequency_end"], frequencies, start=task["frequency"])
    code.finish()


def _write_scatter_task(module, target):
    """Some output channels of a block of tiles from the shared M."""
    this = _Task(module, target)
    task, block, first = this.task, this.block(this.task["block"]), this.task["channel"]
    this.flag().store(this.code.zero(this.code.vector("float32")))
    m = this.place("m") + block["m"] + block["bytes"] * first
    past = this.past(block, residence.some(first, task["channel_end"] - first))
    this.scatter(block, m, first, task["channel_end"] - first, past)
    this.code.finish()


#: The drivers by name: all three steps at once, in one go or in pieces, or each for itself.
TASKS = {
    "fused": _write_fused,
    "pieces": _write_pieces,
    "gather": _write_gather_task,
    "multiply": _write_multiply_task,
    "scatter": _write_scatter_task,
}
