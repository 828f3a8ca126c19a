"""Generated code that takes a group of tiles from image to image: all channels forward, their products, and back.

A group's spectra lie in the worker's own memory and never pass from one core to another, as they do where threads share
the three steps: on a 2-core Zen 5 VM (2026-11) 3 -> 32 channels at 232×232, k = 9, took 0.64 ms or 1.6 ms that way,
as the cores were 80 or 390 ns from each other (a message there and back).  Each step is a job of its own, with a frame
that tells its code where everything is; here they are run in a row.
"""

from .pool_code import FRAME_FUNCTION, FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_TASKS
from .tile_code import function
from .vector import Value

#: Words of a frame behind its head: the table of groups, and the frames of both jobs of tiles.
FRAME = ("groups", "forward", "inverse")
#: A group: its tasks of either job, and the frame of its products.
GROUP = ("first_in", "stop_in", "first_out", "stop_out", "product")


def task_address(target):
    """The compiled ``task(frame, index, worker)``."""
    return function(target, "task", ("groups",), "pii", write_task)


def write_task(code):
    """``task(frame, index, worker)``: one group."""
    frame, index, worker = code.arguments

    def pointer(at):
        return Value(code, code.builder.inttoptr(at.load().ir, frame.ir.type))

    word = {name: frame + 8 * (FRAME_HEAD + n) for n, name in enumerate(FRAME)}
    record = pointer(word["groups"]) + index * (8 * len(GROUP))
    group = {name: record + 8 * n for n, name in enumerate(GROUP)}

    def run(job, first, stop):
        for at in (FRAME_INPUT, FRAME_OUTPUT):
            array = (frame + at).load()
            with code.when((job + at).load().compare("!=", array)):  # all workers write the same
                (job + at).store(array)
        task = (job + FRAME_FUNCTION).load_pointer()
        code.loop(stop, lambda number: code.call(task, [job, number, worker]), start=first)

    run(pointer(word["forward"]), group["first_in"].load(), group["stop_in"].load())
    product = pointer(group["product"])
    run(product, 0, (product + FRAME_TASKS).load())
    run(pointer(word["inverse"]), group["first_out"].load(), group["stop_out"].load())
    code.finish()
