"""What is said of validation sets and the like that cannot work."""

from typing import Any

import pytest

from gptdist.config.run import RunConfig
from tests.unit.config.written import MINIMAL

DATA = MINIMAL["data"]


def _problems(**changes: Any) -> list[str]:
    return RunConfig.from_tree(MINIMAL | changes).problems()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"validation": [{"name": "x/y", "path": "d/b"}]},
            "data.validation[0].name: must be letters, digits, '_', '-' and '.', got 'x/y'; rename it",
        ),
        (
            {"validation": [{"name": "b", "path": "d/b", "samples": -1}]},
            "data.validation[0].samples: must be at least 0, got -1; 0 takes all",
        ),
        (
            {"validation": [{"name": "b", "path": "d/b"}, {"name": "b", "path": "d/c"}]},
            "data.validation: two sets are called 'b'; rename one",
        ),
        (
            {"validation": [{"name": "a", "path": "d/b"}]},
            "data.validation: 'a' is the name of a training source, whose validation split is measured anyway; rename "
            "the set, or remove it",
        ),
        (
            {"validation": [{"name": "b", "path": "d/b"}], "validation_set": "c"},
            "data.validation_set: no set is called 'c' (known: b); name one, or leave it out",
        ),
        (
            {"validation_set": "c"},
            "data.validation_set: no set is called 'c' (data.validation names none); name one, or leave it out",
        ),
    ],
)
def test_sets_that_cannot_be_measured(data: dict[str, Any], message: str) -> None:
    assert _problems(data=DATA | data) == [message]


def test_a_set_that_is_not_there() -> None:
    config = RunConfig.from_tree(MINIMAL | {"data": DATA | {"validation": [{"name": "b", "path": "d/b"}]}})
    assert not config.problems()
    assert (
        "data.validation[0].path: folder 'd/b' does not exist; prepare it with 'gptdist prep run', or change the "
        in (config.data.path_problems()[-1])
    )


@pytest.mark.parametrize(
    ("stopping", "message"),
    [
        ({"patience_evaluations": 0}, "training.early_stopping.patience_evaluations: must be at least 1, got 0"),
        (
            {"patience_evaluations": 1, "min_delta": -0.1},
            "training.early_stopping.min_delta: must be at least 0, got -0.1",
        ),
        (
            {"patience_evaluations": 4},
            "training.early_stopping.patience_evaluations: 4, with intervals.eval_steps 2, cannot end the run before "
            "step 10, and training.train_steps is 10; shorten patience or eval_steps, or leave early_stopping out",
        ),
    ],
)
def test_early_stopping_that_cannot_work(stopping: dict[str, Any], message: str) -> None:
    training = {"train_steps": 10, "early_stopping": stopping}
    assert _problems(training=training, intervals={"eval_steps": 2}) == [message]
    fine = {"train_steps": 10, "early_stopping": {"patience_evaluations": 3}}
    assert not _problems(training=fine, intervals={"eval_steps": 2})


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({}, "generation: takes either prompts or prompts_file, got neither; set one"),
        (
            {"prompts": ["a"], "prompts_file": "p.txt"},
            "generation: takes either prompts or prompts_file, got both; set one",
        ),
        (
            {"prompts": ["a"], "max_new_tokens": 32},
            "generation.max_new_tokens: must be from 1 to model.seq_length - 1 (31), got 32",
        ),
        (
            {"prompts": ["a"], "temperature": -1.0},
            "generation.temperature: must be at least 0, got -1.0; 0 takes the likeliest",
        ),
        (
            {"prompts": ["a"], "temperature": 0.0, "top_k": 3},
            "generation.temperature: 0 takes the likeliest token; remove top_k and top_p, or raise it",
        ),
        ({"prompts": ["a"], "top_k": -1}, "generation.top_k: must be at least 0, got -1; 0 is all tokens"),
        ({"prompts": ["a"], "top_p": 0.0}, "generation.top_p: must be above 0 and at most 1, got 0.0; 1 is all tokens"),
    ],
)
def test_texts_that_cannot_be_written(generation: dict[str, Any], message: str) -> None:
    generation = {"max_new_tokens": 5} | generation
    assert _problems(generation=generation, intervals={"sample_steps": 2}) == [message]


def test_texts_need_prompts_and_steps() -> None:
    fine = {"prompts": ["a"], "max_new_tokens": 5}
    assert not _problems(generation=fine, intervals={"sample_steps": 2})
    assert _problems(generation=fine) == ["generation: intervals.sample_steps is missing; set it, or remove generation"]
    assert _problems(intervals={"sample_steps": 2}) == [
        "intervals.sample_steps: generation is missing; set generation.prompts"
    ]
    assert _problems(generation=fine, intervals={"sample_steps": 0}) == [
        "intervals.sample_steps: must be at least 1, got 0"
    ]
