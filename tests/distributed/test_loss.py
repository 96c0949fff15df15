"""The chunked loss over a split vocabulary equals torch's cross-entropy over the whole one, gradients included."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812

from gptdist.model import chunked_head
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.loss import vocabulary_loss
from tests.support.ranks import run_ranks

TOLERANCE = 2e-6
"""fp32; values are below 10."""

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator) * 3
    return hidden, weight, torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)


def _compare(padded_rows: int, chunk_elements: int, z_loss: float = 0.0, ignored: int = 0) -> None:
    """Compare this rank's share; rows beyond the vocabulary hold rubbish that must not matter."""
    chunked_head.CHUNK_ELEMENTS = chunk_elements
    rank, size = dist.get_rank(), dist.get_world_size()
    hidden, weight, labels = _inputs()
    dense_hidden, dense_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    logits = dense_hidden @ dense_weight.t()
    labels[:ignored] = -1
    expected = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / TOKENS
    (2.5 * (expected + z_loss * logits.logsumexp(dim=1)[ignored:].square().sum() / TOKENS)).backward()

    rows = padded_rows // size
    padded = torch.cat([weight, torch.full((padded_rows - VOCABULARY, HIDDEN), 50.0)])
    mine = padded[rank * rows : (rank + 1) * rows].clone().requires_grad_()
    valid = max(0, min(rows, VOCABULARY - rank * rows))
    shard = VocabularyShard(rank * rows, valid, dist.group.WORLD if size > 1 else None)
    ours = hidden.clone().requires_grad_()
    found = vocabulary_loss(ours, mine, labels, shard, z_loss)
    (2.5 * found).backward()

    assert abs(found.item() - expected.item()) < TOLERANCE
    assert (ours.grad - dense_hidden.grad).abs().max() < TOLERANCE
    own_rows = dense_weight.grad[rank * rows : rank * rows + valid]
    assert (mine.grad[:valid] - own_rows).abs().max() < TOLERANCE if valid else True
    assert mine.grad[valid:].eq(0).all(), "padding rows get no gradient"
    with torch.no_grad():
        assert vocabulary_loss(hidden, mine, labels, shard).item() == found.item()


@pytest.mark.parametrize("chunk_elements", [1, 100, 10**6])
@pytest.mark.parametrize(("ranks", "padded_rows"), [(1, 50), (1, 64), (2, 50), (2, 64), (2, 120)])
def test_equals_dense_cross_entropy(ranks: int, padded_rows: int, chunk_elements: int) -> None:
    """With 120 rows on two ranks the second holds nothing but padding."""
    run_ranks(ranks, _compare, padded_rows, chunk_elements)


@pytest.mark.parametrize("ranks", [1, 2])
def test_labels_below_zero_add_nothing(ranks: int) -> None:
    run_ranks(ranks, _compare, 64, 100, 0.01, 15)


@pytest.mark.parametrize(("ranks", "padded_rows"), [(1, 64), (2, 64), (2, 120)])
def test_z_loss_is_in_the_gradient_and_not_in_the_value(ranks: int, padded_rows: int) -> None:
    run_ranks(ranks, _compare, padded_rows, 100, 0.01)
