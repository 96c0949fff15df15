"""What adapters are not trained with is refused by name, all of it at once."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import LLAMA, MODERN, MOE, make_run_config


def problems(folder: Path, lora: dict[str, Any], **changes: Any) -> list[str]:
    return make_run_config(folder, lora=lora, **changes).problems(4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lora": {"rank": 0, "alpha": 0.0}}, ["lora.rank: must be at least 1, got 0", "lora.alpha: must be above 0"]),
        ({"lora": {"targets": []}}, ["lora.targets: each of them once, and at least one, got []"]),
        ({"lora": {"targets": ["qkv", "qkv"]}}, ["lora.targets: each of them once"]),
        ({"model": MOE}, ["lora: experts have no adapters"]),
        ({"model": MODERN}, ["lora: mup has learning rates for whole matrices"]),
        ({"optimizer": {"kind": "muon"}}, ["optimizer.kind: muon is not tested with lora; use adamw or lion"]),
        ({"optimizer": {"kind": "adafactor"}}, ["optimizer.kind: adafactor is not tested with lora"]),
        ({"parallel": {"pipeline_parallel_size": 2}}, ["parallel.pipeline_parallel_size: not tested with lora, got 2"]),
        ({"training": {"keep_zeros": True}}, ["training.keep_zeros: adapters add to every weight"]),
        ({"training": {"precision": "fp16"}}, ["training.precision: fp16 is not tested with lora"]),
        (
            {"memory": {"offload_optimizer": "cpu"}, "parallel": {"zero_stage": 1}},
            ["memory.offload_optimizer: not tested with lora"],
        ),
    ],
)
def test_what_is_not_trained_with_adapters(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    lora = changes.pop("lora", {})
    found = problems(tmp_path, lora, **({"model": LLAMA} | changes))
    for one in expected:
        assert any(problem.startswith(one) for problem in found), found


def test_adapters_of_a_plain_run_are_no_problem(tmp_path: Path) -> None:
    config = make_run_config(tmp_path, lora={"rank": 4, "alpha": 8.0}, model=LLAMA)
    assert config.problems(4) == []
    assert config.lora is not None
    assert config.lora.scale == 2.0
