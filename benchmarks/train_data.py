"""First batch of a corpus of 10^12 tokens: seconds and memory, ours and megatron-core's ``GPTDataset``.

``python -m benchmarks.train_data [--rounds N] [--parts SHARDS …]``. The shards are sparse files of 4 x 10^9 tokens:
their indices are real, their tokens zeros that take no disk. Each measurement is a process of its own, counted from
behind its imports. ``GPTDataset`` gets a part of the corpus, since it writes an index of all samples before the first
one; both read the very same files.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Comparison, add_options, merged, tell, write

SHARDS, SHARD_TOKENS, DOCUMENT_TOKENS = 250, 4_000_000_000, 1_000_000
SEQ_LENGTH, BATCH = 2048, 64
PARTS = [1, 5, 25]
"""Shards that GPTDataset gets."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="who is first changes with each (default: 1)")
    parser.add_argument("--parts", type=int, nargs="+", default=PARTS, help="shards that GPTDataset gets")
    add_options(parser)
    arguments = parser.parse_args()
    parts = arguments.parts[:1] if arguments.quick else arguments.parts
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_corpus(data / "web", parts)
        print(f"{'':<28}{'tokens':>10}{'seconds':>10}{'MB beyond the imports':>24}{'index MB':>10}")
        found = merged([_round(data, parts, is_backwards=number % 2 == 1) for number in range(rounds)])
    write(arguments.json, tell(found))


def _round(data: Path, parts: "list[int]", *, is_backwards: bool) -> list[Comparison]:
    """Measure each once; without a peer is ours on the whole corpus."""
    runs = [("ours", SHARDS), *((kind, part) for part in parts for kind in ("ours", "theirs"))]
    found = {run: _in_process(data, *run) for run in (reversed(runs) if is_backwards else runs)}
    peer = "megatron-core GPTDataset"
    comparisons = []
    for part in parts:
        for what, unit, key, scale in (("first batch", "s", "seconds", 1), ("host memory", "MB", "bytes", 1e6)):
            sides = ([max(found[kind, part][key] / scale, 1e-6)] for kind in ("ours", "theirs"))
            name = f"{what}, {part * SHARD_TOKENS:,} tokens"
            note = f"theirs writes {found['theirs', part]['index_bytes'] / 1e6:,.0f} MB of index"
            comparisons.append(Comparison(name, peer, unit, *sides, "lower", note=note))
    return comparisons


