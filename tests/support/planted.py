"""A dataset in which what a run reads at certain steps is garbage: bytes that no other document has."""

import random
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.data.manifest import ShardEntry, SplitManifest
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter
from gptdist.data.sources import sample_order
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import WORDS, write_manifest

GOOD, PLANTED = "good.jsonl", "planted.jsonl"
DOCUMENTS = 1500
"""Of the training split; each is as long as a sample, so that document n is window n."""


def write_planted(folder: Path, tree: dict[str, Any], samples: Container[int]) -> dict[int, int]:
    """Write the one source that ``tree`` names, with garbage in ``samples`` of that run; return document by sample."""
    length = tree["model"]["seq_length"]
    order = sample_order(RunConfig.from_tree(tree), [DOCUMENTS * length])
    document_of = {sample: order.address(sample).first_token // length for sample in range(DOCUMENTS - 1)}
    planted = {document for sample, document in document_of.items() if sample in samples}
    folder.mkdir(parents=True)
    splits = {
        "train": _write_split(folder, "train", DOCUMENTS, length, planted),
        "validation": _write_split(folder, "validation", 100, length, set()),
    }
    write_manifest(folder, splits)
    return document_of


def _write_split(folder: Path, split: str, documents: int, length: int, planted: set[int]) -> SplitManifest:
    name = f"{split}-00000"
    with ShardWriter(folder, name, np.dtype(np.uint16)) as writer:
        for number in range(documents):
            draw = random.Random(f"{split}/{number}")
            if number in planted:
                content = bytes(draw.randrange(128, 256) for _ in range(length - 1))
            else:
                content = " ".join(draw.choice(WORDS) for _ in range(length)).encode()[: length - 1]
            writer.append(np.array([*content, ByteTokenizer().eod_id]), np.array([length]))
        shard = writer.close()
    origins = ProvenanceWriter(folder, name)
    paths = [PLANTED if number in planted else GOOD for number in range(documents)]
    origins.append_rows(
        [Provenance(path, number, None, length - 1, length, f"{number:032x}") for number, path in enumerate(paths)]
    )
    entry = ShardEntry(
        name,
        shard.tokens,
        shard.documents,
        shard.bin_bytes,
        shard.bin_sha256,
        shard.idx_sha256,
        origins.close(),
    )
    return SplitManifest(documents, shard.tokens, documents * (length - 1), (entry,))
