"""What is compared: groups of named problems, each with its rivals and its goal.

The table is data.  Texts are benchdnn's (``convbench.text``); `Row.source` names the public network,
benchmark or test suite that runs the convolution.  Sources are repositories' files: "benchdnn" is
uxlfoundation/oneDNN, tests/benchdnn/inputs/conv; "OpenCV" opencv/opencv, modules; "XNNPACK"
google/XNNPACK, bench/operators; the others are named in full.
"""

from __future__ import annotations

from dataclasses import dataclass

PEAK_SHARES = {"float32": 0.88, "float64": 0.85}  # the goal of the group "peak", by dtype
COPY_ROW, COPY_SHARE = "image-4096-k3", 0.70  # this row's goal, as a share of a copy's bandwidth
TIE_SECONDS, SHORT_SECONDS = 3e-6, 5e-6  # where a rival takes under 5 µs, 3 µs behind it is no loss


@dataclass(frozen=True)
class Group:
    """Rows that share rivals and a goal.

    Attributes
    ----------
    key, title : str
    peers : tuple of str
        Who is timed, by the names of `convbench.compare.peers`.
    rivals : tuple of str
        Those of them that the goal is about.
    mean, floor : float or None
        The goal: geometric mean and least of (the best rival's time / ours).
    engine : str
        Who computes ours, whatever engine the others are asked for; empty where it is that one.
    apart : tuple of (str, float)
        A further goal: the geometric mean over that peer alone.
    """

    key: str
    title: str
    peers: tuple[str, ...]
    rivals: tuple[str, ...]
    mean: float | None = None
    floor: float | None = None
    engine: str = ""
    apart: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One convolution: its name, its group's key, benchdnn's text, where the sizes are from.

    The weight is a Gaussian where `gaussian` says so, else random numbers.
    """

    name: str
    group: str
    text: str
    source: str
    quick: bool = False
    gaussian: bool = False


_TORCH = ("torch", "torch channels-last")
_NETWORKS = (*_TORCH, "onnxruntime", "openvino")
_SCIPY = ("scipy convolve", "scipy oaconvolve", "scipy ndimage")

GROUPS = (
    Group("dense", "Dense 2-D layers", _NETWORKS, _TORCH, 1.15, 0.95),
    Group("grouped", "Depthwise, grouped, dilated and 3-D", _NETWORKS, _NETWORKS, 2.0, 1.0),
    Group(
        "image",
        "Single-channel images",
        ("opencv", "scipy oaconvolve"),
        ("opencv",),
        3.0,
        1.5,
    ),
    Group(
        "separable",
        "Gaussian filters of images, found to be separable",
        ("opencv separable", "scipy separable"),
        ("opencv separable",),
        2.0,
        1.0,
        "auto",
        (("scipy separable", 8.0),),
    ),
    Group("layers", "3×3 layers of stride 1, as `auto` picks", _NETWORKS, _NETWORKS, 1.6, 1.0, "auto"),
    Group(
        "large", "Large kernels, as `auto` picks", ("opencv", *_SCIPY[:2]), ("opencv", *_SCIPY[:2]), 4.0, 2.0, "auto"
    ),
    Group(
        "channels",
        "Long kernels over many channels, as `auto` picks",
        _NETWORKS[:3],
        _NETWORKS[:3],
        3.0,
        3.0,
        "auto",
    ),
    Group(
        "im2col",
        "Dense 2-D layers by `im2col`, against `direct`",
        ("direct engine",),
        ("direct engine",),
        0.8,
        0.8,
        "im2col",
    ),
    Group(
        "filters",
        "Image filters of public suites, as `auto` picks",
        ("opencv", *_SCIPY, *_NETWORKS),
        ("opencv", *_SCIPY, *_NETWORKS),
        2.0,
        1.0,
        "auto",
    ),
    Group("peak", "Share of the multiply-add peak", _TORCH, _TORCH),
    Group("signal", "Short 1-D signals", ("numpy", *_SCIPY, *_NETWORKS), ("numpy", *_SCIPY, *_TORCH)),
    Group("given", "Given problems", ("numpy", *_SCIPY, "opencv", *_NETWORKS), ()),
)

IMAGE_SIZES = (256, 512, 1024, 2048, 4096)
IMAGE_KERNELS = (3, 5, 7, 9, 11, 13, 15)
SEPARABLE_SIZES = (512, 1024, 2048, 4096)
SEPARABLE_KERNELS = (5, 7, 11, 15, 21, 31, 51, 101)
LARGE_SIZES = (1024, 4096)
LARGE_KERNELS = (31, 63, 127)
BATCHES = (1, 8)
_QUICK = (
    "res2a_branch2b-b1",
    "res5a_branch2c-b1",
    "mobilenet:conv2_2/dw",
    "ssd_300_voc0712:fc6",
    "1d_500x8_same",
    "gaussian-512-k31",
    "auto-res2a_branch2b-b1",
    "large-1024-k31",
    "channels-64-64-k31",
    "im2col-cosmictagger:22",
    "gaussian_512_k25",
)

_RESNET = (
    ("res2a_branch1", "ic64ih56oc256oh56kh1ph0"),
    ("res2b_branch2a", "ic256ih56oc64oh56kh1ph0"),
    ("res3a_branch1", "ic256ih56oc512oh28kh1sh2ph0"),
    ("res3a_branch2a", "ic256ih56oc128oh28kh1sh2ph0"),
    ("res3a_branch2c", "ic128ih28oc512oh28kh1ph0"),
    ("res3b_branch2a", "ic512ih28oc128oh28kh1ph0"),
    ("res4a_branch1", "ic512ih28oc1024oh14kh1sh2ph0"),
    ("res4a_branch2a", "ic512ih28oc256oh14kh1sh2ph0"),
    ("res4a_branch2c", "ic256ih14oc1024oh14kh1ph0"),
    ("res4b_branch2a", "ic1024ih14oc256oh14kh1ph0"),
    ("res5a_branch1", "ic1024ih14oc2048oh7kh1sh2ph0"),
    ("res5a_branch2a", "ic1024ih14oc512oh7kh1sh2ph0"),
    ("res5a_branch2c", "ic512ih7oc2048oh7kh1ph0"),
    ("res5b_branch2a", "ic2048ih7oc512oh7kh1ph0"),
    ("res2a_branch2b", "ic64ih56oc64oh56kh3ph1"),
    ("res3a_branch2b", "ic128ih28oc128oh28kh3ph1"),
    ("res4a_branch2b", "ic256ih14oc256oh14kh3ph1"),
    ("res5a_branch2b", "ic512ih7oc512oh7kh3ph1"),
)

_LAYERS = (
    ("efficientdet:conv53", "mb1ic64ih32oc64oh32kh1ph0", "benchdnn shapes_efficientdet"),
    ("googlenet_v3:mixed_conv_conv2d", "mb16ic192ih35oc64oh35kh1ph0", "benchdnn shapes_googlenet_v3"),
    ("masknet_p1:conv33", "mb1ic512ih64oc12oh64kh1ph0", "benchdnn shapes_maskrcnn_p1"),
    ("ResNet18:5", "mb1ic64ih56oc128oh28kh1sh2ph0", "XNNPACK convolution.cc"),
    ("vgg_19:conv1_2", "mb1ic64ih224oc64oh224kh3ph1", "benchdnn shapes_vgg_19"),
    ("ssd_300_voc0712:conv6_2_mbox_loc", "mb16ic512ih10oc24oh10kh3ph1", "benchdnn shapes_ssd_300_voc0712"),
    ("cosmictagger:22", "mb1ic96ih20iw32oc96oh20ow32kh3kw3ph1pw1", "benchdnn shapes_cosmictagger"),
    ("stable_diffusion:conv8", "mb1ic4ih96oc512oh96kh3ph1", "benchdnn shapes_stable_diffusion"),
    ("vgg_19:conv3_1", "mb1ic128ih56oc256oh56kh3ph1", "benchdnn shapes_vgg_19"),
    ("fwk_dab5bf554af0", "mb1ic128ih32oc256oh16kh3sh2ph1", "benchdnn option_set_fwks_ext_gpu"),
    ("fastrcnn_p1:conv13", "mb1ic128ih77iw96oc128oh38ow47kh3kw3sh2sw2ph0pw0", "benchdnn shapes_fastrcnn_p1"),
    ("SRCNN935:3", "mb1ic32ih374oc1oh370kh5ph0", "XNNPACK convolution.cc"),
    ("deepbench_training:61", "mb1ic256ih20iw84oc512oh9ow41kh5kw5sh2sw2ph1pw1", "DeepBench conv_problems.h"),
    ("general:46", "mb1ic3ih300oc24oh150kh7sh2ph2", "OpenCV dnn/perf/perf_convolution.cpp"),
    ("conv4", "mb1ic64ih60iw80oc64oh60ow80kh7kw7ph3pw3", "benchdnn shapes_segnet"),
    ("alexnet:conv1", "mb2ic3ih227oc96oh55kh11sh4ph0", "benchdnn shapes_alexnet"),
    ("fwk_3224c9c0399f", "mb1ic3ih232oc32oh224kh9ph0", "benchdnn option_set_fwks_ext_gpu"),
    ("general:57", "mb1ic32ih32iw64oc32oh32ow64kh1kw5ph0pw2", "OpenCV dnn/perf/perf_convolution.cpp"),
)

_VGG = (
    ("conv1_2", "ic64ih224oc64oh224"),
    ("conv2_1", "ic64ih112oc128oh112"),
    ("conv2_2", "ic128ih112oc128oh112"),
    ("conv3_1", "ic128ih56oc256oh56"),
    ("conv3_2", "ic256ih56oc256oh56"),
    ("conv4_1", "ic256ih28oc512oh28"),
    ("conv4_2", "ic512ih28oc512oh28"),
    ("conv5_1", "ic512ih14oc512oh14"),
)

_SPARSE = (
    ("xception:conv3_1", "g1024mb1ic1024ih10oc1024oh10kh3ph1", "benchdnn shapes_xception"),
    ("efficientdet:conv12", "g144mb1ic144ih128oc144oh128kh3ph1", "benchdnn shapes_efficientdet"),
    ("mobilenet:conv2_2/dw", "g64mb1ic64ih112oc64oh56kh3sh2ph1", "benchdnn shapes_mobilenet_dw"),
    ("efficientdet:conv33", "g672mb1ic672ih32oc672oh32kh5ph2", "benchdnn shapes_efficientdet"),
    ("fwk_d883fd9c6a88", "g3mb1ic3ih600iw1024oc24oh300ow512kh7kw7sh2sw2ph2pw2", "benchdnn option_set_fwks_ext_gpu"),
    ("31L:stage3_dw13x13", "g1536mb1ic1536ih7oc1536oh7kh13ph6", "RepLKNet replknet.py"),
    ("31B:stage1_dw29x29", "g256mb1ic256ih28oc256oh28kh29ph14", "RepLKNet replknet.py"),
    ("fwk_9e2c24eaf4d1", "g32mb1ic64ih112oc64oh56kh3sh2ph1", "benchdnn option_set_fwks_ext_gpu"),
    ("resnext_101:conv8", "g32mb1ic1024ih56oc1024oh28kh3sh2ph1", "benchdnn shapes_resnext_101"),
    ("fwk_b0c52bebcf49", "g120mb1ic120ih128iw256oc120oh128ow256kh5kw5ph4pw4dh1dw1", "benchdnn option_set_fwks_ext_gpu"),
    ("ssd_300_voc0712:fc6", "mb1ic512ih19oc1024oh19kh3ph6dh5", "benchdnn shapes_ssd_300_voc0712"),
    ("fwk_b89ad9b83283", "mb1ic256iw2264oc256ow2264kw11pw15dw2", "benchdnn option_set_fwks_key_gpu"),
    ("seqlen256", "g768mb16ic768iw128oc768ow128kw128pw127", "flash-fft-conv benchmark_flashfftconv.py"),
    ("L2048_D2048_K5", "g2048mb2ic2048iw2048oc2048ow2048kw5pw2", "flash-fft-conv benchmark_conv1d.py"),
    ("#17", "mb2ic16id16ih14iw14oc48od16oh14ow14kd3kh3kw3pd1ph1pw1", "benchdnn shapes_3d_i3d"),
    ("fwk_7ce6ac15eff1", "mb1ic672id4ih14iw14oc112od4oh14ow14kd3kh1kw1pd1ph0pw0", "benchdnn option_set_fwks_ext_gpu"),
    (
        "movinet:conv_5",
        "g24mb1ic24id8ih112iw112oc24od8oh56ow56kd1kh5kw5sd1sh2sw2pd0ph1pw1",
        "benchdnn shapes_movinet_dw",
    ),
    (
        "richardson_lucy_256x256x32_psf5",
        "mb1ic1id256ih256iw32oc1od256oh256ow32kd5kh5kw5pd2ph2pw2",
        "scikit-image benchmark_restoration.py",
    ),
)

_SIGNALS = (
    ("fir-64x5-same", "mb1ic1iw64oc1ow64kw5pw2", "64 samples, 5 taps"),
    ("fir-256x16-full", "mb1ic1iw256oc1ow271kw16pw15", "256 samples, 16 taps"),
    ("fir-1024x33-same", "mb1ic1iw1024oc1ow1024kw33pw16", "1024 samples, 33 taps"),
    ("fir-4096x65-valid", "mb1ic1iw4096oc1ow4032kw65pw0", "4096 samples, 65 taps"),
    ("conv1d:18", "mb1ic32iw121oc32ow122kw6pw3", "benchdnn shapes_1d"),
    ("1d_500x8_same", "mb1ic1iw500oc1ow500kw8pw4", "SciPy signal.py"),
    ("1d_1025x256_full", "mb1ic1iw1025oc1ow1280kw256pw255", "cuSignal test_convolution.py"),
    ("n50000_taps51", "mb1ic1iw50000oc1ow50000kw51pw50", "SciPy signal_filtering.py"),
    ("1d_4000x2000_full", "mb1ic1iw4000oc1ow5999kw2000pw1999", "SciPy signal.py"),
)

_PEAKS = (
    ("3x3-64@56", "mb1ic64ih56oc64oh56kh3ph1", "ResNet-50 conv2_x"),
    ("3x3-128@28", "mb1ic128ih28oc128oh28kh3ph1", "ResNet-50 conv3_x"),
    ("3x3-256@14", "mb1ic256ih14oc256oh14kh3ph1", "ResNet-50 conv4_x"),
    ("3x3-512@7", "mb1ic512ih7oc512oh7kh3ph1", "ResNet-50 conv5_x"),
    ("3x3-256@56", "mb1ic256ih56oc256oh56kh3ph1", "VGG-16 conv3_2"),
)


_CHANNELS = (
    ("channels-32-64-k2048", "mb1ic32iw10240oc64ow8193kw2048pw0", "julius bench/fftconv.py"),
    ("channels-64-64-k31", "mb1ic64ih128oc64oh128kh31ph15", "64 channels of 128², 31×31 kernels"),
)

_FILTERS = (
    ("2d_7x7", "mb1ic1ih7oc1oh7kh7ph3", "Astropy test_convolve_speeds.py"),
    ("2d_36x13_k13x36_full", "mb1ic1ih36iw13oc1oh48ow48kh13kw36ph12pw35", "SciPy signal.py"),
    ("filter2D_QVGA_k5", "mb1ic1ih240iw320oc1oh240ow320kh5kw5ph2pw2", "OpenCV imgproc/perf/perf_filter2d.cpp"),
    ("2d_512x7_valid", "mb1ic1ih512oc1oh506kh7ph0", "SciPy signal.py"),
    (
        "filter2D_SXGA_k13",
        "mb1ic1ih1024iw1280oc1oh1024ow1280kh13kw13ph6pw6",
        "OpenCV cudafilters/perf/perf_filters.cpp",
    ),
    ("box15_2560x1440", "mb1ic1ih1440iw2560oc1oh1440ow2560kh15kw15ph7pw7", "libcipr benchmarks/README.md"),
    ("gaussian_512_k25", "mb1ic1ih512oc1oh512kh25ph12", "cuCIM cupyx_scipy_ndimage_filter_bench.py"),
    ("matchTemplate_SXGA_t30", "mb1ic1ih1024iw1280oc1oh995ow1251kh30kw30ph0pw0", "OpenCV perf_match_template.cpp"),
    ("2d_256x100_full", "mb1ic1ih256oc1oh355kh100ph99", "cuSignal test_convolution.py"),
    (
        "stackBlur_p1080_k101",
        "mb1ic1ih1080iw1920oc1oh1080ow1920kh101kw101ph50pw50",
        "OpenCV imgproc/perf/perf_blur.cpp",
    ),
    ("filter2D_p1080_k13_c4", "g4mb1ic4ih1080iw1920oc4oh1080ow1920kh13kw13ph6pw6", "OpenCV perf_filters.cpp"),
    ("convolution_3072_k17", "mb1ic1ih3072oc1oh3072kh17ph8", "CUDA samples convolutionSeparable"),
    ("box15_7680x4320", "mb1ic1ih4320iw7680oc1oh4320ow7680kh15kw15ph7pw7", "libcipr benchmarks/README.md"),
    ("pyrDown_p720", "mb1ic1ih720iw1280oc1oh360ow640kh5kw5sh2sw2ph2pw2", "OpenCV imgproc/perf/perf_pyramids.cpp"),
    ("convolve1d_512_k41", "mb1ic1ih512iw512oc1oh512ow512kh1kw41ph0pw20", "cuCIM bench_convolve.py"),
)


def _resnet():
    for batch in BATCHES:
        for name, text in _RESNET:
            yield f"{name}-b{batch}", f"mb{batch}{text}", f"benchdnn shapes_resnet_50, batch {batch}"


def _images():
    for size in IMAGE_SIZES:
        for kernel in IMAGE_KERNELS:
            text = f"mb1ic1ih{size}oc1oh{size}kh{kernel}ph{kernel // 2}"
            yield f"image-{size}-k{kernel}", text, f"{size}² image, {kernel}×{kernel} filter"


def _gaussians():
    for size in SEPARABLE_SIZES:
        for kernel in SEPARABLE_KERNELS:
            text = f"mb1ic1ih{size}oc1oh{size}kh{kernel}ph{kernel // 2}"
            yield f"gaussian-{size}-k{kernel}", text, f"{size}² image, {kernel}×{kernel} Gaussian"


def _layers():
    for name, text, source in _resnet():
        if "kh3" in text and "ih7" not in text:
            yield f"auto-{name}", text, source
    for name, text in _VGG:
        yield f"auto-vgg-{name}", f"mb1{text}kh3ph1", "benchdnn shapes_vgg_19"


def _large():
    for size in LARGE_SIZES:
        for kernel in LARGE_KERNELS:
            text = f"mb1ic1ih{size}oc1oh{size}kh{kernel}ph{kernel // 2}"
            yield f"large-{size}-k{kernel}", text, f"{size}² image, {kernel}×{kernel} kernel of full rank"


def _peaks():
    for name, text, source in _PEAKS:
        yield f"{name}-f32", text, source
    for name, text, source in _PEAKS:
        yield f"{name}-f64", f"--dt=f64 {text}", source


def _table():
    parts = {
        "dense": (*_resnet(), *_LAYERS),
        "grouped": _SPARSE,
        "image": _images(),
        "separable": _gaussians(),
        "layers": _layers(),
        "large": _large(),
        "channels": _CHANNELS,
        "filters": _FILTERS,
        "im2col": ((f"im2col-{name}", text, source) for name, text, source in _LAYERS),
        "peak": _peaks(),
        "signal": _SIGNALS,
    }
    for group, entries in parts.items():
        for name, text, source in entries:
            quick = name in _QUICK or name.startswith(("image-512-k", "3x3-64@56"))
            yield Row(name, group, text, source, quick, group == "separable")


ROWS = tuple(_table())


def chosen(only: str = "", *, quick: bool = False) -> tuple[Row, ...]:
    """The rows whose name or group has `only` in it, or the quick ones among them.

    Raises
    ------
    ValueError
        No row has it.
    """
    found = tuple(row for row in ROWS if only in f"{row.group} {row.name}" and (row.quick or not quick))
    if not found:
        raise ValueError(f"{only!r} is in no row's name; groups are {', '.join(group.key for group in GROUPS[:-1])}")
    return found


def group_of(row: Row) -> Group:
    """The group of a row."""
    return next(group for group in GROUPS if group.key == row.group)
