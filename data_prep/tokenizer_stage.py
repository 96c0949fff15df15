"""The tokenizer of a run: loaded, kept from an earlier run, or trained and put into the output folder."""

from collections.abc import Sequence
from pathlib import Path

from data_prep.readers.reader import OpenSource
from data_prep.recipe import tokenizer_recipe
from data_prep.spool import Spool
from data_prep.training_text import training_text
from gptdist.config.prep import PrepConfig
from gptdist.durable import swap_in
from gptdist.errors import TokenizerError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer
from gptdist.tokenizer.training import train_bpe, train_sentencepiece

TOKENIZER_DIR = "tokenizer"
_RECIPE_NAME = "recipe.sha256"
_LEAST_TRAINED_IDS = 257


def ready_tokenizer(config: PrepConfig, sources: list[OpenSource], work: Path) -> Tokenizer | None:
    """Return the tokenizer if no document has to be read for it, and see that it is in the output folder.

    Raises:
        TokenizerError: the tokenizer to load cannot be loaded.
    """
    target = config.output_dir / TOKENIZER_DIR
    present = _present(target)
    if config.tokenizer.is_trained:
        recipe = target / _RECIPE_NAME
        same = recipe.is_file() and recipe.read_text() == tokenizer_recipe(config, sources)
        return present if same else None
    section = config.tokenizer
    wanted = ByteTokenizer() if section.load is None else load_tokenizer(section.load, section.eod_token)
    if present is None or present.fingerprint != wanted.fingerprint:
        _put(wanted, work, target, recipe=None)
    return wanted


def trained_tokenizer(
    config: PrepConfig, sources: list[OpenSource], spools: Sequence[tuple[Spool, float]], work: Path
) -> Tokenizer:
    """Train the tokenizer on the sources' training documents and put it into the output folder.

    Raises:
        TokenizerError: the vocabulary is too small for its kind, or the text does not fill one.
    """
    section = config.tokenizer
    assert section.vocab_size is not None, "the config was checked: a trained tokenizer has a size"
    texts = training_text(spools, section.train_bytes)
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
    _put(tokenizer, work, config.output_dir / TOKENIZER_DIR, recipe=tokenizer_recipe(config, sources))
    return tokenizer


def _present(folder: Path) -> Tokenizer | None:
    try:
        return load_tokenizer(folder)
    except TokenizerError:
        return None  # missing or damaged: it is made again


def _put(tokenizer: Tokenizer, work: Path, target: Path, recipe: str | None) -> None:
    finished = work / TOKENIZER_DIR
    tokenizer.save(finished)
    if recipe is not None:
        (finished / _RECIPE_NAME).write_text(recipe)
    swap_in(finished, target)
