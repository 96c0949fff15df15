"""Small corpora, and runs on them."""

import hashlib
import io
import random
from pathlib import Path
from typing import Any

from gptdist.config.prep import PrepConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.provenance import read_provenance
from gptdist.tokenizer.byte import ByteTokenizer

WORDS = ("the", "a", "of", "model", "token", "rank", "shard", "loss", "step", "layer", "head", "weight", "save", "load")


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Return ``count`` different texts."""
    choose = random.Random(seed)
    return [f"{seed} {i}: " + " ".join(choose.choices(WORDS, k=choose.randint(5, 40))) + "\n" for i in range(count)]


def write_texts(folder: Path, texts: list[str], suffix: str = ".txt") -> Path:
    """Write each text to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:04d}{suffix}").write_bytes(text.encode())
    return folder


def files_source(folder: Path, name: str = "words", **changes: Any) -> dict[str, Any]:
    """Return a ``files`` source."""
    return {"name": name, "kind": "files", "paths": [str(folder)], **changes}


def make_config(output_dir: Path, *sources: dict[str, Any], **changes: Any) -> PrepConfig:
    """Return a checked config with a byte tokenizer and a tenth for validation."""
    tree = {
        "name": "test",
        "output_dir": str(output_dir),
        "tokenizer": {"kind": "byte"},
        "sources": list(sources),
        "validation_fraction": 0.1,
        "shard_tokens": 2000,
        **changes,
    }
    config = PrepConfig.from_tree(tree)
    assert config.problems() == []
    return config


def run(config: PrepConfig, workers: int = 1, **options: Any) -> tuple[Any, str]:
    """Run ``config`` in ``workers`` processes; return what came out and what was said."""
    from data_prep.executors.local import LocalExecutor
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress

    said = io.StringIO()
    return prepare(config, LocalExecutor(workers), Progress(said), **options), said.getvalue()


def texts_of(folder: Path, split: str) -> dict[str, str]:
    """Return the texts of a split of byte tokens, by path and record."""
    dataset = TokenDataset(folder, split)
    spans = dataset.documents_in(0, dataset.num_tokens)
    found = {}
    for span, origin in zip(spans, read_provenance(folder, spans), strict=True):
        ids = dataset.read(span.first_token, span.last_token - span.first_token + 1)
        assert ids[-1] == ByteTokenizer.eod_id
        text = ByteTokenizer().decode(ids.tolist())
        assert (origin.text_bytes, origin.tokens) == (len(text.encode()), len(ids))
        found[f"{origin.path}#{origin.record}"] = text
    return found


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``folder``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
