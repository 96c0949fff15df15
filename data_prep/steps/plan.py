"""What a run will do: its input shards, and the name of each step's folder, which is a hash of what decides it."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.readers.reader import Reader
from data_prep.steps.all_steps import all_steps
from data_prep.work import InputShard, Piece, Plan
from gptdist.config.prep import PrepConfig
from gptdist.config.section import Section

_VERSION = 3
"""Raise it when the same config and inputs begin to give other shards."""

_KEYS = {
    "documents": (
        *("seed", "validation_fraction", "extract", "language", "filters", "quality", "decontaminate", "pii"),
        *("max_record_bytes", "max_damaged_fraction", "sources"),
    ),
    "tokenizer": ("tokenizer",),
    "layout": ("shard_tokens", "packing"),
}
"""Parts of the config that a step adds to what the steps before it depend on; those of dedup add ``dedup``."""

_ADD_NOTHING = ("tokenize", "shards", "account")


@dataclass(frozen=True)
class Identity:
    """What a run is known by."""

    recipe: str
    """SHA-256 over the config, and labels and sizes of all inputs: what the manifest records."""

    freshness: str
    """The same with modification times or remote versions: equal only if no input was written since."""


def make_plan(config: PrepConfig, readers: Sequence[Reader]) -> tuple[Plan, Identity]:
    """Return the plan of a run, and its identity."""
    pieces = [reader.pieces() for reader in readers]
    shards = [shard for index, found in enumerate(pieces) for shard in _shards(config, index, found)]
    versions = [reader.versions() for reader in readers], [_version(path) for path in _paths(config)]
    tree = recorded_config(config)
    recipe = _hash(tree, [[(piece.label, piece.size, piece.begin) for piece in found] for found in pieces])
    folders: dict[str, str] = {}
    chained = _hash([asdict(shard) for shard in shards], versions)
    for step in all_steps(config):
        keys = _KEYS.get(step.name, () if step.name in _ADD_NOTHING else ("dedup",))
        chained = _hash(chained, step.name, {key: tree[key] for key in keys})
        folders[step.name] = f"{step.name}-{chained[:16]}"
    return Plan(config, tuple(shards), folders), Identity(recipe, _hash(recipe, versions))


def recorded_config(config: PrepConfig) -> dict[str, Any]:
    """Return the config as the manifest holds it: all but where the result goes, and what it does not depend on."""
    tree = config.tree()
    del tree["output_dir"], tree["work_compression"]
    return tree


def _shards(config: PrepConfig, index: int, pieces: Sequence[Piece]) -> Iterator[InputShard]:
    """Group pieces into shards of about ``input_shard_bytes``.

    A source that ``max_bytes`` cuts is dealt out in turn to so many shards that each may keep an equal part of it:
    which documents are kept does not depend on the order in which shards are done.
    """
    limit = config.sources[index].max_bytes
    if limit is not None:
        count = min(len(pieces), math.ceil(limit / config.input_shard_bytes))
        for number in range(count):
            yield InputShard(index, tuple(pieces[number::count]), math.ceil(limit / count))
        return
    group: list[Piece] = []
    for piece in pieces:
        if group and sum(member.size for member in group) + piece.size > config.input_shard_bytes:
            yield InputShard(index, tuple(group))
            group = []
        group.append(piece)
    if group:
        yield InputShard(index, tuple(group))


def _paths(section: Section) -> Iterator[Path]:
    """Yield every file or folder that a section or one inside it names, but for the output."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Section):
                yield from _paths(one)
            elif isinstance(one, Path) and name != "output_dir":
                yield one


def _version(path: Path) -> list[Any]:
    """Return what changes when a file, or any file of a folder, is written."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(str(file), file.stat()) for file in files if file.is_file()]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True, default=str).encode()).hexdigest()
