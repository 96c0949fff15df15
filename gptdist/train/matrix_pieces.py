"""Where the values that a rank holds of a tensor stand in the tensor's matrices."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gptdist.checkpoint.fragments import Piece
from gptdist.config.model import ModelConfig
from gptdist.model.parameters import LocalParameter, matrices_of

CHUNK_NUMEL = 1 << 20
"""Values looked at at a time: what is computed in between is of this size, not of the weights'."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of one stack, as far as a piece holds them; only the first and the last may be incomplete."""

    begin: int
    """First value, counted in the tensor that is optimized."""

    numel: int
    lead: int
    """Values of the first row that stand before it."""

    stack: int
    rows: slice
    """Which rows of the stack."""


@dataclass(frozen=True)
class MatrixPiece:
    """A rank's range of a tensor of matrices.

    The tensor is e stacks of r rows, [e, r, columns]: one stack, or one for each expert. Rows of a stack belong to p
    matrices: queries, keys and values, or gate and up-projection, else one.
    """

    local: LocalParameter
    stacks: int
    num_rows: int
    columns: int
    members: Tensor
    """Whether a row belongs to a matrix, [p, r]."""

    width: int
    """Values of a row that the rank's slice of the tensor has."""

    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, piece: Piece, model: ModelConfig, device: torch.device) -> "MatrixPiece":
        """Return what ``piece``, of a tensor of two dimensions or, with experts, of three, holds of it."""
        local = piece.local
        *experts, num_rows, columns = local.logical.shape
        width = local.local_length if _cuts_columns(local) else columns
        return cls(
            local=local,
            stacks=experts[0] if experts else 1,
            num_rows=num_rows,
            columns=columns,
            members=_members(local, model).to(device),
            width=width,
            chunks=tuple(_chunks(piece, width)),
        )

    @property
    def column_slice(self) -> slice:
        """Which columns the rank's slice of the tensor has."""
        return slice(self.local.start, self.local.start + self.width) if self.width < self.columns else slice(None)

    def read(self, flat: Tensor, chunk: Chunk) -> Tensor:
        """Return a chunk of the optimized tensor as [rows, width], zeros where other ranks hold the values."""
        values = flat[chunk.begin : chunk.begin + chunk.numel]
        count = chunk.rows.stop - chunk.rows.start
        behind = count * self.width - chunk.lead - chunk.numel
        return (pad(values, (chunk.lead, behind)) if chunk.lead or behind else values).view(count, self.width)

    def belongs(self, chunk: Chunk) -> Tensor:
        """Return 1 where a row of ``chunk`` is of a matrix, else 0, [p, rows] in fp32."""
        return self.members[:, chunk.rows].float()


def held_of(chunk: Chunk, values: Tensor) -> Tensor:
    """Return of ``values``, [rows, width], those that the rank holds, flat."""
    return values.reshape(-1)[chunk.lead : chunk.lead + chunk.numel]


def _cuts_columns(local: LocalParameter) -> bool:
    """Whether tensor parallelism cuts the last dimension: then ``inner`` is 1."""
    return local.logical.inner % local.logical.shape[-1] != 0


def _members(local: LocalParameter, model: ModelConfig) -> Tensor:
    labels = torch.zeros(local.logical.shape[-2], 1, dtype=torch.int64)
    parts = matrices_of(labels, local.logical.name, model)
    for number, part in enumerate(parts):
        part.fill_(number)
    return labels.view(1, -1) == torch.arange(len(parts))[:, None]


def _bands(local: LocalParameter) -> Iterator[tuple[int, int, int]]:
    """Yield rows of the local tensor that are neighbours in a stack: their number, the stack, the first one there."""
    logical = local.logical
    *experts, num_rows, columns = logical.shape
    if _cuts_columns(local):
        yield num_rows, 0, 0
    elif experts:
        assert (logical.outer, logical.inner) == (1, num_rows * columns), "layouts leave experts whole"
        for index in range(local.local_length):
            yield num_rows, local.start + index, 0
    else:
        for index in range(logical.outer):
            yield local.local_length, 0, index * logical.length + local.start


def _chunks(piece: Piece, width: int) -> Iterator[Chunk]:
    start, stop = piece.start, piece.start + piece.valid_numel
    at_once = max(1, CHUNK_NUMEL // width)
    band_begin = 0
    for count, stack, first_row in _bands(piece.local):
        low = max(0, start // width - band_begin)
        high = min(count, -(-stop // width) - band_begin)
        for row in range(low, high, at_once):
            behind = min(high, row + at_once)
            row_begin = (band_begin + row) * width
            begin, end = max(start, row_begin), min(stop, (band_begin + behind) * width)
            if begin < end:
                yield Chunk(
                    begin=piece.offset + begin - start,
                    numel=end - begin,
                    lead=begin - row_begin,
                    stack=stack,
                    rows=slice(first_row + row, first_row + behind),
                )
        band_begin += count
