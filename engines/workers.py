"""Python threads for engines whose work leaves the interpreter's lock: FFTW, NumPy, compiled loops.

A start costs about 45 µs, so only long parts are worth it.  Generated kernels have a pool of their own, `jit.parallel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def run_all(parts: Sequence[Callable[[], object]]) -> None:
    """Run every part, the first on the calling thread and the others beside it; an error of one is raised."""
    first, *others = parts
    tasks = [_pool(os.getpid(), len(others)).submit(part) for part in others]
    try:
        first()
    finally:
        for task in tasks:
            task.exception()  # waits: no part may still be writing when this returns
    for task in tasks:
        task.result()


@cache
def _pool(pid, threads):  # a forked child has another pid, and none of its parent's threads
    return ThreadPoolExecutor(threads, thread_name_prefix="convbench")
