"""Which numbers of a run are shown in which picture, with their units."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

TIME_PARTS = ("forward_backward", "communication", "optimizer", "data", "other")
"""Parts that the seconds of a step are the sum of, the largest first."""


@dataclass(frozen=True)
class Chart:
    """One picture."""

    key: str
    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    """Numbers, as kind/name, each with its label."""

    mode: Literal["lines", "stack"] = "lines"
    note: str = ""
    is_large: bool = False

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        lines = [{"key": key, "label": label} for key, label in self.lines]
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "mode": self.mode,
            "note": self.note,
            "large": self.is_large,
            "lines": lines,
        }


_LOSS = "nats a token"
_FIRST = (
    Chart(
        "loss", "Loss", _LOSS, (("train/loss", "training"), ("validation/validation_loss", "validation")), is_large=True
    ),
    Chart(
        "loss_parts",
        "What the loss is made of",
        _LOSS,
        (("train/ce", "labels (ce)"), ("train/kl", "teacher (kl)"), ("train/hidden", "hidden states")),
    ),
    Chart("bits_per_byte", "Bits per byte", "bits a byte", (("validation/bits_per_byte", "validation"),)),
)
_REST = (
    Chart("lr", "Learning rate", "", (("train/lr", "lr"),)),
    Chart("grad_norm", "Gradient norm", "L2 norm before clipping", (("train/grad_norm", "grad_norm"),)),
    Chart("tokens_per_second", "Throughput", "tokens/s, all ranks", (("train/tokens_per_second", "tokens/s"),)),
    Chart("mfu", "Utilisation (MFU)", "fraction of a rank's peak", (("train/mfu", "mfu"),)),
    Chart("model_tflops", "Arithmetic of the model", "TFLOP/s a rank", (("train/model_tflops", "model_tflops"),)),
    Chart(
        "time",
        "Time of a step, by part",
        "seconds a step, means",
        tuple((f"train/{part}_seconds", part.replace("_", " and ")) for part in TIME_PARTS),
        mode="stack",
        note="On rank 0. Communication is waiting, and unknown on a GPU.",
    ),
    Chart(
        "between",
        "Time between steps",
        "seconds since the line before",
        (
            ("train/evaluation_seconds", "evaluation"),
            ("train/checkpoint_seconds", "checkpoint, waited for"),
            ("train/checkpoint_write_seconds", "checkpoint, written"),
        ),
    ),
    Chart("memory", "Memory", "GiB, at most, of the rank with most", (("train/peak_memory_gib", "peak"),)),
    Chart("slowest", "Slowest rank", "seconds a step without waiting", (("train/slowest_rank_seconds", "slowest"),)),
)
_UNITS = {
    "loss_scale": "factor",
    "global_batch_size": "samples a step",
    "seq_length": "tokens a sample",
}
_SUFFIXES = {
    "_seconds": "seconds",
    "_gib": "GiB",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_per_second": "a second",
    "loss": _LOSS,
}
_NOT_DRAWN = {"attempt", "step", "consumed_samples", "consumed_tokens", "skipped", "step_seconds"}
_ONLY_IF_CHANGED = {"train/global_batch_size", "train/seq_length"}
"""Settings: a flat line says nothing."""

_PERPLEXITY = "validation/perplexity"
"""Says what the loss says."""


def charts_of(names: Iterable[str], constant: Iterable[str] = ()) -> list[Chart]:
    """Return the pictures of runs that have the numbers ``names``, as kind/name; ``constant`` ones never change."""
    left = dict.fromkeys(name for name in names if name.partition("/")[2] not in _NOT_DRAWN)
    for name in [name for name in left if name.startswith(_PERPLEXITY)]:
        del left[name]
    for name in _ONLY_IF_CHANGED & set(constant):
        left.pop(name, None)
    first, rest = _taken(_FIRST, left), _taken(_REST, left)
    epochs = _family("epochs", "Epochs of each source", "times its windows were read", "train/epochs_", left)
    by_source = [
        _family("loss_of", "Validation loss by source or set", _LOSS, "validation/loss_", left),
        _family("bits_of", "Bits per byte by source or set", "bits a byte", "validation/bits_per_byte_", left),
    ]
    others = [
        Chart(name.replace("/", "_"), name.rpartition("/")[2], _unit(name), ((name, name.rpartition("/")[2]),))
        for name in left
    ]
    return [chart for chart in [*first, *by_source, *rest, epochs, *others] if chart is not None]


def _taken(charts: Sequence[Chart], left: dict[str, None]) -> list[Chart]:
    """Return the charts with those of their lines that are there, and take these from ``left``."""
    found = []
    for chart in charts:
        lines = tuple(line for line in chart.lines if line[0] in left)
        for key, _ in lines:
            del left[key]
        if lines:
            found.append(Chart(chart.key, chart.title, chart.unit, lines, chart.mode, chart.note, chart.is_large))
    return found


def _family(key: str, title: str, unit: str, prefix: str, left: dict[str, None]) -> Chart | None:
    names = [name for name in left if name.startswith(prefix)]
    for name in names:
        del left[name]
    return Chart(key, title, unit, tuple((name, name.removeprefix(prefix)) for name in names)) if names else None


def _unit(name: str) -> str:
    short = name.rpartition("/")[2]
    if short in _UNITS:
        return _UNITS[short]
    return next((unit for suffix, unit in _SUFFIXES.items() if short.endswith(suffix)), "")
