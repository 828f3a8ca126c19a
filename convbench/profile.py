"""What was measured of the machine once, so that predictions fit it: its profile.

An engine predicts from its own counts of operations and bytes, at the clock rate and bandwidth that `Machine` names,
with constants that were fitted on one machine.  A profile holds that machine's measured clock and bandwidth and, for
each engine and variant, a *factor*: how many times its predictions the measured times are, in the geometric mean and
half a standard deviation more, over a panel of problems (`convbench.calibration`).  The judge multiplies by it.  So an
engine that another processor runs half as well is predicted to take twice as long there.

``convbench calibrate`` writes the user's profile, one for each environment that records know; until then the shipped
one serves (`SHIPPED`).  Deterministic choices take the shipped factors on every machine.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from convbench import records, settings
from convbench.engine import Engine
from convbench.machine import DEFAULT_PROFILE, assumed, this_machine
from convbench.spec import ConvSpec

FOLDER = "profiles"  # in the directory of the records
SCHEMA = 1


@dataclass(frozen=True)
class Profile:
    """A machine as measured.

    Attributes
    ----------
    hertz : float
        The clock rate that its multiply-add peak comes from, all threads busy.
    bandwidth : float
        Bytes per second of a thread, read and written, of a copy past the caches by all of them.
    factors : dict of str to float
        Measured / predicted time, by the names that records give to engines and variants; 1 where one is missing.
    measured : str
        Where and when.
    """

    hertz: float
    bandwidth: float
    factors: Mapping[str, float] = field(default_factory=dict)
    measured: str = ""

    def __post_init__(self):
        numbers = {"hertz": self.hertz, "bandwidth": self.bandwidth, **self.factors}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name} is {value!r} in a profile; a positive finite number is accepted")

    def __hash__(self):
        return hash((self.hertz, self.bandwidth, *sorted(self.factors.items())))

    def factor(self, name: str) -> float:
        """What predictions of an engine, or "engine, variant", are multiplied by."""
        return self.factors.get(name, 1.0)


def path() -> Path:
    """The file of the user's profile."""
    return records.directory() / FOLDER / f"{records.hash_of(records.environment())}.json"


def load() -> Profile:
    """The user's profile, or the shipped one."""
    return _loaded(records.directory(), settings.get_num_threads()) or SHIPPED


def save(profile: Profile) -> Path:
    """Write the user's profile; returns the file.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "environment": records.environment(), "profile": asdict(profile)}
    records.write_whole(place, records.sealed(content))
    forget()
    return place


def predicted_seconds(engine: Engine, spec: ConvSpec) -> float:
    """An engine's prediction for the machine at hand, or for the fixed one where choices are deterministic."""
    # Calibration has no circular problems: their engines are the same code on fewer positions.
    name = records.name_of(engine.name, "" if engine.takes_circular else engine.variant)
    if settings.is_deterministic():
        with assumed(DEFAULT_PROFILE):
            return SHIPPED.factor(name) * float(engine.predict_seconds(spec, DEFAULT_PROFILE))
    profile = load()
    return profile.factor(name) * float(engine.predict_seconds(spec, _machine(settings.get_num_threads(), profile)))


def copying_seconds(bytes: int) -> float:
    """Predicted seconds of writing so many bytes and reading them again, on the same machine."""
    if settings.is_deterministic():
        return 2 * bytes / DEFAULT_PROFILE.bandwidth
    return 2 * bytes / _machine(settings.get_num_threads(), load()).bandwidth


def forget() -> None:
    """Read the profile again when it is next needed."""
    _loaded.cache_clear()


@lru_cache(maxsize=16)
def _machine(threads, profile):
    return replace(this_machine(threads), hertz=profile.hertz, bandwidth=profile.bandwidth * threads)


@lru_cache(maxsize=16)
def _loaded(directory, threads):
    """The profile for so many threads, None where there is none that is of this environment; kept until `forget`."""
    place = path()
    try:
        content = records.unsealed(place.read_text())
        if content["schema"] != SCHEMA or content["environment"] != records.environment():
            raise ValueError("it describes another environment")
        return Profile(**content["profile"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, *records.MALFORMED) as error:
        warnings.warn(f"the profile {place} can't be used, and the shipped one serves ({error})", RuntimeWarning, 3)
        return None


#: About the geometric mean of three calibrations, but for those set by hand after a look at many choices: fft, whose
#: time depends on what else runs (with 0.86 the four costliest of 356 choices were fft, with 0.95 the costliest one),
#: and Winograd's, which layers of 64 and more channels would have lower (0.6 to 0.8), those of a few channels higher.
SHIPPED = Profile(
    hertz=4.22e9,
    bandwidth=24e9,
    factors={
        "direct, dense": 1.15,
        "direct, product": 1.07,
        "direct, wide": 1.24,
        "fft": 1.10,
        "im2col": 0.98,
        "separable": 1.38,
        "toeplitz": 0.72,
        "winograd": 1.05,
        "winograd4": 1.15,
        "winograd8": 0.95,
    },
    measured="AMD EPYC (Zen 5), 2 threads, 2026-11-26",
)
