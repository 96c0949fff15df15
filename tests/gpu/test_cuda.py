"""The CUDA path: bf16 on a GPU follows fp32 on the CPU, and resumes bit for bit. Skipped where there is no GPU."""

from pathlib import Path

import pytest
import torch

from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BF16_TOLERANCE = 0.02
"""bf16 keeps 8 bits of losses around 5.5."""


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_bf16_on_the_gpu_follows_the_cpu(tmp_path: Path, model, zero_stage: int) -> None:
    cuda = run_tree(
        tmp_path, model=model, run_dir=str(tmp_path / "cuda"), training={"device": "cuda", "precision": "bf16"},
        parallel={"zero_stage": zero_stage},
    )  # fmt: skip
    found = _alone(cuda, 3)
    expected = run_ranks(1, train_steps, run_tree(tmp_path, model=model, run_dir=str(tmp_path / "cpu")), 3)[0]
    assert [loss for _, loss, _ in found] == pytest.approx([loss for _, loss, _ in expected], abs=BF16_TOLERANCE)


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_resume_on_the_gpu_is_bit_for_bit(tmp_path: Path, zero_stage: int) -> None:
    tree = run_tree(
        tmp_path, model=GPT2 | {"hidden_dropout": 0.1}, training={"device": "cuda"}, parallel={"zero_stage": zero_stage}
    )
    whole = _alone(tree, 6, 3)
    assert _alone(tree, 6) == whole[3:]


def _alone(tree, *arguments: int) -> list[tuple[int, float, float]]:
    """Train in a process of its own: the fork server's processes cannot use CUDA after a fork."""
    import multiprocessing
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_train, args=(queue, port, tree, *arguments))
    process.start()
    process.join(timeout=240)
    assert process.exitcode == 0
    seen: list[tuple[int, float, float]] = queue.get()
    return seen


def _train(queue, port: int, tree, *arguments: int) -> None:
    import os

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    import tests.support.preload  # noqa: F401 - prepares DeepSpeed

    queue.put(train_steps(tree, *arguments))
