"""The tokenizer of a run, made or loaded once; one task."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.document import Place
from data_prep.training_text import training_text
from data_prep.work import Work
from gptdist.errors import TokenizerError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer
from gptdist.tokenizer.training import train_bpe, train_sentencepiece

NAME = "tokenizer"
TOKENIZER_DIR = "tokenizer"
_LEAST_TRAINED_IDS = 257


class TokenizerStep:
    """Train the tokenizer, or take the one that the config names."""

    name = NAME

    def num_tasks(self, work: Work) -> int:
        """Return 1."""
        return 1

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's folder.

        Raises:
            TokenizerError: it cannot be loaded, the vocabulary is too small for its kind, or the text fills none.
        """
        section = work.config.tokenizer
        tokenizer: Tokenizer
        if section.is_trained:
            tokenizer = _trained(work)
        else:
            tokenizer = ByteTokenizer() if section.load is None else load_tokenizer(section.load, section.eod_token)
        tokenizer.save(folder / TOKENIZER_DIR)
        names = ("kind", "vocab_size", "eod_id", "eod_token", "fingerprint")
        return {name: getattr(tokenizer, name) for name in names}


def tokenizer_folder(work: Work) -> Path:
    """Return the folder of the run's tokenizer, once the step is done."""
    return work.task_folder(NAME, 0) / TOKENIZER_DIR


def prepared_tokenizer(work: Work) -> Tokenizer:
    """Return the run's tokenizer; a process that does many tasks loads it once and keeps its engine's cache."""
    return _load(tokenizer_folder(work))


@lru_cache(maxsize=1)
def _load(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def _trained(work: Work) -> Tokenizer:
    section = work.config.tokenizer
    assert section.vocab_size is not None, "the config was checked: a trained tokenizer has a size"
    texts = training_text(work)
    tokenizer: Tokenizer
    if section.kind == "bpe":
        tokenizer = train_bpe(texts, section.vocab_size)
    else:
        tokenizer = train_sentencepiece(texts, section.vocab_size, section.model_type or "unigram")
    if tokenizer.vocab_size <= _LEAST_TRAINED_IDS < section.vocab_size:
        raise TokenizerError(
            f"tokenizer: training found nothing beyond single bytes ({tokenizer.vocab_size} ids); "
            "give more text, raise train_bytes, or set kind: byte"
        )
    return tokenizer
