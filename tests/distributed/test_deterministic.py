"""Deterministic mode: training needs no kernel that it forbids, and gives the same bits twice."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import GPT2, MOE, run_tree
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks


def _losses_and_mode(tree: dict[str, Any]) -> tuple[list[Any], bool]:
    import torch

    return train_steps(tree, 3), torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("layout", "model"), [(TestedLayout(2, 3, 1), GPT2), (TestedLayout(2, 1, 2), MOE)], ids=["gpt2", "moe"]
)
def test_same_bits_without_forbidden_kernels(layout: TestedLayout, model: dict[str, Any], tmp_path: Path) -> None:
    seen = []
    for name, settings in (("first", {"deterministic": True}), ("second", {"deterministic": True}), ("off", {})):
        tree = run_tree(tmp_path, model=model, run_dir=str(tmp_path / name), training=settings, **layout.sections())
        seen.append(run_ranks(2, _losses_and_mode, tree)[0])
    assert seen[0] == seen[1]
    assert [mode for _, mode in seen] == [True, True, False]
