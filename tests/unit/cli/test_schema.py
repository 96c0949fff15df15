"""JSON Schemas of config files: as committed, true of what is shipped, as strict as the loader on keys and types."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gptdist.cli.main import main
from gptdist.cli.schema import KINDS, schema_text, section_of
from gptdist.config.section import Section
from gptdist.config.source import _yaml, apply_overrides, read_tree
from gptdist.errors import ConfigError
from tests.support.ranks import repository

CONFIGS = repository() / "configs"
FOLDERS = {"runs": "run", "models": "run", "data": "prep", "recipes": "recipe", "devices": "device"}
FOLDERS["devices/networks"] = "network"
FILES = [(path, kind) for folder, kind in FOLDERS.items() for path in sorted((CONFIGS / folder).glob("*.yaml"))]


def _validator(kind: str) -> jsonschema.Draft7Validator:
    schema = json.loads(schema_text(kind))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def _plain(tree: Any) -> Any:
    return json.loads(json.dumps(tree, default=str))


@pytest.mark.parametrize("kind", KINDS)
def test_committed_schemas_are_what_is_generated(kind: str) -> None:
    file = CONFIGS / "schema" / f"{kind}.schema.json"
    assert file.read_text() == schema_text(kind), f"gptdist schema {kind} --output configs/schema/{file.name}"


@pytest.mark.parametrize(("path", "kind"), FILES, ids=[str(path.relative_to(CONFIGS)) for path, _ in FILES])
def test_shipped_configs_name_their_schema_and_fulfil_it(path: Path, kind: str) -> None:
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert named is not None
    assert (path.parent / named[1]).resolve() == CONFIGS / "schema" / f"{kind}.schema.json"
    _validator(kind).validate(_plain(_yaml().load(path.read_text())))


def test_a_file_is_taken_with_its_bases_and_all_of_its_keys() -> None:
    run = read_tree(CONFIGS / "runs" / "llama-cpu.yaml")
    whole = section_of("run").from_tree(run).tree()  # every key there is
    _validator("run").validate(whole)
    _validator("run").validate({"base": ["a.yaml", "b.yaml"]})
    _validator("prep").validate({"base": "a.yaml", "seed": 1})
    _validator("run").validate({"base": "a.yaml", "schedule": {"warmup_tokens": "375_000_000"}})  # to YAML 1.2 a string
    assert not _validator("run").is_valid({"base": 1})


WRONG = [
    ("run", "runs/demo-cpu.yaml", "batch.micro_batchsize=4"),
    ("run", "runs/demo-cpu.yaml", "modell.num_layers=4"),
    ("run", "runs/demo-cpu.yaml", "batch.micro_batch_size='4'"),
    ("run", "runs/demo-cpu.yaml", "batch.micro_batch_size=4.5"),
    ("run", "runs/demo-cpu.yaml", "optimizer.lr=fast"),
    ("run", "runs/demo-cpu.yaml", "training.deterministic=1"),
    ("run", "runs/demo-cpu.yaml", "training.device=gpu"),
    ("run", "runs/demo-cpu.yaml", "telemetry.profile_steps=[1]"),
    ("run", "runs/demo-cpu.yaml", "telemetry.profile_steps=[1, two]"),
    ("run", "runs/demo-cpu.yaml", "data.sources=[{weight: 1}]"),  # an item of a list is whole: path is missing
    ("run", "runs/demo-cpu.yaml", "checkpoints.keep.lasts=3"),
    ("prep", "data/demo.yaml", "tokenizer.kind=bpee"),
    ("prep", "data/demo.yaml", "sources=[{kind: files, name: a, paths: [b], sort: c}]"),
    ("prep", "data/demo.yaml", "sources=[{kind: files, name: a}]"),
    ("recipe", "recipes/demo-cpu.yaml", "stages=[{name: a, run: prune}]"),
    ("device", "devices/cpu.yaml", "memory=1"),
    ("network", "devices/networks/ethernet-10.yaml", "node_bandwidth=fast"),
]


@pytest.mark.parametrize(("kind", "file", "override"), WRONG, ids=[override for _, _, override in WRONG])
def test_schema_and_loader_refuse_the_same(kind: str, file: str, override: str) -> None:
    tree = read_tree(CONFIGS / file)
    section: type[Section] = section_of(kind)
    _validator(kind).validate(_plain(tree))
    wrong = _plain(apply_overrides(tree, [override]))
    with pytest.raises(ConfigError):
        section.from_tree(wrong)
    assert not _validator(kind).is_valid(wrong)


def test_it_holds_descriptions_defaults_and_choices() -> None:
    training = json.loads(schema_text("run"))["definitions"]["TrainingConfig"]["properties"]
    assert training["device"] == {
        "default": "auto", "description": "`auto` takes CUDA where there is one.", "enum": ["auto", "cpu", "cuda"],
        "type": "string",
    }  # fmt: skip
    assert "\n" not in training["keep_zeros"]["description"]


def test_it_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "network"]) == 0
    assert capsys.readouterr().out == schema_text("network")
    assert main(["schema", "network", "--output", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == schema_text("network")
