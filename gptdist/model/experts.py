"""A layer's experts: a feed-forward part that is many, of which each token takes a few; no token is dropped.

Experts are whole, and split over the tensor-parallel ranks: a rank computes its experts for all tokens that take them.

Letters: t tokens, h hidden, e experts of this rank, k experts a token, p pairs of a token and an expert of this rank,
i and o widths of a matrix's input and output.
"""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from gptdist.config.model import ModelConfig
from gptdist.mesh.groups import Mesh
from gptdist.model.routing import LossGradient, Router, choose_experts


class GroupedLinear(nn.Module):
    """One matrix an expert, each applied to its own rows."""

    def __init__(self, num_experts: int, input_size: int, output_size: int) -> None:
        """Make the matrices; their values are not initialised."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, output_size, input_size))

    def forward(self, x: Tensor, rows: list[int]) -> Tensor:
        """Return the products. Shapes: x [p, i], sorted by expert, ``rows`` of each -> [p, o]."""
        product: Tensor = _GroupedProduct.apply(x, self.weight, rows)
        return product


class _GroupedProduct(torch.autograd.Function):
    """Saves the parameter itself and no view of it: ZeRO-3 takes the values away between the passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rows = rows
        product = x.new_empty(x.shape[0], weight.shape[1])
        for matrix, part, out in zip(weight, x.split(rows), product.split(rows), strict=True):
            torch.mm(part, matrix.t(), out=out)
        return product

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        x_grad, weight_grad = torch.empty_like(x), torch.empty_like(weight)
        parts = zip(weight, x.split(ctx.rows), grad.split(ctx.rows), strict=True)
        for index, (out, (matrix, part, part_grad)) in enumerate(zip(x_grad.split(ctx.rows), parts, strict=True)):
            torch.mm(part_grad, matrix, out=out)
            torch.mm(part_grad.t(), part, out=weight_grad[index])
        return x_grad, weight_grad, None


class Experts(nn.Module):
    """Feed-forward parts of the same shape; each sees its own rows."""

    def __init__(self, num_experts: int, config: ModelConfig, activation: Callable[[Tensor], Tensor]) -> None:
        """Make the matrices of ``num_experts`` experts; their values are not initialised."""
        super().__init__()
        self.activation = activation
        self.is_gated = config.is_gated
        up = config.expert_size * (2 if config.is_gated else 1)
        self.linear_fc1 = GroupedLinear(num_experts, config.hidden_size, up)
        self.linear_fc2 = GroupedLinear(num_experts, config.expert_size, config.hidden_size)

    def forward(self, x: Tensor, rows: list[int]) -> Tensor:
        """Return the outputs. Shapes: x [p, h], sorted by expert, ``rows`` of each -> [p, h]."""
        inner = self.linear_fc1(x, rows)
        if self.is_gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * value
        else:
            inner = self.activation(inner)
        output: Tensor = self.linear_fc2(inner, rows)
        return output


