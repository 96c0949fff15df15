"""The length of a step's sequences is a function of the samples consumed, and legal for the layout at every stage."""

import numpy as np
import pytest

from gptdist.config.parallel import ParallelConfig
from gptdist.config.run import RunConfig
from gptdist.config.seq_length import LengthStage, SeqLengths, length_problems
from tests.support.datasets import GPT2


def _config(ramp: list[dict[str, int]], **changes) -> RunConfig:
    return RunConfig.from_tree(
        {
            "name": "t",
            "model": GPT2,
            "data": {"tokenizer": "t", "sources": [{"path": "d"}]},
            "batch": {"global_batch_size": 8, "micro_batch_size": 2, "seq_length_ramp": ramp},
            "training": {"train_steps": 10},
            **changes,
        }
    )


def test_a_step_has_the_length_of_the_stage_in_which_it_begins() -> None:
    config = _config([{"until_tokens": 10 * 32 + 1, "seq_length": 8}, {"until_tokens": 33 * 32, "seq_length": 16}])
    assert config.seq_lengths == SeqLengths((11, 33), (8, 16, 32))
    assert [config.seq_lengths.at(n) for n in (0, 10, 11, 32, 33, 10**15)] == [8, 8, 16, 16, 32, 32]
    assert config.problems() == []
    walked = dict.fromkeys((8, 16, 32), 0)
    for step in range(10):
        walked[config.seq_lengths.at(8 * step)] += 8 * 32
    assert dict(config.tokens_by_seq_length()) == walked


@pytest.mark.parametrize("steps", [1, 2, 4, 30])
def test_tokens_of_every_length_are_those_of_a_walk_with_a_batch_ramp(steps: int) -> None:
    batch = {
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "ramp": [{"until_samples": 13, "global_batch_size": 4}],
        "seq_length_ramp": [{"until_samples": 5, "seq_length": 4}, {"until_samples": 31, "seq_length": 16}],
    }
    config = _config([], batch=batch, training={"train_steps": steps})
    walked, consumed = dict.fromkeys((4, 16, 32), 0), 0
    for _ in range(steps):
        size = config.batch_sizes.at(consumed)
        walked[config.seq_lengths.at(consumed)] += size * 32
        consumed += size
    assert dict(config.tokens_by_seq_length()) == walked


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"seq_length": 8}, "batch.seq_length_ramp[0]: needs until_samples or until_tokens, one of them"),
        ({"seq_length": 12, "until_samples": 5}, "batch.seq_length_ramp[0].seq_length: must be at least 1 and divide"),
        ({"seq_length": 0, "until_samples": 5}, "batch.seq_length_ramp[0].seq_length: must be at least 1 and divide"),
        ({"seq_length": 8, "until_samples": 0}, "batch.seq_length_ramp[0]: ends at sample 0, but begins at 0; give"),
    ],
)
def test_what_makes_no_stage_is_told(stage: dict[str, int], message: str) -> None:
    (problem,) = _config([stage]).problems()
    assert problem.startswith(message)


def test_bounds_have_one_unit() -> None:
    ramp = (LengthStage(until_samples=3, seq_length=8), LengthStage(until_tokens=3200, seq_length=16))
    assert length_problems(ramp, 32) == [
        "batch.seq_length_ramp: bounds in samples and in tokens; give all of them in one unit"
    ]


def test_every_length_must_be_legal_for_the_layout() -> None:
    ramp = [{"until_samples": 8, "seq_length": 1}, {"until_samples": 16, "seq_length": 2}]
    parallel = ParallelConfig(tensor_parallel_size=2, sequence_parallel=True).tree()
    (problem,) = _config(ramp, parallel=parallel, launch={"ranks_per_node": 2}).problems()
    assert "does not divide batch.seq_length_ramp[0].seq_length (1)" in problem
    context = ParallelConfig(context_parallel_size=2).tree()
    problems = _config(ramp, parallel=context, launch={"ranks_per_node": 2}).problems()
    assert len(problems) == 2
    assert "batch.seq_length_ramp[1].seq_length (2) is no multiple of 2 x 2" in problems[1]


def test_pieces_hold_every_label_once() -> None:
    from gptdist.data.batches import cut_rows

    rows = [np.arange(33), np.arange(100, 133)]
    for length in (1, 8, 16, 32):
        pieces = cut_rows(rows, length)
        assert {len(piece) for piece in pieces} == {length + 1}
        assert np.concatenate([piece[1:] for piece in pieces]).tolist() == [*range(1, 33), *range(101, 133)]
        assert np.concatenate([piece[:-1] for piece in pieces]).tolist() == [*range(32), *range(100, 132)]
