"""Masked tokens: the loss is the mean over the counted tokens of the global batch, however it is split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.datasets import LLAMA, run_tree
from tests.support.equality import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Trained, assert_same_training, train_on
from tests.support.jobs import open_run, train_steps, validation_loss
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

MASK = {"ignore_tokens": [*b"etaos "], "ignore_document_starts": True}
"""Half of the text, so that micro batches differ much in what counts."""


def masked_tree(folder: Path, layout: TestedLayout, micro_batch_size: int, name: str, mask: Any = MASK):
    return run_tree(
        folder,
        model=LLAMA | {"num_query_groups": 4},
        data={"loss_mask": mask},
        batch={"micro_batch_size": micro_batch_size},
        run_dir=str(folder / name),
        **layout.sections(),
    )


def plain_losses(tree: dict[str, Any]) -> tuple[float, float, float, list[int]]:
    """Return by torch's cross-entropy over all logits: loss and gradient norm of step 1, validation loss, counts."""
    import torch
    from torch.nn import functional

    from gptdist.data.batches import Batch

    run = open_run(tree)

    def cross_entropy(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = Batch.of(rows, run.device.torch_device)
        logits = run.engine.module(batch.tokens, batch.positions(), None)
        losses = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
        counts = [
            label not in MASK["ignore_tokens"] and token != 256
            for token, label in zip(batch.tokens.flatten().tolist(), batch.labels.flatten().tolist(), strict=True)
        ]
        return losses, torch.tensor(counts)

    losses, counts = cross_entropy(run.data.rows(0, 8))
    loss = losses[counts].mean()
    loss.backward()
    squares = [parameter.grad.square().sum() for parameter in run.engine.module.parameters()]
    validation = 0.0
    with torch.no_grad():
        for source in run.validation:
            found, counted = cross_entropy(source.rows(0, 5))
            validation += source.weight * found[counted].mean().item()
    return loss.item(), float(sum(squares) ** 0.5), validation, counts.view(8, -1).sum(dim=1).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Trained:
    return train_on(ONE_RANK, masked_tree(folder, ONE_RANK, 8, "reference"))


def test_equals_plain_cross_entropy_over_counted_tokens(folder: Path, reference) -> None:
    loss, norm, validation, counts = run_ranks(1, plain_losses, masked_tree(folder, ONE_RANK, 8, "plain"))[0]
    assert len(set(counts)) > 2, "every sample has the same number of counted tokens"
    assert reference[0][0][1] == pytest.approx(loss, abs=LOSS_TOLERANCE)
    assert reference[0][0][2] == pytest.approx(norm, rel=GRADIENT_TOLERANCE)
    for layout in (ONE_RANK, TestedLayout(2, 1, 1)):
        tree = masked_tree(folder, layout, 2, f"validation-{layout}")
        for seen in run_ranks(layout.world_size, validation_loss, tree):
            assert seen[0] == pytest.approx(validation, abs=LOSS_TOLERANCE)


@pytest.mark.parametrize(
    ("layout", "micro_batch_size"),
    [
        (ONE_RANK, 1),
        (ONE_RANK, 2),
        (ONE_RANK, 4),
        (TestedLayout(2, 1, 1), 1),
        (TestedLayout(2, 3, 1), 4),
        (TestedLayout(2, 1, 2, sequence_parallel=True), 2),
        (TestedLayout(4, 2, 2), 2),
    ],
    ids=str,
)
def test_every_split_gives_the_same_loss_and_gradients(
    folder: Path, reference, layout: TestedLayout, micro_batch_size: int
) -> None:
    tree = masked_tree(folder, layout, micro_batch_size, f"{layout}-{micro_batch_size}")
    assert_same_training(train_on(layout, tree), reference)


def test_a_step_of_which_nothing_counts_is_refused(folder: Path) -> None:
    tree = masked_tree(folder, ONE_RANK, 8, "empty", {"ignore_tokens": list(range(257))})
    with pytest.raises(AssertionError, match=r"step 1: by data.loss_mask no token counts of samples 0 to 7; mask less"):
        run_ranks(1, train_steps, tree, 1)
    with pytest.raises(AssertionError, match=r"prose: by data.loss_mask no token of its validation windows counts"):
        run_ranks(1, validation_loss, tree)


def test_masks_of_conversations_count_over_the_whole_batch(folder: Path) -> None:
    import json

    from data_prep.conversations.dataset import ConversationOptions, prepare_conversations
    from gptdist.tokenizer.byte import ByteTokenizer

    lines = [{"prompt": "p" * (1 + i % 9) + f"{i}:", "completion": "c" * (1 + i * i % 17)} for i in range(80)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare_conversations(
        [folder / "pairs.jsonl"], folder / "pairs", ByteTokenizer(), ConversationOptions(32, validation_fraction=0.2)
    )
    data = {"loss_mask": {}, "sources": [{"path": str(folder / "pairs")}], "separate_documents": True}

    def tree_of(layout: TestedLayout, micro_batch_size: int) -> dict[str, Any]:
        tree = masked_tree(folder, layout, micro_batch_size, f"pairs-{layout}-{micro_batch_size}", {})
        return tree | {"data": tree["data"] | data}

    expected = train_on(ONE_RANK, tree_of(ONE_RANK, 8))
    loss = run_ranks(1, completion_loss, tree_of(ONE_RANK, 4) | {"run_dir": str(folder / "plain-pairs")})[0]
    assert expected.steps[0][1] == pytest.approx(loss, abs=LOSS_TOLERANCE)
    for layout, size in ((TestedLayout(2, 1, 1), 1), (TestedLayout(2, 0, 1, context_parallel_size=2), 2)):
        assert_same_training(train_on(layout, tree_of(layout, size)), expected)


def completion_loss(tree: dict[str, Any]) -> float:
    """Return the mean loss of the first batch over what is learnt, by torch's cross-entropy over all logits."""
    import torch
    from torch.nn import functional

    from gptdist.data.batches import Batch

    run = open_run(tree)
    batch = Batch.of(run.data.rows(0, 8), run.device.torch_device, run.rules)
    logits = run.engine.module(batch.tokens, batch.positions(), batch.attention_mask())
    learnt = {ord("c"), 256}
    is_learnt = torch.tensor([label in learnt for label in batch.labels.flatten().tolist()])
    loss = functional.cross_entropy(logits.flatten(0, 1)[is_learnt], batch.labels.flatten()[is_learnt])
    return loss.item()
