"""fp16 follows fp32; updates that overflow are left out, and a resume goes on with the same loss scale."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gptdist.checkpoint.manifest import read_manifest
from gptdist.device.device import cpu_has_fp16
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.loss import vocabulary_loss
from tests.support.datasets import GPT2, MOE, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.skipif(not cpu_has_fp16(), reason="this processor does not compute in fp16")

LOSS_TOLERANCE = 5e-4
"""6e-5 was seen, at losses around 5.5."""

NORM_TOLERANCE = 2e-3
"""Relative; 3e-4 was seen."""

HIGH = {"precision": "fp16", "loss_scale": {"initial_power": 20, "window_steps": 2, "hysteresis": 2}}
"""A scale at which gradients overflow at first, and again whenever it has been doubled."""

Z1, Z2, T1, WIDE2 = TestedLayout(2, 1, 1), TestedLayout(2, 2, 1), TestedLayout(2, 1, 2), TestedLayout(4, 2, 2)

CONTEXT = TestedLayout(2, 2, 1, context_parallel_size=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fp16")


def _tree(folder: Path, name: str, layout: TestedLayout, **changes: Any) -> dict[str, Any]:
    return run_tree(folder, run_dir=str(folder / f"{name}-{layout}"), **layout.sections(), **changes)


@pytest.mark.parametrize(
    ("layout", "model"), [(Z1, GPT2), (Z2, GPT2), (T1, MOE), (WIDE2, GPT2), (CONTEXT, GPT2)], ids=lambda v: str(v)[:14]
)
def test_follows_fp32(folder: Path, layout: TestedLayout, model: dict[str, Any]) -> None:
    expected = run_ranks(1, train_steps, _tree(folder, f"fp32-{layout}", ONE_RANK, model=model), 4)[0]
    tree = _tree(folder, "fp16", layout, model=model, training={"precision": "fp16"})
    seen = run_ranks(layout.world_size, train_steps, tree, 4)
    assert all(rank == seen[0] for rank in seen), "ranks disagree on loss or norm"
    for (_, loss, norm), (_, expected_loss, expected_norm) in zip(seen[0], expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE)
        assert norm == pytest.approx(expected_norm, rel=NORM_TOLERANCE)
    assert seen[0] != expected, "not fp16 at all"


@pytest.mark.parametrize("layout", [Z1, WIDE2], ids=str)
@pytest.mark.parametrize("save", [2, 7])
def test_resume_goes_on_with_the_loss_scale_bit_for_bit(folder: Path, layout: TestedLayout, save: int) -> None:
    tree = _tree(folder, f"scale-{save}", layout, training=HIGH)
    whole = run_ranks(layout.world_size, train_steps, tree, 10, save)[0]
    assert [step for step, _, norm in whole if norm is None][:4] == [1, 2, 3, 4], "overflows, of which one is forgiven"
    assert whole[-1][1] < whole[0][1] - 0.03, "updates were done in between"
    (manifest,) = (read_manifest(path) for path in (Path(tree["run_dir"]) / "checkpoints").glob("step_*"))
    assert (manifest.progress.step, manifest.progress.consumed_samples) == (save, 8 * save)
    assert manifest.progress.loss_scale is not None
    assert manifest.progress.loss_scale.updates == save
    assert manifest.progress.optimizer_step == sum(norm is not None for _, _, norm in whole[:save])
    assert run_ranks(layout.world_size, train_steps, tree, 10)[0] == whole[save:]


def _train_poisoned(tree: dict[str, Any], from_step: int) -> tuple[str, list[str]]:
    """Train with gradients that overflow from a step on; return what ended the run, and the warnings."""
    import contextlib
    import logging

    from gptdist.errors import TrainingError
    from gptdist.train.loop import train

    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("gptdist").addHandler(handler)
    run = open_run(tree)
    infinite = float("inf")
    run.parameters[-1].parameter.register_hook(lambda g: g * infinite if run.state.step + 1 >= from_step else g)
    with run.metrics or contextlib.nullcontext():
        try:
            train(run)
        except TrainingError as error:
            return str(error), said
    return "", said


def test_left_out_updates_are_told_and_end_the_run_at_the_lowest_scale(folder: Path) -> None:
    scale = {"initial_power": 1, "hysteresis": 1}
    tree = _tree(folder, "lowest", Z1, training={"precision": "fp16", "loss_scale": scale})
    (ended, said), (also_ended, other_said) = run_ranks(2, _train_poisoned, tree, 3)
    assert ended == also_ended
    assert "gradients overflow fp16 even with a loss scale of 1; look at the data, lower optimizer.lr" in ended
    told = [line for line in said if "overflow" in line]
    assert told == ["step 3: gradients overflow fp16, no update; loss scale 1"]
    assert not [line for line in other_said if "overflow" in line], "rank 0 tells for all"
    lines = [json.loads(line) for line in (Path(tree["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    seen = [(line["step"], line["loss_scale"], line["grad_norm"] is None) for line in lines if "loss_scale" in line]
    assert seen == [(1, 2.0, False), (2, 2.0, False), (3, 1.0, True)]


def test_gradients_of_a_mean_over_many_tokens_do_not_vanish() -> None:
    torch.manual_seed(0)
    tokens, width, rows = 8192, 8, 512
    hidden, weight = torch.randn(tokens, width) * 0.1, torch.randn(rows, width) * 0.1
    labels = torch.randint(rows, (tokens,))
    grads = []
    for dtype in (torch.float32, torch.float16):
        inputs = [each.to(dtype, copy=True).requires_grad_() for each in (hidden, weight)]
        loss = vocabulary_loss(*inputs, labels, VocabularyShard(start=0, num_valid=rows, group=None))
        (loss * 2.0**20).backward()
        grads.append([each.grad.float() for each in inputs])
    for exact, seen in zip(*grads, strict=True):
        assert (seen - exact).norm() < 5e-3 * exact.norm()
