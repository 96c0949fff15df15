"""megatron-core's GPTModel with an output head that computes the loss without ever holding all logits.

Letters: b batch, s sequence, h hidden, v vocabulary, t tensor-parallel size.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.mappings import (
    gather_from_sequence_parallel_region,
    gather_from_tensor_model_parallel_region,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from gptdist.config.model import ModelConfig, RopeScaling
from gptdist.config.recomputation import Recomputed
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.context import ContextPart
from gptdist.mesh.groups import Mesh
from gptdist.model.attention import CausalAttention
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.experts import MixtureOfExperts
from gptdist.model.layer import shaped
from gptdist.model.lesson import Lesson
from gptdist.model.loss import vocabulary_loss
from gptdist.model.norms import HeadNorm, Norm
from gptdist.model.parameters import split_dim
from gptdist.model.recompute import compute_again
from gptdist.model.routing import LossGradient

_KEEP_ALL = Recomputed()


class OutputHead(nn.Module):
    """Hidden states to logits or to the loss; holds the output matrix unless it is the embedding's."""

    def __init__(
        self,
        weight: nn.Parameter | None,
        shard: VocabularyShard,
        *,
        multiplier: float = 1.0,
        sequence_parallel: bool = False,
        z_loss: float = 0.0,
    ) -> None:
        """Take what the head has beside the hidden states.

        Args:
            weight: [v / t, h], or none where the embedding's is passed to each call.
            shard: the rows that it holds.
            multiplier: of the logits.
            sequence_parallel: whether each tensor-parallel rank comes with a part of the tokens.
            z_loss: its coefficient.
        """
        super().__init__()
        self.sequence_parallel = sequence_parallel
        self.z_loss = z_loss
        self.weight = weight
        self.shard = shard
        self.multiplier = multiplier
        self.last_tokens: Tensor | None = None
        """[b], the only place of each sequence whose logits are wanted; None for all."""

        self.lesson: Lesson | None = None
        """What the next forward pass is to learn from a teacher; an evaluation heeds none."""

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor | None = None,
        labels: Tensor | None = None,
        runtime_gather_output: bool | None = None,
    ) -> tuple[Tensor, None]:
        """Return the mean loss where there are labels, else this rank's logits (all of them when told to gather).

        Shapes: hidden [s, b, h] (sequence parallel: [s / t, b, h]), labels [b, s] -> [] or [s, b, v / t] or [s, b, v].
        """
        matrix = self.weight if weight is None else weight
        assert matrix is not None, "tied output head called without the embedding's weight"
        if self.sequence_parallel:  # each rank computes the loss of all tokens, and so has their whole gradient
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        if self.multiplier != 1.0:
            hidden = hidden * self.multiplier
        if labels is not None:
            flat, flat_labels = hidden.flatten(0, 1), labels.t().reshape(-1)
            if self.lesson is not None and self.training:
                return self.lesson.loss(flat, matrix, flat_labels, self.shard), None
            return vocabulary_loss(flat, matrix, flat_labels, self.shard, self.z_loss), None
        if self.last_tokens is not None:
            hidden = hidden[self.last_tokens, torch.arange(hidden.shape[1], device=hidden.device)].unsqueeze(0)
        logits = hidden @ matrix.t()
        if runtime_gather_output:
            logits = gather_from_tensor_model_parallel_region(logits)
        return logits, None


class RotaryPositions(nn.Module):
    """Rotary angles of the tokens that this rank holds; takes the place of megatron-core's, which needs CUDA."""

    def __init__(self, whole: RotaryEmbedding, scaling: RopeScaling | None, part: ContextPart) -> None:
        """Take the angles of all tokens from ``whole``, stretched by ``scaling``."""
        super().__init__()
        if scaling is not None:
            whole.inv_freq = scaled_frequencies(whole.inv_freq, scaling)
        self.whole = whole
        self.part = part

    def get_rotary_seq_len(self, *arguments: Any, **named: Any) -> int:
        """Return how many tokens all ranks hold together."""
        return int(self.whole.get_rotary_seq_len(*arguments, **named)) * self.part.size

    def forward(self, max_seq_len: int, **_: Any) -> Tensor:
        """Return angles [max_seq_len / c, 1, 1, d]."""
        return self.part.of(self.whole.get_emb(max_seq_len), 0)


