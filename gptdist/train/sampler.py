"""What a run's texts are made with."""

from dataclasses import dataclass
from typing import Self

from gptdist.config.run import RunConfig
from gptdist.config.validation import GenerationConfig
from gptdist.data.prompts import Prompt, read_prompts
from gptdist.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampler:
    """Prompts, how to continue them, and when."""

    every_steps: int
    prompts: tuple[Prompt, ...]
    options: GenerationConfig
    tokenizer: Tokenizer

    @classmethod
    def of(cls, config: RunConfig, tokenizer: Tokenizer) -> Self | None:
        """Return the sampler of a run, or None if it shall write no texts.

        Raises:
            ConfigError: a prompt is too long, or the file of prompts cannot be read.
        """
        if config.generation is None or config.intervals.sample_steps is None:
            return None
        prompts = tuple(read_prompts(config, tokenizer))
        return cls(config.intervals.sample_steps, prompts, config.generation, tokenizer)

    def text_after(self, prompt: Prompt, ids: list[int]) -> str:
        """Return the text of ``ids``, which follow ``prompt``."""
        # Decoded together: some tokenizers drop a space at the start of a text.
        before = self.tokenizer.decode(prompt.ids)
        return self.tokenizer.decode([*prompt.ids, *ids])[len(before) :]
