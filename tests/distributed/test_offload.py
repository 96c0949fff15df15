"""Optimizer state and weights in the machine's memory: the same run as with nothing offloaded.

On a CPU both memories are one; what is tested is DeepSpeed's path through its buffers, and checkpoints of it.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import LLAMA, run_tree
from tests.support.jobs import train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order."""

NORM_TOLERANCE = 1e-5
BF16_TOLERANCE = 0.01
END, SAVE = 4, 2
OPTIMIZER = {"offload_optimizer": "cpu"}
BOTH = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
PARAMETERS = {"offload_parameters": "cpu"}

CASES = [
    (TestedLayout(2, 1, 1), OPTIMIZER, "fp32"),
    (TestedLayout(2, 2, 2), OPTIMIZER, "fp32"),
    (TestedLayout(2, 3, 1), OPTIMIZER, "fp32"),
    (TestedLayout(2, 3, 1), PARAMETERS, "fp32"),
    (TestedLayout(4, 3, 2), BOTH, "fp32"),
    (TestedLayout(2, 2, 1, context_parallel_size=2), OPTIMIZER, "fp32"),
    (TestedLayout(2, 1, 1), OPTIMIZER, "bf16"),
    (TestedLayout(2, 2, 1), OPTIMIZER, "bf16"),
    (TestedLayout(2, 3, 1), BOTH, "bf16"),
]


def _name(value: Any) -> str:
    return "+".join(key.removeprefix("offload_") for key in value) if isinstance(value, dict) else str(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offload")


@pytest.fixture(scope="module")
def reference(folder: Path) -> list[Any]:
    tree = run_tree(folder, model=LLAMA, run_dir=str(folder / "reference"), **ONE_RANK.sections())
    return run_ranks(1, train_steps, tree, END)[0]


@pytest.mark.parametrize(("layout", "memory", "precision"), CASES, ids=_name)
def test_equals_one_rank_and_resumes_bit_for_bit(
    folder: Path, reference: list[Any], layout: TestedLayout, memory: dict[str, str], precision: str
) -> None:
    tree = run_tree(
        folder,
        model=LLAMA,
        memory=memory,
        training={"precision": precision},
        run_dir=str(folder / f"{layout}-{_name(memory)}-{precision}"),
        **layout.sections(),
    )
    whole = run_ranks(layout.world_size, train_steps, tree, END, SAVE)[0]
    tolerance = LOSS_TOLERANCE if precision == "fp32" else BF16_TOLERANCE
    assert [loss for _, loss, _ in whole] == pytest.approx([loss for _, loss, _ in reference], abs=tolerance)
    if precision == "fp32":
        assert [norm for *_, norm in whole] == pytest.approx([norm for *_, norm in reference], rel=NORM_TOLERANCE)
    assert run_ranks(layout.world_size, train_steps, tree, END)[0] == whole[SAVE:]
    # What is offloaded is a matter of this run, not of the checkpoint.
    tree["memory"] = {}
    resumed = run_ranks(layout.world_size, train_steps, tree, END)[0]
    assert [loss for _, loss, _ in resumed] == pytest.approx([loss for _, loss, _ in whole[SAVE:]], abs=tolerance)


def offloads(tree: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether DeepSpeed took the optimizer's path and the weights' path over the machine's memory."""
    from gptdist.config.run import RunConfig
    from gptdist.train.build import build, join
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=0)
    optimizer = build(config, mesh, device, StopSignal()).engine.optimizer
    of_optimizer = getattr(optimizer, "cpu_offload", False) or getattr(optimizer, "offload_optimizer", False)
    return bool(of_optimizer), bool(getattr(optimizer, "offload_param", False))


@pytest.mark.parametrize(
    ("zero_stage", "precision", "memory", "expected"),
    [
        (1, "fp32", OPTIMIZER, (True, False)),
        (1, "bf16", OPTIMIZER, (True, False)),
        (2, "bf16", OPTIMIZER, (True, False)),
        (3, "bf16", OPTIMIZER, (True, False)),
        (3, "fp32", PARAMETERS, (False, True)),
        (3, "fp32", {}, (False, False)),
    ],
    ids=_name,
)
def test_what_is_asked_for_is_offloaded(
    folder: Path, zero_stage: int, precision: str, memory: dict[str, str], expected: tuple[bool, bool]
) -> None:
    tree = run_tree(
        folder,
        memory=memory,
        training={"precision": precision},
        parallel={"zero_stage": zero_stage},
        run_dir=str(folder / f"asked-{zero_stage}-{precision}-{_name(memory)}"),
    )
    assert run_ranks(1, offloads, tree)[0] == expected
