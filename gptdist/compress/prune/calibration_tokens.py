"""The tokens that a method of pruning looks at: those that came with an export, or of the training mixture."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gptdist.checkpoint.manifest import Manifest
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError

CALIBRATION_FILE = "gptdist/calibration.safetensors"
"""Within an exported folder."""

INPUT_IDS = "input_ids"
"""Key of the token ids, int32 [sequences, length]."""


def calibration_tokens(
    source: Path, manifest: Manifest, data: Sequence[Path], options: CalibrationOptions
) -> tuple[np.ndarray, str]:
    """Return token ids [sequences, length], int64, and where they are from, in words.

    Args:
        source: the model as it was named; an exported folder may have tokens in it.
        manifest: of the checkpoint.
        data: dataset folders to take in their place.
        options: how many, how long, and which; no longer than the model's sequences.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a dataset is damaged, or shorter than a window.
        ExportError: tokens are missing or damaged, or the model does not know them.
    """
    model = ModelConfig.from_tree(manifest.config["model"], origin=str(source))
    options = replace(options, length=min(options.length, model.seq_length))
    path = source / CALIBRATION_FILE
    if not data and path.is_file():
        found = _read(path, model.vocab_size)[: options.sequences, : options.length]
        return found, f"the first {found.shape[0]} sequences of {CALIBRATION_FILE}, {found.shape[1]} tokens each"
    found = calibration_sample(manifest.config, data, options, vocab_size=model.vocab_size)
    of = "the training mixture" if not data else ", ".join(map(str, data))
    return found, f"{options.sequences} sequences of {options.length} tokens of {of}, seed {options.seed}"


def _read(path: Path, vocab_size: int) -> np.ndarray:
    try:
        ids = load_file(path)[INPUT_IDS].astype(np.int64)
    except (OSError, SafetensorError, KeyError) as error:
        raise ExportError(f"{path}: holds no {INPUT_IDS} ({error}); export again, or name a dataset: --data") from None
    if ids.ndim != 2 or not ids.size or ids.min() < 0 or ids.max() >= vocab_size:
        raise ExportError(
            f"{path}: {INPUT_IDS} of shape {list(ids.shape)} are no sequences of ids 0 to {vocab_size - 1}; "
            f"export again, or name a dataset: --data"
        )
    return ids
