"""A step of a sequence-length ramp is a step on the pieces of its samples, on every layout, and resumes within."""

from pathlib import Path

import pytest

from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order."""

RAMP = [{"until_samples": 24, "seq_length": 8}, {"until_samples": 33, "seq_length": 16}]
SAVE, END = 2, 6
ONE_RANK = TestedLayout(1, 0, 1)
LAYOUTS = [
    TestedLayout(2, 3, 1),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 2, 1, context_parallel_size=2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
]


def _tree(folder: Path, name: str, layout: TestedLayout, **changes):
    batch = {"seq_length_ramp": RAMP}
    return run_tree(folder, batch=batch, run_dir=str(folder / name), **layout.sections(), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lengths")


@pytest.fixture(scope="module")
def expected(folder: Path):
    return run_ranks(1, train_steps, _tree(folder, "one", ONE_RANK), END)[0]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_ramp_is_the_same_on_every_layout_and_resumes_within(folder: Path, expected, layout: TestedLayout) -> None:
    tree = _tree(folder, str(layout), layout)
    whole = run_ranks(layout.world_size, train_steps, tree, END, SAVE)[0]
    assert run_ranks(layout.world_size, train_steps, tree, END)[0] == whole[SAVE:], "bit for bit"
    for (_, loss, norm), (_, expected_loss, expected_norm) in zip(whole, expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE)
        assert norm == pytest.approx(expected_norm, rel=1e-4)
    on_one = run_ranks(1, train_steps, _tree(folder, str(layout), ONE_RANK), END)[0]
    assert [loss for _, loss, _ in on_one] == pytest.approx([loss for _, loss, _ in whole[SAVE:]], abs=5e-6)


@pytest.mark.parametrize("data", [{}, {"separate_documents": True}, {"loss_mask": {"ignore_document_starts": True}}])
@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_loss_and_gradient_are_those_of_the_pieces_one_by_one(folder: Path, data, model) -> None:
    name = f"{model is LLAMA}-{'-'.join(data)}"
    tree = _tree(folder, name, ONE_RANK, data=data, model=model, optimizer={"max_grad_norm": 0.0})
    for length, by_pieces, by_step in run_ranks(1, _by_pieces, tree)[0]:
        assert by_step == pytest.approx(by_pieces, rel=1e-5), f"pieces of {length} tokens"


def _by_pieces(tree) -> list[tuple[int, tuple[float, float], tuple[float, float]]]:
    """Return the length of pieces, and loss and gradient norm both by pieces and by the step, of every step."""
    import torch

    from gptdist.data.batches import Batch
    from gptdist.train.loop import train_step

    run = open_run(tree)
    parameters = [one for one in run.engine.module.parameters() if one.requires_grad]
    seen = []
    for length in (8, 8, 8, 16, 16, 32):
        losses, counts = [], []
        for row in run.data.rows(run.state.consumed_samples, 8):
            for begin in range(0, 32, length):
                batch = Batch.of([row[begin : begin + length + 1]], run.device.torch_device, run.rules)
                loss = run.engine.module(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
                losses.append(loss * batch.labels.numel())
                counts.append(int((batch.labels >= 0).sum()))
        mean = sum(losses) / sum(counts)
        gradients = torch.autograd.grad(mean, parameters)
        norm = float(torch.sqrt(sum(one.double().square().sum() for one in gradients)))
        result = train_step(run)
        run.state.advance(result)
        seen.append((length, (float(mean), norm), (result.loss, result.grad_norm)))
    return seen
