"""The data that a run names, opened and checked; no torch, so that a launcher can look before any rank starts."""

from dataclasses import dataclass

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.order import SampleOrder, evaluation_windows
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"


class TrainingData:
    """All samples of a run, by number."""

    def __init__(self, config: RunConfig) -> None:
        """Open the training splits that ``config.data`` names.

        Raises:
            DataError: a folder, shard or split is missing or damaged, or shorter than a sample.
        """
        self.datasets = [TokenDataset(source.path, TRAIN_SPLIT) for source in config.data.sources]
        self.order = SampleOrder(
            names=[source.name for source in config.data.sources],
            tokens=[dataset.num_tokens for dataset in self.datasets],
            weights=[source.weight for source in config.data.sources],
            seq_length=config.model.seq_length,
            seed=config.seed,
        )
        self._seq_length = config.model.seq_length

    def fingerprints(self) -> dict[str, str]:
        """Return what each source's content is known by; equal only if every sample is equal."""
        return {
            name: dataset.manifest.fingerprint() for name, dataset in zip(self.order.names, self.datasets, strict=True)
        }

    def rows(self, first_sample: int, count: int) -> list[np.ndarray]:
        """Return samples ``first_sample`` … ``first_sample + count - 1``, each of seq_length + 1 tokens."""
        rows = []
        for sample in range(first_sample, first_sample + count):
            address = self.order.address(sample)
            rows.append(self.datasets[address.source].read(address.first_token, self._seq_length + 1))
        return rows


@dataclass(frozen=True)
class ValidationSource:
    """Validation windows of one source."""

    name: str
    weight: float
    """Share of the source in the mixture; all shares add up to 1."""

    dataset: TokenDataset
    first_tokens: tuple[int, ...]
    seq_length: int

    def rows(self, begin: int, count: int) -> list[np.ndarray]:
        """Return windows ``begin`` … ``begin + count - 1``, each of seq_length + 1 tokens."""
        return [self.dataset.read(first, self.seq_length + 1) for first in self.first_tokens[begin : begin + count]]


def validation_sources(config: RunConfig) -> list[ValidationSource]:
    """Return what the validation loss of a run is measured on; the same windows for every layout.

    Raises:
        DataError: a source has no validation split, or one shorter than a sample.
    """
    total = sum(source.weight for source in config.data.sources)
    found = []
    for source in config.data.sources:
        dataset = TokenDataset(source.path, VALIDATION_SPLIT)
        firsts = evaluation_windows(dataset.num_tokens, config.model.seq_length, config.data.eval_samples)
        if not firsts:
            raise DataError(
                f"{source.path}: validation split has {dataset.num_tokens} tokens, less than one sample of "
                f"{config.model.seq_length} + 1; prepare it with a larger validation_fraction"
            )
        found.append(
            ValidationSource(source.name, source.weight / total, dataset, tuple(firsts), config.model.seq_length)
        )
    return found


def check_tokenizer(config: RunConfig) -> Tokenizer:
    """Return the run's tokenizer, after a look whether data and model fit it.

    Raises:
        DataError: shards were made with another tokenizer, or its ids do not fit into the model's vocabulary.
    """
    tokenizer = load_tokenizer(config.data.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise DataError(
            f"model.vocab_size: {config.model.vocab_size} is smaller than the vocabulary of tokenizer "
            f"'{config.data.tokenizer}' ({tokenizer.vocab_size}); set it to at least {tokenizer.vocab_size}"
        )
    for source in config.data.sources:
        made_with = TokenDataset(source.path, TRAIN_SPLIT).manifest.tokenizer_fingerprint
        if made_with != tokenizer.fingerprint:
            raise DataError(
                f"{source.path}: made with tokenizer {made_with[:12]}, but data.tokenizer '{config.data.tokenizer}' "
                f"is {tokenizer.fingerprint[:12]}; name the tokenizer it was made with, or prepare the data again"
            )
    return tokenizer


def check_data(config: RunConfig) -> tuple[Tokenizer, TrainingData]:
    """Open everything that the run will read.

    Raises:
        ConfigError: folders that do not exist.
        DataError: a shard or split is missing, damaged, empty, or does not fit the tokenizer or the model.
        TokenizerError: the tokenizer cannot be loaded.
    """
    missing = config.data.path_problems()
    if missing:
        raise ConfigError(missing)
    validation_sources(config)
    return check_tokenizer(config), TrainingData(config)
