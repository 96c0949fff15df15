"""Which activations each stage computes again in the backward pass: as told, or the cheapest that a budget allows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gptdist.config.activations import (
    LayerActivations,
    LayerSizes,
    RankShare,
    angle_bytes,
    embedding_bytes,
    head_bytes,
)
from gptdist.config.memory import MemoryConfig
from gptdist.config.model import ModelConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.ranges import ranges_text
from gptdist.config.vocabulary import padded_vocab_size


@dataclass(frozen=True)
class Recomputed:
    """What a stage computes again; layers are counted from 0 in the stage."""

    full_layers: int = 0
    """The first layers, of which only the input is kept."""

    attention: frozenset[int] = frozenset()
    """Layers of which attention is computed again, beyond those."""

    mlp: frozenset[int] = frozenset()
    """Likewise of the feed-forward part."""

    def describe(self, first_layer: int) -> str:
        """Say it with layers counted from 0 over the whole model, of which this stage's begin at ``first_layer``."""
        parts = {"all": range(self.full_layers), "attention": self.attention, "mlp": self.mlp}
        shown = [
            f"{name} of layers {ranges_text(first_layer + layer for layer in layers)}"
            for name, layers in parts.items()
            if layers
        ]
        return ", ".join(shown) or "nothing"


@dataclass(frozen=True)
class LayerCost:
    """One layer on one rank: what is kept of a micro batch, and forward FLOPs of a token, by part."""

    kept: LayerActivations
    attention_flops: float
    mlp_flops: float
    flops: float

    @classmethod
    def of(cls, model: ModelConfig, layer: int, share: RankShare) -> "LayerCost":
        """Count those of ``layer``."""
        sizes = LayerSizes.of(model, layer)
        query, key = sizes.heads * sizes.head_size, sizes.groups * sizes.head_size
        seen = min(sizes.window or share.seq_length, share.seq_length)
        attention = 4.0 * query * (seen - seen**2 / (2 * share.seq_length))
        mlp = 2.0 * sizes.hidden * sizes.ffn * (3 if model.is_gated else 2)
        mlp *= model.moe.experts_per_token if model.moe is not None and sizes.experts else 1
        matrices = 2.0 * sizes.hidden * (2 * query + 2 * key)
        return cls(LayerActivations.of(model, sizes, share), attention, mlp, attention + mlp + matrices)


@dataclass(frozen=True)
class StageActivations:
    """What a stage may keep or compute again."""

    layers: tuple[LayerCost, ...]
    before: int
    """Bytes kept of a micro batch ahead of the layers."""

    behind: int
    """Behind them: of the head, or the output that waits for its gradient. Free before the layers' backward pass."""

    angles: int
    """Bytes of the rotary angles, which layers that are computed again whole share."""

    in_flight: int
    """Micro batches that are kept at once, at most."""

    @classmethod
    def of(cls, model: ModelConfig, parallel: ParallelConfig, share: RankShare, stage: int) -> "StageActivations":
        """Count those of ``stage``, from 0; the sizes must divide."""
        stages, parts = parallel.pipeline_parallel_size, parallel.tensor_parallel_size
        count = model.num_layers // stages
        layers = tuple(LayerCost.of(model, layer, share) for layer in range(stage * count, (stage + 1) * count))
        rows = padded_vocab_size(model.vocab_size, parts) // parts
        is_last = stage == stages - 1
        return cls(
            layers=layers,
            before=embedding_bytes(model, share) if stage == 0 else 0,
            behind=head_bytes(model, share, rows) if is_last else layers[-1].kept.input,
            angles=angle_bytes(model, share),
            in_flight=stages - stage,
        )

    def kept(self, again: Recomputed) -> int:
        """Return bytes that one micro batch keeps from its forward to its backward pass."""
        angles = self.angles if again.full_layers else 0
        return self.before + angles + sum(kept for kept, _ in self._by_layer(again)) + self.behind

    def peak(self, again: Recomputed) -> int:
        """Return the most bytes that are there at once: of all micro batches, and of a layer that is computed again.

        Backward passes begin with the last layer: what it kept is free when an earlier one is computed again.
        """
        highest = whole = self.kept(again)
        reached = whole - self.behind - sum(kept for kept, _ in self._by_layer(again))
        for kept, anew in self._by_layer(again):
            reached += kept
            highest = max(highest, reached + anew)
        return (self.in_flight - 1) * whole + highest

    def flops(self, again: Recomputed) -> float:
        """Return what is computed again as a fraction of the stage's layers' forward pass."""
        extra = sum(layer.flops for layer in self.layers[: again.full_layers])
        extra += sum(self.layers[index].attention_flops for index in again.attention)
        extra += sum(self.layers[index].mlp_flops for index in again.mlp)
        return extra / sum(layer.flops for layer in self.layers)

    def _by_layer(self, again: Recomputed) -> Iterator[tuple[int, int]]:
        """Yield what is kept of each layer, and what comes on top of it while it is computed again."""
        for index, layer in enumerate(self.layers):
            kept = layer.kept
            if index < again.full_layers:
                yield kept.input, kept.whole - kept.input
                continue
            attention = kept.attention - kept.attention_input if index in again.attention else 0
            mlp = kept.mlp if index in again.mlp else 0
            yield kept.whole - attention - mlp, max(attention, mlp)


