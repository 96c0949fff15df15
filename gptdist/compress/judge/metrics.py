"""The numbers a model is judged by: name, unit, formula, and which direction is better; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gptdist.errors import ConfigError

SUITES = ("loss", "cloze", "texts", "size", "speed")
"""What can be measured of a model by itself, in this order."""

FIDELITY = "fidelity"
"""What is measured against another model."""


@dataclass(frozen=True)
class Metric:
    """One number."""

    name: str
    suite: str
    unit: str
    better: Literal["lower", "higher", ""]
    """Empty where neither is: it says what the model is."""

    formula: str
    of_tokens: bool = False
    """Whether it counts tokens, so that models of different tokenizers cannot be compared by it."""


METRICS = (
    Metric("validation_loss", "loss", "nats/token", "lower", "mean cross-entropy of held-out tokens", of_tokens=True),
    Metric("perplexity", "loss", "", "lower", "e^validation_loss", of_tokens=True),
    Metric("bits_per_byte", "loss", "bits/byte", "lower", "nats / ln 2 / UTF-8 bytes of the predicted tokens"),
    Metric("cloze_accuracy", "cloze", "fraction", "higher", "last words of passages that greedy choice hits exactly"),
    Metric("cloze_perplexity", "cloze", "", "lower", "e^(mean nats of a last word)"),
    Metric("repeated_2_grams", "texts", "fraction", "lower", "pairs of words that stood earlier in the same text"),
    Metric("repeated_3_grams", "texts", "fraction", "lower", "the same of three words in a row"),
    Metric("repeated_4_grams", "texts", "fraction", "lower", "the same of four"),
    Metric("distinct_1", "texts", "fraction", "higher", "different words / words, of all texts together"),
    Metric("distinct_2", "texts", "fraction", "higher", "different pairs of words / pairs"),
    Metric("cut_texts", "texts", "fraction", "", "texts that their length ended, not the end of a document"),
    Metric("unsuitable_words", "texts", "per 1,000 tokens", "lower", "entries of the word list in generated texts"),
    Metric("personal_data", "texts", "per 1,000 tokens", "lower", "addresses, numbers and secrets in generated texts"),
    Metric("parameters", "size", "", "", "numbers of all weights, tied ones once"),
    Metric("nonzero_parameters", "size", "", "lower", "those that are not 0"),
    Metric("weights_bytes", "size", "bytes", "lower", "files of the weights; of a checkpoint 4 x parameters"),
    Metric("prefill_tokens_per_second", "speed", "tokens/s", "higher", "tokens of a prompt / seconds of its forward"),
    Metric("decode_tokens_per_second", "speed", "tokens/s", "higher", "greedy new tokens, one by one / seconds"),
    Metric("peak_memory_bytes", "speed", "bytes", "lower", "most memory of a fresh process while it generates"),
    Metric("mean_kl", FIDELITY, "nats/token", "lower", "mean KL(reference || model) over held-out tokens"),
    Metric("top1_agreement", FIDELITY, "fraction", "higher", "tokens whose likeliest successor is the reference's"),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """Return the metric of that name."""
    return _BY_NAME[name]


def parse_suites(text: str) -> tuple[str, ...]:
    """Return the suites that ``text`` names, separated by commas; ``all`` is each of them.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in (*SUITES, "all")]
    bad = [f"--suite: '{name}' is unknown; take of {', '.join(SUITES)}, all" for name in unknown]
    if bad or not names:
        raise ConfigError(bad or [f"--suite: names nothing; take of {', '.join(SUITES)}, all"])
    return SUITES if "all" in names else tuple(suite for suite in SUITES if suite in names)


@dataclass(frozen=True)
class Gate:
    """How much worse than the first model a metric may be, in the metric's own unit."""

    name: str
    allowed: float

    def failure(self, first: Mapping[str, float], other: Mapping[str, float]) -> str | None:
        """Return what is past the gate, in a line; nothing where both stay inside.

        A number that only one of the two has, or that is not finite, does not pass.
        """
        before, after = first.get(self.name), other.get(self.name)
        if before is None or after is None:
            return f"{self.name}: {_shown(before)} and {_shown(after)}: not measured of both; add its suite"
        worse = after - before if metric(self.name).better == "lower" else before - after
        if worse <= self.allowed:
            return None
        return f"{self.name}: {before:.6g} became {after:.6g}, worse by {worse:.4g}; {self.allowed:g} is allowed"


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def parse_gates(texts: list[str], suites: tuple[str, ...] = (*SUITES, FIDELITY)) -> tuple[Gate, ...]:
    """Return the gates that ``--max-regress NAME=NUMBER`` names, on metrics of ``suites``.

    Raises:
        ConfigError: every one that is no gate.
    """
    gates, bad = [], []
    names = [one.name for one in METRICS if one.better and one.suite in suites]
    for text in texts:
        name, _, number = text.partition("=")
        try:
            allowed = float(number)
        except ValueError:
            allowed = -1.0
        if name not in names:
            bad.append(f"--max-regress: '{name}' is no metric with a better and a worse; take of {', '.join(names)}")
        elif not 0.0 <= allowed < float("inf"):
            bad.append(f"--max-regress: '{text}' names no number from 0 up; write {name}=0.02")
        else:
            gates.append(Gate(name, allowed))
    if bad:
        raise ConfigError(bad)
    return tuple(gates)
