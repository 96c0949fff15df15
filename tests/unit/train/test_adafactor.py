"""Adafactor against torch's, matrix by matrix, and against itself where a rank holds a part of a matrix."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gptdist.checkpoint.fragments import OptimizerFragments, Piece
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.mesh.layout import Layout
from gptdist.model import memory
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import LocalParameter, is_hidden_matrix, local_parameters, local_slice, logical_tensor
from gptdist.train import matrix_pieces
from gptdist.train.adafactor import Adafactor, Matrices
from gptdist.train.engine import make_optimizer
from gptdist.train.matrix_pieces import MatrixPiece
from tests.support.datasets import LLAMA, MOE, run_tree
from tests.unit.compress.small_models import megatron_model, trained
from tests.unit.train.test_muon import _maps

TOLERANCE = 1e-5
"""Of the norm of what is compared, fp32 in another order."""

UNSCALED = 1e3
"""Torch multiplies the rate by the weights' root mean square, or by this if that is smaller; we never do."""

LR, WEIGHT_DECAY, STEPS = 1e-2, 0.5, 3


def _torchs(weight: Tensor, *, decays: bool) -> torch.optim.Adafactor:
    return torch.optim.Adafactor(
        [weight], lr=LR / UNSCALED, eps=(1e-15, UNSCALED), weight_decay=WEIGHT_DECAY * UNSCALED if decays else 0.0
    )


@pytest.mark.parametrize("section", [{}, MOE], ids=["gpt2", "moe"])
def test_a_models_steps_are_torchs(section: dict, tmp_path: Path) -> None:
    """Queries, keys, values, gates, up-projections and experts each for itself."""
    settings = {"kind": "adafactor", "lr": LR, "weight_decay": WEIGHT_DECAY}
    config = RunConfig.from_tree(run_tree(tmp_path, model=section, optimizer=settings))
    with megatron_model(trained(**config.model.tree())) as (network, mesh):
        optimizer = make_optimizer(network, config)
        assert isinstance(optimizer, Adafactor)
        locals_ = list(local_parameters(network, config.model, 1, 0))
        optimizer.attach(OptimizerFragments(optimizer, locals_, config.optimizer), mesh, config.model)
        named = dict(network.named_parameters())
        shapes = logical_shapes(config.model)

        def parts(name: str, values: Tensor) -> list[Tensor]:
            valid = values[: shapes[name][0]]  # a vocabulary may be padded
            return _maps(name, valid, config.model) if is_hidden_matrix(name) else [valid]

        start = {name: weight.detach().clone() for name, weight in named.items()}
        theirs = {name: [nn.Parameter(part.clone()) for part in parts(name, start[name])] for name in named}
        torchs = [(weight, _torchs(weight, decays=named[name].dim() > 1)) for name in theirs for weight in theirs[name]]
        torch.manual_seed(0)
        for _ in range(STEPS):
            for number, (name, weight) in enumerate(named.items()):
                weight.grad = torch.randn_like(weight) * 10.0 ** (number % 5 - 6)
                for mine, grad in zip(theirs[name], parts(name, weight.grad), strict=True):
                    mine.grad = grad.clone()
            optimizer.step()
            for _, each in torchs:
                each.step()
        for name, weight in named.items():
            for mine, reference, old in zip(
                parts(name, weight.detach()), theirs[name], parts(name, start[name]), strict=True
            ):
                assert (mine - reference).norm() < TOLERANCE * (reference - old).norm(), name


def test_the_means_are_few_and_the_formula_knows_how_many(tmp_path: Path) -> None:
    config = RunConfig.from_tree(
        run_tree(tmp_path, model=LLAMA | {"hidden_size": 256}, optimizer={"kind": "adafactor"})
    )
    with megatron_model(trained(**config.model.tree())) as (network, mesh):
        optimizer = make_optimizer(network, config)
        assert isinstance(optimizer, Adafactor)
        locals_ = list(local_parameters(network, config.model, 1, 0))
        optimizer.attach(OptimizerFragments(optimizer, locals_, config.optimizer), mesh, config.model)
        means = 4 * sum(one.values.numel() for one in optimizer.whole_states())
        means += 4 * sum(state["exp_avg_sq"].numel() for state in optimizer.state.values() if "exp_avg_sq" in state)
        num_maps = {"linear_qkv.weight": 3, "linear_fc1.weight": 2}
        labels = sum(
            shape[0] * next((count for suffix, count in num_maps.items() if name.endswith(suffix)), 1)
            for name, shape in logical_shapes(config.model).items()
            if len(shape) == 2
        )
        values = sum(weight.numel() for weight in network.parameters())
    assert means < 0.03 * 8 * values, "AdamW's are 8 bytes a value"
    layout = Layout(1, 1, 1, 1)
    counted = memory.step_memory(config, layout, on_gpu=False, value_bytes=4).update.optimizer
    assert counted == 4 * values + means + labels


