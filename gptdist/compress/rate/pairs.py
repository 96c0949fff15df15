"""Which text a rater sees on which side: shuffled, and always the same for the same seed; no torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gptdist.compress.rate.store import LEFT, RIGHT, Vote, prompt_hash


@dataclass(frozen=True)
class Pair:
    """Two continuations of a prompt."""

    prompt: str
    texts: Mapping[str, str]
    """By model; there are two."""

    @property
    def key(self) -> str:
        """What the prompt is known by."""
        return prompt_hash(self.prompt)

    def sides(self, rater: str, seed: int) -> tuple[str, str]:
        """Return the models on the left and on the right, as ``rater`` sees them."""
        first, second = sorted(self.texts)
        digest = hashlib.sha256(f"{seed}\0{self.key}\0{rater}".encode()).digest()
        return (first, second) if digest[0] & 1 else (second, first)

    def vote(self, rater: str, choice: str, seed: int) -> Vote:
        """Return the vote of ``rater``, who chose as the sides were shown."""
        left, right = self.sides(rater, seed)
        return Vote(self.key, left, right, rater, choice)

    def shown(self, rater: str, seed: int) -> dict[str, str]:
        """Return what a page shows: nothing tells which model wrote what."""
        left, right = self.sides(rater, seed)
        return {"key": self.key, "prompt": self.prompt, LEFT: self.texts[left], RIGHT: self.texts[right]}


def make_pairs(prompts: Sequence[str], texts: Mapping[str, Mapping[str, str]]) -> list[Pair]:
    """Return a pair for each prompt, in their order; ``texts`` are by model, then by prompt."""
    return [Pair(prompt, {model: found[prompt] for model, found in texts.items()}) for prompt in dict.fromkeys(prompts)]
