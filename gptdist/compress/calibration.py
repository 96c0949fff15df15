"""Token sequences that a compression method looks at: of the training mixture, never of validation; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.order import SampleOrder
from gptdist.data.sources import TRAIN_SPLIT, mixture_weights
from gptdist.errors import ConfigError, ExportError


@dataclass(frozen=True)
class CalibrationOptions:
    """How much is looked at."""

    sequences: int = 128
    """As SparseGPT's and Wanda's papers take."""

    length: int = 2048
    """Tokens of a sequence; a model that knows fewer positions gets as many as it knows."""

    seed: int = 0
    """Decides which."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        return [
            f"--calibration-{name}: must be at least {least}, got {value}"
            for name, value, least in (
                ("sequences", self.sequences, 1),
                ("length", self.length, 2),
                ("seed", self.seed, 0),
            )
            if value < least
        ]


def calibration_sample(
    config: Mapping[str, Any],
    chosen: Sequence[Path],
    options: CalibrationOptions,
    *,
    vocab_size: int,
    split: str = TRAIN_SPLIT,
) -> np.ndarray:
    """Return token ids [sequences, length], int64: windows of the training splits, mixed as the run mixes them.

    Args:
        config: resolved config of the run, as a checkpoint's manifest holds it.
        chosen: dataset folders in place of the run's, which count alike.
        options: how many, how long, and which.
        vocab_size: ids are below it.
        split: to take windows of; those of validation are for comparisons of what the others shaped.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a dataset is damaged, or shorter than a window.
        ExportError: a dataset is missing, or holds ids that the model does not know.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    folders = list(chosen) or [Path(source["path"]) for source in config["data"]["sources"]]
    if not folders:
        raise ExportError("data.sources: the checkpoint was imported without any; name a dataset with --data")
    for folder in folders:
        if not folder.is_dir():
            advice = "run from the folder the training was started in, or name a dataset with --data"
            raise ExportError(f"data.sources: '{folder}' does not exist; {advice}")
    datasets = [TokenDataset(folder, split) for folder in folders]
    tokens = [dataset.num_tokens for dataset in datasets]
    run = None if chosen else RunConfig.from_tree(dict(config), origin="checkpoint")
    order = SampleOrder(
        names=[str(folder) for folder in folders] if run is None else [source.name for source in run.data.sources],
        tokens=tokens,
        weights=[1.0] * len(folders) if run is None else mixture_weights(run, tokens),
        seq_length=options.length,
        seed=options.seed,
    )
    addresses = [order.address(sample) for sample in range(options.sequences)]
    rows = [datasets[one.source].read(one.first_token, options.length) for one in addresses]
    found = np.stack(rows).astype(np.int64)
    if int(found.max()) >= vocab_size:
        raise ExportError(
            f"{folders[0]}: holds id {int(found.max())}, but the model knows 0 to {vocab_size - 1}; "
            f"take data of the model's tokenizer"
        )
    return found
