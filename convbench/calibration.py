"""Measure the machine's profile: its clock by multiply-adds, its bandwidth by copies, and how far each engine's
predictions are off on a panel of problems."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from convbench import planning, records, registry, settings
from convbench.compare import limits
from convbench.engine import Engine
from convbench.machine import Machine, this_machine
from convbench.measuring import time_engines
from convbench.profile import Profile
from convbench.spec import ConvSpec

#: Layers, images, signals and volumes, small and large, that no engine's constants were fitted to; each engine meets
#: some that suit it and some that do not.
PANEL = (
    "mb1ic64ih40oc96oh40kh3ph1",
    "mb1ic192ih13oc192oh13kh3ph1",
    "mb4ic32ih60oc32oh60kh3ph1",
    "mb1ic96ih30oc200oh30kh1ph0",
    "mb1ic320ih14oc160oh14kh1ph0",
    "mb1ic48ih64oc96oh32kh1sh2ph0",
    "mb1ic24ih60oc48oh30kh3sh2ph1",
    "mb1ic40ih36oc40oh36kh5ph2",
    "mb1ic3ih150oc32oh75kh5sh2ph2",
    "mb1ic6ih90oc12oh90kh7ph3",
    "g96mb1ic96ih48oc96oh48kh3ph1",
    "g64mb1ic64ih24oc64oh24kh9ph4",
    "mb1ic1ih400oc1oh400kh5ph2",
    "mb1ic1ih700oc1oh700kh13ph6",
    "mb1ic1ih900oc1oh900kh41ph20",
    "mb1ic2ih100oc2oh100kh25ph12",
    "mb1ic8iw6000oc8ow6000kw129pw64",
    "mb1ic1iw20000oc1ow20000kw31pw15",
    "mb1ic1iw3000oc1ow3000kw700pw350",
    "mb64ic4ih7oc4oh7kh3ph1",
    "mb1ic12id10ih24iw24oc16od10oh24ow24kd3kh3kw3pd1ph1pw1",
)
SECONDS = 0.6  # for each problem, all engines together
CAUTION = 0.5  # standard deviations
LONGEST_SECONDS = 0.05  # of one call, by its prediction; slower engines are measured on other problems

Progress = Callable[[str], None]


def calibrate(
    panel: Sequence[str] = PANEL, seconds: float = SECONDS, progress: Progress = lambda text: None
) -> Profile:
    """Measure this machine's profile; about a quarter of a minute for the panel here.

    Parameters
    ----------
    panel : sequence of str
        Problems, in benchdnn's notation.
    seconds : float
        Time for each problem, all engines together.
    progress : callable
        Gets what is measured next.

    Returns
    -------
    Profile
        Not saved; see `convbench.profile.save`.
    """
    threads = settings.get_num_threads()
    progress("the processor's clock and bandwidth")
    found, nominal = limits.measure(threads), this_machine(threads)
    hertz = nominal.hertz * found.peaks.get("float32", nominal.peak_flops("float32")) / nominal.peak_flops("float32")
    machine = replace(nominal, hertz=hertz, bandwidth=found.bandwidth)
    ratios: dict[str, list[float]] = {}
    for text in panel:
        progress(text)
        spec = ConvSpec.parse(text)
        ways = {(way.name, way.variant): way for way in _ways(spec, machine)}
        for key, timing in time_engines(spec, list(ways.values()), seconds)[0].items():
            predicted = ways[key].predict_seconds(spec, machine)
            ratios.setdefault(records.name_of(*key), []).append(timing.median / predicted)
    factors = {name: _factor(values) for name, values in sorted(ratios.items())}
    where = f"{nominal.model}, {threads} threads, {datetime.date.today().isoformat()}"
    return Profile(hertz, found.bandwidth / threads, factors, where)


def _factor(ratios: Sequence[float]) -> float:
    """The geometric mean of time over prediction, and half a standard deviation more.

    An engine whose predictions spread more must promise more to be chosen: being wrong costs most where it seemed best.
    """
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(statistics.fmean(logarithms) + CAUTION * statistics.pstdev(logarithms))


def _ways(spec: ConvSpec, machine: Machine) -> list[Engine]:
    """Variants of the engines that the judge may pick, as far as a call is not predicted to take too long."""
    able = [engine for engine in registry.engines().values() if engine.automatic and not engine.why_unsupported(spec)]
    ways = [way for engine in able for way in planning.variants(engine, spec)]
    return [way for way in ways if way.predict_seconds(spec, machine) <= LONGEST_SECONDS]