@dataclass(frozen=True, order=True)
class _Part:
    """A part of a layer that can be computed again."""

    flops_per_byte: float
    layer: int
    name: str
    flops: float = field(compare=False)


def cheapest(stage: StageActivations, budget: int) -> Recomputed | None:
    """Return what to compute again so that at most ``budget`` bytes are kept at once; None where nothing would do.

    For each number of whole layers, parts of the others are taken while need be: those with the fewest FLOPs for each
    byte first, of early layers before late ones, whose bytes are free sooner.
    """
    best: tuple[float, Recomputed, list[_Part]] | None = None
    for full in range(len(stage.layers) + 1):
        parts = _parts(stage, full)
        if stage.peak(_taken(full, parts)) > budget:
            continue
        low, high = 0, len(parts)
        while low < high:
            middle = (low + high) // 2
            if stage.peak(_taken(full, parts[:middle])) <= budget:
                high = middle
            else:
                low = middle + 1
        again = _taken(full, parts[:low])
        if best is None or stage.flops(again) < best[0]:
            best = stage.flops(again), again, parts[:low]
    if best is None:
        return None
    _, again, parts = best
    for part in sorted(parts, key=lambda part: part.flops, reverse=True):  # the last ones may have made others needless
        fewer = [other for other in parts if other is not part]
        if stage.peak(_taken(again.full_layers, fewer)) <= budget:
            parts = fewer
    return _taken(again.full_layers, parts)


def least_bytes(stage: StageActivations) -> int:
    """Return the smallest budget that ``stage`` can keep to."""
    return min(stage.peak(_taken(full, _parts(stage, full))) for full in range(len(stage.layers) + 1))


def _parts(stage: StageActivations, full: int) -> list[_Part]:
    """Return all that can be computed again of layers from ``full`` on, the cheapest first."""
    found = []
    for index, layer in enumerate(stage.layers[full:], full):
        saved = {
            "attention": (layer.attention_flops, layer.kept.attention - layer.kept.attention_input),
            "mlp": (layer.mlp_flops, layer.kept.mlp),
        }
        found += [_Part(flops / size, index, name, flops) for name, (flops, size) in saved.items() if size > 0]
    return sorted(found)


def _taken(full: int, parts: Sequence[_Part]) -> Recomputed:
    return Recomputed(
        full_layers=full,
        attention=frozenset(part.layer for part in parts if part.name == "attention"),
        mlp=frozenset(part.layer for part in parts if part.name == "mlp"),
    )


def recomputed(
    memory: MemoryConfig, model: ModelConfig, parallel: ParallelConfig, share: RankShare, stage: int
) -> Recomputed:
    """Return what ``stage`` computes again; a budget must have no problems."""
    count = model.num_layers // parallel.pipeline_parallel_size
    everywhere = frozenset(range(count))
    match memory.recompute:
        case "none":
            return Recomputed()
        case "attention":
            return Recomputed(attention=everywhere)
        case "mlp":
            return Recomputed(mlp=everywhere)
        case "full":
            layers = model.num_layers if memory.recompute_layers is None else memory.recompute_layers
            return Recomputed(full_layers=min(count, max(0, layers - stage * count)))
        case "budget":
            assert memory.activation_bytes is not None, "a budget without bytes"
            again = cheapest(StageActivations.of(model, parallel, share, stage), memory.activation_bytes)
            assert again is not None, "a budget that was not checked"
            return again


def budget_problems(memory: MemoryConfig, model: ModelConfig, parallel: ParallelConfig, share: RankShare) -> list[str]:
    """Return why activations cannot be kept within ``memory.activation_bytes``."""
    if memory.recompute != "budget" or memory.activation_bytes is None:
        return []
    if model.moe is not None:
        return [
            "memory.recompute: budget cannot count activations of model.moe, whose experts get as many tokens as the "
            "router sends them; use mlp or full"
        ]
    least = [
        least_bytes(StageActivations.of(model, parallel, share, stage))
        for stage in range(parallel.pipeline_parallel_size)
    ]
    if max(least) <= memory.activation_bytes:
        return []
    stage = least.index(max(least))
    where = f" on stage {stage}" if len(least) > 1 else ""
    return [
        f"memory.activation_bytes: {memory.activation_bytes:,} is less than the {max(least):,} that are kept{where} "
        f"even if all layers are computed again; raise it to that, or lower batch.micro_batch_size"
    ]


def tell(memory: MemoryConfig, model: ModelConfig, parallel: ParallelConfig, share: RankShare) -> list[str]:
    """Return a line for each stage: what it computes again, and the bytes that it keeps at once."""
    lines, stages = [], parallel.pipeline_parallel_size
    for number in range(stages):
        stage = StageActivations.of(model, parallel, share, number)
        again = recomputed(memory, model, parallel, share, number)
        where = f"stage {number}: " if stages > 1 else ""
        lines.append(
            f"activations: {where}{stage.peak(again):,} bytes at once of {memory.activation_bytes:,}; computed again: "
            f"{again.describe(number * len(stage.layers))} ({stage.flops(again):.0%} of the layers' forward pass)"
        )
    return lines
