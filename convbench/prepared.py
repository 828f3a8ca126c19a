"""What a layer keeps for one input shape: the choice, the plan, and how calls of that shape go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from convbench.candidates import Selection
from convbench.engine import Known, Plan
from convbench.spec import ConvSpec

#: Multiply-adds from which a plan's workers are summoned: less may be done faster without them, as plans find out.
SUMMONED_MACS = 4_000_000


@dataclass(slots=True)
class Prepared:
    """One input shape, planned."""

    spec: ConvSpec
    plan: Plan
    shape: tuple[int, ...]  # of the output as the caller gets it
    selection: Selection
    pads: tuple | None  # pairs to extend the input by, before the plan
    dense: bool  # the input already lies in memory as the plan wants it
    batched: bool
    new_output: Callable[[], np.ndarray]
    key: tuple  # by which the layer finds it
    summon: Callable[[], object] | None = None  # the plan's, where the plan is all that there is to do
    shortcut: object = None  # the plan's, see `convbench.engine.Plan`
    lacks_shortcut: bool = True  # none was asked for yet
    computed: int = 0  # calls, but those of the shortcut
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, plan: Plan) -> None:
        """From now on `plan` computes."""
        self.plan, self.shortcut, self.lacks_shortcut = plan, None, self.dense
        worth_it = self.dense and self.spec.macs >= SUMMONED_MACS
        self.summon = getattr(plan, "summon", None) if worth_it else None

    def make_shortcut(self) -> bool:
        """Ask the plan for its shortcut, after its first call that makes an output; whether it was asked now.

        Then the plan has scratch, which the shortcut takes over: the plan makes more only where both compute.
        """
        make = getattr(self.plan, "shortcut", None) if self.lacks_shortcut else None
        if make is None:
            return False
        self.lacks_shortcut = False
        self.shortcut = make(Known(*self.key, self.new_output, self.spec.macs, self.summon is not None))
        return True

    @property
    def calls(self) -> int:
        """How many times it computed."""
        return self.computed + (self.shortcut.calls if self.shortcut else 0)

    @property
    def nbytes(self) -> int:
        """What the plan says that it holds."""
        return getattr(self.plan, "nbytes", 0)
