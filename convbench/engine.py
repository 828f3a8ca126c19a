"""What an engine is: the contract that every way of computing a convolution keeps."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convbench.machine import Machine
from convbench.spec import ConvSpec

Plan = Callable[[np.ndarray, np.ndarray], object]
"""A planned problem: ``plan(x, out)`` fills `out`.  No checks, no avoidable allocation.

`x` is C-contiguous of shape ``spec.input_shape`` and `out` of ``spec.output_shape``, both of
``spec.dtype``; they do not overlap, and `x` is never written.  (An engine that
takes channels-last memory gets it when ``spec.memory_format`` says so.)  A plan is called by one
thread at a time.  An attribute ``nbytes`` tells what it holds; without one it counts as 0.  Where ``summon`` is
a function, it is called a moment before the plan is, if the problem is not small: what the plan
computes with, say threads that sleep, gets ready while the output is made.  Where ``shortcut`` is a function,
``shortcut(known)`` is an object whose ``call(x)`` does all that a layer's call does, for the calls that `Known` tells,
and answers None to any other, or None where there is no such way; its ``calls`` says how many it computed.  Unlike the
plan it may be called by several threads at a time.
"""


@dataclass(frozen=True)
class Known:
    """The calls that a layer has a plan for, and what they need besides.

    Attributes
    ----------
    shape, strides : tuple of int
        Of the input, which is a NumPy array and lies in memory as the plan wants it.
    dtype : numpy.dtype
        Its own, the very object.
    scope : convbench.settings.Scope
        What holds within the block that the call is in.
    epoch : int
        `convbench.settings.epoch` when the plan was made.
    make_output : callable
        Makes the output's array.
    macs : int
        Multiply-adds of a call.
    summons : bool
        Whether the plan's ``summon`` is called before.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    scope: object
    epoch: int
    make_output: Callable[[], np.ndarray]
    macs: int
    summons: bool


UNROUNDED_GUARD = 2  # roundings beside the products and sums: the result's own, and the bias'


