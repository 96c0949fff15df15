"""The config of a run that trains a pruned model on."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gptdist.config.exportable import export_problems
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.durable import write_whole
from gptdist.errors import ConfigError

_OF_THE_PARENT = ("lora", "distillation")
"""Sections that speak of the parent's matrices: its adapters are in the weights, and its teacher may be another's."""


def file_problems(path: Path, parent: Mapping[str, Any]) -> list[str]:
    """Return why no run config can be written to ``path`` for a model of the run ``parent``."""
    bad = [] if not path.exists() else [f"--write-config: {path} exists; remove it, or name another file"]
    if not path.parent.is_dir():
        bad.append(f"--write-config: folder '{path.parent}' does not exist; make it, or name another")
    if missing := [name for name in ("batch", "training") if name not in parent]:
        bad.append(
            f"--write-config: the model was imported without a run config (no {' and '.join(missing)} section); "
            f"leave it out, or import the model with --config"
        )
    return bad


def next_run(parent: Mapping[str, Any], model: ModelConfig, checkpoint: Path) -> RunConfig:
    """Return the parent's run with the smaller model, beginning with the weights of ``checkpoint``, in its own folder.

    Raises:
        ConfigError: the smaller model cannot be trained so, such as in the parent's layout.
    """
    name = checkpoint.name if re.fullmatch(r"\w[\w.-]*", checkpoint.name) else f"{parent['name']}-pruned"
    kept = {key: value for key, value in parent.items() if key not in _OF_THE_PARENT}
    tree = kept | {"name": name, "run_dir": None, "model": model.tree()}
    tree["training"] = parent["training"] | {"init_from": str(checkpoint)}
    if export_problems(model):  # that has been said, and is no reason not to train it
        tree["checkpoints"] = parent.get("checkpoints", {}) | {"exportable": False}
    config = RunConfig.from_tree(tree, origin="--write-config")
    if problems := config.problems():
        raise ConfigError(f"--write-config: {problem}; or leave it out" for problem in problems)
    return config


def write_run(path: Path, config: RunConfig) -> None:
    """Write a run config as YAML."""
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(config.tree(), text)
    write_whole(path, text.getvalue().encode())
