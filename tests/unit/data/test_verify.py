"""Verification names every damaged file."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gptdist.data.provenance import Provenance, ProvenanceWriter
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
    assert "token id 70 at token 3, the vocabulary has 10" in problem
    write_shard(folder, "train-00001", [[4, 5, 6, 9, 7]])
    rehash(folder, 1)
    (problem,) = verify_dataset(folder)
    assert "document 0 does not end with id 9" in problem


def test_hashes_that_agree_do_not_hide_missing_rows(folder: Path) -> None:
    ProvenanceWriter(folder, "train-00000").close()
    rehash(folder, 0)
    (problem,) = verify_dataset(folder)
    assert "0 rows for 2 documents" in problem


def test_without_a_manifest_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished dataset"):
        verify_dataset(tmp_path)


def test_files_that_nobody_named(folder: Path) -> None:
    (folder / "train-00007.bin").write_bytes(b"x")
    (folder / "cache").mkdir()
    problems = verify_dataset(folder)
    assert problems == [
        f"{folder / name}: the manifest does not name it; remove it, or move it out of the dataset"
        for name in ("cache", "train-00007.bin")
    ]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_manifest_that_contradicts_itself(folder: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    edit(folder, splits={**tree["splits"], "validation": tree["splits"]["train"]})
    assert f"{folder / 'manifest.json'}: names shard 'train-00000' twice; restore it" in verify_dataset(folder)[0]
    edit(folder, splits=tree["splits"], eod_id=10)
    assert "manifest.json: eod_id 10 is not below vocab_size 10" in verify_dataset(folder)[0]


def test_text_bytes_that_do_not_add_up(folder: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    tree["splits"]["train"]["text_bytes"] += 1
    edit(folder, splits=tree["splits"])
    (problem,) = verify_dataset(folder)
    assert "manifest.json: split 'train' has 61 bytes of text, its documents have 60" in problem


def test_hashes_that_agree_do_not_hide_rows_of_other_documents(folder: Path) -> None:
    provenance = ProvenanceWriter(folder, "train-00000")
    provenance.append_rows([Provenance("a", 0, None, 10, tokens, "0" * 32) for tokens in (3, 3)])
    provenance.close()
    rehash(folder, 0)
    (problem,) = verify_dataset(folder)
    assert "train-00000.parquet: document 1 has 3 tokens, the index says 2" in problem


def test_more_rows_than_documents(folder: Path) -> None:
    provenance = ProvenanceWriter(folder, "train-00001")
    provenance.append_rows([Provenance("a", 0, None, 10, tokens, "0" * 32) for tokens in (5, 3)])
    provenance.close()
    rehash(folder, 1)
    (problem,) = verify_dataset(folder)
    assert "2 rows for 1 documents" in problem


def test_it_looks_block_by_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptdist.data.verify._CHUNK_TOKENS", 2)
    monkeypatch.setattr("gptdist.data.verify._CHUNK_DOCUMENTS", 1)
    assert verify_dataset(folder) == []
    write_shard(folder, "train-00002", [[8, 9], [9], [1, 1, 1]])
    rehash(folder, 2)
    (problem,) = verify_dataset(folder)
    assert "train-00002.bin: document 2 does not end with id 9" in problem
    write_shard(folder, "train-00002", [[8, 9], [9], [1, 11, 9]])
    rehash(folder, 2)
    assert "token id 11 at token 4, the vocabulary has 10" in verify_dataset(folder)[0]
