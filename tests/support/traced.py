"""Datasets whose documents are known one by one, and the tokens that a trace says a sample holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gptdist.data.trace import TracedSample
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.data.made_shards import EOD, write_dataset

Documents = dict[str, list[list[list[int]]]]
"""Training documents of each source, by shard."""


def write_traced_sources(folder: Path, documents: int = 120, shards: int = 3) -> Documents:
    """Write the sources ``prose`` and ``code`` into ``folder``, with a byte tokenizer beside them."""
    tokenizer = ByteTokenizer()
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    written = {}
    for seed, name in enumerate(("prose", "code")):
        train = _documents(seed, documents, shards)
        splits = {}
        for split, content in (("validation", _documents(seed + 10, 30, 1)), ("train", train)):
            manifest = write_dataset(folder / name, content, split)
            splits |= manifest.splits
        replace(
            manifest,
            splits=splits,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
        ).write(folder / name)
        written[name] = train
    return written


def _documents(seed: int, count: int, shards: int) -> list[list[list[int]]]:
    draw = np.random.default_rng(seed)
    texts = [[*draw.integers(0, EOD, draw.integers(1, 60)).tolist(), EOD] for _ in range(count)]
    return [texts[shard::shards] for shard in range(shards)]


def tokens_of(traced: TracedSample, documents: Documents) -> list[int]:
    """Return the tokens of a sample, put together from its documents: by their shard, number, place and length."""
    tokens: list[int] = []
    for part in traced.documents:
        assert part.begin == len(tokens), "parts follow each other without a gap"
        whole = documents[traced.source][int(part.shard[-5:])][part.document]
        assert part.path == f"{int(part.shard[-5:])}/{part.document}", "the document's own provenance"
        assert part.document_tokens == len(whole)
        tokens += whole[part.document_token : part.document_token + part.tokens]
    return tokens
