"""What FFTW learnt about fast transforms, kept between processes beside the records of timings.

FFTW's planner tries ways to compute a transform and remembers the fastest as its "wisdom"; with it, planning the
same transform again takes no time.  A file per version of FFTW and processor holds it.  It is read once per process
before the first plan, and written when a plan taught something: merged with what others wrote meanwhile, to a
temporary file that then takes the name.  What can't be read or written costs a warning and planning time, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from convbench import records
from convbench.machine import instruction_sets, processor_name

LEARNT_SECONDS = 0.005  # planning with wisdom takes less, planning without more
#: Held by whoever plans or destroys a transform: FFTW does neither safely beside another planner.
lock = threading.RLock()
_read: set[tuple[int, Path]] = set()
if hasattr(os, "register_at_fork"):  # a child forked while another thread plans would wait for its lock forever
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@contextmanager
def kept(learns: bool = True):
    """Within the block FFTW plans with what was learnt before, and what it learns, if it does, is kept."""
    with lock:
        place = path()
        if (os.getpid(), place) not in _read:
            _read.add((os.getpid(), place))
            load(place)
        begin = time.perf_counter()
        yield
        if learns and time.perf_counter() - begin > LEARNT_SECONDS:
            save(place)


def path() -> Path:
    """The file for this FFTW and this processor."""
    import pyfftw

    version = ".".join(map(str, pyfftw.fftw_version_tuple))
    machine = hashlib.sha256(repr((processor_name(), instruction_sets())).encode()).hexdigest()[:16]
    return records.directory() / "fftw" / f"{version}-{machine}.json"


def load(place: Path) -> bool:
    """Give FFTW the wisdom of a file; False, after a warning where there is one that can't be used."""
    import pyfftw

    try:
        text = place.read_text()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        return _say(f"FFTW's wisdom {place} can't be read ({error}); transforms are planned anew")
    try:
        wisdom = tuple(base64.b64decode(part, validate=True) for part in json.loads(text)["wisdom"])
        accepted = pyfftw.import_wisdom(wisdom)
    except (ValueError, KeyError, TypeError) as error:
        return _say(f"FFTW's wisdom {place} is malformed ({error!r}); transforms are planned anew")
    if not all(accepted):
        return _say(f"FFTW does not accept the wisdom {place}; transforms are planned anew")
    return True


def save(place: Path) -> bool:
    """Write what FFTW knows, and what the file holds; False, after a warning, if it can't be written."""
    import pyfftw

    if place.exists():
        load(place)
    content = {"wisdom": [base64.b64encode(part).decode() for part in pyfftw.export_wisdom()]}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        records.write_whole(place, json.dumps(content))
    except OSError as error:
        return _say(f"FFTW's wisdom is not kept: {place.parent} can't be written ({error.strerror or error})")
    return True


def _say(message):
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return False