def _pieces(name: str, shape: tuple[int, ...], model: ModelConfig, slices: int, cuts: list[int]) -> list[Piece]:
    """Return what the ranks of some tensor-parallel slices hold, each cut by ZeRO at ``cuts``, flat one each."""
    found = []
    logical = logical_tensor(name, shape, model)
    length = -(-logical.length // slices)
    for index in range(slices):
        local = LocalParameter(nn.Parameter(torch.empty(0)), logical, index * length, length, slices)
        borders = [0, *cuts, local.numel]
        found += [Piece(local, start, stop - start, offset=3) for start, stop in pairwise(borders)]
    return found


CUT = [
    ("decoder.layers.0.self_attention.linear_qkv.weight", (64, 32), 2, [5, 700]),
    ("decoder.layers.0.self_attention.linear_proj.weight", (32, 32), 2, [16, 17, 300]),
    ("decoder.layers.0.mlp.linear_fc1.weight", (192, 32), 4, [1, 33, 800]),
    ("decoder.layers.0.mlp.linear_fc2.weight", (32, 96), 2, [1000]),
    ("decoder.layers.1.mlp.experts.linear_fc1.weight", (4, 96, 32), 2, [3072, 3073, 4000]),
    ("decoder.layers.1.mlp.experts.linear_fc2.weight", (4, 32, 48), 4, [100]),
    ("embedding.word_embeddings.weight", (257, 32), 2, [40]),
    ("decoder.layers.1.mlp.router.weight", (4, 32), 1, [33]),
]


@pytest.mark.parametrize("chunk", [50, 1 << 20])
@pytest.mark.parametrize(("name", "shape", "slices", "cuts"), CUT, ids=[name for name, *_ in CUT])
def test_parts_of_a_matrix_add_up_to_it(
    name: str, shape: tuple[int, ...], slices: int, cuts: list[int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of squares, updates and steps of pieces are those of the whole, whatever cut it, and padding stays."""
    monkeypatch.setattr(matrix_pieces, "CHUNK_NUMEL", chunk)
    model = ModelConfig.from_tree(MOE)
    torch.manual_seed(0)
    (whole_piece,) = _pieces(name, shape, model, 1, [])
    box = whole_piece.local.logical.box()
    grad, weight = torch.randn(box), torch.randn(box)
    results = []
    for pieces in ([whole_piece], _pieces(name, shape, model, slices, cuts)):
        held = [Matrices(MatrixPiece.of(piece, model, torch.device("cpu")), torch.device("cpu")) for piece in pieces]
        grads, weights = [[_flat(values, piece) for piece in pieces] for values in (grad, weight)]
        sums = sum(one.sums(flat) for one, flat in zip(held, grads, strict=True))
        squares = sum(one.turn(flat, sums, 1.0) for one, flat in zip(held, grads, strict=True))
        for one, flat, update in zip(held, weights, grads, strict=True):
            one.move(flat, update, squares, LR)
        for piece, flat in zip(pieces, weights, strict=True):
            assert (flat[: piece.offset] == 7).all()
            assert (flat[piece.offset + piece.valid_numel :] == 7).all(), "padding is left alone"
        results.append((sums, squares, _put_together(box, pieces, weights)))
    for expected, seen in zip(*results, strict=True):
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)


def _flat(whole: Tensor, piece: Piece) -> Tensor:
    """Return the tensor that is optimized: a piece of ``whole``, and 7 around it and where it is padding."""
    flat = torch.full((piece.offset + piece.numel + 2,), 7.0)
    values = local_slice(whole, piece.local)[piece.start : piece.start + piece.valid_numel]
    flat[piece.offset : piece.offset + piece.valid_numel] = values
    return flat


def _put_together(box: tuple[int, int, int], pieces: list[Piece], flats: list[Tensor]) -> Tensor:
    whole = torch.zeros(box)
    for local in {id(piece.local): piece.local for piece in pieces}.values():
        values = torch.cat(
            [
                flat[piece.offset : piece.offset + piece.numel]
                for piece, flat in zip(pieces, flats, strict=True)
                if piece.local is local
            ]
        ).view(box[0], local.local_length, box[2])
        whole[:, local.start : local.start + local.valid_length] = values[:, : local.valid_length]
    return whole
