"""The processor's own limit, measured: multiply-adds of full vectors on all threads, and nothing else.

Enough independent sums for every pipe to start one multiply-add per cycle whatever its latency; two factors
that stay in registers; no memory.  What this loop reaches is what a convolution kernel could reach at most on
this machine, at this moment.
"""

import functools

import numpy as np

from . import parallel
from .compile import address
from .pool_code import FRAME_FUNCTION, FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_TASKS
from .target import target
from .vector import Code

#: Independent sums: two pipes with a latency of 4 or 5 cycles need 10, and 16 registers hold 12 and two factors.
SUMS = 12
#: Rounds of one task when the peak is looked for, of `SUMS` multiply-adds each: some 60 us, so that tasks even out
#: delays.
ROUNDS = 20_000
TASKS_PER_THREAD = 16
#: The task's rounds, after the head of its frame.
FRAME_ROUNDS = 8 * FRAME_HEAD
#: The factors, per lane: sums neither overflow nor become denormal.
FACTORS = (0.5, 0.25)


def _write(module, dtype):
    """``void peak(frame, task, worker)``: the factors are read from the frame's input, the sums added to its output."""
    code = Code(module, "peak", target(), "pii")
    frame, task, _ = code.arguments
    kind = code.vector(dtype)
    factors = (frame + FRAME_INPUT).load_pointer()
    a, b = factors.load(kind), (factors + kind.bytes).load(kind)
    out = (frame + FRAME_OUTPUT).load_pointer() + task * kind.bytes

    def body(_, *sums):
        return [total.fma(a, b) for total in sums]

    sums = code.loop((frame + FRAME_ROUNDS).load(), body, [code.zero(kind)] * SUMS)
    out.store(functools.reduce(lambda left, right: left + right, sums))
    code.finish()


def caller(dtype, flops=None):
    """A call that makes multiply-adds on all threads, and how many FLOP it makes; a multiply-add counts as two.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    flops : int or None
        About so many; None: what takes some milliseconds.
    """
    lanes = target().lanes(dtype)
    tasks = parallel.ready() * TASKS_PER_THREAD
    one = 2 * SUMS * lanes * tasks
    rounds = ROUNDS if flops is None else max(1, round(flops / one))
    factors = np.repeat(np.array(FACTORS, dtype), lanes)
    sums = np.empty(tasks * lanes, dtype)
    frame = np.zeros(FRAME_HEAD + 1, np.int64)
    frame[FRAME_FUNCTION // 8] = address("peak", dtype, target(), lambda module: _write(module, dtype))
    frame[FRAME_TASKS // 8], frame[FRAME_ROUNDS // 8] = tasks, rounds
    call = parallel.caller()
    return lambda: call(frame.ctypes.data, id(factors), id(sums)), one * rounds
