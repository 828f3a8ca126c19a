"""Problem texts: benchdnn's descriptor, its options, and oneDNN's verbose lines.

    [--dt=f64 ][--stag=axb --dtag=axb ]g32mb1ic64ih56oc64oh56kh3sh2ph1

``mb`` batch, ``g`` groups, ``i``/``o``/``k``/``s``/``p``/``d`` + ``d``/``h``/``w`` for input,
output, kernel, stride, low padding and dilation (counted from 0) per axis, ``ic``/``oc``
channels in all groups.  An axis of which nothing is given is the axis before it; on an axis that
is given, a missing stride is 1, a missing dilation 0.  The output size fixes the high padding, and
half of all padding is the low one where it is missing; without an output size that is 0.  Grammar:
oneDNN, tests/benchdnn/doc/knobs_conv.md and driver_conv.md, and ``str2desc`` in conv/conv_aux.cpp.

Two extensions for what benchdnn has no name for: ``--dt=`` also takes s16, u16, u32, s64, u64,
c64 and c128, and ``--pad=circular`` repeats the input in its padding.
"""

from __future__ import annotations

import re

from convbench.spec import PADDING_MODES, ConvSpec, extent, output_size

DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "bf16": "bfloat16",
    "s8": "int8",
    "u8": "uint8",
    "s16": "int16",
    "u16": "uint16",
    "s32": "int32",
    "u32": "uint32",
    "s64": "int64",
    "u64": "uint64",
    "c64": "complex64",
    "c128": "complex128",
}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
CHANNELS_LAST_TAGS = ("axb", "acb", "acdb", "acdeb", "nwc", "nhwc", "ndhwc")
CHANNELS_FIRST_TAGS = ("abx", "abc", "abcd", "abcde", "ncw", "nchw", "ncdhw", "any")

BENCHDNN_BATCH = 2  # what benchdnn takes when a text names no batch
_AXES = "dhw"
_DESCRIPTOR = re.compile(r"(?:(?:g|mb|ic|oc|[ioksp][dhw]|d[dhw])\d+_?)+(?:n\"?[^\"]*\"?)?")
_FIELD = re.compile(r"(g|mb|ic|oc|[ioksp][dhw]|d[dhw])(\d+)")
_VERBOSE_DTYPE = re.compile(r"(?:^|\s)src[_:](\w+?):")
_VERBOSE_TAG = re.compile(r"(?:^|\s)src[_:]\w+?:[^\s:]*:[^\s:]*:(\w+)")


class ProblemTextError(ValueError):
    """A text that describes no convolution."""


def format_problem(spec: ConvSpec) -> str:
    """benchdnn's text of a spec; `parse_problem` reads it back to an equal spec."""
    options = []
    if spec.dtype != "float32":
        options.append(f"--dt={DTYPE_CODES.get(spec.dtype, spec.dtype)}")
    if spec.memory_format == "channels_last":
        options += ["--stag=axb", "--dtag=axb"]
    if spec.padding_mode != "zeros":
        options.append(f"--pad={spec.padding_mode}")
    axes = _AXES[-spec.ndim :]
    low = tuple(pair[0] for pair in spec.padding)
    ones = (1,) * spec.ndim
    groups = f"g{spec.groups}" if spec.groups > 1 else ""
    text = f"{groups}mb{spec.batch}ic{spec.in_channels}"
    # A problem is written short only when every property is the same along all axes.
    columns = (spec.spatial, spec.output_spatial, spec.kernel, spec.stride, low, spec.dilation)
    cube = all(len(set(values)) == 1 for values in columns)

    def part(letter, values, shift=0):
        chosen = list(zip(axes, values, strict=True))[: 1 if cube else None]
        return "".join(f"{letter}{axis}{value - shift}" for axis, value in chosen)

    text += part("i", spec.spatial) + f"oc{spec.out_channels}" + part("o", spec.output_spatial)
    text += part("k", spec.kernel)
    if spec.stride != ones:
        text += part("s", spec.stride)
    text += part("p", low)
    if spec.dilation != ones:
        text += part("d", spec.dilation, shift=1)
    return " ".join([*options, text])


def parse_problem(text: str) -> ConvSpec:
    """Read a problem from benchdnn's text or a oneDNN verbose line.

    Parameters
    ----------
    text : str
        ``mb1ic64ih56oc64oh56kh3ph1``, the same after ``--dt=`` and ``--stag=`` options, or a
        whole line that ``ONEDNN_VERBOSE=1`` printed for a convolution.

    Raises
    ------
    ProblemTextError
        A ValueError that states what was read and what would be accepted.
    """
    if not isinstance(text, str):
        raise TypeError(f"a problem is a text, not a {type(text).__name__}; e.g. 'mb1ic64ih56oc64oh56kh3ph1'")
    line = text.strip()
    if "," in line and "verbose" in line.split(",", 1)[0]:
        descriptor, options = _split_verbose(line)
    else:
        descriptor, options = _split_options(line)
    fields = _read_fields(descriptor)
    try:
        return _build(fields, options)
    except ProblemTextError:
        raise
    except ValueError as error:
        raise ProblemTextError(f"problem text {line!r}: {error}") from None


