"""Texts that a model writes, and how often what detectors look for stands in them.

What is looked for is the caller's: a detector takes a text and returns how often each kind occurs in it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gptdist.compress.generate import TextModel, read_prompt
from gptdist.compress.hf_model import quiet_transformers
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError

Detector = Callable[[str], Mapping[str, int]]
"""Occurrences in a text, by kind."""


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    prompt: str
    sample: int
    """Number among those of this prompt."""

    text: str
    """Without the prompt."""

    ids: tuple[int, ...]
    """The new tokens, without the one that ends a document."""

    is_cut: bool
    """Whether it was ended by its length and not by the end of its document."""


@dataclass(frozen=True)
class Findings:
    """What detectors found in generations."""

    generations: int
    tokens: int
    """New tokens of all generations."""

    counts: Mapping[str, int]
    """Occurrences, by kind."""

    def per_thousand_tokens(self, kind: str) -> float:
        """Return occurrences of ``kind`` in 1,000 new tokens."""
        return 1000.0 * self.counts.get(kind, 0) / max(1, self.tokens)

    def tree(self) -> dict[str, Any]:
        """Return the figures as plain data, kinds by name."""
        rates = {kind: round(self.per_thousand_tokens(kind), 4) for kind in sorted(self.counts)}
        counts = dict(sorted(self.counts.items()))
        return {"generations": self.generations, "tokens": self.tokens, "counts": counts, "per_1000_tokens": rates}


def sample_generations(
    text_model: TextModel, options: SamplingOptions, prompts: Sequence[str] = ("",)
) -> list[Generation]:
    """Continue each prompt ``options.num_samples`` times, all samples of a prompt in one batch.

    The same options and prompt give the same texts; those of one prompt do not hang on the others.

    Args:
        text_model: what continues.
        options: how tokens are chosen, and how many; ``seed`` is that of every prompt's batch.
        prompts: texts; an empty one begins a document.

    Raises:
        ConfigError: an option is out of its range, there is no prompt, or one leaves no position free.
    """
    problems = [*options.problems(), *([] if prompts else ["prompts: there are none; give at least one"])]
    if problems:
        raise ConfigError(problems)
    return [one for prompt in prompts for one in _continuations(text_model, prompt, options)]


def count_findings(generations: Sequence[Generation], detectors: Sequence[Detector]) -> Findings:
    """Return what ``detectors`` find in the generated texts; kinds that any of them names are there even at 0."""
    counts: Counter[str] = Counter()
    for generation in generations:
        for detect in detectors:
            counts.update(detect(generation.text))
    tokens = sum(len(generation.ids) for generation in generations)
    return Findings(len(generations), tokens, dict(counts))


def _continuations(text_model: TextModel, text: str, options: SamplingOptions) -> list[Generation]:
    prompt = read_prompt(text_model, text)
    tokenizer, model = text_model.tokenizer, text_model.model
    rows = torch.tensor([prompt.ids] * options.num_samples, device=model.device)
    choice: dict[str, Any] = {"do_sample": False}
    if not options.is_greedy:
        choice = {"do_sample": True, "temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    before = torch.get_rng_state()
    torch.manual_seed(options.seed)
    try:
        with torch.inference_mode(), quiet_transformers():
            found = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=min(options.max_new_tokens, prompt.room),
                pad_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **choice,
            )
    finally:
        torch.set_rng_state(before)
    known = len(tokenizer.decode(list(prompt.ids), skip_special_tokens=True))
    generations = []
    for sample, row in enumerate(found.tolist()):
        new = row[len(prompt.ids) :]
        is_cut = tokenizer.eos_token_id not in new
        ids = tuple(new if is_cut else new[: new.index(tokenizer.eos_token_id)])
        # prompt and continuation are decoded together: some tokenizers drop a space at the start of a text
        written = tokenizer.decode([*prompt.ids, *ids], skip_special_tokens=True)[known:]
        generations.append(Generation(text, sample, written, ids, is_cut))
    return generations
