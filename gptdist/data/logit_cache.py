"""A teacher's logits on a run's samples, a few tokens of each place, kept in files; no torch.

The folder holds ``logits.json`` and safetensors files of consecutive samples, [samples, s, k] each: the record of
sample i is a pure function of (seed, i), and is found by i. See docs/compress_distill.md.

Letters: s sequence, k tokens kept of each place.
"""

import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.config.section import Section
from gptdist.data.order import SampleOrder
from gptdist.data.sources import mixture_weights, stage_weights
from gptdist.durable import partial_path, publish, write_whole
from gptdist.errors import ConfigError, DataError

MANIFEST_NAME = "logits.json"
FORMAT: Final = "gptdist-logits"
VERSION = 1
_OPEN_FILES = 4

Method = Literal["sampled", "top_k"]


class CacheFacts(Section):
    """What decides every number of a cache."""

    teacher: str
    """SHA-256 of the manifest of the teacher's checkpoint."""

    tokenizer_fingerprint: str
    data_fingerprints: dict[str, str]
    order: str
    """What the order of the samples is known by."""

    separate_documents: bool
    seq_length: int
    vocab_size: int
    method: Method
    kept: int
    """``sampled``: draws with replacement from the teacher's distribution; ``top_k``: likeliest tokens."""

    temperature: float
    """That the teacher's distribution was taken at."""

    @classmethod
    def of(cls, config: RunConfig, order: SampleOrder, **others: Any) -> "CacheFacts":
        """Return those of a run's samples; ``others`` are the fields that its config says nothing of."""
        return cls(
            order=order_fingerprint(config, order),
            separate_documents=config.data.separate_documents,
            seq_length=config.model.seq_length,
            vocab_size=config.model.vocab_size,
            **others,
        )

    def fingerprint(self) -> str:
        """Return what all numbers are known by."""
        return hashlib.sha256(json.dumps(self.tree(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: "CacheFacts") -> list[str]:
        """Return ``key: this → other`` for each that differs."""
        ours, theirs = self.tree(), other.tree()
        return [f"{key}: {_short(ours[key])} → {_short(theirs[key])}" for key in ours if ours[key] != theirs[key]]


class CacheFile(Section):
    """Consecutive samples."""

    name: str
    first_sample: int
    samples: int
    sha256: str


class CacheManifest(Section):
    """What a cache folder holds so far."""

    format: Literal["gptdist-logits"] = FORMAT
    version: int = VERSION
    facts: CacheFacts
    files: tuple[CacheFile, ...] = ()
    """In the order of their samples, without a gap from sample 0 on."""

    @property
    def num_samples(self) -> int:
        """Samples that are there, from 0 on."""
        return sum(file.samples for file in self.files)

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, whole or not at all."""
        write_whole(folder / MANIFEST_NAME, json.dumps(self.tree(), indent=2).encode())


def read_cache_manifest(folder: Path) -> CacheManifest:
    """Return the manifest of a cache folder.

    Raises:
        DataError: it is missing, damaged, or of a version that this code does not know.
    """
    path = folder / MANIFEST_NAME
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); name a folder that `gptdist distill cache` wrote") from None
    if not isinstance(tree, dict) or (tree.get("format"), tree.get("version")) != (FORMAT, VERSION):
        raise DataError(f"{path}: is no {FORMAT} of version {VERSION}; write it again with `gptdist distill cache`")
    try:
        manifest = CacheManifest.from_tree(tree, origin=str(path))
    except ConfigError as error:
        raise DataError(f"{error.problems[0]}; the manifest is damaged, write the cache again") from None
    for file in manifest.files:
        if Path(file.name).name != file.name:
            raise DataError(f"{path}: file name '{file.name}' leads out of the folder; the manifest was tampered with")
    return manifest


def order_fingerprint(config: RunConfig, order: SampleOrder) -> str:
    """Return what the order of a run's samples is known by: equal if sample i is of the same place for every i."""
    tokens = list(order.tokens)
    facts = {
        "seed": config.seed,
        "seq_length": config.model.seq_length,
        "sources": list(order.names),
        "tokens": tokens,
        "weights": mixture_weights(config, tokens),
        "stages": stage_weights(config, tokens),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class KeptLogits:
    """What is kept of consecutive samples.

    Shapes: ids and probabilities [b, s, k], int64 and fp32; constant [b, s], fp32, see ``SparseTargets``.
    """

    ids: np.ndarray
    probabilities: np.ndarray
    constant: np.ndarray


def tokens_checksum(row: np.ndarray) -> int:
    """Return what the tokens of a sample are known by: CRC-32 of them as 32-bit little-endian numbers."""
    return zlib.crc32(row.astype("<u4").tobytes())


def write_cache_file(
    folder: Path, first_sample: int, kept: Sequence[KeptLogits], rows: Sequence[np.ndarray], facts: CacheFacts
) -> CacheFile:
    """Write consecutive samples, and return the file's entry; it has its name once it is on the disk.

    Args:
        folder: of the cache.
        first_sample: of them.
        kept: of one or more samples each.
        rows: tokens of each sample.
        facts: of the cache.
    """
    from safetensors.numpy import save_file

    ids, probabilities = (np.concatenate([getattr(one, name) for one in kept]) for name in ("ids", "probabilities"))
    tensors = {
        "ids": ids.astype(np.uint16 if facts.vocab_size <= 1 << 16 else np.int32),
        "constant": np.concatenate([one.constant for one in kept]).astype(np.float32),
        "checksums": np.array([tokens_checksum(row) for row in rows], dtype=np.int64),
    }
    if facts.method == "sampled":
        tensors["counts"] = np.rint(probabilities * facts.kept).astype(np.uint8)
    else:
        tensors["probabilities"] = probabilities.astype(np.float32)
    path = folder / f"logits-{first_sample:010d}.safetensors"
    save_file(tensors, partial_path(path))
    publish(path)
    return CacheFile(name=path.name, first_sample=first_sample, samples=len(rows), sha256=_sha256(path))


class LogitCache:
    """The records of a finished cache, by sample."""

    def __init__(self, folder: Path) -> None:
        """Open the cache in ``folder``; a file is looked at when a sample of it is first wanted."""
        self.folder = folder
        self.manifest = read_cache_manifest(folder)
        self._firsts = [file.first_sample for file in self.manifest.files]
        self._file = lru_cache(maxsize=_OPEN_FILES)(self._open)

    def rows(self, first_sample: int, rows: Sequence[np.ndarray]) -> KeptLogits:
        """Return what is kept of the samples from ``first_sample`` on, whose tokens are ``rows``.

        Raises:
            DataError: the cache ends before them, is damaged, or is of other tokens.
        """
        found = [self._sample(first_sample + index, row) for index, row in enumerate(rows)]
        return KeptLogits(*(np.stack(parts) for parts in zip(*found, strict=True)))

    def _sample(self, sample: int, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        facts = self.manifest.facts
        if sample >= self.manifest.num_samples:
            raise DataError(
                f"{self.folder}: ends at sample {self.manifest.num_samples - 1}, sample {sample} is wanted; write the "
                f"rest with `gptdist distill cache --samples {sample + 1}` or more"
            )
        number = bisect_right(self._firsts, sample) - 1
        path, file = self._file(number)
        at = sample - self._firsts[number]
        checksum = int(file.get_slice("checksums")[at : at + 1][0])
        if checksum != tokens_checksum(row):
            raise DataError(
                f"{path}: sample {sample} is of other tokens than the run's; write the cache again for this run's data"
            )
        ids = file.get_slice("ids")[at : at + 1][0].astype(np.int64)
        if facts.method == "sampled":
            probabilities = file.get_slice("counts")[at : at + 1][0].astype(np.float32) / facts.kept
        else:
            probabilities = file.get_slice("probabilities")[at : at + 1][0]
        return ids, probabilities, file.get_slice("constant")[at : at + 1][0]

    def _open(self, number: int) -> tuple[Path, Any]:
        from safetensors import safe_open

        entry = self.manifest.files[number]
        path = self.folder / entry.name
        if not path.is_file() or _sha256(path) != entry.sha256:
            raise DataError(f"{path}: missing or damaged; write it again with `gptdist distill cache`")
        return path, safe_open(path, framework="numpy")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    """Return a value for a message; of a hash, its beginning."""
    text = str(value)
    return text[:12] if isinstance(value, str) and len(text) == 64 else text
