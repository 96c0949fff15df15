"""All numbers of a model, by the names of ``metrics``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gptdist.compress.generations import Detector, count_findings, sample_generations
from gptdist.compress.judge.cloze import ClozeItem, ClozeOptions, cloze_items, score_cloze
from gptdist.compress.judge.held_out import HeldOut, shortened, texts_of, translated
from gptdist.compress.judge.metrics import FIDELITY
from gptdist.compress.judge.repetition import distinct_n_grams, repeated_n_grams
from gptdist.compress.judge.scoring import Totals, compare_windows, score_windows
from gptdist.compress.judge.sizes import measure_size
from gptdist.compress.judge.speed import SpeedOptions, measure_speed
from gptdist.compress.judge.subject import Subject
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError, ExportError
from gptdist.train.evaluate import perplexity


@dataclass(frozen=True)
class JudgeOptions:
    """What is measured, and how."""

    suites: tuple[str, ...]
    sampling: SamplingOptions = field(default_factory=lambda: SamplingOptions(num_samples=32, max_new_tokens=96))
    """Of the texts; each prompt gets ``num_samples``."""

    prompts: tuple[str, ...] = ("",)
    """Beginnings of the texts; an empty one begins a document."""

    cloze: ClozeOptions = field(default_factory=ClozeOptions)
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    unsuitable: Detector = lambda _: {}
    """Counts unsuitable words of a text."""

    personal: Detector = lambda _: {}
    """Counts personal data of a text, by kind."""


@dataclass(frozen=True)
class Judgement:
    """What was measured of a model."""

    model: str
    metrics: Mapping[str, float]
    """By the names of ``METRICS``."""

    sources: Mapping[str, Mapping[str, float]]
    """Loss, bits per byte, tokens and bytes of each source of held-out text."""

    details: Mapping[str, Any]
    """Counts behind the metrics: items, texts, threads."""

    tokenizer: str
    """Fingerprint of its tokenizer; models with the same are comparable by token."""

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Material:
    """The held-out text that all models of a comparison are judged on, in the tokens of its first model."""

    author: Subject
    held_out: tuple[HeldOut, ...]
    items: tuple[ClozeItem, ...]

    def windows_for(self, subject: Subject) -> list[HeldOut]:
        """Return the windows in the tokens of ``subject``, none longer than it can read."""
        if not subject.speaks_like(self.author, texts_of(self.author, self.held_out)):
            return translated(self.held_out, self.author, subject)
        return shortened(self.held_out, subject.text_model.seq_length)


def material_of(author: Subject, held_out: Sequence[HeldOut], options: JudgeOptions) -> Material:
    """Return what models are judged on; cloze items only where they are asked for.

    Raises:
        ExportError: the held-out text gives no cloze item.
    """
    if "cloze" not in options.suites:
        return Material(author, tuple(held_out), ())
    items = cloze_items(texts_of(author, held_out), options.cloze)
    if not items:
        raise ExportError(
            f"{author.path}: its held-out text has no passage whose last word stands in it before; take more "
            f"windows (--eval-samples), other data (--data), or leave cloze out of --suite"
        )
    return Material(author, tuple(held_out), tuple(items))


def judge(subject: Subject, material: Material, options: JudgeOptions, reference: Subject | None = None) -> Judgement:
    """Measure the suites of ``options``, and fidelity to ``reference`` if there is one.

    Raises:
        ConfigError: the reference has another tokenizer.
        ExportError: speed could not be measured.
    """
    windows = material.windows_for(subject)
    metrics: dict[str, float] = {}
    sources: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {}
    if "loss" in options.suites:
        metrics |= measure_losses(subject, windows, sources)
    if "cloze" in options.suites:
        score = score_cloze(material.items, subject.score)
        metrics |= {"cloze_accuracy": score.accuracy, "cloze_perplexity": score.perplexity}
        details["cloze_items"] = score.items
    if "texts" in options.suites:
        metrics |= _texts(subject, options, details)
    if "size" in options.suites:
        metrics |= {name: float(value) for name, value in asdict(measure_size(subject)).items()}
    if "speed" in options.suites:
        metrics |= _speed(subject, options.speed, details)
    if reference is not None:
        metrics |= fidelity(subject, reference, windows, texts_of(material.author, material.held_out))
    return Judgement(subject.name, metrics, sources, details, subject.texts.fingerprint)


def fidelity(
    subject: Subject, reference: Subject, windows: Sequence[HeldOut], texts: Sequence[str]
) -> dict[str, float]:
    """Return how close ``subject`` is to ``reference`` on windows in their common tokens.

    Raises:
        ConfigError: they give ``texts`` different ids.
    """
    if not subject.speaks_like(reference, texts):
        raise ConfigError(
            [f"--reference: {reference.path} has another tokenizer than {subject.path}; take a model with the same"]
        )
    length = min(one.text_model.seq_length for one in (subject, reference))
    rows = [window for source in shortened(windows, length) for window in source.windows]
    found = compare_windows(reference.model, subject.model, rows)
    return {"mean_kl": found.mean_kl, "top1_agreement": found.top1_agreement}


def needs_held_out(suites: Sequence[str], *, has_reference: bool) -> bool:
    """Return whether held-out text is looked at."""
    return has_reference or bool({"loss", "cloze", FIDELITY} & set(suites))


def measure_losses(
    subject: Subject, windows: Sequence[HeldOut], sources: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Return loss, perplexity and bits per byte, sources weighted; what each source gave is put into ``sources``."""
    totals = {one.name: score_windows(subject.model, one.windows, subject.token_bytes) for one in windows}
    for name, found in totals.items():
        sources[name] = _shown(found)
    loss = sum(one.weight * totals[one.name].loss for one in windows)
    bytes_per_token = sum(one.weight * totals[one.name].text_bytes / totals[one.name].tokens for one in windows)
    bits = Totals(loss, 1, 1).bits_per_byte / bytes_per_token
    return {"validation_loss": loss, "perplexity": perplexity(loss), "bits_per_byte": bits}


