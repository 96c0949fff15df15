"""What the tests of this folder share; no test here looks at a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch

from tests.unit.compress.small_models import Logits, TrainedModel, megatron_model

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
