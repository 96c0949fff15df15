"""The size of a step is a function of the samples consumed, and counting steps is exact at any distance."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdist.config.batch import BatchConfig, BatchSizes

RAMP = BatchConfig.from_tree(
    {
        "global_batch_size": 32,
        "micro_batch_size": 2,
        "ramp": [
            {"until_samples": 10, "global_batch_size": 4},
            {"until_samples": 100, "global_batch_size": 8, "increment": 8},
        ],
    }
)


def test_a_step_takes_the_size_of_the_stage_in_which_it_begins() -> None:
    sizes = BatchSizes.of(RAMP, seq_length=1)
    assert sizes == BatchSizes((10, 40, 70, 100), (4, 8, 16, 24, 32))
    assert [sizes.at(samples) for samples in (0, 9, 10, 39, 40, 69, 70, 99, 100, 10**15)] == [
        *(4, 4, 8, 8, 16, 16, 24, 24, 32, 32),
    ]
    assert [sizes.after(0, steps) for steps in range(9)] == [0, 4, 8, 12, 20, 28, 36, 44, 60]


def test_the_ramp_of_gpt_3_is_one_entry() -> None:
    """32k tokens to 3.2M, linearly over 12B: size n x 16 holds from the (n - 1)-th of 95 equal parts on."""
    batch = BatchConfig.from_tree(
        {
            "global_batch_size": 1536,
            "micro_batch_size": 1,
            "ramp": [{"until_tokens": 12_000_000_000, "global_batch_size": 16, "increment": 16}],
        }
    )
    assert batch.value_problems(2048) == batch.problems(16) == []
    sizes, samples = BatchSizes.of(batch, 2048), 12_000_000_000 / 2048
    for consumed in (0, 61_677, 61_678, 3_000_000, 5_859_374, 5_859_375):
        assert sizes.at(consumed) == min(1536, 16 + 16 * int(consumed * 95 / samples))
    assert sizes.after(0, 10**9) == pytest.approx(1536 * 10**9, rel=1e-4)


@st.composite
def batch_sizes(draw: st.DrawFn) -> BatchSizes:
    bounds = sorted(draw(st.lists(st.integers(1, 200), max_size=5)))
    sizes = draw(st.lists(st.integers(1, 40), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    return BatchSizes(tuple(bounds), tuple(sizes))


@settings(deadline=None)
@given(sizes=batch_sizes(), begin=st.integers(0, 250), steps=st.integers(0, 60))
def test_counting_is_walking(sizes: BatchSizes, begin: int, steps: int) -> None:
    walked = [begin]
    for _ in range(steps):
        walked.append(walked[-1] + sizes.at(walked[-1]))
    assert [sizes.after(begin, n) for n in range(steps + 1)] == walked
    for number, (first, end) in enumerate(pairwise(walked)):
        for sample in {first, end - 1}:
            assert sizes.steps_within(begin, sample) == number, "the step that takes the sample is the one after"
    assert sizes.steps_within(begin, begin - 1) == 0


def test_far_out_nothing_is_rounded() -> None:
    sizes = BatchSizes((2**61,), (3, 5))
    first = -(-(2**61) // 3)
    assert sizes.after(0, first + 10**12) == 3 * first + 5 * 10**12
    assert sizes.steps_within(0, 3 * first + 5 * 10**12 - 1) == first + 10**12 - 1


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"global_batch_size": 4}, "batch.ramp[0]: needs until_samples or until_tokens, one of them"),
        ({"global_batch_size": 4, "until_samples": 5, "until_tokens": 5}, "batch.ramp[0]: needs until_samples or"),
        ({"global_batch_size": 0, "until_samples": 5}, "batch.ramp[0].global_batch_size: must be at least 1, got 0"),
        ({"global_batch_size": 4, "until_samples": 0}, "batch.ramp[0]: ends at sample 0, but begins at 0; give bounds"),
        ({"global_batch_size": 4, "until_samples": 5, "increment": 0}, "batch.ramp[0].increment: must be at least 1"),
        (
            {"global_batch_size": 4, "until_samples": 5, "increment": 5},
            "batch.ramp[0].increment: steps of 5 from 4 do not lead to the next size (8); use a divisor",
        ),
        (
            {"global_batch_size": 8, "until_samples": 5, "increment": 2},
            "batch.ramp[0].increment: steps of 2 from 8 do not lead to the next size (8)",
        ),
    ],
)
def test_what_makes_no_stage_is_told(stage: dict[str, int], message: str) -> None:
    batch = BatchConfig.from_tree({"global_batch_size": 8, "micro_batch_size": 2, "ramp": [stage]})
    (problem,) = batch.value_problems(32)
    assert problem.startswith(message)


def test_bounds_grow_and_have_one_unit() -> None:
    def problems(*bounds: dict[str, int]) -> list[str]:
        ramp = [{"global_batch_size": 4, **bound} for bound in bounds]
        return BatchConfig.from_tree({"global_batch_size": 8, "micro_batch_size": 2, "ramp": ramp}).value_problems(32)

    assert problems({"until_samples": 8}, {"until_samples": 8}) == [
        "batch.ramp[1]: ends at sample 8, but begins at 8; give bounds that grow, or remove the stage"
    ]
    assert problems({"until_tokens": 33}, {"until_tokens": 64}), "both are sample 2"
    assert problems({"until_samples": 8}, {"until_tokens": 800}) == [
        "batch.ramp: bounds in samples and in tokens; give all of them in one unit"
    ]


def test_every_size_must_be_legal_for_the_layout() -> None:
    ramp = [
        {"until_samples": 10, "global_batch_size": 2},
        {"until_samples": 20, "global_batch_size": 4, "increment": 2},
        {"until_samples": 30, "global_batch_size": 12},
    ]
    batch = BatchConfig.from_tree({"global_batch_size": 18, "micro_batch_size": 2, "ramp": ramp})
    assert batch.problems(1) == []
    assert [
        problem.partition(" is no multiple of batch.micro_batch_size (2) x ")[0] for problem in batch.problems(2)
    ] == [
        "batch.global_batch_size (18)",
        "batch.ramp[0].global_batch_size (2)",
        "batch.ramp[1].increment (2)",
    ]
