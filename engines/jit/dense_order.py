"""In which order a round of the dense kernel multiplies its inputs.

Neighbouring inputs are multiplied by neighbouring taps for the same pixel: in the order of the inputs its sum would be
needed again after a few multiply-adds, each of which takes four cycles.  So parts of a row take turns.
"""

import itertools

from .dense_tiling import parts

#: Parts of a row that take turns where two multiply-adds begin per cycle, for rows of at least so many inputs.  Speed
#: over one part, with two, three, four and six: 3 -> 64 channels at 224x224, 7x7, stride 2, 1.06, 1.07, 1.07, 1.06,
#: 32 -> 32 at 64x64, 5x5, 1.11, 1.11, 1.10, 1.10, 128 -> 128 at 28x28, 3x3, 1.03, 1.07, 1.04, 0.81 (sums and weights
#: take all registers there).  Each part with columns of its own, so that an input of two is broadcast twice, 1.09,
#: 1.07, 1.02 where three parts gave 1.19, 1.13, 1.07 in the same minutes (one thread, Cascade Lake, November 2026).
PARTS, LEAST_INPUTS = 3, 9


def in_turns(inputs, run, multiplies):
    """The inputs that `Run.inputs` finds, as pairs of a place and its products, in the order of their use.

    It depends on the run and the columns of a tile only: so does the order of a pixel's sum.
    """
    pairs = list(inputs.items())
    if multiplies == 1 or run.taps == 1 or run.dilation > 1 or len(pairs) < LEAST_INPUTS:
        return pairs
    each = iter(pairs)
    streams = [list(itertools.islice(each, size)) for size in parts(len(pairs), PARTS)]
    return [pair for turn in itertools.zip_longest(*streams) for pair in turn if pair]
