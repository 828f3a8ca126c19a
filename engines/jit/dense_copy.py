"""Code that copies a dense task's part of the input into its worker's scratch, with zeros around it."""

from .pool_code import FRAME_SERIAL

#: In front of a worker's scratch: the key of what it holds.
SCRATCH_HEAD = 64
#: The copy asks for input this many lines ahead: 64 -> 64 at 56x56, batch 8, 3x3, 4 lines 466, 8 474, 16 472; 128 ->
#: 128 at 77x96, stride 2, 465, 473, 465 GFLOP/s; 64 -> 64 at 224x224 the same (Zen 5, November 2026).
LINES_AHEAD = 8


def copy_once(code, frame, fixed, task, source, scratch, lines):
    """Copy the task's part of the input into the worker's scratch, unless this call already did for this worker.

    Zeros left and right of the data are there from the start; a row that lies outside of the image is
    filled with zeros.  `lines` fills a row.
    """
    key = task["key"] + ((frame + FRAME_SERIAL).load() << 32)
    with code.when(scratch.load().compare("!=", key)):
        scratch.store(key)
        data = scratch + SCRATCH_HEAD + fixed["copy_at"]

        def over_slices(slice_number):
            z = task["slice"] + slice_number

            def over_taps(tap):
                first = tap * fixed["copy_rows"]

                def over_rows(row_number):
                    y = task["row"] + tap * fixed["tap_step"] + row_number
                    inside = (z.compare(">=", 0) & z.compare("<", fixed["depth"])) & (
                        y.compare(">=", 0) & y.compare("<", fixed["height"])
                    )
                    begin = source + task["first"] + fixed["slice_from"] * z + fixed["row_from"] * y
                    end = data + fixed["slice_to"] * slice_number + fixed["row_to"] * (first + row_number)
                    with code.either(inside) as (copied, zero):
                        with copied:
                            lines.fill(end, begin)
                        with zero:
                            lines.fill(end)

                code.loop(fixed["copy_rows"], over_rows)

            code.loop(fixed["copy_taps"], over_taps)

        code.loop(fixed["copy_slices"], over_slices)


class Lines:
    """The lines of one row of the copy; what is the same for all of them is computed once."""

    def __init__(self, code, fixed, task, kind):
        self.code, self.kind, self.count = code, kind, task["lines"]
        self.step_from, self.step_to = fixed["line_from"], fixed["line_to"]
        self.ahead = self.step_from * LINES_AHEAD
        self.full = (task["length"] >> kind.lanes.bit_length() - 1) * kind.lanes
        rest = task["length"] - self.full
        self.mask, self.has_rest = code.mask(rest, kind), rest.compare("!=", 0)

    def fill(self, there, here=None):
        """Copy the lines from `here` on, or write zeros."""
        code, kind = self.code, self.kind

        def over_lines(_, to, start=None):
            def whole(i):
                if start:
                    code.prefetch(start + self.ahead + i * kind.itemsize)
                (to + i * kind.itemsize).store((start + i * kind.itemsize).load(kind) if start else code.zero(kind))

            code.loop(self.full, whole, step=kind.lanes)
            with code.when(self.has_rest):
                at = self.full * kind.itemsize
                if start:
                    code.prefetch(start + self.ahead + at)
                value = (start + at).load(kind, self.mask) if start else code.zero(kind)
                (to + at).store(value, self.mask)
            return [to + self.step_to, *([start + self.step_from] if start else ())]

        code.loop(self.count, over_lines, [there, here] if here else [there])
