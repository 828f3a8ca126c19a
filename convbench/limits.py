"""What an engine must keep to take part in a choice: the caller's limits, and the promises of ``engine="auto"``.

How exact a result must be is said by `rtol`, as a number or as one of three levels:

    "exact"      only engines that sum the products directly: their error is bounded element by element, and
                 integer-valued data whose sums fit the dtype come out bit for bit
    "standard"   every engine, as it computes this very problem; what ``rtol=None`` means
    "fast"       engines may leave out of the weight what costs no more than half of the dtype's digits, √u, and no
                 engine takes part whose bound is above both √u and √K·γ_{K+2}, what rounding alone may cost a
                 sum that is taken in another orthogonal basis (a direct sum is allowed γ_{K+2})
    a number     only engines whose a-priori bound is not above it, which may leave out as much

with u the dtype's unit roundoff and K the products per output.  Integer dtypes are exact on every level.
"""

from __future__ import annotations

import math
import numbers

from convbench import planning
from convbench.candidates import Candidate
from convbench.engine import UNROUNDED_GUARD, Engine, gamma, unit_roundoff
from convbench.spec import ConvSpec

EXACT, STANDARD, FAST = LEVELS = ("exact", "standard", "fast")

_NUMBER = "a finite number of at least 0"


def check_limits(rtol, max_workspace) -> None:
    """Refuse bad limits, with what would be accepted.

    Raises
    ------
    ValueError
        An unknown level, or a number out of range.
    TypeError
        No number at all.
    """
    if isinstance(rtol, str):
        if rtol not in LEVELS:
            raise ValueError(
                f"rtol {rtol!r} is unknown; {', '.join(map(repr, LEVELS))}, {_NUMBER}, or None is accepted"
            )
        rtol = None
    for name, value, kind in (("rtol", rtol, numbers.Real), ("max_workspace", max_workspace, numbers.Integral)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(f"{name} {value!r} is a {type(value).__name__}; a number of at least 0 or None is accepted")
        if not value >= 0 or math.isinf(value):
            raise ValueError(f"{name} {value!r} is not accepted; {_NUMBER}, or None, is")


def tolerance(rtol: str | float | None, dtype: str) -> float | None:
    """How far an engine may approximate the weight, for `Engine.for_weight`; None leaves it to rounding alone."""
    if rtol == FAST:
        return math.sqrt(unit_roundoff(dtype)) or None
    return None if isinstance(rtol, str) else rtol


def why_unfit(
    engine: Engine, spec: ConvSpec, known: Candidate, *, rtol=None, max_workspace=None, pinned: bool = False
) -> str | None:
    """Why `engine`, which can compute `spec`, takes no part, as a sentence; None where it does.

    Parameters
    ----------
    engine : Engine
    spec : ConvSpec
    known : Candidate
        Its error bound and workspace.
    rtol, max_workspace
        The caller's limits.
    pinned : bool
        The caller has named it: the promises of ``engine="auto"`` are not asked of it.
    """
    inexact = planning.why_inexact(engine, spec) or _why_inexact(engine, spec, known, rtol)
    if inexact is not None:
        return inexact
    if max_workspace is not None and known.workspace_bytes > max_workspace:
        return f"its workspace of {known.workspace_bytes:,} bytes is over max_workspace {max_workspace:,}"
    return None if pinned else _why_not_automatic(engine)


def _why_inexact(engine, spec, known, rtol):
    if rtol == EXACT and not (engine.exact_integers and engine.error_measure == "componentwise"):
        return f"{engine.name} does not sum directly, as rtol 'exact' asks for"
    bound, named = rtol, ""
    if isinstance(rtol, str):
        bound, named = _fast_bound(spec) if rtol == FAST else None, f"{rtol!r}, "
    if bound is not None and not known.error_bound <= bound:
        return f"its error bound {known.error_bound:.1e} is over rtol {named}{bound:.1e}"
    return None


def _fast_bound(spec):
    """The largest bound on level "fast"; None for integers."""
    u = unit_roundoff(spec.dtype)
    return max(math.sqrt(u), math.sqrt(spec.taps) * gamma(spec.taps + UNROUNDED_GUARD, spec.dtype)) if u else None


def _why_not_automatic(engine):
    if not engine.automatic:
        return f"{engine.name} computes only where it is named"
    if not engine.deterministic:
        return f"{engine.name} may give other bits each time"
    if not engine.propagates_nonfinite:
        return f"{engine.name} may spread a NaN or Inf to outputs whose window does not cover it"
    return None
