"""How the next token is chosen; no torch, so that bad values are refused at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    """Logits are divided by it: below 1 the likely tokens get likelier."""
    top_k: int = 0
    """Choose among this many likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that together have this probability."""
    seed: int = 1234
    """Sample i is drawn with seed + i."""
    is_greedy: bool = False
    """Always take the likeliest token."""
    num_samples: int = 1

    def problems(self) -> list[str]:
        """Return every value that is out of its range."""
        bad = [
            f"--{name.replace('_', '-')}: must be at least 1, got {getattr(self, name)}"
            for name in ("max_new_tokens", "num_samples")
            if getattr(self, name) < 1
        ]
        if not 0.0 < self.temperature < float("inf"):
            bad.append(
                f"--temperature: must be above 0, got {self.temperature:g}; use --greedy for the likeliest token"
            )
        if self.top_k < 0:
            bad.append(f"--top-k: must be at least 0, got {self.top_k}; 0 is all tokens")
        if not 0.0 < self.top_p <= 1.0:
            bad.append(f"--top-p: must be above 0 and at most 1, got {self.top_p:g}; 1 is all tokens")
        if not 0 <= self.seed < 2**63:
            bad.append(f"--seed: must be from 0 to 2^63 - 1, got {self.seed}")
        if self.is_greedy and self.num_samples > 1:
            bad.append(f"--num-samples: {self.num_samples} greedy samples are all the same; leave out --greedy")
        return bad
