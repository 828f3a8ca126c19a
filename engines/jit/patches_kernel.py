"""The generated code of `patches`: gather a block of the patch matrix, then run a product's frame on it."""

from . import compile as compiler
from .dense_copy import SCRATCH_HEAD
from .pool_code import FRAME_FUNCTION, FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_SERIAL, FRAME_TASKS
from .records import Record, size, slots
from .transpose import SHUFFLED_STRIDE, deinterleaved
from .vector import Code

#: What is the same for all tasks of a plan.
FRAME = slots(
    "tasks taps tap_count products product_count scratch scratch_bytes depth height width "
    "channel_bytes slice_bytes row_bytes row_stride group_channels",
    FRAME_HEAD,
)
#: A task: its images, where the window of its first pixel begins (slice, row, column: may lie in the padding), the
#: copied rows and columns, bytes of a row of patches, which product's frame runs on it, and a number that tasks
#: with the same patches share.
TASK = slots("x out groups slice row column rows columns pitch product patches")
#: A copied tap's distance from the first element of a window.
TAP = slots("depth row column")


def task_address(dtype, stride, target):
    """The compiled ``void task(frame, number, worker)``; `stride` is that of the columns."""
    return compiler.address("task", ("patches", dtype, stride), target, lambda m: write_task(m, dtype, stride, target))


def write_task(module, dtype, stride, target):
    """Write the driver."""
    code = Code(module, "task", target, "pii")
    frame, number, worker = code.arguments
    fixed = Record(frame, FRAME)
    task = Record(fixed.pointer("tasks") + number * size(TASK), TASK)
    scratch = fixed.pointer("scratch") + worker * fixed["scratch_bytes"]
    key = (task["patches"] + 1) + ((frame + FRAME_SERIAL).load() << 32)
    with code.when(scratch.load().compare("!=", key)):
        scratch.store(key)
        source = (frame + FRAME_INPUT).load_pointer() + task["x"]
        _gather(code, fixed, task, source, scratch + SCRATCH_HEAD, code.vector(dtype), stride)
    product = (fixed.pointer("products") + (worker * fixed["product_count"] + task["product"]) * 8).load_pointer()
    (product + FRAME_INPUT).store(scratch + SCRATCH_HEAD)
    (product + FRAME_OUTPUT).store((frame + FRAME_OUTPUT).load_pointer() + task["out"])
    function = (product + FRAME_FUNCTION).load_pointer()
    code.loop((product + FRAME_TASKS).load(), lambda i: code.call(function, [product, i, worker]))
    code.finish()


def _gather(code, fixed, task, source, patches, kind, stride):
    """Copy what every group, copied tap and channel reads, in this order.

    Rows follow each other, so that what a vector writes beyond the end of one is overwritten by the next.  What depends
    on the tap only is worked out once for all channels.
    """
    item, channels = kind.itemsize, fixed["group_channels"]

    def over_groups(group, to):
        plane = source + group * channels * fixed["channel_bytes"]

        def over_taps(number, to):
            tap = Record(fixed.pointer("taps") + number * size(TAP), TAP)
            z, first = task["slice"] + tap["depth"], task["row"] + tap["row"]
            column = task["column"] + tap["column"]
            copy = _RowCopy(code, kind, stride, column, task["columns"], fixed["width"])
            line = plane + z * fixed["slice_bytes"] + first * fixed["row_bytes"] + column * item
            read = z.compare(">=", 0) & z.compare("<", fixed["depth"]) & copy.some
            # Rows [begin, end) of the copy are rows of the input.
            begin = _rounded_up(first * -1, fixed["row_stride"]).least(task["rows"])
            end = _rounded_up(fixed["height"] - first, fixed["row_stride"]).least(task["rows"]).most(begin)
            begin, end = (read.choose(bound, task["rows"]) for bound in (begin, end))

            def over_channels(channel, to):
                copy.zeros(to, 0, begin * task["columns"])
                here = line + channel * fixed["channel_bytes"]
                copy.rows(here, fixed["row_stride"] * fixed["row_bytes"], to, begin, end)
                copy.zeros(to, end * task["columns"], task["rows"] * task["columns"])
                return [to + task["pitch"]]

            return code.loop(channels, over_channels, [to])[-1:]

        return code.loop(fixed["tap_count"], over_taps, [to])[-1:]

    code.loop(task["groups"], over_groups, [patches])


