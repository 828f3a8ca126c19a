"""The problem table: texts that parse, names that tell problems apart, the quick subset."""

import math

import pytest

from convbench import problems
from convbench.spec import ConvSpec


@pytest.mark.parametrize("problem", problems.PROBLEMS, ids=lambda problem: problem.name)
def test_texts_are_canonical(problem):
    assert str(ConvSpec.parse(problem.text)) == problem.text


def test_names_and_texts_tell_problems_apart():
    assert len({problem.name for problem in problems.PROBLEMS}) == len(problems.PROBLEMS)
    assert len({problem.text for problem in problems.PROBLEMS}) == len(problems.PROBLEMS)
    assert all(problem.source for problem in problems.PROBLEMS)


@pytest.mark.parametrize("suite", problems.SUITES)
def test_every_suite_has_quick_problems(suite):
    assert problems.chosen(suite, quick=True)
    assert set(problems.chosen(suite, quick=True)) < set(problems.chosen(suite))


def test_dimensions_of_the_suites():
    assert {ConvSpec.parse(problem.text).ndim for problem in problems.chosen("signal")} == {1}
    assert {ConvSpec.parse(problem.text).ndim for problem in problems.chosen("cnn")} == {2, 3}


def test_image_problems_are_same_padded_photographs_on_a_grid():
    for problem in problems.chosen("image"):
        spec = ConvSpec.parse(problem.text)
        assert problems.image_grid(problem) == (spec.spatial[0], spec.kernel[0])
        assert spec.output_spatial == spec.spatial
        assert spec.in_channels == 1
    assert len(problems.chosen("image")) == math.prod(map(len, (problems.IMAGE_SIZES, problems.IMAGE_KERNELS)))
    assert problems.image_grid(problems.named("resnet50-stem")) is None


def test_unknown_suites_and_names():
    with pytest.raises(ValueError, match=r"'video'.*image, cnn, signal"):
        problems.chosen("video")
    assert problems.named("no such problem") is None
