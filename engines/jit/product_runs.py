"""In which order a product asks for the inputs and the outputs of tiles to come: in that of memory.

A tile reads two or three lines of each of many planes, and writes as many.  Asked for so, tile after tile, each line
takes memory twice as long as the neighbour of the one before: of planes of 35x35, two lines here and there take 20 ns
each on one core, twelve together 13, whole planes 10, as much as of one long array; the processor itself fetches ahead
what follows within a page.  So some tiles of pixels are a *run*: while they are computed, the next run's planes are
asked for, one after the other, each plane's lines in their order, a few lines by each few rounds, and so are the lines
that the next run's sums go to.

Two threads, times of tile after tile / of runs, hot and caches cold, in several processes: 192 -> 64 channels at 35x35,
batch 16, 1.14 to 1.28 and 1.13 to 1.32, with inputs alone in runs 1.06 and 1.12; 192 -> 96 1.23 and 1.23; at 56x56,
batch 8, 256 -> 64 1.01 to 1.21 and 1.02 to 1.20, 128 -> 32 1.15 and 1.13, 128 -> 96 1.07 and 1.06, 128 -> 128, which
compute for longer, 0.99 and 0.98.  What is nearer gains cold, and loses hot: 96 -> 48 at 80x80 0.93 and 1.09, 64 -> 64
at 56x56 0.91 to 1.04 and 0.99 to 1.27.  Runs that the second-level cache does not hold twice: 1024 -> 256 at 14x14,
batch 8, 0.78 and 0.80, 128 -> 512 at 28x28 0.75 and 0.90.  Where outputs go past the caches, runs of inputs gain
nothing: 64 -> 256 at 56x56, batch 8, 0.88 and 1.11 (Cascade Lake, November 2026).
"""

import dataclasses
import math

import numpy as np

from .ahead import LINE_BYTES, SMALL_CACHE
from .target import cache_bytes

#: Tiles of a run: 2 gain nothing in layers that do not fit 4, 512 -> 128 channels at 28x28, 256 -> 96 at 35x35, and 8
#: are behind in each of the layers above.
TILES = 4
#: Part of the second-level cache for a run and the next one, their inputs and outputs.
CACHE_SHARE = 0.5
#: Output channels at most, and how many times the second-level cache inputs and outputs take at least.
MOST_OUTPUTS, LEAST_CACHES = 96, 4
#: How many tiles more than an image's whole runs may have: they are asked for, too.
MOST_WASTE = 1.1


@dataclasses.dataclass(frozen=True)
class Run:
    """Tiles that belong together.

    Attributes
    ----------
    tiles : int
    steps : int
        In which each tile of channels asks for its share.
    inputs, outputs : int
        Neighbouring lines, of a plane of either, that a step asks for.
    """

    tiles: int
    steps: int
    inputs: int
    outputs: int

    def following(self, count):
        """The first tile of the run after each tile's, of so many; `count` itself for the last run."""
        return np.minimum((np.arange(count) // self.tiles + 1) * self.tiles, count)


def places(steps, lines, planes, plane_bytes, line_bytes):
    """From where on each of some `steps` asks for lines of a plane, from the run's first line on (bytes).

    `lines` are those of a step and of a run.  Steps that are left over ask for the last plane's again, which are
    there.
    """
    each, whole = lines
    plane, piece = np.divmod(np.arange(steps), math.ceil(whole / each))
    at = plane * plane_bytes + piece * each * line_bytes
    return np.where(plane < planes, at, (planes - 1) * plane_bytes)


def choose(cut, inputs, outputs, rounds, multiplies, nbytes):
    """The `Run` of a product that copies its inputs, or None where each tile asks for the next one's.

    Parameters
    ----------
    cut : product_tiling.Cut
        Whose tiles of channels are all in one task.
    inputs, outputs : int
        Channels.
    rounds : int
        Of k, which make a step.
    multiplies : int
        That begin in a cycle: with one, as on Zen 4, nothing was measured, nor with a larger first-level cache.
    nbytes : int
        Of all inputs and outputs.
    """
    if multiplies == 1 or cache_bytes(1) > SMALL_CACHE or inputs % rounds:
        return None
    if outputs > MOST_OUTPUTS or nbytes < LEAST_CACHES * cache_bytes():
        return None
    lines, count, steps = TILES * max(cut.vectors), len(cut.vectors), inputs // rounds
    fits = 2 * (inputs + outputs) * lines * LINE_BYTES <= CACHE_SHARE * cache_bytes()
    if not fits or math.ceil(count / TILES) * TILES > MOST_WASTE * count:
        return None
    turns = TILES * len(cut.channels) * steps
    return Run(TILES, steps, *(_lines_of_step(lines, planes, turns) for planes in (inputs, outputs)))


def _lines_of_step(lines, planes, steps):
    """So many lines, a power of two, that so many steps are enough for some `lines` of each plane."""
    each = 1
    while planes * math.ceil(lines / each) > steps:
        each *= 2
    return each
