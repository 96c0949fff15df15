"""A small run config, written and read; what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from tests.support.datasets import GPT2

MINIMAL = {
    "name": "test",
    "model": GPT2,
    "data": {"tokenizer": "t", "sources": [{"path": "d/a"}]},
    "batch": {"global_batch_size": 8, "micro_batch_size": 2},
    "training": {"train_steps": 10},
}


def write_config(folder: Path, tree=MINIMAL, **changes) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


def run_problems(folder: Path, overrides=(), **changes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, write_config(folder, **changes), list(overrides))
    for line in caught.value.problems:
        assert line.startswith(f"{folder}/run.yaml: "), line
    return [line.split(": ", 1)[1] for line in caught.value.problems]
