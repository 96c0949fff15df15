"""The data that a run names, opened and checked; no torch, so that a launcher can look before any rank starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptdist.config.run import RunConfig
from gptdist.data.context_check import check_context
from gptdist.data.dataset import TokenDataset
from gptdist.data.manifest import DatasetManifest
from gptdist.data.mixture import weights_by_size
from gptdist.data.order import SampleAddress, SampleOrder, evaluation_windows
from gptdist.data.prompts import read_prompts
from gptdist.data.provenance import DocumentSpan
from gptdist.data.rules import SampleRules
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"


def mixture_weights(config: RunConfig, tokens: Sequence[int]) -> list[float]:
    """Return the weights of a run's sources, whose training splits have so many ``tokens``."""
    weights = [source.relative_weight for source in config.data.sources]
    return weights_by_size(weights, tokens, config.data.temperature)


def stage_weights(config: RunConfig, tokens: Sequence[int]) -> list[tuple[int, list[float]]]:
    """Return the first sample of each of ``data.stages``, and its weights."""
    stages, names = config.data.stages, [source.name for source in config.data.sources]
    by_stage = [[stage.weights.get(name, 0.0) for name in names] for stage in stages]
    return [
        (stage.first_sample(config.model.seq_length), weights_by_size(weights, tokens, config.data.temperature))
        for stage, weights in zip(stages, by_stage, strict=True)
    ]


def sample_order(config: RunConfig, tokens: Sequence[int]) -> SampleOrder:
    """Return the order of a run's samples from the number of training ``tokens`` of each source.

    Raises:
        DataError: a source is shorter than a sample, or its share is below the mixture's resolution.
    """
    return SampleOrder(
        names=[source.name for source in config.data.sources],
        tokens=tokens,
        weights=mixture_weights(config, tokens),
        seq_length=config.model.seq_length,
        seed=config.seed,
        stages=stage_weights(config, tokens),
    )


def training_tokens(config: RunConfig) -> list[int]:
    """Return the tokens of each source's training split, from the manifests alone; no shard is looked at.

    Raises:
        DataError: a folder is no finished dataset, has no training split, or is packed for another sequence length.
    """
    tokens = []
    for source in config.data.sources:
        manifest = DatasetManifest.read(source.path)
        check_packing(source.path, manifest, config.model.seq_length)
        splits = manifest.splits
        if TRAIN_SPLIT not in splits:
            raise DataError(
                f"{source.path}: has no split '{TRAIN_SPLIT}', only {', '.join(sorted(splits))}; "
                "prepare more documents, or lower its validation_fraction"
            )
        tokens.append(splits[TRAIN_SPLIT].tokens)
    return tokens


def check_packing(folder: Path, manifest: DatasetManifest, seq_length: int) -> None:
    """Refuse a dataset whose documents were packed for samples of another length than ``seq_length``.

    Raises:
        DataError: it names both lengths.
    """
    packed_for = manifest.packing_seq_length
    if packed_for not in (None, seq_length):
        raise DataError(
            f"{folder}: packed for samples of {packed_for} tokens, model.seq_length is {seq_length}: samples would cut "
            f"documents anywhere; set model.seq_length to {packed_for}, or prepare the data with "
            f"packing.seq_length {seq_length}"
        )


class TrainingData:
    """All samples of a run, by number."""

    def __init__(self, config: RunConfig) -> None:
        """Open the training splits that ``config.data`` names.

        Raises:
            DataError: a folder, shard or split is missing or damaged, shorter than a sample, or packed for another
                sequence length; or all documents are too short to be apart.
        """
        self.datasets = [TokenDataset(source.path, TRAIN_SPLIT) for source in config.data.sources]
        for dataset in self.datasets:
            check_packing(dataset.folder, dataset.manifest, config.model.seq_length)
        if config.data.separate_documents:
            # A mask is of conversations, which are short, for a model that has learnt its positions before.
            check_context([one for one in self.datasets if not one.has_masks], config.model.seq_length)
        self.order = sample_order(config, [dataset.num_tokens for dataset in self.datasets])
        self._seq_length = config.model.seq_length

    @property
    def row_tokens(self) -> int:
        """Tokens of a row: ``seq_length`` inputs, and the one that the last of them is to predict."""
        return self._seq_length + 1

    @property
    def has_masks(self) -> bool:
        """Whether there are tokens that may not count as labels, by the data itself."""
        return any(dataset.has_masks for dataset in self.datasets)

    def fingerprints(self) -> dict[str, str]:
        """Return what each source's content is known by; equal only if every sample is equal."""
        return {
            name: dataset.manifest.fingerprint() for name, dataset in zip(self.order.names, self.datasets, strict=True)
        }

    def rows(self, first_sample: int, count: int) -> list[np.ndarray]:
        """Return samples ``first_sample`` … ``first_sample + count - 1``, each of seq_length + 1 tokens.

        ``~id`` is a token that does not count as a label.
        """
        rows = []
        for sample in range(first_sample, first_sample + count):
            address = self.order.address(sample)
            rows.append(self.datasets[address.source].read_sample(address.first_token, self.row_tokens))
        return rows

    def documents_of(self, address: SampleAddress) -> list[DocumentSpan]:
        """Return the documents that have a token in the sample at ``address``."""
        return self.datasets[address.source].documents_in(address.first_token, self.row_tokens)


