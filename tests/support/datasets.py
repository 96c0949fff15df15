"""Small dataset folders of real bytes, and run configs on them."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.data.manifest import DatasetManifest, ShardEntry, SplitManifest
from gptdist.data.shards import ShardWriter
from gptdist.tokenizer.byte import ByteTokenizer

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "model",
    "token",
    "rank",
    "shard",
    "loss",
    "step",
    "layer",
    "head",
    "weight",
    "data",
    "train",
    "run",
    "save",
    "load",
    "fast",
    "slow",
]


def make_documents(count: int, seed: int) -> list[str]:
    """Return sentences of a small vocabulary: text that a small model learns in a few steps."""
    choose = random.Random(seed)
    return [" ".join(choose.choice(WORDS) for _ in range(choose.randint(5, 60))) + ".\n" for _ in range(count)]


def write_dataset(folder: Path, *, seed: int = 0, documents: int = 300, shards: int = 2) -> Path:
    """Write a dataset folder of byte tokens with a train and a validation split, and its tokenizer beside it."""
    folder.mkdir(parents=True)
    tokenizer = ByteTokenizer()
    splits = {}
    for split, count, number in (("train", documents, shards), ("validation", documents // 5, 1)):
        texts = make_documents(count, seed if split == "train" else seed + 1000)
        entries = []
        for shard in range(number):
            name = f"{split}-{shard:05d}"
            part = texts[shard::number]
            ids = [np.append(row, tokenizer.eod_id) for row in tokenizer.encode_batch(part)]
            with ShardWriter(folder, name, np.dtype(np.uint16)) as writer:
                writer.append(np.concatenate(ids), np.array([len(row) for row in ids]))
                written = writer.close()
            (folder / f"{name}.parquet").write_bytes(b"")
            entries.append(
                ShardEntry(
                    name,
                    written.tokens,
                    written.documents,
                    written.bin_bytes,
                    written.bin_sha256,
                    written.idx_sha256,
                    hashlib.sha256(b"").hexdigest(),
                )
            )
        size = sum(len(text.encode()) for text in texts)
        splits[split] = SplitManifest(count, sum(entry.tokens for entry in entries), size, tuple(entries))
    write_manifest(folder, splits)
    return folder


def write_manifest(folder: Path, splits: dict[str, SplitManifest]) -> None:
    """Complete a dataset folder whose shards of byte tokens are there: its manifest, and the tokenizer beside it."""
    tokenizer = ByteTokenizer()
    DatasetManifest(
        name=folder.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        dtype="uint16",
        splits=splits,
        weight=1.0,
        funnel={},
        config={},
        recipe="made by a test",
    ).write(folder)
    tokenizer_folder = folder.parent / "tokenizer"
    if not tokenizer_folder.exists():
        tokenizer_folder.mkdir()
        tokenizer.save(tokenizer_folder)


GPT2 = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 32,
    "vocab_size": 257,
}
LLAMA = {
    **GPT2,
    "num_query_groups": 2,
    "ffn_hidden_size": 96,
    "position_embedding": "rope",
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "add_bias": False,
    "tie_embeddings": False,
}

MODERN = LLAMA | {
    "qk_norm": True,
    "rope_scaling": {"factor": 4.0, "original_seq_length": 16},
    "local_attention_window": 5,
    "tie_embeddings": False,
    "init": "mup",
    "mup_base_hidden_size": 16,
    "mup_base_head_size": 4,
}
"""Every switch of the Llama family that is not Llama's own."""

SHAPES = [
    {"num_attention_heads": 2, "ffn_hidden_size": 48},
    {"ffn_hidden_size": 0},
    {"num_attention_heads": 0},
    {"num_query_groups": 4, "ffn_hidden_size": 64},
]
"""Of four layers, as pruning may leave them."""

MOE = LLAMA | {
    "num_layers": 3,
    "qk_norm": True,
    "moe": {
        "num_experts": 4,
        "ffn_hidden_size": 48,
        "every_n_layers": 2,
        "aux_loss": 0.05,
        "router_z_loss": 0.01,
    },
}
"""Experts in the second of three layers, with both losses of the router."""


def run_tree(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a small run's config as plain data on two sources in ``folder``/data, made if they are not there.

    Args:
        folder: of the test.
        changes: sections to merge over the defaults, such as ``parallel={"zero_stage": 3}``.
    """
    data = folder / "data"
    for seed, name in enumerate(("prose", "code")):
        if not (data / name).exists():
            write_dataset(data / name, seed=seed)
    tree: dict[str, Any] = {
        "name": "test",
        "run_dir": str(folder / "run"),
        "model": dict(GPT2),
        "data": {
            "tokenizer": str(data / "tokenizer"),
            "sources": [
                {"path": str(data / "prose"), "weight": 0.7},
                {"path": str(data / "code"), "weight": 0.3},
            ],
            "eval_samples": 5,
        },
        "batch": {"global_batch_size": 8, "micro_batch_size": 2},
        "training": {"train_steps": 6, "device": "cpu", "collective_timeout_seconds": 60.0},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 2},
        "intervals": {"log_steps": 1, "eval_steps": 100, "save_steps": 100},
        "telemetry": {"tensorboard": False},
        "checkpoints": {"exportable": False},  # tests train models of every kind
    }
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return tree


def make_run_config(folder: Path, **changes: Any) -> RunConfig:
    """Return the config of ``run_tree``."""
    return RunConfig.from_tree(run_tree(folder, **changes))
