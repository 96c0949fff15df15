"""The weights that one rank holds, by shape; from the config alone, no torch."""

from dataclasses import dataclass, field

from gptdist.config.activations import LayerSizes
from gptdist.config.model import ModelConfig
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.layout import Layout


@dataclass(frozen=True)
class Matrix:
    """One of a rank's matrices, or a stack of one matrix an expert, and the whole one that it is a part of."""

    values: int
    """Of this rank, padding included."""

    rows: int
    columns: int
    maps: int = 1
    """What it is made of: queries, keys and values, or gate and up-projection."""

    map_rows: int = 0
    """Rows of the largest of these; 0 for all."""

    stacks: int = 1
    """How many experts the whole model has in this stack."""

    is_hidden: bool = True
    """Whether it maps hidden states to hidden states: no embedding, no output matrix, no router."""

    is_expert: bool = False
    """Whether ranks of an expert group, which hold the same weights otherwise, have other parts of it."""


@dataclass
class RankWeights:
    """All of a rank's weights."""

    matrices: list[Matrix] = field(default_factory=list)
    vectors: list[int] = field(default_factory=list)
    """Values of each."""

    @classmethod
    def of(cls, model: ModelConfig, layout: Layout, stage: int) -> "RankWeights":
        """Return those of a rank of pipeline ``stage``, padding included."""
        parts, stages = layout.tensor_parallel_size, layout.pipeline_parallel_size
        rows, hidden = padded_vocab_size(model.vocab_size, parts) // parts, model.hidden_size
        words = Matrix(rows * hidden, model.vocab_size, hidden, is_hidden=False)
        found = cls()
        if stage == 0:
            found.matrices.append(words)
            if model.position_embedding == "learned":
                positions = Matrix(model.seq_length * hidden, model.seq_length, hidden, is_hidden=False)
                found.matrices.append(positions)
        count = model.num_layers // stages
        for layer in range(stage * count, (stage + 1) * count):
            found._add_layer(model, layer, layout)
        if stage == stages - 1:
            found.vectors += [hidden] * _values_of_norm(model)
            if not model.tie_embeddings:
                found.matrices.append(words)
        return found

    @property
    def sizes(self) -> list[int]:
        """Values of each weight."""
        return [matrix.values for matrix in self.matrices] + self.vectors

    @property
    def num_values(self) -> int:
        """Values of all weights."""
        return sum(self.sizes)

    @property
    def num_expert_values(self) -> int:
        """Of which other ranks with the same weights otherwise hold other experts' in their place."""
        return sum(matrix.values for matrix in self.matrices if matrix.is_expert)

    @property
    def hidden_matrices(self) -> list[Matrix]:
        """Those that map hidden states to hidden states."""
        return [matrix for matrix in self.matrices if matrix.is_hidden]

    def _add_layer(self, model: ModelConfig, layer: int, layout: Layout) -> None:
        sizes, parts, hidden = LayerSizes.of(model, layer), layout.tensor_parallel_size, model.hidden_size
        num_up, norm = 2 if model.is_gated else 1, [hidden] * _values_of_norm(model)
        if sizes.heads:
            query, key = sizes.heads * sizes.head_size, sizes.groups * sizes.head_size
            joined = query + 2 * key
            self.matrices.append(Matrix(joined * hidden // parts, joined, hidden, maps=3, map_rows=query))
            self.matrices.append(Matrix(hidden * query // parts, hidden, query))
            self.vectors += norm + ([joined // parts] if model.has_qkv_bias else [])
            self.vectors += [hidden] if model.add_bias else []
            self.vectors += [sizes.head_size] * (2 * _values_of_norm(model)) if model.qk_norm else []
        if model.has_experts(layer):
            self.vectors += norm
            self._add_experts(model, layout)
        elif sizes.ffn:
            up = sizes.ffn * num_up
            self.matrices.append(Matrix(up * hidden // parts, up, hidden, maps=num_up, map_rows=sizes.ffn))
            self.matrices.append(Matrix(hidden * sizes.ffn // parts, hidden, sizes.ffn))
            self.vectors += norm + ([up // parts, hidden] if model.add_bias else [])

    def _add_experts(self, model: ModelConfig, layout: Layout) -> None:
        """Add a router, which every rank has whole, and this rank's experts."""
        assert model.moe is not None, "a layer of experts in a model without"
        experts, hidden = model.moe.num_experts, model.hidden_size
        here = experts // (layout.tensor_parallel_size * layout.expert_parallel_size)
        is_split, num_up = layout.expert_parallel_size > 1, 2 if model.is_gated else 1
        self.matrices.append(Matrix(experts * hidden, experts, hidden, is_hidden=False))
        width = model.expert_size
        for rows, columns, maps, map_rows in ((width * num_up, hidden, num_up, width), (hidden, width, 1, hidden)):
            values = here * rows * columns
            self.matrices.append(Matrix(values, rows, columns, maps, map_rows, stacks=experts, is_expert=is_split))


def _values_of_norm(model: ModelConfig) -> int:
    """Return how many vectors a norm has."""
    return 2 if model.normalization == "layernorm" else 1
