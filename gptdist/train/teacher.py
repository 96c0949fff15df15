"""A frozen teacher on the ranks of a run: split as the student is, without gradients, in no checkpoint.

Letters: b batch, s sequence, g the teacher's hidden size, k its rows of the output matrix on this rank.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor

from gptdist.checkpoint.load import load_weights
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.teacher import Teacher
from gptdist.data.batches import Batch
from gptdist.device.device import Device
from gptdist.mesh.groups import Mesh
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.distillation_loss import DenseTargets
from gptdist.model.gpt import LanguageModel, transformer_config
from gptdist.model.parameters import VOCABULARY_TENSORS, local_parameters
from gptdist.tokenizer.matching import NO_MATCH
from gptdist.train.hidden_terms import LayerOutputs

logger = logging.getLogger(__name__)


class FrozenTeacher:
    """This rank's part of a teacher."""

    def __init__(
        self,
        teacher: Teacher,
        mesh: Mesh,
        device: Device,
        *,
        sequence_parallel: bool,
        layers: Sequence[int] = (),
        student_shard: VocabularyShard,
    ) -> None:
        """Read the weights that this rank needs.

        Args:
            teacher: its checkpoint.
            mesh: the ranks.
            device: of the model, and the number format of its weights.
            sequence_parallel: as the student's.
            layers: whose outputs are wanted.
            student_shard: which rows of the student's vocabulary this rank holds.

        Raises:
            CheckpointError: its tensors are not those of its config.
        """
        reader, size = CheckpointReader(teacher.folder), mesh.layout.tensor_parallel_size
        transformer = transformer_config(teacher.model, mesh, device.dtype, sequence_parallel=sequence_parallel)
        model = LanguageModel(teacher.model, transformer, mesh).to(device=device.torch_device, dtype=device.dtype)
        load_weights(reader, list(local_parameters(model, teacher.model, size, tp_rank=mesh.place.tp_rank)))
        self.model = model.eval().requires_grad_(False)
        self._multiplier = model.output_layer.multiplier
        self._sequence_parallel = sequence_parallel
        self._layers = LayerOutputs(model, layers)
        self._ids: Tensor | None = None
        self._end_of_document = teacher.end_of_document
        self._columns: Tensor | None = None
        if teacher.matched is None:
            is_tied = model.share_embeddings_and_output_weights
            matrix = model.shared_embedding_or_output_weight() if is_tied else model.output_layer.weight
            assert matrix is not None, "an output matrix that is not the embedding's"
            self._rows = matrix.detach()[: model.output_layer.shard.num_valid]
        else:
            self._ids = torch.from_numpy(teacher.matched).to(device.torch_device)
            self._columns, self._rows = _matched_rows(teacher, reader, student_shard, like=next(model.parameters()))
        model.post_process = False  # its forward pass ends with hidden states

    @torch.no_grad()
    def answer(self, batch: Batch) -> tuple[DenseTargets, dict[int, Tensor]]:
        """Return the teacher's logits on a micro batch, as their factors, and what the wanted layers gave."""
        tokens, heard = batch.tokens, None
        if self._ids is not None:
            tokens = self._ids[tokens]
            unknown = tokens == NO_MATCH
            heard = ~unknown.t().reshape(-1)
            tokens = tokens.masked_fill(unknown, self._end_of_document)
        hidden = self.model(tokens, batch.positions(), batch.attention_mask())
        if self._sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden)
        if self._multiplier != 1.0:
            hidden = hidden * self._multiplier
        return DenseTargets(hidden.flatten(0, 1), self._rows, self._columns, heard), self._layers.take()


def _matched_rows(
    teacher: Teacher, reader: CheckpointReader, shard: VocabularyShard, *, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return which of this rank's rows of the student the teacher knows, and the teacher's rows for those."""
    assert teacher.matched is not None, "vocabularies are mapped"
    mine = teacher.matched[shard.start : shard.start + shard.num_valid]
    columns = np.flatnonzero(mine != NO_MATCH)
    embedding, output = VOCABULARY_TENSORS
    whole = reader.weight(embedding if teacher.model.tie_embeddings else output)
    rows = whole[torch.from_numpy(mine[columns])]
    return torch.from_numpy(columns).to(like.device), rows.to(device=like.device, dtype=like.dtype)
