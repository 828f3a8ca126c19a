"""The processor's own limit, measured: multiply-adds of full vectors on all threads, and nothing else.

Enough independent sums for every pipe to start one multiply-add per cycle whatever its latency; two factors
that stay in registers; no memory.  What this loop reaches is what a convolution kernel could reach at most on
this machine, at this moment.
"""

import functools
import time

import numpy as np

from . import parallel
from .compile import address
from .pool_code import FRAME_FUNCTION, FRAME_HEAD, FRAME_INPUT, FRAME_OUTPUT, FRAME_TASKS
from .target import target
from .vector import INDEX, Code

#: Independent sums: two pipes with a latency of 4 or 5 cycles need 10, and 16 registers hold 12 and two factors.
SUMS = 12
#: Rounds of one task, of `SUMS` multiply-adds each: some 60 us, so that tasks even out delays.
ROUNDS = 20_000
TASKS_PER_THREAD = 16
#: Calls timed; the best counts, because a peak is an upper limit and every disturbance only slows a call down.
CALLS = 40
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

    sums = code.loop(code.value(ROUNDS, INDEX.ir), body, [code.zero(kind)] * SUMS)
    out.store(functools.reduce(lambda left, right: left + right, sums))
    code.finish()


def measure(dtype, calls=CALLS):
    """FLOP/s of multiply-adds on all threads.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    calls : int
        How many calls are timed, each of some milliseconds.

    Returns
    -------
    float
        Of the best call; a multiply-add counts as two.
    """
    lanes = target().lanes(dtype)
    threads = parallel.ready()
    tasks = threads * TASKS_PER_THREAD
    factors = np.repeat(np.array(FACTORS, dtype), lanes)
    sums = np.empty(tasks * lanes, dtype)
    frame = np.zeros(FRAME_HEAD, np.int64)
    frame[FRAME_FUNCTION // 8] = address("peak", dtype, target(), lambda module: _write(module, dtype))
    frame[FRAME_TASKS // 8] = tasks
    call = parallel.caller()
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        call(frame.ctypes.data, id(factors), id(sums))
        seconds.append(time.perf_counter() - begin)
    return 2 * SUMS * ROUNDS * lanes * tasks / min(seconds)
