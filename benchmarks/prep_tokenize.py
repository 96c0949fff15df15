"""JSON Lines to shuffled shards of token ids, with the same BPE of 50,257 ids in every tool.

Ours is a whole run: read, account for every document, tokenize, shuffle globally, write shards with their provenance.
``python -m benchmarks.prep_tokenize TEXT_JSONL TOKENIZER OUT`` is run in a process of its own by ``measure``.

What the others take is counted from after their imports, what ours takes from the start of its process. The second
line of each pair leaves our reading and its account out, and theirs in.
"""

import json
import resource
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, by_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS, Corpus, Finished, run_ours, run_script

VOCAB_SIZE = 50_257
_TRAINED_BYTES = 20_000_000
_THEIR_BYTES = 12_000_000
"""Theirs do 2 or 3 MB a second."""
_PEERS = {"tokenize_datatrove": ("datatrove",), "tokenize_datasets": ("datasets", "tokenizers")}
_TARGET = 40.0


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return the ratios of text a CPU second; print ours without its start-up, and its memory."""
    tokenizer, part = corpus.scratch / "tokenizer", corpus.scratch / "part.jsonl"
    _train(corpus.folder / "text.jsonl", tokenizer)
    _cut(corpus.folder / "text.jsonl", part, _THEIR_BYTES)
    missing = {name: why_missing(peers, *needs) for name, needs in _PEERS.items()}
    ours, theirs = by_turns(
        lambda: _run_ours(corpus, corpus.folder / "text.jsonl", tokenizer),
        lambda: {name: _run_theirs(corpus, str(peers), name, part) for name in _PEERS if not missing[name]},
        is_backwards=corpus.is_backwards,
    )
    whole = (corpus.folder / "text.jsonl").stat().st_size / 1e6
    return [
        Comparison(
            what,
            name.removeprefix("tokenize_"),
            "MB/CPU-second",
            [whole / seconds],
            [theirs[name]] if name in theirs else [],
            "higher",
            _TARGET,
            note=f"ours {whole:.0f} MB, theirs {part.stat().st_size / 1e6:.0f} MB; start-up counts for ours only",
            missing=missing[name],
        )
        for name in _PEERS
        for what, seconds in (("JSON to shards", ours.cpu_seconds), ("documents to shards", _tokenizing(ours)))
    ]


def _run_theirs(corpus: Corpus, python: str, name: str, part: Path) -> float:
    """Return MB a CPU second of a peer."""
    out = corpus.scratch / name
    shutil.rmtree(out, ignore_errors=True)
    tokenizer = corpus.scratch / "tokenizer/tokenizer.json"
    theirs = run_script(python, PEERS / f"{name}.py", str(part), str(tokenizer), str(out))
    size = part.stat().st_size / 1e6
    print(
        f"  {name}: {size:,.1f} MB of JSON, {theirs.result['cpu_seconds']:.2f} CPU seconds, "
        f"{theirs.cpu_seconds:.2f} with start-up, {theirs.peak_bytes / 1e6:,.0f} MB in memory"
    )
    return float(size / theirs.result["cpu_seconds"])


def _tokenizing(ours: Finished) -> float:
    """Return the CPU seconds of our steps behind reading and its account; loading the engine is among them."""
    return sum(ours.result["steps"][step] for step in ("tokenizer", "tokenize", "layout", "shards"))


def _run_ours(corpus: Corpus, path: Path, tokenizer: Path) -> Finished:
    out = corpus.scratch / "ours"
    shutil.rmtree(out, ignore_errors=True)
    ours = run_ours("benchmarks.prep_tokenize", str(path), str(tokenizer), str(out))
    megabytes = path.stat().st_size / 1e6
    seconds = ours.result["cpu_seconds"]
    print(
        f"  ours: {megabytes:,.1f} MB of JSON, {ours.result['tokens']:,} tokens, {seconds:.2f} CPU seconds, "
        f"{ours.cpu_seconds:.2f} with start-up; {megabytes / seconds:,.1f} and {megabytes / ours.cpu_seconds:,.1f} "
        f"MB/CPU-second; {ours.result['peak_mb']:,.0f} MB in memory"
    )
    for step, spent in ours.result["steps"].items():
        print(f"    {step:<12}{spent:7.2f} s")
    return ours


def _train(path: Path, folder: Path) -> None:
    """Train the BPE, unless it is there."""
    if (folder / "tokenizer.json").exists():
        return
    from gptdist.tokenizer.training import train_bpe

    size = 0
    texts = []
    with path.open("rb") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            size += len(line)
            if size >= _TRAINED_BYTES:
                break
    train_bpe(texts, VOCAB_SIZE).save(folder)


def _cut(source: Path, target: Path, size: int) -> None:
    """Copy lines from all over the file, about ``size`` bytes."""
    every = max(1, source.stat().st_size // size)
    with source.open("rb") as lines, target.open("wb") as file:
        file.writelines(line for number, line in enumerate(lines) if number % every == 0)


def main(path: str, tokenizer: str, out: str) -> None:
    """Prepare the file in this process, and print one line of JSON."""
    before = time.process_time()
    from data_prep.executors import executor
    from data_prep.executors.local import LocalExecutor
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress
    from gptdist.config.prep import PrepConfig

    spent: dict[str, float] = defaultdict(float)
    run_task = executor.run_task

    def timed(work: Any, step: Any, place: Any) -> None:
        begin = time.process_time()
        run_task(work, step, place)
        spent[step.name] += time.process_time() - begin

    executor.run_task = timed  # type: ignore[assignment]
    config = PrepConfig.from_tree(
        {
            "name": "tokenize",
            "output_dir": out,
            "tokenizer": {"load": tokenizer},
            "sources": [{"name": "text", "kind": "jsonl", "paths": [path], "url_key": "url"}],
            "dedup": {"exact": False},
        }
    )
    imported = time.process_time() - before
    done = prepare(config, LocalExecutor(1), Progress(sys.stderr))
    result = {
        "cpu_seconds": time.process_time() - before - imported,
        "tokens": sum(split.tokens for split in done.manifests[0].splits.values()),
        "steps": spent,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