class LanguageModel(GPTModel):
    """GPTModel whose forward returns the mean loss of ``labels``, or logits of the true vocabulary.

    Call it as ``model(tokens, positions, mask, labels=labels)``, all [b, s] but for the mask: bool [b, 1, s, s], which
    tokens each attends to, or None for all before it. Of c context-parallel ranks each comes with its part: [b, s / c]
    and [b, 1, s / c, s].
    """

    rotary_pos_emb: Any

    def __init__(
        self,
        config: ModelConfig,
        transformer: TransformerConfig,
        mesh: Mesh,
        *,
        again: Recomputed = _KEEP_ALL,
        z_loss: float = 0.0,
    ) -> None:
        """Build this rank's part of ``config``'s model; weights are not initialised.

        Args:
            config: the model.
            transformer: what ``transformer_config`` made of it.
            mesh: the ranks.
            again: what is computed again in the backward pass; ``transformer`` knows of whole layers.
            z_loss: coefficient of z-loss.
        """
        size, stages = mesh.layout.tensor_parallel_size, mesh.layout.pipeline_parallel_size
        loss_gradient = LossGradient()
        padded = padded_vocab_size(config.vocab_size, size)
        super().__init__(
            config=transformer,
            transformer_layer_spec=_layers(
                config,
                transformer,
                mesh,
                ModuleSpec(
                    module=MixtureOfExperts,
                    params={"model": config, "mesh": mesh, "seen": loss_gradient},
                ),
            ),
            vocab_size=padded,
            max_sequence_length=config.seq_length,
            pre_process=mesh.place.pp_rank == 0,
            post_process=mesh.place.pp_rank == stages - 1,
            position_embedding_type="learned_absolute" if config.position_embedding == "learned" else "rope",
            rotary_percent=config.rotary_fraction,
            rotary_base=config.rope_base,
            share_embeddings_and_output_weights=config.tie_embeddings,
        )
        self.first_layer = stage_layers(config, mesh).start
        self.num_valid_tokens = config.vocab_size
        self.loss_gradient = loss_gradient
        if self.post_process:
            self._make_head(config, _vocabulary_shard(config.vocab_size, padded, mesh), z_loss)
        compute_again(self.decoder.layers, again)
        if config.position_embedding == "rope":
            self.rotary_pos_emb = RotaryPositions(self.rotary_pos_emb, config.rope_scaling, mesh.context_part)
        _mark_split(self, size)

    def _make_head(self, config: ModelConfig, shard: VocabularyShard, z_loss: float) -> None:
        weight: nn.Parameter | None = self.output_layer.weight
        if weight is not None and config.tie_embeddings:
            # The first stage's optimizer updates the one matrix; this copy follows, and is no parameter.
            self.register_buffer("tied_embedding", weight.detach(), persistent=False)
            weight = None
        self.output_layer: OutputHead = OutputHead(
            weight,
            shard,
            multiplier=1.0 / config.width_multiplier,
            sequence_parallel=self.config.sequence_parallel,
            z_loss=z_loss,
        )

    def setup_embeddings_and_output_layer(self) -> None:
        """Leave out what megatron-core does here: it copies the embedding between stages before it has values."""

    def shared_embedding_or_output_weight(self) -> Tensor:
        """Return the embedding's matrix, or the last stage's copy of it."""
        weight: Tensor = self.embedding.word_embeddings.weight if self.pre_process else self.tied_embedding
        return weight

    def _postprocess(self, hidden_states: Tensor, labels: Tensor | None, **_: Any) -> Tensor:
        if not self.post_process:
            return hidden_states
        weight = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        if labels is not None:
            loss: Tensor = self.output_layer(hidden_states, weight=weight, labels=labels)[0]
            return self.loss_gradient.watch(loss)
        logits: Tensor = self.output_layer(hidden_states, weight=weight, runtime_gather_output=True)[0]
        return logits.transpose(0, 1)[..., : self.num_valid_tokens].contiguous()


