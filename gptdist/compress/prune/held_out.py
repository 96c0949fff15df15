"""Held-out tokens on which a pruned model's loss is measured."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from gptdist.checkpoint.manifest import Manifest
from gptdist.compress.bundle.held_out import HELD_OUT_FILE, read_held_out
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.config.model import ModelConfig
from gptdist.data.sources import VALIDATION_SPLIT
from gptdist.errors import ExportError

BUNDLED_FILE = f"gptdist/{HELD_OUT_FILE}"
"""Within an exported folder."""


def held_out_tokens(
    source: Path, manifest: Manifest, data: Sequence[Path], options: CalibrationOptions, sequences: int
) -> np.ndarray:
    """Return token ids [sequences, length], int64, of the validation splits, mixed as the run mixes its sources.

    Those that came with an export are at most as many, and no longer; a sequence of each source in turn.

    Args:
        source: the model as it was named; an exported folder may have tokens in it.
        manifest: of the checkpoint.
        data: dataset folders to take in their place.
        options: length and seed.
        sequences: how many.

    Raises:
        BundleError: what came with the export is damaged.
        ConfigError: an option is out of its range.
        DataError: a dataset is damaged, has no validation split, or less of it than a window.
        ExportError: datasets are missing, or the model does not know the tokens that came with the export.
    """
    model = ModelConfig.from_tree(manifest.config["model"], origin="checkpoint")
    options = replace(options, sequences=sequences, length=min(options.length, model.seq_length))
    path = source / BUNDLED_FILE
    if not data and path.is_file():
        return _bundled(path, model.vocab_size)[:sequences, : options.length]
    return calibration_sample(manifest.config, data, options, vocab_size=model.vocab_size, split=VALIDATION_SPLIT)


def _bundled(path: Path, vocab_size: int) -> np.ndarray:
    """Return the windows of the training sources, a row of each in turn, cut to the shortest of them."""
    windows = [one.ids for one in read_held_out(path) if one.weight > 0.0]
    length = min(ids.shape[1] for ids in windows)
    turns = chain.from_iterable(zip_longest(*([row[:length] for row in ids] for ids in windows)))
    rows = np.stack([row for row in turns if row is not None]).astype(np.int64)
    if rows.min() < 0 or rows.max() >= vocab_size:
        raise ExportError(
            f"{path}: holds id {int(rows.max())}, but the model knows 0 to {vocab_size - 1}; export the model again, "
            f"or name a dataset: --data"
        )
    return rows
