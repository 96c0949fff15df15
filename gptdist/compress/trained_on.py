"""What a checkpoint was trained on, found again from its config: tokenizer and validation tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.checkpoint.manifest import Manifest
from gptdist.config.model import ModelConfig
from gptdist.data.dataset import TokenDataset
from gptdist.errors import ExportError
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

MAX_LOGIT_BYTES = 512 * 2**20
"""Most memory for one model's logits in fp32 during the comparison."""

SAMPLE_SEQUENCES = 2


def trained_tokenizer(manifest: Manifest, chosen: Path | None = None) -> Tokenizer:
    """Return the tokenizer that the checkpoint was trained with, from the run's folder or the ``chosen`` one.

    Raises:
        TokenizerError: it is damaged.
        ExportError: it is not there, or is another one.
    """
    named = manifest.config["data"].get("tokenizer")
    if chosen is None and named is None:
        raise ExportError("data.tokenizer: the checkpoint was imported without one; name it with --tokenizer")
    folder = Path(named) if chosen is None else chosen
    if not folder.exists():
        advice = "run from the folder the training was started in, or name it with --tokenizer"
        raise ExportError(f"data.tokenizer: '{folder}' does not exist; {advice}")
    tokenizer = load_tokenizer(folder)
    if manifest.tokenizer_fingerprint not in ("", tokenizer.fingerprint):
        raise ExportError(
            f"{folder}: tokenizer {tokenizer.fingerprint[:12]}, but the checkpoint was trained with "
            f"{manifest.tokenizer_fingerprint[:12]}; name that tokenizer's folder with --tokenizer"
        )
    return tokenizer


def validation_sample(config: Mapping[str, Any], chosen: Sequence[Path]) -> np.ndarray:
    """Return token ids [b, s] of real text, from the validation split of the run's sources or of ``chosen`` folders.

    The sequences are as long as the model's, so that every position is compared, unless the logits would not fit.

    Raises:
        DataError: a dataset is damaged.
        ExportError: a dataset is missing, or too small.
    """
    model = ModelConfig.from_tree(config["model"], origin="checkpoint")
    folders = list(chosen) or [Path(source["path"]) for source in config["data"]["sources"]]
    if not folders:
        raise ExportError("data.sources: the checkpoint was imported without any; name a dataset with --data")
    for folder in folders:
        if not folder.is_dir():
            advice = "run from the folder the training was started in, or name a dataset with --data"
            raise ExportError(f"data.sources: '{folder}' does not exist; {advice}")
    length = max(1, min(model.seq_length, MAX_LOGIT_BYTES // (4 * SAMPLE_SEQUENCES * model.vocab_size)))
    datasets = [TokenDataset(folder, "validation") for folder in folders]
    datasets = [dataset for dataset in datasets if dataset.num_tokens >= length]
    if not datasets:
        names = ", ".join(str(folder) for folder in folders)
        raise ExportError(f"{names}: no validation split has {length} tokens; name a larger dataset with --data")
    # from different sources where there are several, else from both ends of the one
    picks = [datasets[index % len(datasets)] for index in range(SAMPLE_SEQUENCES)]
    starts = [0 if index < len(datasets) else dataset.num_tokens - length for index, dataset in enumerate(picks)]
    return np.stack([dataset.read(start, length) for dataset, start in zip(picks, starts, strict=True)])
