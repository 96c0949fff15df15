"""Runs of small random models with a checkpoint, and their exports."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import Progress
from gptdist.checkpoint.saver import Saver
from gptdist.cli.main import main
from gptdist.compress.export import ExportOptions, export_model
from gptdist.config.optimization import OptimizerConfig
from gptdist.config.run import RunConfig
from gptdist.model.parameters import local_parameters
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import run_tree
from tests.unit.compress.small_models import TrainedModel, megatron_model, trained


def saved_run(folder: Path, model_section: dict[str, Any]) -> tuple[Path, TrainedModel]:
    """A run folder with data, tokenizer and one checkpoint."""
    tree = run_tree(folder, model=model_section)
    model = trained(**tree["model"])
    with megatron_model(model) as (network, mesh):
        locals_ = list(local_parameters(network, model.config, 1, 0))
        config = RunConfig.from_tree(tree)
        identity = RunIdentity(config.tree(), ByteTokenizer.fingerprint, {})
        progress = Progress(
            step=30, consumed_samples=240, consumed_tokens=7680, optimizer_step=30, validation_loss=2.25
        )
        fragments = OptimizerFragments(torch.optim.AdamW(network.parameters()), locals_, OptimizerConfig())
        saver = Saver(config, fragments, identity, mesh)
        saver.save(progress)
        saver.finish()
    return folder / "run", model


def export(run_folder: Path, *options: str) -> int:
    return main(["export", str(run_folder), "--to", "hf", "--output", str(run_folder.parent / "out"), *options])


def exported(model: TrainedModel, folder: Path) -> Path:
    """Write ``model`` in the Hugging Face layout, with the tokenizer of bytes."""
    sample = np.array([[*b"the model of a rank."]])
    export_model(
        model,
        folder,
        tokenizer=ByteTokenizer(),
        sample_tokens=sample,
        options=ExportOptions(),
        logits=partial(_logits, model),
    )
    return folder


def _logits(model: TrainedModel, tokens: torch.Tensor, dtype: str) -> torch.Tensor:
    with megatron_model(model, dtype) as (network, _), torch.inference_mode():
        return network(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), None)


def lines(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """Lines of a command that ends with status 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return [line.partition("error: ")[2] for line in capsys.readouterr().err.splitlines()]
