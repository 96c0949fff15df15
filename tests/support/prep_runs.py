"""Preparation runs of the written web corpus, as commands."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.ranks import repository
from tests.support.web_corpus import Corpus

COMMAND = [sys.executable, "-m", "gptdist.cli.main", "prep", "run"]


def web_config(corpus: Corpus, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return a config with every stage, in small input shards; each format of ``corpus`` gives another part of it."""
    thirds = {
        kind: [str(path) for path in paths[number : number + 1]]
        for number, (kind, paths) in enumerate(corpus.files.items())
    }
    named = {"warc": "warc", "jsonl": "lines", "parquet": "table"}
    keyed = {"jsonl": {"url_key": "url"}, "parquet": {"url_key": "url"}}
    sources = [
        {"name": named[kind], "kind": kind, "paths": paths, **keyed.get(kind, {})} for kind, paths in thirds.items()
    ]
    return {
        "name": "web",
        "output_dir": str(output_dir),
        "tokenizer": {"kind": "bpe", "vocab_size": 1500},
        "sources": sources,
        "language": {},
        "quality": {
            "url_blocklist": {"files": [str(corpus.blocklist)]},
            "gopher_quality": {},
            "gopher_repetition": {},
        },
        "decontaminate": {"files": [str(corpus.evaluation)], "text_keys": ["question", "answer"]},
        "pii": {},
        "dedup": {"exact": True, "lines": {}, "near": {}},
        "validation_fraction": 0.05,
        "shard_tokens": 60_000,
        "input_shard_bytes": 100_000,
        **changes,
    }


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """Write a config; JSON is YAML."""
    path.write_text(json.dumps(config, indent=1))
    return path


def run_prep(
    config: Path, *options: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run ``gptdist prep run`` to its end."""
    return subprocess.run(
        [*COMMAND, str(config), *options],
        cwd=repository(),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def start_prep(config: Path, *options: str) -> "subprocess.Popen[str]":
    """Start ``gptdist prep run`` in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, str(config), *options],
        cwd=repository(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def results(output_dir: Path, names: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file of a finished run; of what it leaves, locks aside."""
    from tests.unit.data_prep.made_corpus import hashes

    found = {name: digest for name, digest in hashes(output_dir).items() if not name.startswith(".prep.lock")}
    return {name: digest for name, digest in found.items() if not names or name.split("/")[0] in names}
