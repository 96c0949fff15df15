"""Write on from some tokens with a model that is in training, or as it is in training: at every layout.

There is no key-value cache: each token costs a forward of the whole text so far. That takes any model and any layout
as training has them, and the texts are few and short.

Letters: b sequences, s tokens, v vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptdist.config.validation import GenerationConfig
from gptdist.data.batches import Batch
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import OutputHead

Choose = Callable[[int, Tensor], int]
"""Takes the number of a sequence and the logits [v] of its next token, and returns the token."""


class NextToken:
    """Logits of the token that follows each of some sequences."""

    def __init__(
        self, model: nn.Module, head: OutputHead, mesh: Mesh, device: torch.device, document_end: int | None
    ) -> None:
        """Ask ``model``.

        Args:
            model: called as in training, without labels.
            head: its output layer.
            mesh: the ranks that hold it.
            device: where it is.
            document_end: token that ends a document, where documents of a sample are to know nothing of each other.
        """
        self._model, self._head, self._mesh = model, head, mesh
        self._device, self._document_end = device, document_end

    def logits(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Return logits [b, v], fp32 on the CPU. Collective: every rank calls it with the same sequences."""
        layout, part = self._mesh.layout, self._mesh.context_part
        # Sequence parallelism cuts the tokens into so many parts, context parallelism into twice as many as ranks.
        size = layout.tensor_parallel_size if self._head.sequence_parallel else 1
        size *= 2 * layout.context_parallel_size if layout.context_parallel_size > 1 else 1
        length = -(-max(map(len, sequences)) // size) * size
        # What pads on the right is never attended to.
        rows = [[*sequence, *[0] * (length - len(sequence))] for sequence in sequences]
        tokens = torch.tensor(rows, dtype=torch.int64, device=self._device)
        batch = Batch(part.of(tokens, 1), part.of(tokens, 1), tokens, part, self._document_end)
        last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=self._device)
        is_last = part.of(torch.arange(length, device=self._device), 0) == last.unsqueeze(1)
        was_training = self._model.training
        self._model.eval()
        self._head.last_tokens = is_last.long().argmax(dim=1)
        try:
            with torch.no_grad():
                found = self._model(batch.tokens, batch.positions(), batch.attention_mask())
        finally:
            self._head.last_tokens = None
            self._model.train(was_training)
        logits = found[:, 0].float() * is_last.any(dim=1, keepdim=True)  # zero where another rank has the place
        if layout.context_parallel_size > 1:
            dist.all_reduce(logits, group=self._mesh.context_group)
        return logits.cpu()


def write_on(
    model: NextToken,
    prompts: Sequence[Sequence[int]],
    choose: Choose,
    is_over: Callable[[int, list[int]], bool],
    *,
    max_new_tokens: int,
    seq_length: int,
) -> list[list[int]]:
    """Return the tokens that follow each prompt. Collective: every rank calls it with the same prompts.

    Rank 0 chooses, and tells the others: a last bit that differs somewhere cannot lead ranks apart.

    Args:
        model: what writes.
        prompts: tokens to begin with, fewer than ``seq_length`` each.
        choose: picks a token; called on rank 0 alone.
        is_over: whether sequence i is finished by its new tokens; the same on every rank.
        max_new_tokens: most tokens that follow.
        seq_length: most tokens of prompt and text.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    open_ = list(range(len(prompts)))
    while open_:
        logits = model.logits([[*prompts[index], *texts[index]] for index in open_])
        chosen = torch.zeros(len(open_), dtype=torch.int64)
        if dist.get_rank() == 0:
            chosen = torch.tensor([choose(index, row) for index, row in zip(open_, logits, strict=True)])
        for index, token in zip(open_, _of_rank_0(chosen, model), strict=True):
            texts[index].append(token)
        open_ = [
            index
            for index in open_
            if len(texts[index]) < max_new_tokens
            and len(prompts[index]) + len(texts[index]) < seq_length
            and not is_over(index, texts[index])
        ]
    return texts


def _of_rank_0(tokens: Tensor, model: NextToken) -> list[int]:
    if dist.get_world_size() > 1:
        shared = tokens.to(model._device)
        dist.broadcast(shared, src=0)
        tokens = shared
    return [int(token) for token in tokens.tolist()]


def pick(logits: Tensor, options: GenerationConfig, generator: torch.Generator) -> int:
    """Return a token drawn as ``options`` say, by the next number of ``generator``. Shapes: logits [v]."""
    if options.temperature == 0.0:
        return int(logits.argmax())
    scores = logits.double() / options.temperature
    order = scores.argsort(descending=True, stable=True)
    kept = order[: options.top_k] if options.top_k else order
    shares = scores[kept].softmax(dim=0).cumsum(dim=0)
    # The token that reaches top_p is the last one to choose from.
    most = shares[int((shares < options.top_p).sum().clamp(max=len(shares) - 1))]
    drawn = torch.rand((), dtype=torch.float64, generator=generator) * most
    return int(kept[int((shares <= drawn).sum().clamp(max=len(shares) - 1))])
