"""What a large image takes beside its own arrays: the growth of a process' largest resident set.

A process of its own makes the arrays, touches them, computes a small problem, so that code and libraries are
loaded, and then plans and computes the large one.  Where the system has no ``/proc``, nothing is measured.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MEMORY_PART = 4  # the goal: at most that part of the image
SIZE, KERNEL = 8192, 63
STATUS = Path("/proc/self/status")
CHILD = """
import re
from pathlib import Path
import numpy as np
from convbench import Conv2d

def resident(name):
    return int(re.search(rf"{{name}}:\\s*(\\d+) kB", Path("{status}").read_text())[1]) * 1024

weight = np.random.default_rng(0).standard_normal((1, 1, {kernel}, {kernel}), np.float32)
layer = Conv2d(weight, padding="same", engine="{engine}")
layer(np.ones((1, 1, 512, 512), np.float32))
x, out = np.ones((1, 1, {size}, {size}), np.float32), np.ones((1, 1, {size}, {size}), np.float32)
before = resident("VmRSS")
layer(x, out=out)
print(resident("VmHWM") - before)
"""


@dataclass(frozen=True)
class Memory:
    """Bytes that a process grew by while it planned and computed one image; the image's own bytes."""

    title: str
    image_bytes: int
    extra_bytes: int


def measure(engine: str = "auto") -> Memory | None:
    """Measure now, in a new process; takes some seconds. None where the system does not tell.

    Raises
    ------
    subprocess.CalledProcessError
        The process failed.
    """
    if not STATUS.exists():
        return None
    text = CHILD.format(status=STATUS, kernel=KERNEL, size=SIZE, engine=engine)
    done = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True, check=True)
    return Memory(f"{SIZE}² with a kernel of {KERNEL}×{KERNEL}", 4 * SIZE**2, max(0, int(done.stdout)))
