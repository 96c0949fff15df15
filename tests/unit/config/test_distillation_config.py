"""What is said of a distillation that cannot work, before anything is read."""

from typing import Any

import pytest

from gptdist.config.run import RunConfig
from tests.support.datasets import GPT2, MOE
from tests.unit.config.written import MINIMAL

MODEL = {**GPT2, "seq_length": 32}
TERM = {"student_layer": 0, "teacher_layer": 0}


def problems(section: dict[str, Any], **changes: Any) -> list[str]:
    tree = {**MINIMAL, "model": MODEL, "training": {"train_steps": 10}, "schedule": {"warmup_steps": 1}}
    return RunConfig.from_tree(tree | {"distillation": section} | changes).problems()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, ["distillation: takes either teacher or cache, got neither; set one"]),
        ({"teacher": "t", "cache": "c"}, ["distillation: takes either teacher or cache, got both; set one"]),
        ({"teacher": "t", "temperature": 0.0}, ["distillation.temperature: must be above 0, got 0.0"]),
        (
            {"teacher": "t", "ce_weight": -1.0, "kl_weight": 0.0},
            [
                "distillation.ce_weight: must be at least 0, got -1.0",
                "distillation.kl_weight: must be above 0 (0 only beside distillation.hidden), got 0.0",
            ],
        ),
        (
            {"teacher": "t", "until_step": 10},
            [
                "distillation.until_step: must be from 1 to training.train_steps - 1 (9), got 10; leave it out to "
                "learn from the teacher to the end"
            ],
        ),
        (
            {"teacher": "t", "hidden": [{"student_layer": 2, "teacher_layer": -1, "weight": 0.0}]},
            [
                "distillation.hidden[0].student_layer: must be from 0 to model.num_layers - 1 (1), got 2",
                "distillation.hidden[0].teacher_layer: must be at least 0, got -1",
                "distillation.hidden[0].weight: must be above 0, got 0.0; remove the term instead",
            ],
        ),
        (
            {"teacher": "t", "teacher_tokenizer": "x"},
            ["distillation.teacher_tokenizer: belongs to map_vocabulary; set that, or remove it"],
        ),
        (
            {"cache": "c", "loss": "reverse", "hidden": [TERM], "map_vocabulary": True},
            [
                "distillation.loss: reverse needs the teacher's probability of every token, and a cache holds a few "
                "tokens' alone; name the teacher, or leave it out",
                "distillation.hidden: the teacher's hidden states are needed, and a cache holds a few tokens' alone; "
                "name the teacher, or leave it out",
                "distillation.map_vocabulary: another teacher's tokens would have to be matched, and a cache holds a "
                "few tokens' alone; name the teacher, or leave it out",
            ],
        ),
    ],
)
def test_values_that_cannot_work(section: dict[str, Any], expected: list[str]) -> None:
    assert problems(section) == expected


def test_what_the_rest_of_the_config_forbids() -> None:
    assert problems({"teacher": "t", "hidden": [TERM]}, memory={"recompute": "full"}) == [
        "memory.recompute: full keeps no layer's output, which distillation.hidden compares; use none, attention or "
        "mlp, or leave hidden out"
    ]
    ramp = {**MINIMAL["batch"], "seq_length_ramp": [{"until_samples": 8, "seq_length": 8}]}
    assert problems({"cache": "c"}, batch=ramp) == [
        "distillation.cache: holds logits of whole samples, batch.seq_length_ramp cuts them; name the teacher, or "
        "leave the ramp out"
    ]
    assert problems({"teacher": "t"}, batch=ramp) == []


def test_layouts_that_are_not_tested() -> None:
    stages = {"pipeline_parallel_size": 2}
    assert problems({"teacher": "t"}, parallel=stages, launch={"ranks_per_node": 2}) == [
        "parallel.pipeline_parallel_size (2): a teacher is not cut into stages; use 1 with distillation, and "
        "tensor_parallel_size or zero_stage to spread the model"
    ]
    experts = {"parallel": {"expert_parallel_size": 2}, "launch": {"ranks_per_node": 2}}
    assert problems({"teacher": "t"}, model=MOE, **experts) == [
        "parallel.expert_parallel_size (2): not tested with distillation; use 1"
    ]
