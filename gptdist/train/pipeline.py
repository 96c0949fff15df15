"""Micro batches through the stages of a pipeline, each of which holds consecutive layers.

Every stage does a forward pass for each stage behind it, then one forward and one backward pass in turn, then the
backward passes that are left: it keeps the activations of as many micro batches as there are stages behind it, plus
one, however many a step has. With a single stage it is gradient accumulation.

Letters: b micro batch, s sequence, h hidden.

Source: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters", arXiv 2104.04473,
section 2.2 (PipeDream-Flush).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.data.batches import Batch
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import LanguageModel

Transfer = tuple[Tensor, int | None]
"""What is sent or received, and the global rank at the other end: None where this stage is the first or the last."""


class Stage:
    """One rank's stage: what it hands to its neighbours, and the embedding that first and last stage share."""

    def __init__(self, deepspeed: Any, mesh: Mesh, *, sequence_parallel: bool) -> None:
        """Take the engine around this rank's layers. Collective: every rank calls it."""
        self._deepspeed = deepspeed
        self._model: LanguageModel = deepspeed.module
        self._group = mesh.pipeline_group
        self._parts = mesh.layout.tensor_parallel_size if sequence_parallel else 1
        ranks = dist.get_process_group_ranks(self._group)
        place, stages = mesh.place.pp_rank, len(ranks)
        self.num_behind = stages - 1 - place
        self.first_layer = self._model.first_layer
        self.previous = ranks[place - 1] if place else None
        self.next = ranks[place + 1] if self.num_behind else None
        is_tied = stages > 1 and self._model.share_embeddings_and_output_weights
        self._first = ranks[0] if is_tied and not self.num_behind else None
        self._last = ranks[-1] if is_tied and not place else None
        self._tied_gradient: Tensor | None = None
        if self._first is not None:
            self._model.tied_embedding.requires_grad_()
        self.share_embedding()

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return self._model.training

    def train(self, mode: bool = True) -> None:
        """Turn dropout on, or off."""
        self._deepspeed.train(mode)

    def eval(self) -> None:
        """Turn dropout off."""
        self._deepspeed.eval()

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, *, labels: Tensor) -> Tensor:
        """Return the mean loss on the last stage, and 0 on the others; for no backward pass.

        Communication: hidden states from the previous stage and to the next.
        """
        hidden = self.buffer(tokens)
        self.exchange(receive=_incoming(hidden, self.previous))
        output = self.forward(tokens, positions, mask, labels=labels, hidden=hidden)
        if self.next is None:
            return output
        self.exchange(send=[(output, self.next)])
        return torch.zeros((), device=output.device)

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, *, labels: Tensor, hidden: Tensor | None
    ) -> Tensor:
        """Return the mean loss where this is the last stage, else the hidden states that go to the next one."""
        if hidden is not None:
            self._model.set_input_tensor(hidden)
        output: Tensor = self._deepspeed(tokens, positions, mask, labels=labels)
        return output

    def buffer(self, tokens: Tensor) -> Tensor | None:
        """Return room for the hidden states of ``tokens``, [s, b, h]; None on the first stage."""
        if self.previous is None:
            return None
        micro_batch, sequence = tokens.shape
        parameter = next(self._model.parameters())
        shape = (sequence // self._parts, micro_batch, self._model.config.hidden_size)
        return torch.empty(shape, dtype=parameter.dtype, device=parameter.device)

    def exchange(self, *, send: list[Transfer] | None = None, receive: list[Transfer] | None = None) -> None:
        """Send and receive at once: neighbours that both send first would wait for each other."""
        operations = [
            dist.P2POp(operation, tensor, peer, self._group)
            for operation, transfers in ((dist.isend, send or []), (dist.irecv, receive or []))
            for tensor, peer in transfers
            if peer is not None
        ]
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()

    def keep_tied_gradient(self) -> None:
        """Take the last backward pass's gradient of the shared embedding away, to add it up in fp32."""
        if self._first is None:
            return
        gradient = self._model.tied_embedding.grad
        assert gradient is not None, "the head's matrix has no gradient"
        self._model.tied_embedding.grad = None
        self._tied_gradient = gradient.float() if self._tied_gradient is None else self._tied_gradient + gradient

    def send_tied_gradient(self) -> None:
        """Give the first stage the step's gradient of the shared embedding, from the last one."""
        if self._first is not None:
            assert self._tied_gradient is not None, "no backward pass was done"
            self.exchange(send=[(self._tied_gradient.to(self._model.tied_embedding.dtype), self._first)])
            self._tied_gradient = None

    def with_tied_gradient(self, output: Tensor) -> Tensor:
        """Return ``output``, whose backward pass adds the last stage's gradient of the shared embedding."""
        if self._last is None:
            return output
        weight = self._model.embedding.word_embeddings.weight
        gradient = torch.empty_like(weight)
        self.exchange(receive=[(gradient, self._last)])
        return output + surrogate(weight, gradient)

    @property
    def shared_embedding(self) -> Tensor | None:
        """The matrix that first and last stage share, where there is one and this is one of them."""
        if self._first is None and self._last is None:
            return None
        return self._model.shared_embedding_or_output_weight().detach()

    def share_embedding(self) -> None:
        """Give the last stage the first one's embedding, where they are one matrix. Collective: every rank calls it."""
        weight = self.shared_embedding
        if weight is not None:
            self.exchange(
                send=[] if self._last is None else [(weight, self._last)],
                receive=[] if self._first is None else [(weight, self._first)],
            )


def run_micro_batches(
    stage: Stage, count: int, load: Callable[[int], Batch], accumulate: Callable[[Tensor, bool], None], factor: float
) -> float:
    """Add the gradients of ``count`` micro batches, and return the sum of their losses; 0 but on the last stage.

    Collective: every rank calls it.

    Args:
        stage: of this rank.
        count: micro batches of the step.
        load: returns micro batch i; called right before its forward pass, in their order.
        accumulate: does a backward pass from a scalar; told whether that holds the step's scale already.
        factor: what each loss is multiplied by.
    """
    step, warmup = _Step(stage, accumulate, factor), min(stage.num_behind, count)
    for micro_batch in range(warmup):
        batch = load(micro_batch)
        hidden = stage.buffer(batch.tokens)
        stage.exchange(receive=_incoming(hidden, stage.previous))
        stage.exchange(send=[(step.forward(batch, hidden), stage.next)])
    send: list[Transfer] = []
    for micro_batch in range(warmup, count):
        batch = load(micro_batch)
        hidden = stage.buffer(batch.tokens)
        stage.exchange(send=send, receive=_incoming(hidden, stage.previous))
        output = step.forward(batch, hidden)
        gradient = None if stage.next is None else torch.empty_like(output)
        stage.exchange(send=[(output, stage.next)], receive=_incoming(gradient, stage.next))
        send = step.backward(gradient, is_last=micro_batch - warmup == count - 1)
    stage.exchange(send=send)
    for micro_batch in range(count - warmup, count):
        gradient = torch.empty_like(step.waiting[0][1])
        stage.exchange(receive=[(gradient, stage.next)])
        stage.exchange(send=step.backward(gradient, is_last=micro_batch == count - 1))
    stage.send_tied_gradient()
    return step.total


@dataclass
class _Step:
    """What is under way of a step."""

    stage: Stage
    accumulate: Callable[[Tensor, bool], None]
    factor: float
    waiting: deque[tuple[Tensor | None, Tensor]] = field(default_factory=deque)
    """Input and output of micro batches whose backward pass is still to come."""

    total: float = 0.0
    """Sum of the losses."""

    def forward(self, batch: Batch, hidden: Tensor | None) -> Tensor:
        """Return what the next stage reads; on the last one the loss."""
        output = self.stage.forward(
            batch.tokens,
            batch.positions(),
            batch.attention_mask(),
            labels=batch.labels,
            hidden=None if hidden is None else hidden.requires_grad_(),
        )
        if self.stage.next is None:
            output = output * self.factor
            self.total += output.detach().cpu().double().item()
        self.waiting.append((hidden, output))
        return output.detach()

    def backward(self, gradient: Tensor | None, *, is_last: bool) -> list[Transfer]:
        """Do the backward pass of the first one that waits; return the gradient that the previous stage is to have."""
        hidden, output = self.waiting.popleft()
        scalar = output if gradient is None else surrogate(output, gradient)
        self.accumulate(self.stage.with_tied_gradient(scalar) if is_last else scalar, gradient is not None)
        self.stage.keep_tied_gradient()
        return [] if hidden is None else [(_gradient_of(hidden), self.stage.previous)]


def _incoming(tensor: Tensor | None, peer: int | None) -> list[Transfer]:
    return [] if tensor is None else [(tensor, peer)]


def _gradient_of(hidden: Tensor) -> Tensor:
    assert hidden.grad is not None, "a stage's input has no gradient"
    return hidden.grad


def surrogate(output: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar whose backward pass gives ``output`` the ``gradient``: DeepSpeed starts from scalars only."""
    scalar: Tensor = _Surrogate.apply(output, gradient)
    return scalar


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return torch.zeros((), device=output.device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None
