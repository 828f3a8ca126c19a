"""Time, error, regret and peak memory of every engine on every problem, as asv benchmarks.

Why the times are measured in one process: engines are compared with each other, so they must
meet the same state of the machine.  ``Contest.setup_cache`` times all engines of a problem in
turn, round after round, and asv's processes (one for each parameter combination) file what was
measured.  A process for each time would pay a start-up and a compilation for each number, and
compare measurements that lie minutes apart.  Peak memory does need a process of its own.
"""

from __future__ import annotations

from asv_runner.benchmarks.mark import SkipNotImplemented

from . import contest, session

_SESSION = session.load()
_PROBLEMS = [name for name, _ in _SESSION.problems]
# asv leaves out of its graphs what was saved under another version, by default a hash of the benchmark's code.
# Ours changes when what is measured changes, so that a rewording costs no history.
_VERSION = "1"
_NO_OUTPUT_SECONDS = 600  # asv's time limit is one of silence; a line is printed for each problem


class Contest:
    """All engines on the same problem, interleaved; ``auto`` is the engine that the judge picks unmeasured."""

    params = (_PROBLEMS, [*_SESSION.engines, session.AUTO])
    param_names = ("problem", "engine")

    def setup_cache(self):
        """Measure everything, once."""
        return contest.measure_all(_SESSION)

    setup_cache.timeout = _NO_OUTPUT_SECONDS

    def track_time(self, results, problem, engine):
        """Median seconds of one planned call."""
        return _measured(results, problem, engine)["median"]

    track_time.unit = "seconds"
    track_time.version = _VERSION

    def track_error(self, results, problem, engine):
        """Error against the reference, as a part of the engine's own bound: above 1 is wrong."""
        entry = _measured(results, problem, engine)
        return entry["error"] / entry["bound"] if entry["bound"] else float(entry["error"] > 0)

    track_error.unit = "bounds"
    track_error.version = _VERSION

    def track_regret(self, results, problem, engine):
        """Time of this engine / time of the fastest."""
        times = [entry["median"] for entry in results[problem]["engines"].values() if not entry["refused"]]
        return _measured(results, problem, engine)["median"] / min(times)

    track_regret.unit = "times the best"
    track_regret.version = _VERSION


class Memory:
    """Peak memory of a process that plans and computes one problem, the interpreter included."""

    params = (_PROBLEMS, _SESSION.engines)
    param_names = ("problem", "engine")

    def peakmem_call(self, problem, engine):
        """Plan and call once; nothing else is in the process."""
        try:
            call = contest.prepare_one(_SESSION, problem, engine)
        except contest.RefusedError as error:
            raise SkipNotImplemented(str(error)) from None
        call()

    peakmem_call.version = _VERSION


def _measured(results, problem, engine):
    """What was measured of an engine; asv records a refusal as skipped."""
    result = results[problem]
    name = result["auto"] if engine == session.AUTO else engine
    entry = result["engines"].get(name, {"refused": f"{name} was not measured"})
    if entry["refused"]:
        raise SkipNotImplemented(entry["refused"])
    return {**entry, "median": entry["modelled"]} if engine == session.AUTO else entry
