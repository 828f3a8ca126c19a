"""A library that computes the same convolution: what it takes, and a call that does no more than compute.

One place prepares each library's call.  ``convbench compare`` times it on the library's own arrays, converted
before; the engines of `convbench.peers.adapters` give it NumPy's, and have the output where the caller wants it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convbench.spec import ConvSpec

Call = Callable[[], object]
INSTALL = "pip install 'convbench[peers]' brings it"


class _Writable:
    """The memory of an array that is read-only, as NumPy's interface describes what may be written."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def borrowed(x: np.ndarray) -> np.ndarray:
    """`x` for a library that takes writable arrays only, though it never writes its input."""
    return x if x.flags.writeable else np.asarray(_Writable(x))


def _as_it_is(x):
    return x


@dataclass(frozen=True)
class Loaded:
    """A problem with its weight, ready in a library.

    Attributes
    ----------
    compute : callable
        From the library's own input to its output, anything that `numpy.asarray` takes.
    take : callable
        From an array of ``spec.input_shape`` to the library's input; borrows the memory where it can.
    fill : callable or None
        ``fill(input, out)`` computes into `out`, where the library can; else its output is copied.
    """

    compute: Callable[[object], object]
    take: Callable[[np.ndarray], object] = _as_it_is
    fill: Callable[[object, np.ndarray], object] | None = None

    def into(self, x: np.ndarray, out: np.ndarray) -> None:
        """Compute `x`'s convolution into `out`."""
        if self.fill is not None:
            self.fill(self.take(x), out)
        else:
            out[...] = np.asarray(self.compute(self.take(x)))


class Peer:
    """A library's way to compute a convolution.

    Attributes
    ----------
    name : str
    modules : tuple of str
        What has to be installed.
    dtypes : tuple of str
        What it computes in.
    survives_fork : bool
        Whether a child of a process that has used it can use it too.
    """

    name: str
    modules: tuple[str, ...]
    survives_fork: bool = True
    dtypes: tuple[str, ...] = ("float32",)  # what the graph runtimes are built for

    def installed(self) -> str | None:
        """The version of the library, or None where it cannot be imported."""
        try:
            found = [importlib.import_module(module) for module in self.modules]
        except ImportError:
            return None
        return found[0].__version__

    def session(self, threads: int) -> contextlib.AbstractContextManager:
        """A block in which the library uses that many threads."""
        return contextlib.nullcontext()

    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """The reason why the library does not compute `spec`, as a sentence, or None; nothing is imported."""
        if spec.dtype not in self.dtypes:
            return f"{self.name} is called with {', '.join(self.dtypes)}, not with {spec.dtype}"
        return None

    def load(self, spec: ConvSpec, weight: np.ndarray, threads: int) -> Loaded | None:
        """A supported problem, ready to be computed; None where it is not with this very weight.

        Parameters
        ----------
        spec : ConvSpec
        weight : ndarray
            Of ``spec.weight_shape``; the library may borrow its memory.
        threads : int
            For libraries that settle it here and not in `session`.
        """
        raise NotImplementedError

    def prepare(self, spec: ConvSpec, x: np.ndarray, weight: np.ndarray, threads: int) -> Call | None:
        """A call that returns the output, as anything that `numpy.asarray` takes, or None where there is no way to.

        Parameters
        ----------
        spec : ConvSpec
        x, weight : ndarray
            Of ``spec.input_shape`` and ``spec.weight_shape``.
        threads : int
        """
        loaded = None if self.why_unsupported(spec) else self.load(spec, weight, threads)
        if loaded is None:
            return None
        compute, given = loaded.compute, loaded.take(x)
        return lambda: compute(given)


def lows(spec: ConvSpec) -> tuple[int, ...]:
    """The padding before each dimension."""
    return tuple(low for low, _ in spec.padding)


def highs(spec: ConvSpec) -> tuple[int, ...]:
    """The padding after each dimension."""
    return tuple(high for _, high in spec.padding)
