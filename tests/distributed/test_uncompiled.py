"""A rank on a CPU trains without torch's compiler, whose import would take most of its start."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.datasets import LLAMA, MOE, run_tree
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is changed where there is a GPU")


def _compilers(tree: dict[str, Any]) -> list[str]:
    """Train two steps, and return which parts of the compiler were imported by then."""
    train_steps(tree, 2, 2)
    return [name for name in ("torch._inductor.compile_fx", "torch._dynamo.backends.debugging") if name in sys.modules]


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        *((TestedLayout(2, stage, 1), {}) for stage in range(4)),
        (TestedLayout(2, 1, 1, pipeline_parallel_size=2), {}),
        (TestedLayout(2, 1, 2, sequence_parallel=True), {"model": MOE}),
        (TestedLayout(2, 1, 1, context_parallel_size=2), {"model": LLAMA}),
        (TestedLayout(2, 2, 1), {"optimizer": {"kind": "muon"}}),
        (TestedLayout(2, 3, 1), {"memory": {"offload_optimizer": "cpu"}}),
        (TestedLayout(2, 1, 1), {"memory": {"recompute": "full"}, "training": {"precision": "bf16"}}),
    ],
    ids=lambda value: str(value) if isinstance(value, TestedLayout) else "-".join(value),
)
def test_no_switch_imports_it(layout: TestedLayout, changes: dict[str, Any], tmp_path: Path) -> None:
    tree = run_tree(tmp_path, **layout.sections(), **changes)
    assert run_ranks(layout.world_size, _compilers, tree) == [[], []]
