"""Other libraries as engines: PyTorch, ONNX Runtime, OpenVINO, OpenCV, SciPy, where a program asks for them.

>>> import convbench
>>> convbench.peers.enable("torch")                       # now engine="torch" works, and verify shows it
>>> convbench.conv2d(x, w, engine="torch")
>>> convbench.peers.enable("torch", automatic=True)       # and engine="auto" may pick it
>>> convbench.peers.disable("torch")

Until then none is imported, listed or timed.  ``pip install convbench[peers]`` brings the libraries.
"""

from __future__ import annotations

import warnings

from convbench import registry

# Known names do not depend on what is installed: benchmarks have them as parameters.
NAMES = ("torch", "onnxruntime", "openvino", "opencv", "scipy")


def enable(*names: str, automatic: bool = False) -> None:
    """Import libraries and register them as engines; those that are registered take the new setting.

    Parameters
    ----------
    names : str
        Of `NAMES`.
    automatic : bool, default False
        Whether ``engine="auto"`` may pick them, where they pass the filter that every engine has to: one that may
        spread a NaN, as opencv and scipy do where they transform, is never picked.

    Raises
    ------
    ValueError
        No name, an unknown one, or one that another engine has.
    ModuleNotFoundError
        A library is not installed; none of the names is registered then.
    """
    from convbench.peers.adapters import PeerEngine

    chosen = [_adapter(name) for name in _known(names)]
    for adapter in chosen:
        other = registry.engines().get(adapter.peer.name)
        if other is not None and not isinstance(other, PeerEngine):
            raise ValueError(f"{other!r} is no peer of that name; unregister it to enable {adapter.peer.name!r}")
        why = why_missing(adapter.peer.name)
        if why:
            raise ModuleNotFoundError(why, name=adapter.peer.modules[0])
    for adapter in chosen:
        registry.register(adapter(automatic), replace=True)


def disable(*names: str) -> None:
    """Take them out of the registry, all where no name is given; those that were not enabled stay out.

    Raises
    ------
    ValueError
        An unknown name.
    """
    from convbench.peers.adapters import PeerEngine

    for name in _known(names) if names else NAMES:
        if isinstance(registry.engines().get(name), PeerEngine):
            registry.unregister(name)


def enable_installed(names) -> None:
    """Enable those of `names` that are peers, not enabled yet, and installed: what measures them skips the others."""
    for name in names:
        if name in NAMES and name not in registry.engines() and why_missing(name) is None:
            enable(name)


def why_missing(name: str) -> str | None:
    """Why that peer cannot be enabled here, as a sentence, or None; it is imported to know."""
    from convbench.peers.library import INSTALL

    peer = _adapter(*_known((name,))).peer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own, about each other
        found = peer.installed()
    return None if found else f"{name} needs {' and '.join(peer.modules)} to be installed; {INSTALL}"


def _known(names):
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise ValueError(
            f"peer {', '.join(map(repr, unknown)) or 'of no name'} is unknown; {', '.join(NAMES)} are accepted"
        )
    return names


def _adapter(name):
    from convbench.peers import adapters

    kinds = (
        adapters.TorchEngine,
        adapters.OnnxRuntimeEngine,
        adapters.OpenVinoEngine,
        adapters.OpenCVEngine,
        adapters.SciPyEngine,
    )
    return dict(zip(NAMES, kinds, strict=True))[name]
