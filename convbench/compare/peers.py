"""Who ``convbench compare`` times beside an engine: other libraries, all optional (`convbench.peers`).

Models are built, arrays converted and memory formats changed before.  Every one is asked for the same number of
threads.
"""

from __future__ import annotations

import warnings

from convbench.peers.images import NumPy, OpenCV, OpenCVSeparable, SciPy, SciPyImage, SciPySeparable
from convbench.peers.library import Peer
from convbench.peers.networks import OnnxRuntime, OpenVino, Torch, TorchChannelsLast


class Direct(Peer):
    """This library's own engine `direct`: what its other engines are compared with."""

    name = "direct engine"
    modules = ("convbench",)

    def prepare(self, spec, x, weight, threads):
        """A planned layer at its best."""
        from convbench import conv

        layer = (conv.Conv1d, conv.Conv2d, conv.Conv3d)[spec.ndim - 1](
            weight,
            stride=spec.stride,
            padding=spec.padding,
            dilation=spec.dilation,
            groups=spec.groups,
            engine="direct",
            tuning="measure",
        )
        return lambda: layer(x)


PEERS = (
    Torch(),
    TorchChannelsLast(),
    OnnxRuntime(),
    OpenVino(),
    OpenCV(),
    OpenCVSeparable(),
    NumPy(),
    SciPy("convolve"),
    SciPy("oaconvolve"),
    SciPyImage(),
    SciPySeparable(),
    Direct(),
)


def installed(peers: tuple[Peer, ...] = PEERS) -> tuple[tuple[Peer, ...], dict[str, str | None]]:
    """The peers that can be imported, and every peer's version (None: not installed)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own, about each other
        versions = {peer.name: peer.installed() for peer in peers}
    return tuple(peer for peer in peers if versions[peer.name]), versions
