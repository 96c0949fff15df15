"""The prompts that a run's model continues while it trains; no torch."""

from dataclasses import dataclass

from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from gptdist.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A text to continue."""

    text: str
    ids: tuple[int, ...]
    """Its tokens; an empty text is the end of the document before."""


def read_prompts(config: RunConfig, tokenizer: Tokenizer) -> list[Prompt]:
    """Return the prompts of ``config.generation``; none where there is no such section.

    Raises:
        ConfigError: the file cannot be read or is empty, or a prompt leaves no room for a token.
    """
    if config.generation is None:
        return []
    texts, where = list(config.generation.prompts), "generation.prompts"
    if config.generation.prompts_file is not None:
        path = config.generation.prompts_file
        where = f"generation.prompts_file: '{path}'"
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{where} cannot be read as UTF-8 ({error}); mend or change the path"]) from None
        if not texts:
            raise ConfigError([f"{where} is empty; write a prompt on each line"])
    prompts, limit = [], config.model.seq_length
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode_batch(texts), strict=True), 1):
        if len(ids) >= limit:
            raise ConfigError(
                [f"{where}: prompt {number} has {len(ids)} tokens, model.seq_length is {limit}; shorten it"]
            )
        prompts.append(Prompt(text, tuple(ids.tolist()) or (tokenizer.eod_id,)))
    return prompts
