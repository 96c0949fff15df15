"""A model that is judged, of whatever kind: a run, a checkpoint, or a folder in the Hugging Face layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.generate import TextModel, open_text_model
from gptdist.compress.judge.scoring import Continuation, score_continuations
from gptdist.compress.trained_on import trained_tokenizer
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

HUGGING_FACE_CONFIG = "config.json"


@dataclass(frozen=True)
class Subject:
    """An opened model with its tokenizer."""

    path: Path
    """As the user named it."""

    text_model: TextModel
    texts: Tokenizer
    """The same tokenizer as the text model's, of this package."""

    chosen_tokenizer: Path | None = None
    """What was named in place of the run's."""

    @property
    def model(self) -> Any:
        """The model, of transformers."""
        return self.text_model.model

    @property
    def name(self) -> str:
        """What tables call it."""
        return str(self.path)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it was opened from a checkpoint of this package."""
        return not (self.path / HUGGING_FACE_CONFIG).is_file()

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each token, as many as the model has logits; rows of padding stand for none."""
        known = self.texts.token_byte_lengths()
        padded = np.zeros(max(len(known), int(self.model.config.vocab_size)), dtype=np.int64)
        padded[: len(known)] = known
        return padded

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
        """Return what the model makes of each continuation of a text; both are encoded together where ids allow it."""
        return score_continuations(self.model, [self._encoded(*pair) for pair in pairs])

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        first, whole = (row.tolist() for row in self.texts.encode_batch([context, context + continuation]))
        if whole[: len(first)] != first or len(whole) == len(first):  # a token reaches across the border
            return first or [self.texts.eod_id], self.texts.encode_batch([continuation])[0].tolist()
        return (first, whole[len(first) :]) if first else ([self.texts.eod_id], whole)

    def speaks_like(self, other: "Subject", texts: Sequence[str]) -> bool:
        """Return whether both give ``texts`` the same ids, and have as many."""
        ours, theirs = self.texts, other.texts
        if ours.fingerprint == theirs.fingerprint:
            return True
        if (ours.vocab_size, ours.eod_id) != (theirs.vocab_size, theirs.eod_id):
            return False
        pairs = zip(ours.encode_batch(texts), theirs.encode_batch(texts), strict=True)
        return all(np.array_equal(one, two) for one, two in pairs)


def open_subject(path: Path, tokenizer: Path | None = None) -> Subject:
    """Open a run's newest whole checkpoint, a step folder, or a Hugging Face folder, in fp32.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ExportError: a checkpoint's model has no Hugging Face class, or the folder cannot be loaded.
        TokenizerError: its tokenizer is missing or damaged.
    """
    text_model = open_text_model(path, tokenizer, dtype="fp32")
    if (path / HUGGING_FACE_CONFIG).is_file():
        return Subject(path, text_model, load_tokenizer(path))
    manifest = CheckpointReader(resolve_checkpoint(path)).manifest
    return Subject(path, text_model, trained_tokenizer(manifest, tokenizer), tokenizer)
