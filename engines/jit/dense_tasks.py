"""The tasks of a dense plan: which tiles of an image, and which blocks of output channels, a thread takes at once."""

import dataclasses
import math

import numpy as np

from convbench import settings

from .dense_kernel import TASK
from .dense_layout import Layout, shared
from .dense_shape import BAND_SHARE, Shape
from .dense_tiling import Tiling, in_halves, parts
from .records import table
from .target import cache_bytes

#: How much more work, in parts of all, one half of the tasks may be than the other.
MOST_LEAD = 0.1


@dataclasses.dataclass(frozen=True)
class Work:
    """What is cut into tasks.

    Attributes
    ----------
    shape : Shape
    layout : Layout
    tiling : Tiling
    itemsize : int
    blocks : int
        Of output channels, of all groups.
    far : bool
        Whether weights come from beyond the second-level cache.
    """

    shape: Shape
    layout: Layout
    tiling: Tiling
    itemsize: int
    blocks: int
    far: bool

    def position_ends(self, count):
        """Where tasks' positions end, of `count`: with (slice and band), or, of one row or in place, anywhere.

        What reads its inputs more than once rather than weights that are far: 1024 -> 1024 channels at 7x7, 3x3, 3.7
        ms, 4.1 where tasks are cut by positions as far as that goes (Zen 4, November 2026).
        """
        shape, layout, columns = self.shape, self.layout, len(self.tiling.columns)
        if layout.copying and shape.output[1] > 1:
            return np.cumsum(np.outer(layout.slice_groups, layout.band_groups)) * columns
        if layout.copying:
            others = shape.batch * shape.output[0] * self.blocks
            pieces = in_halves(parts(columns, min(columns, math.ceil(layout.wanted_tasks() / others))))
            return np.cumsum(np.tile(pieces, shape.output[0]))
        seen = shape.group_channels * self.itemsize * math.prod(shape.spatial)
        few = math.ceil(seen / (BAND_SHARE * cache_bytes()))
        if shape.groups > 1 or (self.far and math.prod(shape.kernel) > 1):
            wanted = max(few, math.ceil(layout.wanted_tasks() / (shape.batch * self.blocks)))
            wanted = wanted if wanted == 1 else shared(wanted, shape.batch)
        else:
            wanted = shared(max(few, math.ceil(layout.wanted_tasks() / shape.batch)), shape.batch)
        return np.cumsum(in_halves(parts(count, min(count, wanted))))

    def _chunks(self, bands):
        """Ranges of blocks that one task computes: all, or fewer where images and bands alone make too few tasks.

        The longer ones come first in both halves: 512 -> 512 at 7x7, 3x3, float64, where one half had 12 blocks and the
        other 10: 1007 and 920 us (Zen 5, November 2026).
        """
        layout = self.layout
        wanted = math.ceil(layout.wanted_tasks() / (self.shape.batch * bands))
        count = min(self.blocks, max(layout.least_chunks(), wanted))
        ends = np.cumsum(in_halves(parts(self.blocks, count)))
        return np.concatenate([[0], ends[:-1]]), ends

    def tasks(self, ends):
        """A record for each (image, slice and band, chunk of blocks), in the order in which threads take them.

        `ends` says where positions of each slice and band end.
        """
        shape, layout, item = self.shape, self.layout, self.itemsize
        starts = np.concatenate([[0], ends[:-1]])
        image = np.arange(shape.batch)[:, None, None]
        part = np.arange(len(ends))[:, None]
        begin = np.array([begin for begin, _ in layout.bands()])
        pieces = len(ends) // (len(layout.slice_groups) * len(begin)) if layout.copying else 1
        band = part // pieces
        block, block_end = self._chunks(len(ends))
        per_group = len(self.tiling.vectors)
        first = block // per_group * shape.group_channels
        count = -(-block_end // per_group) * shape.group_channels - first
        source, copied = layout.x_strides[1] * item, layout.read_strides[1] * item
        chunk = block if shape.groups > 1 else 0 * block
        rows = {
            "x": image * layout.x_strides[0] * item,
            "out": image * layout.out_strides[0] * item,
            "position": starts[:, None],
            "position_end": ends[:, None],
            "block": block,
            "block_end": block_end,
            "slice": np.take(layout.first_slices(), band // len(begin), mode="clip") * shape.stride[0]
            - shape.padding[0][0],
            "row": begin[band % len(begin)] * shape.stride[1] - shape.padding[1][0],
            "lines": shape.spatial[2] if shape.last else count,
            "length": count if shape.last else shape.spatial[2],
            "first": first * source,
            "shift": -first * copied,
            "key": (image * len(ends) + band) * self.blocks + chunk,
        }
        tasks = table(TASK, rows)
        work = np.broadcast_to((ends - starts)[:, None] * (block_end - block), tasks.shape[:-1])
        return tasks.reshape(-1, len(TASK))[self._turns(work)]

    def _turns(self, work):
        """Tasks so that each thread stays with a band of input, which it copies, while it computes chunk after chunk.

        Half the threads begin with the first half of the tasks.  64 -> 64 channels at 56x56, 3x3, two threads that take
        turns: band after band 505, each its own 514 GFLOP/s (Zen 5, November 2026).

        Where the first half of the bands is much more work than the second (8 and 6 rows of 256 -> 256 channels at
        14x14, float64: 1.07 ms, 0.96 so), each half of the threads computes half the channels.  And where weights are
        far and no band is copied, so that each core reads half of them: 1024 -> 2048 channels at 14x14, 1x1, stride 2,
        520 and 449 us (Zen 5).  Bands would be copied twice.
        """
        threads = math.ceil(settings.get_num_threads() / 2)
        band, chunk = np.divmod(np.arange(work.size), work.shape[-1])
        turns = np.lexsort((band % threads, chunk, band // threads))
        others = np.lexsort((band, chunk))
        lead, other = _lead(work.ravel()[turns]), _lead(work.ravel()[others])
        if self.far and not self.layout.copying:
            return others if other <= max(MOST_LEAD, lead) else turns
        return turns if lead <= max(MOST_LEAD, other) else others


def _lead(work):
    """How much more of the work is in one half of the tasks than in the other, in parts of all of it."""
    return abs(work[: (len(work) + 1) // 2].sum() - work[(len(work) + 1) // 2 :].sum()) / max(1, work.sum())
