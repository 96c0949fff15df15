"""Dataset folders of made documents, for a rehearsal where a run's own data is not there; no torch."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptdist.data.manifest import DatasetManifest, ShardEntry, SplitManifest
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter, token_dtype
from gptdist.tokenizer.tokenizer import Tokenizer

DOCUMENTS = {"train": 400, "validation": 80}
"""Of each split; one has some 250 bytes."""

WORDS = 60
"""Of a document, at most."""


def made_documents(count: int, seed: str) -> list[str]:
    """Return ``count`` texts of made words, the same for the same ``seed``."""
    choose = random.Random(seed)
    words = ["".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=choose.randint(2, 9))) for _ in range(200)]
    return [" ".join(choose.choices(words, k=choose.randint(WORDS // 4, WORDS))) + ".\n" for _ in range(count)]


def make_dataset(folder: Path, tokenizer: Tokenizer) -> None:
    """Write a dataset folder with a train and a validation split; its name decides what is in it."""
    folder.mkdir(parents=True)
    splits = {
        split: _make_split(folder, split, made_documents(count, f"{folder.name}/{split}"), tokenizer)
        for split, count in DOCUMENTS.items()
    }
    DatasetManifest(
        name=folder.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        splits=splits,
        weight=1.0,
        funnel={},
        config={},
        recipe=hashlib.sha256(f"made documents: {folder.name}".encode()).hexdigest(),
    ).write(folder)


def _make_split(folder: Path, split: str, texts: Sequence[str], tokenizer: Tokenizer) -> SplitManifest:
    ids = [np.append(row, tokenizer.eod_id) for row in tokenizer.encode_batch(texts)]
    shard = f"{split}-00000"
    with ShardWriter(folder, shard, token_dtype(tokenizer.vocab_size)) as writer:
        writer.append(np.concatenate(ids), np.array([len(row) for row in ids]))
        written = writer.close()
    provenance = ProvenanceWriter(folder, shard)
    provenance.append_rows(
        [
            Provenance(
                path="{made}",
                record=number,
                url=None,
                text_bytes=len(text.encode()),
                tokens=len(row),
                text_digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            )
            for number, (text, row) in enumerate(zip(texts, ids, strict=True))
        ]
    )
    entry = ShardEntry(
        name=shard,
        tokens=written.tokens,
        documents=written.documents,
        bin_bytes=written.bin_bytes,
        bin_sha256=written.bin_sha256,
        idx_sha256=written.idx_sha256,
        provenance_sha256=provenance.close(),
    )
    return SplitManifest(
        documents=written.documents,
        tokens=written.tokens,
        text_bytes=sum(len(text.encode()) for text in texts),
        shards=(entry,),
    )
