"""The run: every row checked, then timed, the machine's limits measured between the groups."""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from convbench import conv, data, kernels, settings
from convbench.compare import limits, protocol
from convbench.compare.gauge import machine_gauge
from convbench.compare.memory import measure as measure_memory
from convbench.compare.peers import PEERS, Peer, installed
from convbench.compare.results import COPY, INTO, OURS, PEAK, Comparison, Result
from convbench.compare.rows import COPY_ROW, Row, group_of
from convbench.machine import processor_name
from convbench.spec import ConvSpec

LAYERS = {1: conv.Conv1d, 2: conv.Conv2d, 3: conv.Conv3d}
# A peer's result may differ from ours by that much, in the 2-norm: Winograd's rounding fits, a wrong border does not.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
LOOSE = 1e-2  # half precision
KERNEL_SIGMAS = 6  # standard deviations that a Gaussian's kernel is wide

Progress = Callable[[str], None]


def compare(
    rows: Sequence[Row],
    engine: str = "direct",
    *,
    peers: tuple[Peer, ...] = PEERS,
    strict: bool = False,
    rounds: tuple[int, int] = (protocol.ROUNDS, protocol.MOST_ROUNDS),
    command: str = "convbench compare",
    memory: bool = False,
    progress: Progress = lambda name: None,
) -> Comparison:
    """Time an engine and its peers on `rows`.

    Parameters
    ----------
    rows : sequence of Row
    engine : str
        A name, or "auto".
    peers : tuple of Peer
        Those that are not installed are left out.
    strict : bool
        Alternate call by call (`protocol.strict`) instead of blocks.
    rounds : tuple of int
        Of blocks: so many, and at most, where those say little.
    command : str
        What the report says that made it.
    memory : bool
        Whether to measure what a large image takes, too.
    progress : callable
        Gets the name of each row before it is run, and "" at the end.
    """
    threads = settings.get_num_threads()
    present, versions = installed(peers)
    gauge = machine_gauge()
    timer = protocol.strict if strict else lambda calls: protocol.blocks(calls, rounds[0], gauge, most=rounds[1])
    results, found, last = [], [], None
    with contextlib.ExitStack() as sessions:
        for peer in present:
            sessions.enter_context(peer.session(threads))
        for row in rows:
            progress(row.name)
            if row.group != last:
                found.append(limits.measure(threads))
                last = row.group
            results.append(run(row, engine, present, threads, timer))
    found.append(limits.measure(threads))
    progress("")
    return Comparison(
        tuple(results),
        limits.highest(found),
        limits.lowest(found),
        engine,
        threads,
        strict,
        rounds,
        gauge.repeated,
        gauge.patience > 0,
        processor_name(),
        versions,
        datetime.date.today().isoformat(),
        command,
        measure_memory() if memory else None,
    )


def run(row: Row, engine: str, peers: Sequence[Peer], threads: int, timer) -> Result:
    """Check and time one row.

    Raises
    ------
    ValueError
        The engine does not compute the problem.
    """
    spec = ConvSpec.parse(row.text)
    x, weight = data.sample(spec)
    if row.gaussian:
        weight[...] = kernels.gaussian(spec.kernel[0] / KERNEL_SIGMAS, spec.kernel[0] // 2)
    options = {"stride": spec.stride, "padding": spec.padding, "dilation": spec.dilation, "groups": spec.groups}
    engine = group_of(row).engine or engine
    layer = LAYERS[spec.ndim](weight, **options, engine=engine, tuning="measure")  # the judge at its best
    ours = layer(x)
    calls, notes = {OURS: lambda: layer(x)}, []
    for peer in peers:
        call = _prepared(peer, spec, x, weight, threads) if peer.name in group_of(row).peers else None
        if call is None:
            continue
        error = _difference(np.asarray(call()), ours)
        if error > TOLERANCES.get(spec.dtype, LOOSE):
            notes.append(f"{peer.name} differs from {OURS} by {error:.1e} and is not timed")
        else:
            calls[peer.name] = call
    peak = limits.peak_call(spec.dtype, 2 * spec.macs) if row.group == "peak" else None
    if peak is not None:
        calls[PEAK], _ = peak
    with contextlib.ExitStack() as stack:
        if row.name == COPY_ROW:
            out = np.empty_like(ours)
            calls[INTO] = lambda: layer(x, out=out)
            calls[COPY] = stack.enter_context(limits.copier(x, out, threads))
        timings = timer(calls)
    return Result(row, layer.selection(x.shape).engine, timings, tuple(notes))


def _prepared(peer, spec, x, weight, threads):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        return peer.prepare(spec, x, weight, threads)


def _difference(theirs, ours):
    """‖theirs - ours‖₂ / ‖ours‖₂, infinite where the shapes differ."""
    if theirs.shape != ours.shape:
        return np.inf
    return float(np.linalg.norm((theirs - ours).ravel()) / max(np.linalg.norm(ours.ravel()), np.finfo(np.float32).tiny))