def _vocabulary_shard(num_tokens: int, padded: int, mesh: Mesh) -> VocabularyShard:
    """Return which of ``padded`` rows this rank holds."""
    rows = padded // mesh.layout.tensor_parallel_size
    start = rows * mesh.place.tp_rank
    return VocabularyShard(
        start=start,
        num_valid=max(0, min(rows, num_tokens - start)),
        group=mesh.tensor_group if mesh.layout.tensor_parallel_size > 1 else None,
    )


def stage_layers(config: ModelConfig, mesh: Mesh) -> range:
    """Return the layers of this rank's stage, from 0."""
    count = config.num_layers // mesh.layout.pipeline_parallel_size
    return range(mesh.place.pp_rank * count, (mesh.place.pp_rank + 1) * count)


def _mark_split(model: nn.Module, tensor_parallel_size: int) -> None:
    """Mark what tensor parallelism cuts: DeepSpeed's gradient norm reads it, megatron-core sets it too seldom."""
    parameter: Any
    for name, parameter in model.named_parameters():
        parameter.tensor_model_parallel = split_dim(name) is not None and tensor_parallel_size > 1


def transformer_config(
    config: ModelConfig,
    mesh: Mesh,
    dtype: torch.dtype,
    *,
    sequence_parallel: bool = False,
    full_layers: int = 0,
) -> TransformerConfig:
    """Return megatron-core's config of the same model, fusions that need CUDA off.

    The first ``full_layers`` of the stage are computed again whole in the backward pass.
    """
    activation = {"gelu_tanh": _gelu_tanh, "gelu": F.gelu, "swiglu": F.silu}[config.activation]
    return TransformerConfig(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        num_query_groups=config.query_groups,
        kv_channels=config.head_size,
        ffn_hidden_size=config.ffn_size,
        normalization="LayerNorm" if config.normalization == "layernorm" else "RMSNorm",
        layernorm_epsilon=config.norm_epsilon,
        gated_linear_unit=config.is_gated,
        activation_func=activation,
        add_bias_linear=config.add_bias,
        add_qkv_bias=config.add_qkv_bias,
        attention_dropout=config.attention_dropout,
        hidden_dropout=config.hidden_dropout,
        tensor_model_parallel_size=mesh.layout.tensor_parallel_size,
        pipeline_model_parallel_size=mesh.layout.pipeline_parallel_size,
        sequence_parallel=sequence_parallel,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        recompute_granularity="full" if full_layers else None,
        recompute_method="block" if full_layers else None,
        recompute_num_layers=full_layers or None,
        perform_initialization=False,  # ours does not depend on the layout
        use_cpu_initialization=not torch.cuda.is_available(),
        apply_rope_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        gradient_accumulation_fusion=False,
    )


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def scaled_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Return rotary frequencies [d / 2] stretched as ``RopeScaling`` says."""
    turns = scaling.original_seq_length * frequencies / (2 * math.pi)  # of each frequency over the original length
    blend = (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor)
    blend = blend.clamp(0.0, 1.0)
    return frequencies * (blend + (1.0 - blend) / scaling.factor)


def _layers(
    config: ModelConfig, transformer: TransformerConfig, mesh: Mesh, experts: ModuleSpec
) -> TransformerBlockSubmodules:
    stage = stage_layers(config, mesh)
    specs = [shaped(_layer(config, transformer, mesh), shape) for shape in config.shapes()]
    for index, spec in enumerate(specs):
        if config.has_experts(index):
            spec.submodules.mlp = experts
    return TransformerBlockSubmodules(layer_specs=specs[stage.start : stage.stop], layer_norm=Norm)


def _layer(config: ModelConfig, transformer: TransformerConfig, mesh: Mesh) -> ModuleSpec:
    spec: ModuleSpec = get_gpt_layer_local_spec(normalization=transformer.normalization)
    attention = spec.submodules.self_attention.submodules
    attention.core_attention = ModuleSpec(
        module=CausalAttention,
        params={
            "window": config.local_attention_window,
            "multiplier": config.attention_multiplier,
            "context_group": mesh.context_group if mesh.layout.context_parallel_size > 1 else None,
        },
    )
    if config.qk_norm:
        attention.q_layernorm = attention.k_layernorm = HeadNorm
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = Norm
    return spec
