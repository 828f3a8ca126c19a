"""Convolution with pluggable engines, and a judge that picks the fastest per input size.

>>> import numpy as np, convbench
>>> x = np.random.rand(1, 3, 224, 224).astype("float32")
>>> w = np.random.rand(64, 3, 7, 7).astype("float32")
>>> y = convbench.conv2d(x, w, stride=2, padding=3)
>>> layer = convbench.Conv2d(w, stride=2, padding=3)   # planned once per input shape
>>> print(layer.selection(x.shape))                    # which engine, and why
"""

import importlib

from convbench import data, kernels, registry  # noqa: F401  (reachable after ``import convbench``)
from convbench.candidates import Selection
from convbench.conv import Conv1d, Conv2d, Conv3d
from convbench.engine import Engine, Plan
from convbench.functional import clear_cache, conv1d, conv2d, conv3d, explain
from convbench.plans import cache_info, set_cache_limit
from convbench.registry import register, unregister
from convbench.selection import NoRecordError, select
from convbench.settings import (
    deterministic,
    get_num_threads,
    get_tuning_seconds,
    set_default_engine,
    set_deterministic,
    set_num_threads,
    set_planning_effort,
    set_tuning_seconds,
    use_engine,
)
from convbench.shapes import output_shape, parameter_count, receptive_field
from convbench.spec import ConvSpec
from convbench.verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvSpec",
    "Engine",
    "NoRecordError",
    "Plan",
    "Selection",
    "Verification",
    "cache_info",
    "clear_cache",
    "conv1d",
    "conv2d",
    "conv3d",
    "deterministic",
    "engines",
    "explain",
    "get_num_threads",
    "get_tuning_seconds",
    "output_shape",
    "parameter_count",
    "receptive_field",
    "register",
    "select",
    "set_cache_limit",
    "set_default_engine",
    "set_deterministic",
    "set_num_threads",
    "set_planning_effort",
    "set_tuning_seconds",
    "unregister",
    "use_engine",
    "verify",
]

_LAZY = ("engines", "matrices", "images", "peers", "report", "problems")


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f"convbench.{name}")
    raise AttributeError(f"module 'convbench' has no attribute {name!r}")