class MixtureOfExperts(nn.Module):
    """Router and experts of one layer; takes the place of megatron-core's MLP.

    Communication: over the tensor group, what a dense feed-forward part has, and backward an all-reduce of k values a
    token; under sequence parallelism also an all-gather of e values a token.
    """

    def __init__(self, config: TransformerConfig, *, model: ModelConfig, mesh: Mesh, seen: LossGradient) -> None:
        """Build this rank's experts.

        Args:
            config: megatron-core's, of the same model.
            model: the model.
            mesh: the ranks.
            seen: gradient of the loss.
        """
        super().__init__()
        assert model.moe is not None, "a layer of experts in a model without"
        self.moe = model.moe
        self.is_split = mesh.layout.tensor_parallel_size > 1
        self.sequence_parallel = config.sequence_parallel
        self.seen = seen
        self.recomputes = False
        """Whether only the input is kept for the backward pass."""

        self.expert_group = mesh.expert_group
        self.num_parts = mesh.layout.expert_parallel_size
        tensor_ranks = model.moe.num_experts // mesh.layout.tensor_parallel_size
        self.here = slice(tensor_ranks * mesh.place.tp_rank, tensor_ranks * (mesh.place.tp_rank + 1))
        self.router = Router(model.moe.num_experts, model.hidden_size)
        self.experts = Experts(tensor_ranks // self.num_parts, model, config.activation_func)

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        """Return the output, and no bias. Shapes: [s, b, h] (sequence parallel: [s / t, b, h]) -> the same."""
        if self.recomputes and self.training and torch.is_grad_enabled():
            return tensor_parallel.checkpoint(self._mix, False, hidden_states), None
        return self._mix(hidden_states), None

    def _mix(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        if self.sequence_parallel:  # the experts' part of the gradient is whole by then, and the losses' too
            logits = gather_from_sequence_parallel_region(logits, tensor_parallel_output_grad=False)
            x = gather_from_sequence_parallel_region(x, tensor_parallel_output_grad=True)
        elif self.is_split:
            x = copy_to_tensor_model_parallel_region(x)
        routes = choose_experts(logits.flatten(0, 1), self.moe, self.seen if self.training else None)
        weights = copy_to_tensor_model_parallel_region(routes.weights) if self.is_split else routes.weights
        rows, begin = routes.load[self.here], int(routes.load[: self.here.start].sum())
        pairs = routes.experts.flatten().argsort(stable=True)[begin : begin + int(rows.sum())]
        spread = _spread(x.flatten(0, 1), pairs, self.moe.experts_per_token)
        output = self._visit(spread, rows) if self.num_parts > 1 else self.experts(spread, rows.tolist())
        output = output * weights.flatten()[pairs].unsqueeze(1).to(output.dtype)
        output = _collect(output, pairs, self.moe.experts_per_token, x.shape[0] * x.shape[1]).view(x.shape)
        if self.sequence_parallel:
            return reduce_scatter_to_sequence_parallel_region(output)
        return reduce_from_tensor_model_parallel_region(output) if self.is_split else output

    def _visit(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs of experts that the ranks of the expert group hold, to each rank for its own tokens.

        Shapes: x [p, h], sorted by expert, rows [experts of the tensor-parallel rank] -> [p, h].

        Communication: over the expert group, an all-to-all of the counts, and of each pair there and back.
        """
        sent = rows.view(self.num_parts, -1)  # [to, e]
        came = torch.empty_like(sent)  # [from, e]
        torch.distributed.all_to_all_single(came, sent.contiguous(), group=self.expert_group)
        to, fro = sent.sum(dim=1).tolist(), came.sum(dim=1).tolist()
        guests = tensor_parallel.all_to_all(self.expert_group, x, fro, to)
        experts = torch.arange(came.shape[1], device=x.device).repeat(self.num_parts)
        order = experts.repeat_interleave(came.flatten()).argsort(stable=True)
        output = self.experts(guests.index_select(0, order), came.sum(dim=0).tolist())
        output = output.index_select(0, order.argsort())
        back: Tensor = tensor_parallel.all_to_all(self.expert_group, output, to, fro)
        return back


def _spread(x: Tensor, pairs: Tensor, k: int) -> Tensor:
    """Return the token of each pair. Shapes: x [t, h], pairs [p], numbered k to a token -> [p, h]."""
    rows: Tensor = _Spread.apply(x, pairs, k)
    return rows


def _collect(rows: Tensor, pairs: Tensor, k: int, tokens: int) -> Tensor:
    """Return the sum of each token's rows, the transpose of ``_spread``. Shapes: [p, h], [p] -> [t, h]."""
    x: Tensor = _Collect.apply(rows, pairs, k, tokens)
    return x


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(pairs)
        ctx.k, ctx.tokens = k, x.shape[0]
        return _take(x, pairs, k)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        return _sum(grads[0], ctx.saved_tensors[0], ctx.k, ctx.tokens), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, pairs: Tensor, k: int, tokens: int) -> Tensor:
        ctx.save_for_backward(pairs)
        ctx.k = k
        return _sum(rows, pairs, k, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        return _take(grads[0], ctx.saved_tensors[0], ctx.k), None, None, None


def _take(x: Tensor, pairs: Tensor, k: int) -> Tensor:
    return x.index_select(0, pairs // k)


def _sum(rows: Tensor, pairs: Tensor, k: int, tokens: int) -> Tensor:
    """Each pair has a place of its own before k are added up: always in the same order, on a GPU too."""
    places = rows.new_zeros(tokens * k, rows.shape[1])
    places[pairs] = rows
    return places.view(tokens, k, -1).sum(dim=1)
