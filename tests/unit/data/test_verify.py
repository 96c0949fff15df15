"""Verification names every damaged file."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gptdist.data.provenance import ProvenanceWriter
from gptdist.data.verify import verify_dataset
from gptdist.errors import DataError
from tests.unit.data.made_shards import SHARDS, write_dataset, write_shard


def rehash(folder: Path, shard: int) -> None:
    """Make the manifest agree with the files, as one who tampers would."""
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    entry = tree["splits"]["train"]["shards"][shard]
    for ending, key in (("bin", "bin_sha256"), ("idx", "idx_sha256"), ("parquet", "provenance_sha256")):
        entry[key] = hashlib.sha256((folder / f"{entry['name']}.{ending}").read_bytes()).hexdigest()
    path.write_text(json.dumps(tree))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path, SHARDS)
    return tmp_path


def test_a_whole_dataset_has_no_problem(folder: Path) -> None:
    assert verify_dataset(folder) == []


@pytest.mark.parametrize("ending", ["bin", "idx", "parquet"])
def test_one_flipped_bit_is_found(folder: Path, ending: str) -> None:
    path = folder / f"train-00002.{ending}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (problem,) = verify_dataset(folder)
    assert problem.startswith(f"{path}: SHA-256 ")
    assert "it was changed; restore it, or prepare the data again" in problem


def test_every_damaged_file_is_named(folder: Path) -> None:
    (folder / "train-00000.bin").write_bytes(b"short")
    (folder / "train-00001.idx").unlink()
    (folder / "train-00002.parquet").write_bytes(b"")
    problems = verify_dataset(folder)
    assert [problem.partition(":")[0] for problem in problems] == [
        str(folder / name) for name in ("train-00000.bin", "train-00001.idx", "train-00002.parquet")
    ]
    assert "cannot be read (No such file or directory)" in problems[1]


def test_hashes_that_agree_do_not_hide_a_size(folder: Path) -> None:
    write_shard(folder, "train-00001", [[4, 9]])
    rehash(folder, 1)
    (problem,) = verify_dataset(folder)
    assert "1 documents, 2 tokens" in problem


def test_hashes_that_agree_do_not_hide_an_index(folder: Path) -> None:
    path = folder / "train-00002.idx"
    content = bytearray(path.read_bytes())
    borders = np.frombuffer(content, "<i8", offset=len(content) - 4 * 8).copy()
    borders[1] = 2
    content[-4 * 8 :] = borders.tobytes()
    offsets = len(content) - 4 * 8 - 3 * 8
    content[offsets + 8 : offsets + 16] = (2).to_bytes(8, "little")
    path.write_bytes(content)
    rehash(folder, 2)
    first, second, *_ = verify_dataset(folder)
    assert first.startswith(f"{path}: document offsets do not follow from the lengths")
    assert second.startswith(f"{path}: a document is not one sequence")


def test_hashes_that_agree_do_not_hide_tokens(folder: Path) -> None:
    write_shard(folder, "train-00001", [[4, 5, 6, 70, 9]])
    rehash(folder, 1)
    (problem,) = verify_dataset(folder)
    assert "token id 70 near token 0, the vocabulary has 10" in problem
    write_shard(folder, "train-00001", [[4, 5, 6, 9, 7]])
    rehash(folder, 1)
    (problem,) = verify_dataset(folder)
    assert "1 documents do not end with id 9, the first is document 0" in problem


def test_hashes_that_agree_do_not_hide_missing_rows(folder: Path) -> None:
    ProvenanceWriter(folder, "train-00000").close()
    rehash(folder, 0)
    (problem,) = verify_dataset(folder)
    assert "0 rows for 2 documents" in problem


def test_without_a_manifest_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished dataset"):
        verify_dataset(tmp_path)
