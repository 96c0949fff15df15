"""What decides a result, as a hash: equal recipes mean that there is nothing to do again."""

import hashlib
import json
from typing import Any

from data_prep.readers.reader import OpenSource
from gptdist.config.prep import PrepConfig

_VERSION = 1
"""Raise it when the same config and inputs begin to give other shards."""


def recorded_config(config: PrepConfig) -> dict[str, Any]:
    """Return the config as the manifest holds it: all but where the result goes."""
    tree = config.tree()
    del tree["output_dir"]
    return tree


def tokenizer_recipe(config: PrepConfig, sources: list[OpenSource]) -> str:
    """Return the recipe of a trained tokenizer."""
    return _hash(_shared(config), config.tokenizer.tree(), [_source(source) for source in sources])


def source_recipe(config: PrepConfig, sources: list[OpenSource], index: int, tokenizer_fingerprint: str) -> str:
    """Return the recipe of one source's shards; exact dedup makes it depend on the sources before it."""
    first = 0 if config.dedup.exact else index
    deciding = [_source(source) for source in sources[first : index + 1]]
    return _hash(_shared(config), tokenizer_fingerprint, deciding)


def _shared(config: PrepConfig) -> dict[str, Any]:
    tree = recorded_config(config)
    return {key: tree[key] for key in tree if key not in ("name", "tokenizer", "sources")}


def _source(source: OpenSource) -> Any:
    return source.section.tree(), source.reader.inputs()


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True).encode()).hexdigest()
