"""What the tests of this folder share; no test here looks at a network."""

import os
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.datasets import write_dataset
from tests.unit.compress.exported import export, exported, saved_run
from tests.unit.compress.small_models import Logits, TrainedModel, llama, megatron_model, trained

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def megatron_logits() -> Logits:
    """What ``trained_logits`` computes, for weights that are in memory."""

    def logits(model: TrainedModel, tokens: torch.Tensor, dtype: str) -> torch.Tensor:
        with megatron_model(model, dtype) as (network, _), torch.inference_mode():
            return network(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), None)

    return logits


@pytest.fixture(scope="session")
def sample_tokens() -> np.ndarray:
    text = "def área(r):\n    return 3 * r ** 2  # 🙂\n" * 2
    ids = [*text.encode(), 256]
    return np.array([ids[:24], ids[-24:]])


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that transformers loads, with widths that groups of 32 divide; not to be changed."""
    return exported(llama(ffn_hidden_size=64, seq_length=160), tmp_path_factory.mktemp("llama") / "hf")


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2, tied; not to be changed."""
    return exported(trained(seq_length=160), tmp_path_factory.mktemp("gpt2") / "hf")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte tokens to judge on; not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("data") / "prose")


@pytest.fixture(scope="session")
def bundled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, and beside it ``out``, its export."""
    folder, _ = saved_run(tmp_path_factory.mktemp("bundle"), {})
    (folder.parent / "words").write_text("e\n")
    assert (
        export(folder, "--activations", "--calibration-sequences", "6", "--word-list", str(folder.parent / "words"))
        == 0
    )
    return folder


@pytest.fixture
def bundle(bundled_run: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be changed."""
    return Path(shutil.copytree(bundled_run.parent / "out", tmp_path / "copy"))
