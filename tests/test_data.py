"""New outputs."""

import numpy as np
import pytest

from convbench.data import ALIGNED_BYTES, empty


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "complex128"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 5), (1, 7, ALIGNED_BYTES), (2, ALIGNED_BYTES // 2)])
def test_large_outputs_begin_on_a_cache_line(shape, dtype):
    for _ in range(5):
        made = empty(shape, dtype)
        assert made.shape == shape
        assert made.dtype == dtype
        assert made.flags.c_contiguous
        assert made.flags.writeable
        assert made.nbytes < ALIGNED_BYTES or made.ctypes.data % 64 == 0
        made[...] = 1
        assert np.all(made == 1)
