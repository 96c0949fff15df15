"""Small dataset folders with known tokens."""

from pathlib import Path

import numpy as np

from gptdist.data.manifest import DatasetManifest, ShardEntry, SplitManifest
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter, WrittenShard

EOD = 9


def write_shard(folder: Path, name: str, documents: list[list[int]], dtype: str = "uint16") -> WrittenShard:
    """Write one shard, a document at a time; end-of-document is not added."""
    with ShardWriter(folder, name, np.dtype(dtype)) as writer:
        for document in documents:
            writer.append(np.array(document), np.array([len(document)]))
        return writer.close()


def write_dataset(folder: Path, shards: list[list[list[int]]], split: str = "train") -> DatasetManifest:
    """Write a dataset folder of one split; document ``d`` of shard ``s`` comes from path ``s/d``."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, documents in enumerate(shards):
        name = f"{split}-{number:05d}"
        written = write_shard(folder, name, documents)
        provenance = ProvenanceWriter(folder, name)
        provenance.append_rows(
            [Provenance(f"{number}/{d}", 0, None, 10, len(ids), f"{d:032x}") for d, ids in enumerate(documents)]
        )
        entries.append(ShardEntry(name=name, provenance_sha256=provenance.close(), **vars(written)))
    found = SplitManifest(
        documents=sum(map(len, shards)),
        tokens=sum(len(ids) for shard in shards for ids in shard),
        text_bytes=10 * sum(map(len, shards)),
        shards=tuple(entries),
    )
    manifest = DatasetManifest(
        name=folder.name,
        tokenizer_fingerprint="f" * 64,
        vocab_size=EOD + 1,
        eod_id=EOD,
        dtype="uint16",
        splits={split: found},
        weight=1.0,
        funnel={},
        config={},
        recipe="a test",
    )
    manifest.write(folder)
    return manifest


SHARDS = [[[1, 2, 9], [3, 9]], [[4, 5, 6, 7, 9]], [[8, 9], [9], [1, 1, 9]]]
STREAM = [token for shard in SHARDS for document in shard for token in document]
