"""The named problems that tests and benchmarks share: images, layers of real networks, signals.

The table is data: this module imports nothing of the project, so that asv reads today's
problems while it measures yesterday's installation.  Texts are benchdnn's (``convbench.text``).

Sources
-------
image
    One channel, ``padding="same"``, a full-rank kernel: the grid of the winner map.
cnn
    Layers as the papers have them, batch 1: AlexNet (Krizhevsky 2012), VGG-16 (Simonyan 2014),
    GoogLeNet and Inception-v3 (Szegedy 2015), ResNet-50 (He 2015), DeepLab v3 (Chen 2017),
    MobileNet v1 (Howard 2017), EfficientNet-B0 (Tan 2019), C3D (Tran 2015).
signal
    FIR filters from audio rates to room impulse responses, wav2vec 2.0 (Baevski 2020),
    WaveNet (van den Oord 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

SUITES = ("image", "cnn", "signal")
IMAGE_SIZES = (128, 256, 512, 1024)
IMAGE_KERNELS = (3, 5, 7, 9, 11, 15, 21, 31)
QUICK_IMAGES = ((256, 3), (256, 9), (256, 21), (512, 3), (512, 9), (512, 21))
QUICK_LAYERS = ("resnet50-3x3-56", "resnet50-1x1-14", "mobilenet-depthwise-112")
QUICK_SIGNALS = ("audio-fir-129", "room-4801")


@dataclass(frozen=True)
class Problem:
    """One named problem.

    Attributes
    ----------
    name : str
        The key in benchmarks and reports.
    suite : {"image", "cnn", "signal", "given"}
        "given" are those that a user typed.
    text : str
        benchdnn's text; ``ConvSpec.parse`` reads it.
    source : str
        Where the sizes are from.
    quick : bool
        Part of the subset that ``--quick`` takes.
    """

    name: str
    suite: str
    text: str
    source: str
    quick: bool = False


def _images():
    for size in IMAGE_SIZES:
        for kernel in IMAGE_KERNELS:
            text = f"mb1ic1ih{size}oc1oh{size}kh{kernel}ph{kernel // 2}"
            source = f"{size}² photograph, {kernel}×{kernel} filter"
            yield Problem(f"photo-{size}-k{kernel}", "image", text, source, (size, kernel) in QUICK_IMAGES)


_LAYERS = (
    ("alexnet-conv1", "mb1ic3ih227oc96oh55kh11sh4ph0", "AlexNet conv1, 11×11 stride 4"),
    ("vgg16-conv1_1", "mb1ic3ih224oc64oh224kh3ph1", "VGG-16 conv1_1"),
    ("vgg16-conv3_2", "mb1ic256ih56oc256oh56kh3ph1", "VGG-16 conv3_2"),
    ("googlenet-5x5-14", "mb1ic32ih14oc128oh14kh5ph2", "GoogLeNet inception 4e, 5×5"),
    ("inception3-1x7-17", "mb1ic128ih17iw17oc128oh17ow17kh1kw7ph0pw3", "Inception-v3 mixed 6b, 1×7"),
    ("resnet50-stem", "mb1ic3ih224oc64oh112kh7sh2ph3", "ResNet-50 conv1, 7×7 stride 2"),
    ("resnet50-3x3-56", "mb1ic64ih56oc64oh56kh3ph1", "ResNet-50 conv2_x, 3×3"),
    ("resnet50-3x3-28", "mb1ic128ih28oc128oh28kh3ph1", "ResNet-50 conv3_x, 3×3"),
    ("resnet50-3x3-14", "mb1ic256ih14oc256oh14kh3ph1", "ResNet-50 conv4_x, 3×3"),
    ("resnet50-3x3-7", "mb1ic512ih7oc512oh7kh3ph1", "ResNet-50 conv5_x, 3×3"),
    ("resnet50-1x1-14", "mb1ic1024ih14oc256oh14kh1ph0", "ResNet-50 conv4_x, 1×1"),
    ("deeplab3-atrous-12", "mb1ic256ih33oc256oh33kh3ph12dh11", "DeepLab v3 ASPP, 3×3 dilation 12"),
    ("mobilenet-depthwise-112", "g32mb1ic32ih112oc32oh112kh3ph1", "MobileNet v1, depthwise 3×3"),
    ("efficientnet-depthwise-28", "g240mb1ic240ih28oc240oh28kh5ph2", "EfficientNet-B0, depthwise 5×5"),
    ("c3d-conv2", "mb1ic64id16ih56iw56oc128od16oh56ow56kd3kh3kw3pd1ph1pw1", "C3D conv2, 3×3×3 video"),
)

_SIGNALS = (
    ("audio-fir-129", "mb1ic1iw48000oc1ow48000kw129pw64", "a second of audio, 129-tap FIR"),
    ("stereo-fir-1025", "g2mb1ic2iw96000oc2ow96000kw1025pw512", "stereo, two seconds, 1025-tap FIR"),
    ("room-4801", "mb1ic1iw48000oc1ow52800kw4801pw4800", "a second of audio, 0.1 s room impulse response, full"),
    ("long-fir-65", "mb1ic1iw1048576oc1ow1048576kw65pw32", "a million samples, 65-tap FIR"),
    ("wav2vec2-conv2", "mb1ic512iw3199oc512ow1599kw3sw2pw0", "wav2vec 2.0 encoder, second layer"),
    ("wavenet-dilated-512", "mb1ic32iw16000oc64ow15488kw2pw0dw511", "WaveNet, 2 taps, dilation 512"),
)

PROBLEMS = (
    *_images(),
    *(Problem(name, "cnn", text, source, name in QUICK_LAYERS) for name, text, source in _LAYERS),
    *(Problem(name, "signal", text, source, name in QUICK_SIGNALS) for name, text, source in _SIGNALS),
)


def chosen(suite: str | None = None, *, quick: bool = False) -> tuple[Problem, ...]:
    """The problems of one suite or of all, or the quick ones among them.

    Raises
    ------
    ValueError
        An unknown suite.
    """
    if suite is not None and suite not in SUITES:
        raise ValueError(f"suite {suite!r} is unknown; {', '.join(SUITES)} are accepted")
    return tuple(problem for problem in PROBLEMS if suite in (None, problem.suite) and (problem.quick or not quick))


def named(name: str) -> Problem | None:
    """The problem of that name, or None."""
    return next((problem for problem in PROBLEMS if problem.name == name), None)


def image_grid(problem: Problem) -> tuple[int, int] | None:
    """(image size, kernel size) of a problem of the image suite, else None."""
    if problem.suite != "image":
        return None
    size, kernel = problem.name.removeprefix("photo-").split("-k")
    return int(size), int(kernel)