@dataclass(frozen=True)
class ValidationSource:
    """Validation windows of one source, or of one named set."""

    name: str
    weight: float
    """Share of the source in the mixture, and all shares add up to 1; 0 is a named set, which has no part in it."""

    dataset: TokenDataset
    first_tokens: tuple[int, ...]
    seq_length: int

    def rows(self, begin: int, count: int) -> list[np.ndarray]:
        """Return windows ``begin`` … ``begin + count - 1``, each of seq_length + 1 tokens."""
        firsts = self.first_tokens[begin : begin + count]
        return [self.dataset.read_sample(first, self.seq_length + 1) for first in firsts]


def validation_sources(config: RunConfig) -> list[ValidationSource]:
    """Return what a run is measured on, its sources and then its named sets; the same windows at every step and layout.

    Raises:
        DataError: a source or set lacks the split, or has one shorter than a sample or packed for another length.
    """
    data, seq_length = config.data, config.model.seq_length
    weights = mixture_weights(config, training_tokens(config))
    found = []
    for source, weight in zip(data.sources, weights, strict=True):
        dataset = TokenDataset(source.path, VALIDATION_SPLIT)
        firsts = _windows_of(dataset, seq_length, data.eval_samples)
        found.append(ValidationSource(source.name, weight / sum(weights), dataset, firsts, seq_length))
    for one in data.validation:
        dataset = TokenDataset(one.path, one.split)
        check_packing(one.path, dataset.manifest, seq_length)
        firsts = _windows_of(dataset, seq_length, data.eval_samples if one.samples is None else one.samples)
        found.append(ValidationSource(one.name, 0.0, dataset, firsts, seq_length))
    return found


def _windows_of(dataset: TokenDataset, seq_length: int, samples: int) -> tuple[int, ...]:
    firsts = evaluation_windows(dataset.num_tokens, seq_length, samples)
    if not firsts:
        raise DataError(
            f"{dataset.folder}: {dataset.split} split has {dataset.num_tokens} tokens, less than one sample of "
            f"{seq_length} + 1; prepare it with a larger {dataset.split} split"
        )
    return tuple(firsts)


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
    folders = [source.path for source in config.data.sources] + [one.path for one in config.data.validation]
    for folder in folders:
        made_with = DatasetManifest.read(folder).tokenizer_fingerprint
        if made_with != tokenizer.fingerprint:
            raise DataError(
                f"{folder}: made with tokenizer {made_with[:12]}, but data.tokenizer '{config.data.tokenizer}' "
                f"is {tokenizer.fingerprint[:12]}; name the tokenizer it was made with, or prepare the data again"
            )
    return tokenizer


def check_data(config: RunConfig) -> tuple[Tokenizer, TrainingData]:
    """Open everything that the run will read.

    Raises:
        ConfigError: folders that do not exist.
        DataError: a shard or split is missing, damaged, empty, or does not fit the tokenizer or the model; the
            loss mask names what is no special token.
        TokenizerError: the tokenizer cannot be loaded.
    """
    missing = config.data.path_problems()
    if missing:
        raise ConfigError(missing)
    validation_sources(config)
    tokenizer = check_tokenizer(config)
    read_prompts(config, tokenizer)
    SampleRules.of(config.data, tokenizer)
    return tokenizer, TrainingData(config)
