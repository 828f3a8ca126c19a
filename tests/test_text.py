"""Problem texts: benchdnn's descriptor, its options, oneDNN's verbose lines, and texts that are none."""

from __future__ import annotations

import pytest
from conftest import assert_refused

from convbench import ConvSpec
from convbench.problems import PROBLEMS
from convbench.text import BENCHDNN_BATCH, DTYPES, ProblemTextError, format_problem, parse_problem


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("mb1ic64ih56oc64oh56kh3ph1", ConvSpec(1, 64, 64, spatial=(56, 56), kernel=3, padding=1)),
        ("mb1ic3iw10oc4ow8kw3pw0", ConvSpec(1, 3, 4, spatial=(10,), kernel=3)),
        ("mb1ic3id6oc4od4kd3pd0", ConvSpec(1, 3, 4, spatial=(6, 6, 6), kernel=3)),
        ("g4mb2ic8ih9oc4oh4kh3sh2ph0", ConvSpec(2, 8, 4, spatial=(9, 9), kernel=3, stride=2, groups=4)),
        ("mb1ic1ih9oc1oh5kh3ph0dh1", ConvSpec(1, 1, 1, spatial=(9, 9), kernel=3, dilation=2)),
        (
            "mb1ic1ih9iw8oc1oh9ow6kh3kw4ph1pw0",
            ConvSpec(1, 1, 1, spatial=(9, 8), kernel=(3, 4), padding=((1, 1), (0, 1))),
        ),
        ("--dt=f64 mb1ic1ih5oc1oh3kh3ph0", ConvSpec(1, 1, 1, spatial=(5, 5), kernel=3, dtype="float64")),
        (
            "--stag=axb --dtag=axb mb1ic1ih5oc1oh3kh3ph0",
            ConvSpec(1, 1, 1, spatial=(5, 5), kernel=3, memory_format="channels_last"),
        ),
    ],
)
def test_text_and_back(text, spec):
    assert parse_problem(text) == spec
    assert ConvSpec.parse(text) == spec
    assert format_problem(spec) == str(spec) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  mb1ic1ih5oc1oh3kh3ph0\n", "mb1ic1ih5oc1oh3kh3ph0"),
        ("ic1ih5oc1oh3kh3ph0", f"mb{BENCHDNN_BATCH}ic1ih5oc1oh3kh3ph0"),
        ("mb1_ic1_ih5_oc1_oh3_kh3_ph0", "mb1ic1ih5oc1oh3kh3ph0"),
        ('mb1ic1ih5oc1oh3kh3ph0n"a_name:conv1"', "mb1ic1ih5oc1oh3kh3ph0"),
        ("mb1ic1ih5oc1oh3kh3ph0nconv2", "mb1ic1ih5oc1oh3kh3ph0"),
        ("mb1ic1ih5oc1oh3kh3ph0n2ic7", "mb1ic1ih5oc1oh3kh3ph0"),
        ("--dt=f32:f32:f32 mb1ic1ih5oc1oh3kh3ph0", "mb1ic1ih5oc1oh3kh3ph0"),
        ("mb1ic1ih5iw5oc1oh3ow3kh3kw3ph0pw0sh1sw1dh0dw0", "mb1ic1ih5oc1oh3kh3ph0"),
        ("g1mb1ic1ih5oc1oh3kh3ph0", "mb1ic1ih5oc1oh3kh3ph0"),
        # benchdnn's defaults: no padding without an output size, else half of it below; an axis is
        # repeated as a whole, and where it is given has stride 1 and no dilation of its own.
        ("mb1ic1ih5oc1kh3", "mb1ic1ih5oc1oh3kh3ph0"),
        ("mb1ic1ih5oc1oh5kh3", "mb1ic1ih5oc1oh5kh3ph1"),
        ("mb1ic1ih5oc1oh5kh4", "mb1ic1ih5oc1oh5kh4ph1"),
        ("mb1ic1ih9iw8oc1oh4ow6kh3kw3sh2ph0", "mb1ic1ih9iw8oc1oh4ow6kh3kw3sh2sw1ph0pw0"),
        ("mb1ic1ih9iw8oc1oh5ow6kh3kw3dh1ph0", "mb1ic1ih9iw8oc1oh5ow6kh3kw3dh1dw0ph0pw0"),
        ("mb1ic1id9oc1od4kd3sd2pd0", "mb1ic1id9ih9iw9oc1od4oh4ow4kd3kh3kw3sd2sh2sw2pd0ph0pw0"),
    ],
)
def test_ways_of_writing_the_same(text, same):
    assert parse_problem(text) == parse_problem(same)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_named_problem_is_written_as_it_is_read(problem):
    spec = parse_problem(problem.text)
    assert parse_problem(str(spec)) == spec


@pytest.mark.parametrize("dtype", [name for name in DTYPES.values() if name != "bfloat16"])
def test_every_dtype_has_a_code(dtype):
    spec = ConvSpec(1, 2, 3, spatial=(4, 5), kernel=2, dtype=dtype)
    assert parse_problem(str(spec)) == spec


def test_bfloat16_where_its_package_is():
    pytest.importorskip("ml_dtypes")
    spec = ConvSpec(1, 2, 3, spatial=(4, 5), kernel=2, dtype="bfloat16")
    assert "bf16" in str(spec)
    assert parse_problem(str(spec)) == spec


