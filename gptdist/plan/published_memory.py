"""Memory of runs of other software: Megatron-LM, Megatron-DeepSpeed and FSDP hold other things than this trainer.

Source of the bytes a parameter: Rajbhandari et al. 2020 (ZeRO), arXiv 1910.02054, section 3; of the scores of attention
without a fused kernel: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1.
"""

from gptdist.config.activations import LayerActivations, LayerSizes, RankShare
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.model.arithmetic import num_parameters
from gptdist.plan.constants import Constants
from gptdist.plan.published import PublishedRun
from gptdist.plan.rank_memory import framework_bytes
from gptdist.plan.workload import Workload

WEIGHT_BYTES, GRADIENT_BYTES, FP32_GRADIENT_BYTES = 2, 2, 4
SHARDED_BYTES = 16
"""Master weight, two moments, and the gradient in fp32 of the part that a rank updates."""

BUCKET_BYTES = 2 * 500_000_000 * 2
"""Two of DeepSpeed's buckets in 16 bits."""

SCORE_BYTES = 5
"""Of attention without a fused kernel, a score: softmax' input and output in 16 bits, and dropout's mask."""

LOGIT_BYTES, LEAN_LOGIT_BYTES = 10, 6
"""In 16 bits, in fp32, and their gradient; where the loss is in 16 bits or compiled: all three in 16 bits, or one in
fp32 and one in 16."""

BOUNDARIES = 2
"""Tensors beyond the layers' inputs that a pipeline stage holds of a micro batch: as received, and as sent on."""


def published_bytes(run: PublishedRun, constants: Constants) -> float:
    """Return bytes of the fullest GPU."""
    stages = run.workload.layout.pipeline_parallel_size
    return max(_stage_bytes(run, constants, stage) for stage in sorted({0, stages // 2, stages - 1}))


def _stage_bytes(run: PublishedRun, constants: Constants, stage: int) -> float:
    workload = run.workload
    model, tensor = workload.model, workload.layout.tensor_parallel_size
    layers, is_last = workload.layers_of_stage(stage), stage == workload.layout.pipeline_parallel_size - 1
    rows = padded_vocab_size(model.vocab_size, tensor) / tensor
    table = rows * model.hidden_size
    tables = 2 if stage == 0 and is_last and not model.tie_embeddings else 1
    ends = table * tables if stage == 0 or is_last else 0.0
    embeddings = model.vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
    layer = (num_parameters(model) - embeddings) / model.num_layers / tensor
    held = _states(run, layers * layer + ends, layer, table)
    kept = _activations(run, layers, stage, rows)
    return framework_bytes(workload.layout, constants) + held + kept


def _states(run: PublishedRun, values: float, layer: float, table: float) -> float:
    """Return bytes of weights, gradients and optimizer."""
    copies, stage = run.workload.layout.num_copies, run.workload.zero_stage
    if stage == 3:  # a layer is whole at a time, or the embedding
        return SHARDED_BYTES * values / copies + (WEIGHT_BYTES + GRADIENT_BYTES) * max(layer, table)
    if run.source.startswith("arXiv"):  # gradients in fp32, no other copy of them
        return (WEIGHT_BYTES + SHARDED_BYTES) * values
    gradients = GRADIENT_BYTES + (FP32_GRADIENT_BYTES if run.adds_fp32_gradients else 0)
    sharded = SHARDED_BYTES / (copies if stage else 1)
    return (WEIGHT_BYTES + gradients + sharded) * values + BUCKET_BYTES


def _activations(run: PublishedRun, layers: int, stage: int, rows: float) -> float:
    """Return bytes of activations of all micro batches under way, of a layer that is computed again, and of logits."""
    workload = run.workload
    model, layout = workload.model, workload.layout
    share = RankShare(
        micro_batch_size=workload.micro_batch_size,
        seq_length=model.seq_length,
        tensor_parallel_size=layout.tensor_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        sequence_parallel=workload.sequence_parallel,
        value_bytes=2,
        on_gpu=True,
    )
    sizes = LayerSizes.of(model, 0)
    kept = LayerActivations.of(model, sizes, share)
    again, whole = workload.recomputation, kept.whole
    if workload.software.attention == "unfused":
        scores = workload.tokens * model.seq_length * model.num_attention_heads / layout.tensor_parallel_size
        whole += int(SCORE_BYTES * scores)
    each: float = kept.input if again.matrices == 1.0 else whole
    if again.matrices and again.matrices < 1.0:
        each = kept.input + _every_second_product(workload, sizes)
    elif again.attention and again.matrices == 0.0:
        each = kept.whole
    working = whole if again.rest or again.attention else 0
    stages = layout.pipeline_parallel_size
    under_way = min(stages - stage, workload.num_micro_batches)
    bytes_each = LEAN_LOGIT_BYTES if run.has_lean_logits else LOGIT_BYTES
    logits = bytes_each * workload.tokens * rows if stage == stages - 1 else 0.0
    boundaries = BOUNDARIES * kept.input if stages > 1 else 0
    return under_way * (layers * each + boundaries) + max(working, logits)


def _every_second_product(workload: Workload, sizes: LayerSizes) -> float:
    """Return bytes of attention's output and of half of what matrices make, on one rank."""
    query, key = sizes.heads * sizes.head_size, sizes.groups * sizes.head_size
    up = sizes.ffn * (2 if workload.model.is_gated else 1)
    made = query + 2 * key + up + 2 * sizes.hidden
    return workload.tokens * 2.0 * (query + made / 2) / workload.layout.tensor_parallel_size