def _split_verbose(line):
    columns = line.split(",")
    if "convolution" not in columns:
        raise ProblemTextError(f"verbose line {line!r} describes no forward convolution; only those are accepted")
    if any("backward" in column for column in columns):
        raise ProblemTextError(f"verbose line {line!r} is a backward pass; only forward ones are accepted")
    found = [column for column in columns if _DESCRIPTOR.fullmatch(column) and "mb" in column]
    if not found:
        raise ProblemTextError(f"verbose line {line!r} holds no problem such as mb1_ic64oc64_ih56oh56kh3sh1dh0ph1")
    data = next((column for column in columns if _VERBOSE_DTYPE.search(column)), "")
    code = _VERBOSE_DTYPE.search(data)
    tag = _VERBOSE_TAG.search(data)
    last = tag is not None and tag[1] in CHANNELS_LAST_TAGS
    dtype = _dtype(code[1]) if code else "float32"
    return found[0], {"dtype": dtype, "memory_format": "channels_last" if last else "channels_first"}


def _split_options(line):
    options, descriptors = {}, []
    for word in line.split():
        if word.startswith("--dt="):
            options["dtype"] = _dtype(word[5:].split(":")[0])
        elif word.startswith(("--stag=", "--dtag=")):
            options["memory_format"] = _memory_format(word.split("=", 1)[1])
        elif word.startswith("--pad="):
            options["padding_mode"] = _padding_mode(word[6:])
        elif word.startswith("--"):
            raise ProblemTextError(f"option {word!r} is unknown; --dt=, --stag=, --dtag= and --pad= are accepted")
        else:
            descriptors.append(word)
    if len(descriptors) != 1:
        raise ProblemTextError(
            f"problem text {line!r} holds {len(descriptors)} problems; one such as "
            "mb1ic64ih56oc64oh56kh3ph1 is accepted"
        )
    return descriptors[0], options


def _memory_format(tag):
    if tag in CHANNELS_LAST_TAGS:
        return "channels_last"
    if tag in CHANNELS_FIRST_TAGS:
        return "channels_first"
    raise ProblemTextError(f"memory tag {tag!r} is unknown; axb (channels last) and abx (channels first) are accepted")


def _padding_mode(name):
    if name not in PADDING_MODES:
        raise ProblemTextError(f"padding mode {name!r} is unknown; one of {', '.join(PADDING_MODES)} is accepted")
    return name


def _dtype(code):
    if code not in DTYPES:
        raise ProblemTextError(f"data type {code!r} is unknown; one of {', '.join(DTYPES)} is accepted")
    return DTYPES[code]


def _read_fields(descriptor):
    if not _DESCRIPTOR.fullmatch(descriptor):
        rest = re.sub(r"^(?:" + _FIELD.pattern + r"_?)*", "", descriptor)
        raise ProblemTextError(
            f"problem text {descriptor!r} cannot be read from {rest[:20]!r} on; "
            "e.g. mb1ic64ih56oc64oh56kh3ph1 is accepted"
        )
    body = descriptor.partition("n")[0]  # what follows is the problem's name; no field has this letter
    fields: dict[str, int] = {}
    for name, digits in _FIELD.findall(body):
        if fields.setdefault(name, int(digits)) != int(digits):
            raise ProblemTextError(f"problem text {descriptor!r} gives {name} both as {fields[name]} and {digits}")
    return fields


def _build(fields, options):
    for name in ("ic", "oc"):
        if name not in fields:
            raise ProblemTextError(f"problem text names no {name}; input and output channels (ic, oc) are needed")
    ndim = next((3 - _AXES.index(axis) for axis in _AXES if "i" + axis in fields), 0)
    if not ndim:
        raise ProblemTextError("problem text names no input size; iw (1-D), ih (2-D) or id (3-D) is needed")
    values = _along_axes(fields, ndim)
    for letter, what in (("i", "input"), ("k", "kernel")):
        if None in values[letter]:
            missing = letter + _AXES[-ndim:][values[letter].index(None)]
            raise ProblemTextError(f"problem text names no {what} size {missing}; {missing}3, for example, is needed")
    stride = [1 if s is None else s for s in values["s"]]
    dilation = [1 if d is None else d + 1 for d in values["d"]]
    padding = [
        _pads(i, o, k, s, d, p)
        for i, o, k, s, d, p in zip(values["i"], values["o"], values["k"], stride, dilation, values["p"], strict=True)
    ]
    return ConvSpec(
        batch=fields.get("mb", BENCHDNN_BATCH),
        in_channels=fields["ic"],
        out_channels=fields["oc"],
        spatial=tuple(values["i"]),
        kernel=tuple(values["k"]),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=fields.get("g", 1),
        **options,
    )


def _along_axes(fields, ndim):
    """Values per axis of each property, None where missing; an axis without any repeats the one before it."""
    found = []
    for axis in _AXES[-ndim:]:
        given = {letter: fields.get(letter + axis) for letter in "ioksdp"}
        nothing = all(value is None for value in given.values())
        found.append(found[-1] if nothing and found else given)
    return {letter: [given[letter] for given in found] for letter in "ioksdp"}


def _pads(size, out, kernel, stride, dilation, low):
    """(low, high) as benchdnn derives them from the output size; without one, the low padding on both sides."""
    if stride < 1:
        return (low or 0, low or 0)  # refused by ConvSpec, with its message
    span = extent(kernel, dilation)
    if out is None:
        return (low or 0, low or 0)
    total = (out - 1) * stride + span - size
    low = max(total, 0) // 2 if low is None else low
    high = total - low
    if high <= -stride:
        natural = output_size(size, kernel, stride, dilation, low, 0)
        raise ProblemTextError(
            f"output size {out} is too small: input {size}, kernel {kernel}, stride {stride} and padding {low} "
            f"give at least {natural}"
        )
    return (low, max(high, 0))
