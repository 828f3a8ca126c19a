"""FFTW's plans, each with the arrays that it transforms, shared by the convolutions of a process.

Planning takes FFTW milliseconds to seconds, and the arrays are most of what a convolution by FFTW holds.  So
convolutions whose transforms are of one kind use the same ones: those that nobody has any more, then new ones as
long as they fit into `KEPT_BYTES` and processors are left to run them, then those that the fewest have.  A
convolution keeps what it was planned with, so that its results are always the same to the bit, and holds a
transform's lock while it computes.  What was planned least recently goes, beyond `KEPT_BYTES`; a convolution that
still has it goes on with it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass

from convbench.machine import usable_cores
from convbench.settings import EFFORTS

from . import fft_wisdom

#: Of the arrays.  FFTW does not tell the size of its own tables; they are proportional to the lengths of the
#: axes, not to their product.
KEPT_BYTES = 64 << 20
#: effort -> FFTW's name for it, and the seconds it may spend on one transform before it takes the best so far.
RIGOR = {"estimate": ("FFTW_ESTIMATE", None), "measure": ("FFTW_MEASURE", 0.25), "patient": ("FFTW_PATIENT", 5.0)}

_kept: OrderedDict[tuple[Kind, str], list[Transform]] = OrderedDict()
_alive: weakref.WeakSet[Transform] = weakref.WeakSet()
_dropped: list[object] = []  # transforms of FFTW that are destroyed when no other is being planned


@dataclass(frozen=True)
class Kind:
    """What a transform is of: real or complex positions and their spectra, both planes first, and the direction."""

    positions: tuple[int, ...]
    dtype: str
    spectrum: tuple[int, ...]
    spectrum_dtype: str
    forward: bool


class Transform:
    """FFTW's plan between two aligned arrays.

    Attributes
    ----------
    positions, spectrum : ndarray
        Of the kind's shapes.  Executing it overwrites the source, too; an inverse is not divided by anything.
    execute : callable
    lock : threading.Lock
        Held by whoever uses the arrays.  Who takes those of two transforms takes the forward one's first.
    users : weakref.WeakSet
        Who may use them.
    """

    def __init__(self, kind: Kind, effort: str):
        import pyfftw

        self.kind, self.effort = kind, effort
        self.positions = pyfftw.empty_aligned(kind.positions, kind.dtype)
        self.spectrum = pyfftw.empty_aligned(kind.spectrum, kind.spectrum_dtype)
        self.nbytes = self.positions.nbytes + self.spectrum.nbytes
        self.lock, self.users = threading.Lock(), weakref.WeakSet()
        self._fftw = self._planned(pyfftw)
        self.execute = self._fftw.execute
        _alive.add(self)

    def _planned(self, pyfftw):
        arrays = (self.positions, self.spectrum) if self.kind.forward else (self.spectrum, self.positions)
        flag, seconds = RIGOR[self.effort]
        with fft_wisdom.kept(learns=self.effort != "estimate"):
            return pyfftw.FFTW(
                *arrays,
                axes=tuple(range(1, len(self.kind.positions))),
                direction="FFTW_FORWARD" if self.kind.forward else "FFTW_BACKWARD",
                flags=(flag, "FFTW_DESTROY_INPUT"),
                threads=1,
                planning_timelimit=seconds,
                **({} if self.kind.forward else {"normalise_idft": False}),
            )

    def __del__(self, dropped=_dropped, lock=fft_wisdom.lock):
        dropped.append((self.__dict__.pop("_fftw", None), self.__dict__.pop("execute", None)))
        if lock.acquire(blocking=False):  # else whoever plans destroys what was dropped
            try:
                dropped.clear()
            finally:
                lock.release()


def shared(kind: Kind, effort: str, count: int = 1) -> list[Transform]:
    """`count` different transforms of a kind, planned with at least that effort; see the module for which."""
    with fft_wisdom.lock:
        known = _known(kind, effort)
        unused = sum(not transform.users for transform in known)
        while len(known) < count or (unused < count and len(known) < usable_cores() and _has_room(known[0])):
            known.append(_new(kind, effort))
            unused += 1
        return sorted(known, key=lambda transform: len(transform.users))[:count]


def held_bytes() -> int:
    """Bytes of the arrays that are kept."""
    with fft_wisdom.lock:
        return sum(transform.nbytes for same in _kept.values() for transform in same)


def _has_room(example):
    return held_bytes() + example.nbytes <= KEPT_BYTES


def _known(kind, effort):
    """Kept transforms of a kind, those planned with more effort first; they now are the last that would go."""
    found = []
    for better in reversed(EFFORTS[EFFORTS.index(effort) :]):
        if (kind, better) in _kept:
            _kept.move_to_end((kind, better))
            found += _kept[kind, better]
    return found


def _new(kind, effort):
    """Plan one more, and let those go that were planned least recently."""
    transform = Transform(kind, effort)
    _kept.setdefault((kind, effort), []).append(transform)
    _kept.move_to_end((kind, effort))
    while len(_kept) > 1 and held_bytes() > KEPT_BYTES:
        _kept.popitem(last=False)
    _dropped.clear()
    return transform


def _after_fork():
    """Locks that another thread of the parent held are free: that thread is not here, and its data nobody's."""
    for transform in _alive:
        transform.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
