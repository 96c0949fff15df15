"""The manifest: written whole, read strictly."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptdist.data.manifest import DatasetManifest, is_safe_name
from gptdist.errors import DataError
from tests.unit.data.made_shards import SHARDS, write_dataset


def change(folder: Path, *path: Any, value: Any) -> None:
    file = folder / "manifest.json"
    tree = json.loads(file.read_text())
    leaf = tree
    for key in path[:-1]:
        leaf = leaf[key]
    leaf[path[-1]] = value
    file.write_text(json.dumps(tree))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path / "a", SHARDS)
    assert DatasetManifest.read(tmp_path / "a") == manifest


def test_a_missing_manifest_says_that_the_folder_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing, so the folder is no finished dataset"):
        DatasetManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no format_version, so it is not a gptdist manifest"),
        ('{"name": "x"}', "no format_version, so it is not a gptdist manifest"),
        ('{"format_version": 2}', "format_version 2, this gptdist reads 1; update gptdist"),
        ('{"format_version": 1}', "'splits' is missing"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=message):
        DatasetManifest.read(tmp_path)


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        DatasetManifest.read(tmp_path)


SHARD = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*SHARD, "name"), "../x", r"shard name '\.\./x' is not a plain file name"),
        ((*SHARD, "name"), "/etc/passwd", "is not a plain file name"),
        ((*SHARD, "name"), "a\u0000b", "is not a plain file name"),
        ((*SHARD, "name"), ".hidden", "is not a plain file name"),
        ((*SHARD, "bin_sha256"), "abc", "has a hash that is no SHA-256"),
        ((*SHARD, "tokens"), 1, "split 'train' does not add up to its 3 shards"),
        ((*SHARD, "tokens"), -5, "'tokens' is -5, below 0"),
        ((*SHARD, "tokens"), True, "'tokens' is 'True', of the wrong type"),
        (("splits", "train", "shards"), [], "does not add up to its 0 shards"),
        (("splits",), {"../t": {"documents": 0, "tokens": 0, "text_bytes": 0, "shards": []}}, "does not add up"),
        (("dtype",), "object", "dtype 'object' is not one of uint16, int32"),
        (("vocab_size",), "x", "'vocab_size' is 'x', of the wrong type"),
    ],
)
def test_a_manifest_cannot_lead_out_of_its_folder_or_lie(
    path: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    write_dataset(tmp_path, SHARDS)
    change(tmp_path, *path, value=value)
    with pytest.raises(DataError, match=message):
        DatasetManifest.read(tmp_path)


def test_the_fingerprint_follows_content_and_nothing_else(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, SHARDS)
    before = manifest.fingerprint()
    assert replace(manifest, name="b", weight=2.0, funnel={"x": 1}, config={"y": 2}, recipe="z").fingerprint() == before
    assert replace(manifest, tokenizer_fingerprint="0").fingerprint() != before
    other = write_dataset(tmp_path, [[[1, 2, 9], [4, 9]], *SHARDS[1:]])
    assert other.fingerprint() != before


def test_plain_names() -> None:
    assert is_safe_name("train-00000")
    assert not any(map(is_safe_name, ("", ".", "..", "a/b", "a\\b", "-", "a b", 3, None)))


def test_a_dataset_without_packing_takes_any_sample_length(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, SHARDS)
    assert manifest.packing_seq_length is None
    change(tmp_path, "packing", value=None)
    assert DatasetManifest.read(tmp_path) == manifest
    tree = json.loads((tmp_path / "manifest.json").read_text())
    del tree["packing"]
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    assert DatasetManifest.read(tmp_path) == manifest, "manifests from before packing"


def test_a_packed_dataset_says_for_which_length(tmp_path: Path) -> None:
    write_dataset(tmp_path, [[[1, 2, 3, 9], [4, 9, 9, 9]]])
    packing = {"method": "best_fit", "seq_length": 4}
    change(tmp_path, "packing", value=packing)
    manifest = DatasetManifest.read(tmp_path)
    assert (manifest.packing, manifest.packing_seq_length) == (packing, 4)
    change(tmp_path, "packing", value={**packing, "seq_length": 3})
    with pytest.raises(DataError, match=r"shard 'train-00000' of split 'train' is not a whole number of 3 tokens"):
        DatasetManifest.read(tmp_path)
    change(tmp_path, "packing", value={**packing, "method": "first_fit"})
    with pytest.raises(DataError, match="packing method 'first_fit' for 4 tokens is unknown"):
        DatasetManifest.read(tmp_path)
