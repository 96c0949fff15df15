"""Every kind of layout is tested or refused, and the docs say which."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gptdist.cli.main import main
from gptdist.config.layouts import LayoutKind, all_kinds
from gptdist.config.model import ModelConfig
from gptdist.config.parallel import ParallelConfig
from tests.layout_table import PAGE, page
from tests.support.datasets import LLAMA, MOE, run_tree
from tests.support.layouts import (
    EXPERT_LAYOUTS,
    LAYOUTS,
    ONE_RANK,
    PIPELINE_LAYOUTS,
    SPLIT_EXPERT_LAYOUTS,
    WIDE_CONTEXT_LAYOUTS,
    TestedLayout,
)
from tests.support.ranks import repository

DENSE = [ONE_RANK, TestedLayout(1, 2, 1), TestedLayout(1, 3, 1), *LAYOUTS, *WIDE_CONTEXT_LAYOUTS, *PIPELINE_LAYOUTS]
MIXTURES = [ONE_RANK, *EXPERT_LAYOUTS, *SPLIT_EXPERT_LAYOUTS]
TESTED = {layout.kind() for layout in DENSE} | {layout.kind(has_experts=True) for layout in MIXTURES}


def _problems(kind: LayoutKind) -> list[str]:
    tensor, context, data = (
        2 if is_split else 1 for is_split in (kind.tensor_parallel, kind.context_parallel, kind.data_parallel)
    )
    stages = 2 if kind.pipeline_parallel else 1
    parallel = ParallelConfig(
        zero_stage=kind.zero_stage,
        tensor_parallel_size=tensor,
        sequence_parallel=kind.sequence_parallel,
        context_parallel_size=context,
        pipeline_parallel_size=stages,
        expert_parallel_size=2 if kind.expert_parallel else 1,
    )
    model = ModelConfig.from_tree(MOE if kind.has_experts else LLAMA)
    world_size = tensor * context * data * stages
    assert parallel.kind(world_size, model) == kind
    return parallel.problems(world_size, model)


@pytest.mark.parametrize("kind", list(all_kinds()), ids=lambda kind: f"zero{kind.zero_stage}-{kind}-{kind.has_experts}")
def test_each_kind_is_tested_or_refused(kind: LayoutKind) -> None:
    assert (kind in TESTED) != bool(_problems(kind)), "neither tested nor refused, or both"
    assert _problems(kind.neighbour()) == [], "the neighbour is refused too"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"parallel": {"sequence_parallel": True}}, "parallel.sequence_parallel: needs tensor_parallel_size above 1"),
        (
            {"model": MOE, "parallel": {"context_parallel_size": 2}},
            "parallel.context_parallel_size: not with model.moe",
        ),
    ],
)
def test_a_refused_kind_ends_with_status_2(
    tmp_path: Path, mistake: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = run_tree(tmp_path, launch={"ranks_per_node": 2}, **mistake)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    assert main(["config", str(tmp_path / "run.yaml"), "--quiet"]) == 2
    assert message in capsys.readouterr().err


def test_docs_agree_with_code_and_tests() -> None:
    assert (repository() / PAGE).read_text(encoding="utf-8") == page(TESTED), "write it: python -m tests.layout_table"
    with pytest.raises(ValueError, match=r"tensor with ZeRO 2: neither tested nor refused"):
        page(TESTED - {LayoutKind(2, tensor_parallel=True)})
