"""Measure problems: plan every engine, hold it to the reference, time all of them in turn.

A 2-D problem of one or three channels gets a photograph's pixels, any other one random numbers.
The weights are random, so that no engine gains from a kernel's special structure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache

import numpy as np

from convbench import images, peers, planning, profile, registry, settings
from convbench.data import sample
from convbench.engine import Engine
from convbench.machine import this_machine
from convbench.selection import select
from convbench.spec import ConvSpec
from convbench.timing import interleaved_samples, summarise, thinned
from convbench.verify import verify

from .session import Session

MAX_WORKSPACE = 1 << 30  # bytes; an engine that needs more of them is not measured
MAX_PREDICTED_SECONDS = 1.0  # of one call


class RefusedError(Exception):
    """The engine does not take part; the message is the reason."""


def measure_all(session: Session) -> dict[str, dict]:
    """Measure every problem of a session; results by problem name, as `measure` gives them."""
    session.note("begin", problems=len(session.problems))
    peers.enable_installed(session.engines)
    results = {}
    for name, text in session.problems:
        session.note("problem", name=name)
        results[name] = measure(ConvSpec.parse(text), session)
        session.note("done", name=name, **results[name])
        print(name, flush=True)  # asv's time limit is one of silence
    return results


def measure(spec: ConvSpec, session: Session) -> dict:
    """Measure one problem.

    Returns
    -------
    dict
        ``text``, ``auto`` (the engine that the judge picks unmeasured), ``wall`` (seconds spent)
        and ``engines``: by name a dict of ``refused`` and, where that is None, ``median``, ``q1``,
        ``q3``, ``samples`` and ``times`` (some samples) of the fastest ``variant``, ``modelled`` (the median of the
        variant that is predicted to be the fastest), ``variants`` (medians, quartiles and samples of all),
        ``plan_seconds`` (planning the fastest variant once, code generation included), ``error``, ``bound``,
        ``agrees``, ``workspace_bytes`` and ``version``.
    """
    begin = time.perf_counter()
    entries, calls, plan_seconds = {}, {}, {}
    x, weight = arrays(spec, session.image)
    for name in session.engines:
        try:
            engine = accepted(name, spec)
        except RefusedError as refusal:
            entries[name] = {"refused": str(refusal)}
            continue
        for way in _ways(engine, spec):
            start = time.perf_counter()
            calls[name, way.variant] = planned(way, spec, x, weight)
            plan_seconds[name, way.variant] = time.perf_counter() - start
        entries[name] = {"refused": None, "version": engine.version}
        entries[name]["workspace_bytes"] = planning.workspace_bytes(engine, spec)
    if calls:
        for result in verify(spec, engines=dict.fromkeys(name for name, _ in calls)).results:
            entries[result.engine].update(error=result.error, bound=result.bound, agrees=bool(result.ok))
        for (name, variant), samples in interleaved_samples(calls, session.seconds).items():
            _enter(entries[name], variant, samples, plan_seconds[name, variant])
    wall = time.perf_counter() - begin
    return {"text": str(spec), "auto": unmeasured_choice(spec), "wall": wall, "engines": entries}


def _ways(engine, spec):
    """The engine's variants, first the one that the judge picks unmeasured."""

    def predicted(way):
        return profile.predicted_seconds(way, planning.engine_spec(way, spec))

    return sorted(planning.variants(engine, spec), key=predicted)


def _enter(entry, variant, samples, plan_seconds):
    """Add a variant's timing to its engine's entry; the judge's choice comes first."""
    timing = asdict(summarise(samples))
    entry.setdefault("modelled", timing["median"])
    entry.setdefault("variants", {})[variant] = timing
    if timing["median"] <= entry.get("median", timing["median"]):
        entry.update(timing, times=thinned(samples), variant=variant, plan_seconds=plan_seconds)


def prepare_one(session: Session, name: str, engine: str) -> Callable[[], object]:
    """One engine's planned call on the problem of that name; RefusedError where it does not take part."""
    peers.enable_installed([engine])
    spec = ConvSpec.parse(dict(session.problems)[name])
    chosen = accepted(engine, spec)
    return planned(chosen, spec, *arrays(spec, session.image))


def planned(engine: Engine, spec: ConvSpec, x: np.ndarray, weight: np.ndarray) -> Callable[[], object]:
    """A call without arguments that computes `spec` into a buffer of its own."""
    plan = planning.make_plan(engine, spec, weight)
    out = np.empty(spec.output_shape, spec.dtype)
    return lambda: plan(x, out)


def accepted(name: str, spec: ConvSpec) -> Engine:
    """The engine of that name; RefusedError where it is missing, unable, too large or too slow."""
    try:
        engine = registry.get(name)
    except ValueError:
        raise RefusedError(_why_absent(name)) from None
    inner = planning.engine_spec(engine, spec)
    reason = engine.why_unsupported(inner) or planning.why_inexact(engine, spec)
    if reason:
        raise RefusedError(reason)
    needed = planning.workspace_bytes(engine, spec)
    if needed > MAX_WORKSPACE:
        raise RefusedError(f"{name} needs {needed >> 20} MiB of workspace; {MAX_WORKSPACE >> 20} MiB are allowed")
    seconds = engine.predict_seconds(inner, this_machine(settings.get_num_threads()))
    if seconds > MAX_PREDICTED_SECONDS:
        raise RefusedError(
            f"{name} is predicted to take {seconds:.1f} s a call; {MAX_PREDICTED_SECONDS:g} s are allowed"
        )
    return engine


def _why_absent(name):
    return (peers.why_missing(name) if name in peers.NAMES else None) or f"{name} is not installed"


def arrays(spec: ConvSpec, image: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Input and weight of a problem: pixels where it is an image, random numbers elsewhere."""
    x, weight = sample(spec)
    if spec.ndim == 2 and spec.in_channels in (1, 3) and np.dtype(spec.dtype).kind == "f":
        x[...] = photograph(image, spec.in_channels, *spec.spatial)
    return x, weight


@lru_cache(maxsize=8)
def photograph(image: str, channels: int, height: int, width: int) -> np.ndarray:
    """(channels, height, width) of a photograph, the sample where `image` is empty."""
    pixels = images.load(image or images.sample_path())
    if channels == 1:
        return images.resize(images.grey(pixels), height, width)[np.newaxis]
    planes = pixels if len(pixels) == channels else np.repeat(pixels, channels, axis=0)
    return np.stack([images.resize(plane, height, width) for plane in planes])


def unmeasured_choice(spec: ConvSpec) -> str:
    """The engine that prediction alone picks, whatever is recorded; empty where every engine refuses."""
    able = [candidate for candidate in select(spec).candidates if candidate.refused is None]
    return min(able, key=lambda candidate: candidate.predicted).engine if able else ""
