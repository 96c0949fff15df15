"""A preparation config: every contradiction is told at once, and the shipped ones load."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.load import load_config
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_tokenizer import LEAST_VOCAB_SIZES
from gptdist.errors import ConfigError
from gptdist.tokenizer.training import MIN_BPE_VOCAB_SIZE, MIN_SENTENCEPIECE_VOCAB_SIZE

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
FILES = {"name": "a", "kind": "files", "paths": ["x"]}
GOOD = {"name": "n", "output_dir": "out", "tokenizer": {"kind": "byte"}, "sources": [FILES]}


def problems(**changes: Any) -> list[str]:
    return PrepConfig.from_tree({**GOOD, **changes}).problems()


@pytest.mark.parametrize("name", ["demo", "folder", "huggingface"])
def test_shipped_configs_load(name: str) -> None:
    config = load_config(PrepConfig, CONFIGS / f"{name}.yaml", [])
    assert config.name == name
    assert config.output_dir == Path("data") / name


def test_a_config_comes_back_from_its_own_data() -> None:
    config = load_config(PrepConfig, CONFIGS / "demo.yaml", [])
    assert PrepConfig.from_tree(config.tree()) == config


def test_overrides_reach_sections(tmp_path: Path) -> None:
    path = CONFIGS / "folder.yaml"
    source = "sources=[{name: mine, kind: files, paths: [texts]}]"
    config = load_config(PrepConfig, path, ["seed=3", "filters.min_characters=7", source])
    assert (config.seed, config.filters.min_characters, config.sources[0].name) == (3, 7, "mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "sources: empty; name at least one"),
        ({"sources": [FILES, FILES]}, "sources: two are called 'a'; give each a name of its own"),
        ({"sources": [{**FILES, "name": "../x"}]}, "sources[0].name: '../x' cannot be a folder here"),
        ({"sources": [{**FILES, "name": "tokenizer"}]}, "sources[0].name: 'tokenizer' cannot be a folder here"),
        ({"sources": [{**FILES, "weight": 0}]}, "sources[0].weight: must be above 0, got 0.0"),
        ({"sources": [{**FILES, "paths": []}]}, "sources[0].paths: empty; name at least one file or folder"),
        ({"sources": [{**FILES, "include": []}]}, "sources[0].include: empty, so no file is taken"),
        ({"sources": [{**FILES, "max_bytes": 0}]}, "sources[0].max_bytes: must be at least 1, got 0"),
        ({"sources": [{**FILES, "max_file_bytes": -1}]}, "sources[0].max_file_bytes: must be at least 1, got -1"),
        (
            {"sources": [{"name": "h", "kind": "huggingface", "dataset": "d", "max_documents": 0}]},
            "sources[0].max_documents: must be at least 1, got 0",
        ),
        ({"validation_fraction": 1.0}, "validation_fraction: must be at least 0 and below 1, got 1.0"),
        ({"shard_tokens": 0}, "shard_tokens: must be at least 1, got 0"),
        ({"seed": 2**63}, "seed: must fit 64 bits"),
        ({"tokenizer": {}}, "tokenizer: set either kind (byte, bpe, sentencepiece) or load (a path)"),
        ({"tokenizer": {"kind": "byte", "load": "x"}}, "tokenizer: set either kind"),
        ({"tokenizer": {"kind": "bpe"}}, "tokenizer.vocab_size: missing; set it"),
        (
            {"tokenizer": {"kind": "byte", "vocab_size": 9}},
            "tokenizer.vocab_size: only a trained tokenizer has a choice",
        ),
        (
            {"tokenizer": {"kind": "bpe", "vocab_size": 256}},
            "tokenizer.vocab_size: 256 is too small for kind bpe; use 257",
        ),
        (
            {"tokenizer": {"kind": "bpe", "vocab_size": 300, "model_type": "bpe"}},
            "tokenizer.model_type: belongs to kind sentencepiece; remove it",
        ),
        ({"tokenizer": {"kind": "byte", "eod_token": "x"}}, "tokenizer.eod_token: belongs to load; remove it"),
        ({"tokenizer": {"kind": "byte", "train_bytes": 0}}, "tokenizer.train_bytes: must be at least 1, got 0"),
        ({"filters": {"min_characters": 0}}, "filters.min_characters: must be at least 1, got 0"),
        (
            {"filters": {"min_characters": 9, "max_characters": 5}},
            "filters.max_characters: 5 is below min_characters 9",
        ),
        ({"filters": {"max_line_characters": 0}}, "filters.max_line_characters: must be at least 1, got 0"),
        ({"filters": {"min_alphabetic_fraction": 1.5}}, "filters.min_alphabetic_fraction: must be 0 … 1, got 1.5"),
    ],
)
def test_each_contradiction_is_told(changes: dict[str, Any], message: str) -> None:
    (problem,) = problems(**changes)
    assert problem.startswith(message)


def test_the_least_vocabularies_are_those_of_the_trainers() -> None:
    least = {"bpe": MIN_BPE_VOCAB_SIZE, "sentencepiece": MIN_SENTENCEPIECE_VOCAB_SIZE}
    assert dict(LEAST_VOCAB_SIZES) == least


def test_all_problems_come_at_once() -> None:
    assert len(problems(sources=[{**FILES, "weight": 0, "max_bytes": 0}], shard_tokens=0, tokenizer={})) == 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "a"}, r"sources\[0\]: kind must be files, jsonl, parquet, warc or huggingface"),
        ({"name": "a", "kind": "fils"}, r"sources\[0\]: kind must be files, jsonl, parquet, warc or huggingface"),
        ({**FILES, "pahts": ["x"]}, r"sources\[0\]\.pahts: unknown key; did you mean 'paths'\?"),
        ({"name": "a", "kind": "jsonl"}, r"sources\[0\]\.paths: missing; set it"),
    ],
)
def test_a_misspelled_source_is_explained(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrepConfig.from_tree({**GOOD, "sources": [source]})
