"""Exported folders of small random models, and data to judge them on."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from gptdist.compress.export import ExportOptions, export_model
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.compress.small_models import TrainedModel, megatron_model


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