def _rounded_up(number, step):
    """`number` / `step`, rounded up; 0 for negative numbers."""
    return (number.most(0) + step - 1) // step


class _RowCopy:
    """Copies ``there[j] = here[j * stride]`` for j below `columns`; zero where that is outside of the input's row.

    Vectors: zeros up to `low`, one at `low` under a mask, whole ones up to `high`, one there under a mask, zeros.
    """

    def __init__(self, code, kind, stride, column, columns, width):
        self.code, self.kind, self.stride, self.columns = code, kind, stride, columns
        lanes = kind.lanes
        shift = lanes.bit_length() - 1
        first = _rounded_up(column * -1, stride)  # columns [first, end) are inside of the input
        end = _rounded_up(width - column, stride).least(columns)
        self.some = first.compare("<", end)
        self.first, self.end = first, end
        self.low = (first >> shift) << shift
        reach = (end - 1) * stride + 1  # elements read from here on
        full = (reach - (self.low + lanes) * stride).most(0) // (lanes * stride)
        self.high = self.low + lanes + full * lanes
        parts = range(stride if stride <= SHUFFLED_STRIDE else 0)
        self.low_masks, self.high_masks = [], []
        for part in parts:
            at = self.low * stride + part * lanes
            self.low_masks.append(code.mask(reach - at, kind, first * stride - at))
            self.high_masks.append(code.mask(reach - self.high * stride - part * lanes, kind))

    def rows(self, here, step, there, begin, end):
        """Copy rows `begin` to `end`, `step` bytes apart in the input."""
        code, pitch = self.code, self.columns * self.kind.itemsize

        def over(row):
            return lambda number: row(here + number * step, there + number * pitch)

        if self.stride > SHUFFLED_STRIDE:
            return code.loop(end, over(self._elements), start=begin)
        with code.either(self.columns.compare("<=", self.kind.lanes)) as (one, more):
            with one:
                code.loop(end, over(lambda a, b: self._vector(a, b, code.value(0), self.low_masks)), start=begin)
            with more:
                code.loop(end, over(self._row), start=begin)

    def zeros(self, there, first, end):
        """Zeros in elements `first` to `end`, and up to a vector beyond."""
        zero, item = self.code.zero(self.kind), self.kind.itemsize
        self.code.loop(end, lambda j: (there + j * item).store(zero), start=first, step=self.kind.lanes)

    def _row(self, here, there):
        code, lanes = self.code, self.kind.lanes
        self.zeros(there, 0, self.low)
        self._vector(here, there, self.low, self.low_masks)
        code.loop(self.high, lambda j: self._vector(here, there, j), start=self.low + lanes, step=lanes)
        with code.when(self.high.compare("<", self.columns)):
            self._vector(here, there, self.high, self.high_masks)
        self.zeros(there, self.high + lanes, self.columns)

    def _vector(self, here, there, j, masks=None):
        lanes, item, stride = self.kind.lanes, self.kind.itemsize, self.stride
        read = [
            (here + (j * stride + part * lanes) * item).load(self.kind, masks and masks[part]) for part in range(stride)
        ]
        (there + j * item).store(deinterleaved(read, lanes)[0])

    def _elements(self, here, there):
        item, scalar = self.kind.itemsize, self.kind.scalar
        self.zeros(there, 0, self.columns)

        def copy(j):
            (there + j * item).store((here + j * self.stride * item).load(scalar))

        self.code.loop(self.end, copy, start=self.first)
