"""Any block of any tensor comes out right, however it was cut; damage is named, never read over."""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdist.checkpoint.find import newest_whole, resolve_checkpoint, step_folders
from gptdist.checkpoint.flat_tensors import FlatTensors
from gptdist.checkpoint.load import read_into
from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.errors import CheckpointError
from gptdist.model.parameters import LocalParameter, LogicalTensor, local_slice
from tests.support.step_folders import numbered, rewrite_manifest, write_step_folder, write_tensors


@settings(max_examples=60, deadline=None)
@given(data=st.data(), outer=st.integers(1, 4), inner=st.integers(1, 3), slices=st.integers(1, 4))
def test_any_range_of_any_layout(tmp_path_factory, data, outer: int, inner: int, slices: int) -> None:
    """Save with one number of tensor-parallel ranks and any fragments; read as any fragment of any other number."""
    length = 12 if outer > 1 else data.draw(st.integers(1, 12))
    padded = -(-length // slices) * slices
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, padded // slices * inner * outer), max_size=3))))
    whole = numbered(outer, length, inner)
    folder = tmp_path_factory.mktemp("steps") / "step_00000003"
    write_step_folder(folder, {"x": whole}, slices=slices, cuts=cuts, padding=padded - length)
    reader = CheckpointReader(folder)

    ranks = data.draw(st.sampled_from([1, 2, 3, 4]))
    rows = -(-length // ranks) if outer == 1 else 12 // ranks
    logical = LogicalTensor("x", (outer * length, inner), outer, length, inner, True)
    rank = data.draw(st.integers(0, ranks - 1))
    local = LocalParameter(torch.nn.Parameter(), logical, rank * rows, rows, ranks)
    start = data.draw(st.integers(0, local.numel - 1))
    numel = data.draw(st.integers(1, local.numel - start))
    expected = local_slice(whole, local)[start : start + numel]
    weight, moments = torch.full((numel,), torch.nan), torch.full((numel,), torch.nan)
    read_into(reader, local, "weight", start, weight)
    assert torch.equal(weight, expected)
    read_into(reader, local, "exp_avg_sq", start, moments)
    valid = local_slice(torch.ones_like(whole), local)[start : start + numel].bool()
    assert torch.equal(moments[valid], expected[valid] + 2000)


@pytest.fixture
def step(tmp_path: Path) -> Path:
    return write_step_folder(
        tmp_path / "checkpoints" / "step_00000003", {"x": numbered(1, 6, 4), "y": numbered(2, 4, 3)}, cuts=(5,)
    )


def _edit(step: Path, change) -> None:
    tree = json.loads((step / "manifest.json").read_text())
    change(tree)
    rewrite_manifest(step, tree)


def test_whole_tensor_has_its_shape(step: Path) -> None:
    reader = CheckpointReader(step)
    assert torch.equal(reader.weight("y"), numbered(2, 4, 3).view(8, 3))
    assert reader.tensor_names == ("x", "y")
    assert verify(step) == []


def test_only_the_bytes_of_the_range_are_read(step: Path, monkeypatch) -> None:
    read = []
    inner = FlatTensors.read_into
    monkeypatch.setattr(
        FlatTensors, "read_into", lambda self, key, a, to: read.append(to.numel()) or inner(self, key, a, to)
    )
    CheckpointReader(step).block("x", "weight", outer=(0, 1), along=(2, 4))
    assert sum(read) == 8, "two rows of four values"


def test_unknown_tensor(step: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tensor 'z'; the checkpoint is of another model"):
        CheckpointReader(step).weight("z")


def test_missing_values_are_an_error_never_an_initialisation(step: Path) -> None:
    _edit(step, lambda tree: tree["fragments"].pop(0))
    with pytest.raises(CheckpointError, match=r"weight of 'x' has 19 of 24 values in slice 0; the checkpoint is inc"):
        CheckpointReader(step).weight("x")
    assert verify(step)[0] == f"{step}: 'x' has 19 of 24 values"


def test_a_shorter_tensor_than_the_manifest_says(step: Path) -> None:
    write_tensors(step / "rank_00000.safetensors", {"weight/x": torch.zeros(2), "weight/y": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"tensor 'weight/x' has 2 values, not 5; use an older"):
        CheckpointReader(step).weight("x")


def test_a_key_that_is_not_there(step: Path) -> None:
    write_tensors(step / "rank_00000.safetensors", {"other": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="no flat fp32 tensor 'weight/x'"):
        CheckpointReader(step).weight("x")


def test_a_system_that_reads_less_than_was_asked_for(step: Path, monkeypatch) -> None:
    whole, read = CheckpointReader(step).weight("x"), os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, targets, start: read(file, [targets[0][:7]], start))
    assert torch.equal(CheckpointReader(step).weight("x"), whole)


def test_no_file(step: Path) -> None:
    (step / "rank_00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rank_00000.safetensors: cannot be opened \(.*; use an older"):
        CheckpointReader(step).weight("x")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04pickle",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2) + b"[1",
        struct.pack("<Q", 3) + b"[1]",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
    ids=["empty", "pickle", "huge header", "longer than the file", "no json", "a list", "deep"],
)
def test_not_a_tensor_file(step: Path, content: bytes) -> None:
    (step / "rank_00000.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rank_00000\.safetensors: holds no safetensors"):
        CheckpointReader(step).weight("x")


@pytest.mark.parametrize(
    "change",
    [{"dtype": "F64"}, {"shape": [5, 1]}, {"data_offsets": [-8, 12]}, {"data_offsets": [10_000, 10_020]}],
    ids=str,
)
def test_a_header_that_says_something_else(step: Path, change: dict[str, Any]) -> None:
    path = step / "rank_00000.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["weight/x"] |= change
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])
    with pytest.raises(CheckpointError, match="no flat fp32 tensor 'weight/x'"):
        CheckpointReader(step).weight("x")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", ".", "a\\b", "/etc/passwd", "a\0b"])
@pytest.mark.parametrize("where", ["files", "fragments"])
def test_names_cannot_leave_the_folder(step: Path, name: str, where: str) -> None:
    _edit(step, lambda tree: tree[where][0].update({"name" if where == "files" else "file": name}))
    with pytest.raises(CheckpointError, match="leads out of the folder; the manifest was tampered with"):
        read_manifest(step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.update(version=2), r"format version 2 is unknown here \(known: 1\); update gptdist"),
        (lambda tree: tree.update(format="other"), "is not a gptdist-checkpoint manifest"),
        (lambda tree: tree.pop("progress"), "progress: missing"),
        (lambda tree: tree["tensors"][0].update(length="6"), r"tensors\[0\].length: .* the manifest is damaged"),
    ],
)
def test_strange_manifests(step: Path, change, message: str) -> None:
    _edit(step, change)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(step)


