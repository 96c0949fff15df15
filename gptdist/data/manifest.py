"""``manifest.json``: what a dataset folder holds; written last, so a folder with one is whole."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from gptdist.durable import write_whole
from gptdist.errors import DataError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DTYPES = ("uint16", "int32")
_PACKING_METHODS = ("best_fit",)


def is_safe_name(name: object) -> bool:
    """Whether ``name`` may become a file name: no separator, no leading dot, nothing that leaves its folder."""
    return isinstance(name, str) and _SAFE_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class ShardEntry:
    """One shard: ``name``.bin, ``name``.idx, and ``name``.parquet that says where each document came from."""

    name: str
    tokens: int
    documents: int
    """Sequences of the index: documents, or the pieces that packing made of them."""

    bin_bytes: int
    bin_sha256: str
    idx_sha256: str
    provenance_sha256: str
    mask_sha256: str | None = None
    """Of ``name``.mask, which says which tokens count as labels; None where all do, and there is no such file."""


@dataclass(frozen=True)
class SplitManifest:
    """The shards of ``train`` or ``validation``, in the order of their token stream."""

    documents: int
    """Sequences of all shards: documents, or the pieces that packing made of them."""

    tokens: int
    text_bytes: int
    """UTF-8 bytes of the documents' text; the denominator of bits per byte."""

    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class DatasetManifest:
    """One source of a preparation run, tokenized."""

    name: str
    tokenizer_fingerprint: str
    vocab_size: int
    eod_id: int
    dtype: str
    splits: Mapping[str, SplitManifest]
    weight: float
    """Share of the source that the preparation's config asked for, in proportion to the other sources'."""

    funnel: Mapping[str, Any]
    """Documents and bytes that came in, were dropped (by reason) and kept."""

    config: Mapping[str, Any]
    """The preparation's config, complete but for ``output_dir``."""

    recipe: str
    """SHA-256 over everything that decides this folder's content; equal means there is nothing to do again."""

    packing: Mapping[str, Any] | None = None
    """How documents were laid out for one sample length: ``method``, ``seq_length``, and what that saved in each
    split; None where they follow each other."""

    format_version: int = FORMAT_VERSION

    @property
    def packing_seq_length(self) -> int | None:
        """The only sample length that suits the layout of documents; None where any does."""
        return None if self.packing is None else int(self.packing["seq_length"])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of a dataset folder.

        Raises:
            DataError: it is missing, not JSON, not ours, or from a newer version; or a name in it leaves the folder.
        """
        path = folder / MANIFEST_NAME
        try:
            tree = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                f"{path}: missing, so the folder is no finished dataset; prepare it with 'gptdist prep run', "
                "or change the path"
            ) from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); restore it, or change the path") from None
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); prepare the data again") from None
        try:
            return cls._from_tree(tree)
        except _NotOursError as error:
            raise DataError(f"{path}: {error}; prepare the data again") from None

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all; the shards have to be there already."""
        text = json.dumps(asdict(self, dict_factory=_without_mask), indent=2, sort_keys=True, ensure_ascii=False)
        write_whole(folder / MANIFEST_NAME, (text + "\n").encode())

    def fingerprint(self) -> str:
        """Return the SHA-256 over what decides every sample: tokenizer, dtype, and the shards' sizes and hashes."""
        shards = {split: [_deciding(shard) for shard in found.shards] for split, found in self.splits.items()}
        deciding = [self.tokenizer_fingerprint, self.vocab_size, self.eod_id, self.dtype, shards]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    @classmethod
    def _from_tree(cls, tree: Any) -> Self:
        version = tree.get("format_version") if isinstance(tree, dict) else None
        if not isinstance(version, int):
            raise _NotOursError("has no format_version, so it is not a gptdist manifest")
        if version != FORMAT_VERSION:
            raise _NotOursError(f"format_version {version}, this gptdist reads {FORMAT_VERSION}; update gptdist")
        splits = _field(tree, "splits", dict)
        manifest = cls(
            name=_field(tree, "name", str),
            tokenizer_fingerprint=_field(tree, "tokenizer_fingerprint", str),
            vocab_size=_count(tree, "vocab_size"),
            eod_id=_count(tree, "eod_id"),
            dtype=_field(tree, "dtype", str),
            splits={split: _split(found, split) for split, found in splits.items()},
            weight=float(_field(tree, "weight", int | float)),
            funnel=_field(tree, "funnel", dict),
            config=_field(tree, "config", dict),
            recipe=_field(tree, "recipe", str),
            packing=_packing(tree.get("packing")),
        )
        if manifest.dtype not in _DTYPES:
            raise _NotOursError(f"dtype '{manifest.dtype}' is not one of {', '.join(_DTYPES)}")
        manifest._check_packing()
        return manifest

    def _check_packing(self) -> None:
        length = self.packing_seq_length
        for split, found in self.splits.items():
            uneven = [shard.name for shard in found.shards if length is not None and shard.tokens % length]
            if uneven:
                raise _NotOursError(f"shard '{uneven[0]}' of split '{split}' is not a whole number of {length} tokens")


def _deciding(shard: ShardEntry) -> tuple[int | str, ...]:
    of_mask = () if shard.mask_sha256 is None else (shard.mask_sha256,)
    return (shard.tokens, shard.documents, shard.bin_sha256, shard.idx_sha256, *of_mask)


def _without_mask(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out what a shard without a mask has not, so that manifests without masks stay the same bytes."""
    return {key: value for key, value in pairs if not (key == "mask_sha256" and value is None)}


class _NotOursError(Exception):
    """What is wrong with a manifest, without the file's name."""


def _field(tree: Any, key: str, kind: Any) -> Any:
    if not isinstance(tree, dict) or key not in tree:
        raise _NotOursError(f"'{key}' is missing")
    value = tree[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _NotOursError(f"'{key}' is {str(value)[:40]!r}, of the wrong type")
    return value


def _count(tree: Any, key: str) -> int:
    value = _field(tree, key, int)
    if value < 0:
        raise _NotOursError(f"'{key}' is {value}, below 0")
    return int(value)


def _packing(tree: Any) -> Mapping[str, Any] | None:
    if tree is None:
        return None
    method, length = _field(tree, "method", str), _count(tree, "seq_length")
    if method not in _PACKING_METHODS or length < 2:
        raise _NotOursError(f"packing method '{method}' for {length} tokens is unknown")
    return dict(tree)


def _split(tree: Any, split: str) -> SplitManifest:
    shards = tuple(_shard(shard) for shard in _field(tree, "shards", list))
    found = SplitManifest(_count(tree, "documents"), _count(tree, "tokens"), _count(tree, "text_bytes"), shards)
    sums = sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards)
    if not is_safe_name(split) or not shards or sums != (found.documents, found.tokens):
        raise _NotOursError(f"split {split!r} does not add up to its {len(shards)} shards")
    return found


def _shard(tree: Any) -> ShardEntry:
    name = _field(tree, "name", str)
    if not is_safe_name(name):
        raise _NotOursError(f"shard name {name!r} is not a plain file name")
    keys = ["bin_sha256", "idx_sha256", "provenance_sha256", *(("mask_sha256",) if "mask_sha256" in tree else ())]
    hashes = [_field(tree, key, str) for key in keys]
    if not all(_SHA256.fullmatch(value) for value in hashes):
        raise _NotOursError(f"shard '{name}' has a hash that is no SHA-256")
    return ShardEntry(name, _count(tree, "tokens"), _count(tree, "documents"), _count(tree, "bin_bytes"), *hashes)