def _in_process(data: Path, kind: str, shards: int) -> dict[str, Any]:
    """Measure in a process of its own, and print the row."""
    argv = [sys.executable, "-m", "benchmarks.train_data", kind, str(data), str(shards)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    found = dict(json.loads(done.stdout.strip().splitlines()[-1]))
    name = {"ours": "gptdist", "theirs": "megatron-core GPTDataset"}[kind]
    print(
        f"{name:<28}{shards * SHARD_TOKENS:>10.0e}{found['seconds']:>10.3f}"
        f"{found['bytes'] / 1e6:>24,.0f}{found['index_bytes'] / 1e6:>10,.0f}",
        flush=True,
    )
    return found


def write_corpus(folder: Path, parts: "list[int]") -> None:
    """Write a dataset folder whose shards are sparse."""
    from gptdist.data.manifest import DatasetManifest, ShardEntry, SplitManifest
    from gptdist.data.shards import CODES, HEADER, MAGIC, VERSION
    from gptdist.tokenizer.byte import ByteTokenizer

    folder.mkdir(parents=True)
    tokenizer = ByteTokenizer()
    (folder.parent / "tokenizer").mkdir()
    tokenizer.save(folder.parent / "tokenizer")
    documents = SHARD_TOKENS // DOCUMENT_TOKENS
    index = HEADER.pack(MAGIC, VERSION, CODES[np.dtype(np.uint16)], documents, documents + 1)
    index += np.full(documents, DOCUMENT_TOKENS, np.int32).tobytes()
    index += (np.arange(documents, dtype=np.int64) * DOCUMENT_TOKENS * 2).tobytes()
    index += np.arange(documents + 1, dtype=np.int64).tobytes()
    entries = []
    for number in range(SHARDS):
        name = f"train-{number:05d}"
        with Path(folder, f"{name}.bin").open("wb") as file:
            file.truncate(SHARD_TOKENS * 2)
        Path(folder, f"{name}.idx").write_bytes(index)
        Path(folder, f"{name}.parquet").touch()
        entries.append(ShardEntry(name, SHARD_TOKENS, documents, SHARD_TOKENS * 2, "0" * 64, "0" * 64, "0" * 64))
    for shards in (SHARDS, *parts):
        used = tuple(entries[:shards])
        split = SplitManifest(shards * documents, shards * SHARD_TOKENS, shards * SHARD_TOKENS, used)
        part = folder if shards == SHARDS else folder.parent / f"part-{shards}"
        part.mkdir(exist_ok=True)
        for entry in used if part != folder else ():
            for ending in ("bin", "idx", "parquet"):
                Path(part, f"{entry.name}.{ending}").symlink_to(folder / f"{entry.name}.{ending}")
        DatasetManifest(
            name="web",
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eod_id=tokenizer.eod_id,
            dtype="uint16",
            splits={"train": split, "validation": split},
            weight=1.0,
            funnel={},
            config={},
            recipe="made by a benchmark",
        ).write(part)


def ours(data: Path, shards: int) -> dict[str, float]:
    """Open the corpus as a run does and read its first batch."""
    import torch

    from gptdist.config.run import RunConfig
    from gptdist.data.batches import Batch
    from gptdist.data.sources import TrainingData

    source = data / ("web" if shards == SHARDS else f"part-{shards}")
    config = RunConfig.from_tree(
        {
            "name": "benchmark",
            "model": {
                "num_layers": 1,
                "hidden_size": 64,
                "num_attention_heads": 1,
                "seq_length": SEQ_LENGTH,
                "vocab_size": 257,
            },
            "data": {"tokenizer": str(data / "tokenizer"), "sources": [{"path": str(source), "weight": 1.0}]},
            "batch": {"global_batch_size": BATCH, "micro_batch_size": BATCH},
            "training": {"train_steps": 1},
        }
    )
    before, begin = _resident_bytes(), time.perf_counter()
    batch = Batch.of(TrainingData(config).rows(0, BATCH), torch.device("cpu"))
    seconds = time.perf_counter() - begin
    assert batch.tokens.shape == (BATCH, SEQ_LENGTH), batch.tokens.shape
    return {"seconds": seconds, "bytes": _peak_bytes() - before, "index_bytes": 0}


def theirs(data: Path, shards: int) -> dict[str, float]:
    """Open the corpus as megatron-core's builder does and read the first batch."""
    warnings.filterwarnings("ignore")
    import torch
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset

    from tests.support.megatron_data import gpt_dataset_config

    store = torch.distributed.HashStore()  # their blend asks for a rank
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    stems = [data / "web" / f"train-{number:05d}" for number in range(shards)]
    samples = shards * SHARD_TOKENS // SEQ_LENGTH
    with tempfile.TemporaryDirectory() as cache:
        config = gpt_dataset_config(stems, Path(cache), SEQ_LENGTH)
        before, begin = _resident_bytes(), time.perf_counter()
        wanted = [samples * 9 // 10, 0, 0]
        dataset = BlendedMegatronDatasetBuilder(GPTDataset, wanted, lambda: True, config).build()[0]
        batch = torch.stack([torch.as_tensor(dataset[number]["tokens"]) for number in range(BATCH)])
        seconds = time.perf_counter() - begin
        assert batch.shape == (BATCH, SEQ_LENGTH), batch.shape
        size = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    return {"seconds": seconds, "bytes": _peak_bytes() - before, "index_bytes": size}


def _resident_bytes() -> int:
    """Return this process's memory now; as its peak so far if that is what can be had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return _peak_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["theirs"]):
        measure = {"ours": ours, "theirs": theirs}[sys.argv[1]]
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