class Engine(abc.ABC):
    """One algorithm for one problem: zero-padded, strided, dilated, grouped correlation.

    An engine says what it can do before it does anything: `why_unsupported` refuses in a
    sentence, `workspace_bytes`, `error_bound` and `predict_seconds` answer from the spec alone,
    in microseconds, without importing what it computes with.  `plan` does everything that
    depends on shape and weight once.  The specs an engine sees are validated, never empty
    (the interface answers those), and have zero padding only, but for engines that `circular` answers with.

    Attributes
    ----------
    name : str
        The name users select it by: lower case, no spaces.
    summary : str
        One line for ``convbench engines``.
    version : str
        Part of every record of its timings: change it when the speed changes.
    error_measure : {"componentwise", "l2"}
        How `error_bound` and the equality check measure: the largest element of
        ``|y - ref| / (|x| ∗ |w|)``, or ``‖y - ref‖₂ / ‖ |x| ∗ |w| ‖₂`` for an algorithm that
        mixes elements (FFT, Winograd).
    exact_integers : bool
        Integer-valued data with K·max|x|·max|w| below 2^p gives the exact result,
        bit for bit.  Engines without it never see integer dtypes.
    deterministic : bool
        The same input, threads and plan give the same bits.
    propagates_nonfinite : bool
        A NaN or Inf in the input reaches exactly the outputs whose window covers it.
        ``engine="auto"`` takes no other engine.
    fuses_bias : bool
        `plan` takes a third argument, the bias (out_channels,) or None.  Without it the
        interface adds the bias afterwards.
    automatic : bool
        ``engine="auto"`` may pick it.  The living definition says no: it is the judge's yardstick.
    takes_circular : bool
        It computes circular problems as such; of others the interface extends the input.
    variant : str
        What sets an engine of `for_weight` or `circular`, or one of several `variants`, apart from the engine itself,
        in a few words: timings are recorded for each variant.
    """

    name: str = ""
    summary: str = ""
    version: str = "1"
    error_measure: str = "componentwise"
    exact_integers: bool = False
    deterministic: bool = True
    propagates_nonfinite: bool = True
    fuses_bias: bool = False
    automatic: bool = True
    takes_circular: bool = False
    variant: str = ""

    @abc.abstractmethod
    def why_unsupported(self, spec: ConvSpec) -> str | None:
        """The reason why `spec` can't be computed, as a sentence, or None if it can."""

    @abc.abstractmethod
    def plan(self, spec: ConvSpec, weight: np.ndarray) -> Plan:
        """Prepare `spec` with `weight` (C-contiguous, ``spec.weight_shape``, ``spec.dtype``).

        The caller may change `weight` afterwards: a plan that needs it keeps a copy.
        """

    def for_weight(self, spec: ConvSpec, weight: np.ndarray, rtol: float | None = None) -> Engine:
        """This engine as it computes `spec` with this very weight; itself where only the shape matters.

        An engine whose speed depends on the weight's elements answers here with another engine of the same name,
        which estimates and plans for this weight alone and says so in its `variant`.  Where it finds nothing to
        gain it returns itself, at next to no cost.  `rtol` is the error bound that the caller accepts: how far the
        weight may be approximated, as long as `error_bound` contains it.
        """
        return self

    def variants(self, spec: ConvSpec) -> tuple[Engine, ...]:
        """The ways in which this engine may compute `spec`, as engines of the same name; itself where there is one.

        An engine that has several codes for a problem lists them here, each with a `variant` of its own and its own
        `predict_seconds`, the best by its own model first.  Where the judge measures, it times all of them and
        remembers the fastest; where it predicts, it takes the one whose prediction is the least on this machine
        (`convbench.profile`).
        """
        return (self,)

    def circular(self, spec: ConvSpec) -> Engine | None:
        """An engine of the same name that computes the circular problem `spec` as such, None where there is none.

        Nothing extends its input.  Its `takes_circular` is True and it has a `variant` of its own.  It takes
        part beside the `variants` of the extended problem, whose predictions count what extending costs.
        """
        return None

    def takes_channels_last(self, spec: ConvSpec) -> bool:
        """Whether `spec`, in channels-last memory, is planned natively.  If not, the interface transposes."""
        return False

    def workspace_bytes(self, spec: ConvSpec) -> int:
        """Bytes that a plan holds or allocates beside input, weight and output."""
        return 0

    def error_bound(self, spec: ConvSpec) -> float:
        """A bound of the relative error in `error_measure`; 0 for exact arithmetic.

        The default is the bound of any order of summation, γ_n = n·u / (1 - n·u)
        with n = K + 2 (N. Higham, Accuracy and Stability of Numerical Algorithms, §3.1, §4.2).
        """
        return gamma(spec.taps + UNROUNDED_GUARD, spec.dtype)

    def predict_seconds(self, spec: ConvSpec, machine: Machine) -> float:
        """Predicted seconds of one call.  The default is that of plain scalar loops."""
        return machine.call_seconds + 2 * spec.macs / machine.scalar_flops

    def __repr__(self):
        return f"<convbench engine {self.name!r}>"


def unit_roundoff(dtype: str) -> float:
    """u, half the distance from 1 to the next number of `dtype`; 0 for integers."""
    name = str(dtype)
    if name == "bfloat16":
        return 2.0**-9
    kind = np.dtype(name)
    return float(np.finfo(kind).eps) / 2 if kind.kind in "fc" else 0.0


def gamma(n: int, dtype: str) -> float:
    """γ_n = n·u / (1 - n·u), infinite where n·u reaches 1.  Complex products cost three more roundings."""
    nu = (n + (3 if str(dtype).startswith("complex") else 0)) * unit_roundoff(dtype)
    return nu / (1 - nu) if nu < 1 else float("inf")
