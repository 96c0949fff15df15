"""Held-out tokens on which a pruned model's loss is measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gptdist.checkpoint.manifest import Manifest
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.config.model import ModelConfig
from gptdist.data.sources import VALIDATION_SPLIT


def held_out_tokens(
    manifest: Manifest, data: Sequence[Path], options: CalibrationOptions, sequences: int
) -> np.ndarray:
    """Return token ids [sequences, length], int64, of the validation splits, mixed as the run mixes its sources.

    Args:
        manifest: of the checkpoint.
        data: dataset folders to take in place of the run's.
        options: length and seed.
        sequences: how many.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a dataset is damaged, has no validation split, or less of it than a window.
        ExportError: datasets are missing.
    """
    model = ModelConfig.from_tree(manifest.config["model"], origin="checkpoint")
    options = replace(options, sequences=sequences, length=min(options.length, model.seq_length))
    return calibration_sample(manifest.config, data, options, vocab_size=model.vocab_size, split=VALIDATION_SPLIT)
