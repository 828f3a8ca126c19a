"""Every way to compute a convolution, a file each; installed as ``convbench.engines``.

`BUILTIN` is the ordered table: special engines first, the definition last.  The values are
strings, so nothing is imported until it is used.  Calling the module, ``convbench.engines()``,
gives every engine there is (`convbench.registry.engines`): the name is both the package that
holds them and the function that lists them.
"""

import sys
from types import ModuleType

BUILTIN = {
    "direct": "convbench.engines.direct:Direct",
    "winograd": "convbench.engines.winograd:Winograd",
    "winograd4": "convbench.engines.winograd:Winograd4",
    "winograd8": "convbench.engines.winograd:Winograd8",
    "im2col": "convbench.engines.im2col:Im2col",
    "fft": "convbench.engines.fft:FFT",
    "separable": "convbench.engines.separable:Separable",
    "toeplitz": "convbench.engines.toeplitz:Toeplitz",
    "reference": "convbench.engines.reference:Reference",
}


class _CallablePackage(ModuleType):
    def __call__(self):
        from convbench.registry import engines

        return engines()


sys.modules[__name__].__class__ = _CallablePackage