def _shown(found: Totals) -> dict[str, float]:
    return {
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": perplexity(found.loss),
        "tokens": found.tokens,
        "text_bytes": found.text_bytes,
    }


def _texts(subject: Subject, options: JudgeOptions, details: dict[str, Any]) -> dict[str, float]:
    generations = sample_generations(subject.text_model, options.sampling, options.prompts)
    texts = [one.text for one in generations]
    unsuitable = count_findings(generations, [options.unsuitable])
    personal = count_findings(generations, [options.personal])
    details["texts"] = len(texts)
    details["new_tokens"] = unsuitable.tokens
    details["personal_data"] = dict(personal.counts)
    repeated = {f"repeated_{n}_grams": repeated_n_grams(texts, n) for n in (2, 3, 4)}
    return repeated | {
        "distinct_1": distinct_n_grams(texts, 1),
        "distinct_2": distinct_n_grams(texts, 2),
        "cut_texts": sum(one.is_cut for one in generations) / len(generations),
        "unsuitable_words": sum(map(unsuitable.per_thousand_tokens, unsuitable.counts)),
        "personal_data": sum(map(personal.per_thousand_tokens, personal.counts)),
    }


def _speed(subject: Subject, options: SpeedOptions, details: dict[str, Any]) -> dict[str, float]:
    found = measure_speed(subject.path, subject.chosen_tokenizer, options)
    details |= {"threads": found.threads, "memory_before_load_bytes": found.memory_before_load_bytes}
    return {
        "prefill_tokens_per_second": found.prefill_tokens_per_second,
        "decode_tokens_per_second": found.decode_tokens_per_second,
        "peak_memory_bytes": float(found.peak_memory_bytes),
    }


def check_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file, one a line.

    Raises:
        ConfigError: it cannot be read as UTF-8, or is empty.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--prompts: '{path}' cannot be read as UTF-8 ({error}); mend or change the path"]) from None
    if not texts:
        raise ConfigError([f"--prompts: '{path}' is empty; write a prompt on each line"])
    return tuple(texts)