def test_torn_manifest(step: Path) -> None:
    text = (step / "manifest.json").read_text()
    (step / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match=r"manifest.json: cannot be read"):
        read_manifest(step)
    (step / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no such file; the folder is no whole checkpoint"):
        read_manifest(step)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "missing": (Path.unlink, "missing"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "bytes, the manifest says"),
    "flipped": (_flip, "content has sha256"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_passed_over(step: Path, kind: str) -> None:
    newer = write_step_folder(step.with_name("step_00000010"), {"x": numbered(1, 6, 4)}, cuts=(5,))
    checkpoints = step.parent
    assert step_folders(checkpoints) == [newer, step]
    assert newest_whole(checkpoints) == (newer, [])
    harm, message = DAMAGE[kind]
    harm(newer / "rank_00001.safetensors")
    found, passed_over = newest_whole(checkpoints)
    assert found == step
    assert len(passed_over) == 1
    assert message in passed_over[0]
    with pytest.raises(CheckpointError, match="the checkpoint is damaged, use another one"):
        resolve_checkpoint(newer)
    harm(step / "rank_00001.safetensors")
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is whole"):
        newest_whole(checkpoints)


def test_half_written_folders_are_not_seen(step: Path) -> None:
    shutil.copytree(step, step.with_name(".partial-step_00000010"))
    shutil.copytree(step, step.with_name("step_x"))
    assert step_folders(step.parent) == [step]
    assert step_folders(step.parent / "gone") == []
    assert newest_whole(step.parent / "gone") == (None, [])


def test_what_a_user_may_name(step: Path) -> None:
    run = step.parent.parent
    assert resolve_checkpoint(step) == resolve_checkpoint(step.parent) == resolve_checkpoint(run) == step
    with pytest.raises(CheckpointError, match="holds no checkpoint; name a run folder"):
        resolve_checkpoint(run / "nothing")


def test_safetensors_reads_our_files_and_hash_is_of_the_content(tmp_path: Path) -> None:
    import hashlib

    from safetensors.torch import load_file

    # The large one is hashed by another thread, and the disk begins to write before the end.
    tensors = {"a/b": torch.randn(1001), "large": torch.randn(9_000_000), "ü": torch.randn(3)}
    entry = write_tensors(tmp_path / "x.safetensors", tensors)
    content = (tmp_path / "x.safetensors").read_bytes()
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.num_bytes == len(content)
    assert struct.unpack("<Q", content[:8])[0] % 8 == 0, "values are aligned"
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
