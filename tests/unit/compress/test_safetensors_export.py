"""Streamed safetensors files, read back by the safetensors library."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gptdist.compress.hf_model import huggingface_weights
from gptdist.compress.safetensors_export import INDEX_FILE, SINGLE_FILE, write_model
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError
from gptdist.model.hf_names import huggingface_shapes, logical_shapes
from tests.support.kept import peak_tensor_bytes, tensor_bytes

TENSORS = {name: torch.randn(shape) for name, shape in {"first": (5, 4), "second": (7,), "third": (3, 2)}.items()}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


def test_one_file_reads_back(tmp_path: Path) -> None:
    (written,) = write_model(tmp_path, SHAPES, TENSORS.items(), dtype="float32", max_shard_bytes=10**6)

    path = tmp_path / SINGLE_FILE
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert (written.name, written.num_bytes) == (SINGLE_FILE, path.stat().st_size)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_bfloat16_rounds(tmp_path: Path) -> None:
    write_model(tmp_path, SHAPES, TENSORS.items(), dtype="bfloat16", max_shard_bytes=10**6)
    loaded = load_file(tmp_path / SINGLE_FILE)
    assert all(torch.equal(loaded[name], TENSORS[name].bfloat16()) for name in TENSORS)


def test_transposed_views_are_written_in_their_own_order(tmp_path: Path) -> None:
    view = torch.arange(6.0).reshape(2, 3).T
    write_model(tmp_path, {"view": (3, 2)}, [("view", view)], dtype="float32", max_shard_bytes=10**6)
    assert load_file(tmp_path / SINGLE_FILE)["view"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(("most", "groups"), [(60, [["first"], ["second", "third"]]), (4, [[name] for name in SHAPES])])
def test_several_files_and_their_index(tmp_path: Path, most: int, groups: list[list[str]]) -> None:
    files = write_model(tmp_path, SHAPES, TENSORS.items(), dtype="float32", max_shard_bytes=most)

    names = [f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    assert [file.name for file in files] == [*names, INDEX_FILE]
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["metadata"] == {"total_size": 4 * (20 + 7 + 6)}
    for name, group in zip(names, groups, strict=True):
        loaded = load_file(tmp_path / name)
        assert list(loaded) == sorted(group)
        assert all(torch.equal(loaded[tensor], TENSORS[tensor]) for tensor in group)
        assert all(index["weight_map"][tensor] == name for tensor in group)


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    taken: list[str] = []

    def stream() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in TENSORS.items():
            # a file is written up to here before the next tensor is asked for
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 0 or not taken
            taken.append(name)
            yield name, tensor

    write_model(tmp_path, SHAPES, stream(), dtype="float32", max_shard_bytes=30)
    assert taken == list(TENSORS)


@pytest.mark.parametrize(
    ("value", "dtype"), [(float("nan"), "float32"), (float("inf"), "float32"), (3.4e38, "bfloat16")]
)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: str) -> None:
    bad = torch.tensor([0.0, value])
    with pytest.raises(
        ExportError, match=f"norm.bias: holds numbers that are not finite in {dtype}; export an earlier"
    ):
        write_model(tmp_path, {"norm.bias": (2,)}, [("norm.bias", bad)], dtype=dtype, max_shard_bytes=100)


LLAMA = {
    "position_embedding": "rope",
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "add_bias": False,
    "num_query_groups": 2,
}
MODELS = {
    "gpt2-large-vocabulary": {"vocab_size": 4096},
    "gpt2-feed-forward-is-largest": {},
    "gpt2-queries-are-largest": {"ffn_hidden_size": 256},
    "neox-mup": {"position_embedding": "rope", "init": "mup", "mup_base_hidden_size": 128, "mup_base_head_size": 16},
    "llama": LLAMA,
    "mixtral": LLAMA | {"moe": {"num_experts": 8}, "ffn_hidden_size": 256},
}


@pytest.mark.parametrize(
    ("switches", "dtype"), zip(MODELS.values(), ["float32", "bfloat16"] * 3, strict=True), ids=MODELS
)
def test_writing_takes_at_most_three_times_the_largest_tensor(
    switches: dict[str, object], dtype: str, tmp_path: Path
) -> None:
    sizes = {"num_layers": 2, "hidden_size": 256, "num_attention_heads": 4, "seq_length": 16, "vocab_size": 260}
    config = ModelConfig(**(sizes | switches))
    logical = logical_shapes(config)
    largest = 4 * max(math.prod(shape) for shape in logical.values())

    class Read:
        """Makes each tensor when it is asked for, as a checkpoint's reader does."""

        tensor_names = tuple(logical)

        def weight(self, name: str) -> torch.Tensor:
            return torch.ones(logical[name])

    def write() -> None:
        write_model(
            tmp_path,
            huggingface_shapes(config),
            huggingface_weights(config, Read()),
            dtype=dtype,
            max_shard_bytes=10**9,
        )

    before = tensor_bytes()
    found = (peak_tensor_bytes(write) - before) / largest
    assert 0.9 < found <= 3.0
