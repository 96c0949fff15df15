"""Held-out windows that models are judged on: of a bundle, of a run's validation splits, or of named datasets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import read_manifest
from gptdist.compress.bundle.held_out import HELD_OUT_FILE, read_held_out
from gptdist.compress.judge.subject import Subject
from gptdist.config.run import RunConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.label_mask import token_ids
from gptdist.data.order import evaluation_windows
from gptdist.data.sources import VALIDATION_SPLIT, validation_sources
from gptdist.errors import ConfigError, DataError, ExportError

BUNDLED_FILE = Path("gptdist") / HELD_OUT_FILE
"""In an exported folder."""

DEFAULT_WINDOWS = 64

_UNFINISHED = "\ufffd"
"""First and last bytes of characters that a window's borders cut."""


@dataclass(frozen=True)
class HeldOut:
    """Windows of one source."""

    name: str
    windows: tuple[np.ndarray, ...]
    """Token ids, each of seq_length + 1; the first is not predicted."""

    weight: float
    """Share in the whole; the shares of all sources add up to 1."""


@dataclass(frozen=True)
class HeldOutOptions:
    """Where the windows are from, and how many."""

    data: tuple[Path, ...] = ()
    """Dataset folders, whose validation splits count alike; none: what belongs to the model."""

    windows: int = DEFAULT_WINDOWS
    """Of a source; 0 takes all."""

    sources: tuple[str, ...] = field(default=())
    """Names to keep; none keeps all."""

    def problems(self) -> list[str]:
        """Return every value that is out of its range."""
        bad = [] if self.windows >= 0 else [f"--eval-samples: must be at least 0, got {self.windows}; 0 takes all"]
        bad += [
            f"--data: folder '{folder}' does not exist; change the path" for folder in self.data if not folder.is_dir()
        ]
        return bad


def held_out_of(subject: Subject, options: HeldOutOptions) -> list[HeldOut]:
    """Return the windows that ``subject`` is judged on, in its own tokens.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a dataset is damaged, too small, or of another tokenizer.
        ExportError: nothing is known to judge it on, or ids are not the model's.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    length = subject.text_model.seq_length
    if options.data:
        share = 1.0 / len(options.data)
        found = [_of_dataset(folder, subject, length, options.windows, share) for folder in options.data]
    elif subject.is_checkpoint:
        found = _of_run(subject, options.windows)
    elif (subject.path / BUNDLED_FILE).is_file():
        found = _of_bundle(subject.path / BUNDLED_FILE, options.windows)
    else:
        raise ExportError(f"{subject.path}: holds no {BUNDLED_FILE}; name a dataset to judge it on with --data")
    _require_known(found, subject)
    return found


def texts_of(subject: Subject, held_out: Sequence[HeldOut]) -> list[str]:
    """Return the text of each window, all sources in a row, without characters that its borders cut."""
    return [
        subject.texts.decode([int(token) for token in window]).strip(_UNFINISHED)
        for source in held_out
        for window in source.windows
    ]


def translated(held_out: Sequence[HeldOut], author: Subject, reader: Subject) -> list[HeldOut]:
    """Return the same texts in the tokens of ``reader``, whose windows are cut where its positions end."""
    found = []
    for source in held_out:
        rows = reader.texts.encode_batch(texts_of(author, [source]))
        windows = [window for row in rows for window in _cut(row, reader.text_model.seq_length)]
        found.append(HeldOut(source.name, tuple(windows), source.weight))
    return found


def _cut(row: np.ndarray, length: int) -> list[np.ndarray]:
    """Cut a row so that each token but the first is predicted once."""
    starts = range(0, max(1, len(row) - 1), length)
    return [part for start in starts if len(part := row[start : start + length + 1]) > 1]


def shortened(held_out: Sequence[HeldOut], length: int) -> list[HeldOut]:
    """Return the windows cut to a model that knows ``length`` positions."""
    return [
        HeldOut(one.name, tuple(part for window in one.windows for part in _cut(window, length)), one.weight)
        for one in held_out
    ]


def _of_run(subject: Subject, windows: int) -> list[HeldOut]:
    tree = read_manifest(resolve_checkpoint(subject.path)).config
    if not tree["data"].get("sources"):
        raise ExportError(f"{subject.path}: names no data of its own; name a dataset with --data")
    config = RunConfig.from_tree(tree, origin=str(subject.path))
    data = config.data.model_copy(update={"eval_samples": windows})
    config = config.model_copy(update={"data": data})
    if problems := config.data.path_problems():
        raise ConfigError(problems)
    sources = [one for one in validation_sources(config) if one.weight]
    return [HeldOut(one.name, tuple(map(token_ids, one.rows(0, len(one.first_tokens)))), one.weight) for one in sources]


def _of_dataset(folder: Path, subject: Subject, length: int, windows: int, share: float) -> HeldOut:
    dataset = TokenDataset(folder, VALIDATION_SPLIT)
    if dataset.manifest.vocab_size != subject.texts.vocab_size:
        raise DataError(
            f"{folder}: its tokenizer has {dataset.manifest.vocab_size} ids, that of {subject.path} "
            f"{subject.texts.vocab_size}; take data of the model's tokenizer"
        )
    starts = evaluation_windows(dataset.num_tokens, length, windows)
    if not starts:
        raise DataError(
            f"{folder}: {VALIDATION_SPLIT} split has {dataset.num_tokens} tokens, less than one window of "
            f"{length} + 1; name a larger dataset"
        )
    return HeldOut(dataset.name, tuple(dataset.read(start, length + 1) for start in starts), share)


def _of_bundle(path: Path, windows: int) -> list[HeldOut]:
    found = []
    for source in read_held_out(path):
        if source.weight:
            count = len(source.ids) if not windows else min(windows, len(source.ids))
            places = [index * len(source.ids) // count for index in range(count)]
            kept = tuple(source.ids[place].astype(np.int64) for place in places)
            found.append(HeldOut(source.name, kept, source.weight))
    return found


def _require_known(held_out: Sequence[HeldOut], subject: Subject) -> None:
    limit = subject.texts.vocab_size
    for source in held_out:
        highest = max(int(window.max()) for window in source.windows)
        if highest >= limit:
            raise ExportError(
                f"{source.name}: holds id {highest}, but {subject.path} knows 0 to {limit - 1}; "
                f"take data of the model's tokenizer"
            )