VERBOSE = (
    (
        "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,"
        "src:f32:a:blocked:acdb::f0 wei:f32:a:blocked:Acdb16a::f0 bia:undef::undef::: dst:f32:a:blocked:acdb::f0,"
        "attr-scratchpad:user,alg:convolution_direct,mb1_ic64oc128_ih56oh28kh3sh2dh0ph1_iw56ow28kw3sw2dw0pw1,0.53",
        ConvSpec(
            1, 64, 128, spatial=(56, 56), kernel=3, stride=2, padding=((1, 0), (1, 0)), memory_format="channels_last"
        ),
    ),
    (
        "dnnl_verbose,exec,cpu,convolution,jit:avx2,forward_inference,"
        "src_f32::blocked:abcd:f0 wei_f32::blocked:ABcd8b8a:f0 dst_f32::blocked:abcd:f0,,alg:convolution_direct,"
        "g32mb2_ic32oc32_ih12oh12kh3sh1dh0ph1_iw14ow14kw3sw1dw0pw1,0.01",
        ConvSpec(2, 32, 32, spatial=(12, 14), kernel=3, padding=1, groups=32),
    ),
    (
        "onednn_verbose,v1,1732.5,primitive,exec,cpu,convolution,brgconv_1d:avx512_core,forward_inference,"
        "src:f64::blocked:acb::f0 wei:f64::blocked:cab::f0 dst:f64::blocked:acb::f0,,alg:convolution_direct,"
        "mb4_ic3oc5_iw20ow14kw3sw1dw2pw0,0.004",
        ConvSpec(4, 3, 5, spatial=(20,), kernel=3, dilation=3, dtype="float64", memory_format="channels_last"),
    ),
    (
        "onednn_verbose,v1,primitive,exec,cpu,convolution,ref:any,forward_inference,"
        "src:u8::blocked:abcde::f0 wei:s8::blocked:abcde::f0 dst:s32::blocked:abcde::f0,,alg:convolution_direct,"
        "mb1_ic2oc2_id4od4kd3sd1dd0pd1_ih5oh3kh3sh1dh0ph0_iw6ow3kw2sw2dw0pw0,0.2",
        ConvSpec(
            1,
            2,
            2,
            spatial=(4, 5, 6),
            kernel=(3, 3, 2),
            stride=(1, 1, 2),
            padding=((1, 1), (0, 0), (0, 0)),
            dtype="uint8",
        ),
    ),
)


@pytest.mark.parametrize(("line", "spec"), VERBOSE, ids=[str(spec) for _, spec in VERBOSE])
def test_verbose_lines(line, spec):
    assert parse_problem(line) == spec
    assert parse_problem(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ["0 problems", "mb1ic64"]),
        ("a convolution", ["2 problems", "mb1ic64"]),
        ("resnet", ["'resnet'", "mb1ic64"]),
        ("mb1ic3ih5oc4oh3kh3ph0xx7", ["'xx7'", "mb1ic64"]),
        ("mb1ic3ih5oc4oh3kh3ph0ic4", ["ic", "3", "4"]),
        ("mb1ic3ih5oh3kh3ph0", ["no oc"]),
        ("mb1ih5oc4oh3kh3ph0", ["no ic"]),
        ("mb1ic3oc4kh3", ["no input size", "ih"]),
        ("mb1ic3ih5oc4oh3", ["no kernel size", "kh3"]),
        ("mb1ic3ih5iw6oc4oh3ow4kh3ph0", ["no kernel size", "kw3"]),
        ("mb1ic3ih5oc4oh3ow4kh3kw3ph0", ["no input size", "iw3"]),
        ("mb1ic3ih5oc4oh1kh3ph0", ["output size 1", "3"]),
        ("mb1ic3ih5oc4oh0kh9ph0", ["kernel 9", "5"]),
        ("g2mb1ic3ih5oc4oh3kh3ph0", ["in_channels 3", "groups 2"]),
        ("mb1ic3ih5oc4oh3kh3sh0ph0", ["stride", "0", "at least 1"]),
        ("mb1ic-3ih5oc4oh3kh3ph0", ["'ic-3", "mb1ic64"]),
        ("--dt=f31 mb1ic3ih5oc4oh3kh3ph0", ["'f31'", "f32"]),
        ("--stag=nowhere mb1ic3ih5oc4oh3kh3ph0", ["'nowhere'", "axb"]),
        ("--dir=BWD_D mb1ic3ih5oc4oh3kh3ph0", ["'--dir=BWD_D'", "--dt="]),
        ("mb1ic3ih5oc4oh3kh3ph0 mb1ic3ih5oc4oh3kh3ph0", ["2 problems"]),
        (VERBOSE[0][0].replace("convolution,", "matmul,"), ["no forward convolution"]),
        (VERBOSE[0][0].replace("forward_training", "backward_data"), ["backward", "forward"]),
        ("onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2", ["onednn_verbose"]),
        ("onednn_verbose,v1,primitive,exec,cpu,convolution,jit,forward_training,src:f32:::,,,nothing,1", ["holds no"]),
    ],
)
def test_malformed_texts_are_refused(text, values):
    assert_refused(values, parse_problem, text, error=ProblemTextError)


@pytest.mark.parametrize("value", [None, 3, b"mb1ic3ih5oc4oh3kh3ph0"])
def test_a_problem_is_a_text(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        parse_problem(value)
