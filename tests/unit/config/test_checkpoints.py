"""What the checkpoints section refuses."""

from typing import Any

import pytest

from gptdist.config.checkpoints import CheckpointsConfig

RUN = {"save_steps": 100, "eval_steps": 50, "train_steps": 1000}


@pytest.mark.parametrize(
    ("keep", "problem"),
    [
        ({"last": 0}, "checkpoints.keep.last: must be at least 1, got 0; leave the rule out to have none"),
        ({"best": -1}, "checkpoints.keep.best: must be at least 1, got -1; leave the rule out to have none"),
        (
            {"every_steps": 0},
            "checkpoints.keep.every_steps: must be at least 1, got 0; leave the rule out to have none",
        ),
        ({"for_hours": 0.0}, "checkpoints.keep.for_hours: must be above 0, got 0.0; leave the rule out to have none"),
        (
            {"every_steps": 333},
            "checkpoints.keep.every_steps: no step up to training.train_steps (1000) is a multiple of 333 and of "
            "intervals.save_steps (100); set a multiple of save_steps",
        ),
    ],
)
def test_rules(keep: dict[str, Any], problem: str) -> None:
    assert CheckpointsConfig.from_tree({"keep": keep}).problems(**RUN) == [problem]


def test_the_best_needs_validations_where_checkpoints_are() -> None:
    config = CheckpointsConfig.from_tree({"keep": {"best": 3}})
    assert config.problems(**RUN) == []
    assert config.problems(**RUN | {"eval_steps": 77}) == [
        "checkpoints.keep.best: no step up to training.train_steps (1000) has a validation (intervals.eval_steps: 77) "
        "and a checkpoint (intervals.save_steps: 100); set save_steps to a multiple of eval_steps"
    ]
    assert config.problems(**RUN | {"eval_steps": 0}) == [], "said by the intervals already"


def test_defaults() -> None:
    assert CheckpointsConfig().problems(**RUN) == []
    assert CheckpointsConfig().keep.keeps_everything
    assert (
        CheckpointsConfig.from_tree({"keep": {"last": 3, "every_steps": 500, "for_hours": 0.5}}).problems(**RUN) == []
    )


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"asynchronous": False, "host_buffer_bytes": 10},
            "checkpoints.host_buffer_bytes: belongs to asynchronous true, not false; remove it",
        ),
        ({"host_buffer_bytes": 0}, "checkpoints.host_buffer_bytes: must be at least 1, got 0"),
        ({"max_failed_saves": 0}, "checkpoints.max_failed_saves: must be at least 1, got 0"),
    ],
)
def test_saving(section: dict[str, Any], problem: str) -> None:
    assert CheckpointsConfig.from_tree(section).problems(**RUN) == [problem]
