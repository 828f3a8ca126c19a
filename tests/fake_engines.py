"""Engines that only pretend, and a clock that only they move."""

import convbench


class Fake(convbench.Engine):
    """Takes `seconds` on the fake clock, and says `predicted`."""

    exact_integers = True

    def __init__(self, name, predicted=1e-3, *, seconds=None, clock=None, bound=1e-7, workspace=0, **attributes):
        self.name, self.predicted, self.seconds = name, predicted, predicted if seconds is None else seconds
        self.clock, self.bound, self.workspace = clock, bound, workspace
        self.refusal = self.failure = None
        self.calls = self.plans = 0
        for attribute, value in attributes.items():
            assert hasattr(self, attribute), attribute
            setattr(self, attribute, value)

    def why_unsupported(self, spec):
        return self.refusal

    def workspace_bytes(self, spec):
        return self.workspace

    def error_bound(self, spec):
        return self.bound

    def predict_seconds(self, spec, machine):
        return self.predicted

    def plan(self, spec, weight):
        self.plans += 1
        if self.failure is not None:
            raise self.failure

        def run(x, out):
            self.calls += 1
            self.clock.now += self.seconds

        return run


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def rest(self, seconds):
        self.now += seconds
