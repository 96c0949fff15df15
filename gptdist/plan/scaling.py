"""Answers of scaling laws to what is known of a run: its compute, its size, its tokens, or two of them."""

import difflib
import math
from dataclasses import dataclass

from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import flops_per_token, num_active_parameters
from gptdist.plan.laws import FLOPS_PER_PARAMETER_TOKEN, LAWS, Law, Size

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}

RANGES = {"flops": (1e12, 1e32), "parameters": (1e3, 1e16), "tokens": (1e3, 1e18)}
"""What is taken for a slip outside: from what a laptop computes in a minute to a million times of any run so far."""

SECONDS_PER_DAY = 86_400
DEVICE_DAYS = ("devices", "device_tflops", "days")


@dataclass(frozen=True)
class Known:
    """What is known of a run; one or two of these, or a model and nothing or one of the others."""

    flops: float | None = None
    parameters: float | None = None
    tokens: float | None = None
    model: ModelConfig | None = None

    @property
    def _given(self) -> dict[str, float]:
        numbers = {"flops": self.flops, "parameters": self.parameters, "tokens": self.tokens}
        return {name: number for name, number in numbers.items() if number is not None}

    def problems(self, *, is_complete: bool = True) -> list[str]:
        """Return why no run is meant; unless ``is_complete``, something was given that could not be read."""
        bad = []
        for name, number in self._given.items():
            least, most = RANGES[name]
            if not least <= number <= most:
                bad.append(f"--{name}: {number:g} is out of range; give one from {least:g} to {most:g}")
        if self.model is not None and self.parameters is not None:
            bad.append("--parameters: --config has them already; leave one of the two out")
        if is_complete and self.model is None and not self._given:
            bad.append("nothing is known; give --flops, --parameters, --tokens, --config, or --devices with its rate")
        if is_complete and self.model is not None and self.flops is None and self.tokens is None:
            bad.append("--config: its file names no training steps; add --tokens or --flops")
        if self.flops is not None and self.tokens is not None and (self.model or self.parameters is not None):
            bad.append(
                "--flops, --tokens: with the parameters they say the same twice, for FLOPs are 6 x parameters x "
                "tokens; leave one out"
            )
        return bad or self._derived_problems()

    def _derived_problems(self) -> list[str]:
        size = self.size(LAWS[0])
        if size is None:
            return []
        derived = {"parameters": size.parameters, "tokens": size.tokens, "flops": size.flops}
        return [
            f"--{', --'.join(self._given)}: they make {number:.3g} {name}; that is out of range, "
            f"from {RANGES[name][0]:g} to {RANGES[name][1]:g}"
            for name, number in derived.items()
            if not RANGES[name][0] <= number <= RANGES[name][1]
        ]

    def size(self, law: Law) -> Size | None:
        """Return the run that is asked about, as ``law`` counts its parameters; None where the law is to choose."""
        parameters = self.parameters if self.model is None else counted_parameters(self.model, law)
        if parameters is not None and self.tokens is not None:
            return Size(parameters, self.tokens)
        if self.flops is None:
            return None
        if self.model is not None:
            return Size(counted_parameters(self.model, law), self.flops / flops_per_token(self.model))
        if self.tokens is not None:
            return Size.of_budget(self.flops, tokens=self.tokens)
        if parameters is not None:
            return Size(parameters, self.flops / (FLOPS_PER_PARAMETER_TOKEN * parameters))
        return None

    def budget(self, law: Law) -> float:
        """Return the FLOPs, 6 N D, for which ``law`` names the best run."""
        size = self.size(law)
        if size is not None:
            return size.flops
        if self.flops is not None:
            return self.flops
        if self.parameters is not None:
            return law.budget_for_parameters(self.parameters)
        return law.budget_for_tokens(self.tokens or 0.0)


@dataclass(frozen=True)
class Answer:
    """What a law says of a run."""

    law: Law
    best: Size
    """The best run for the same budget, or the one of so many parameters or tokens that is best for its budget."""

    best_loss: float | None
    run: Size | None
    """What was asked about, where the law had nothing to choose."""

    loss: float | None
    same_loss_flops: float | None
    """The least FLOPs that reach the run's loss."""

    tokens_for_parameters: float | None
    """Tokens with which the run's parameters are the best of their budget."""

    @property
    def wasted(self) -> float | None:
        """The part of the run's FLOPs that a best run of the same loss would not need."""
        if self.run is None or self.same_loss_flops is None:
            return None
        return max(0.0, 1.0 - self.same_loss_flops / self.run.flops)


def answer(law: Law, known: Known) -> Answer:
    """Return what ``law`` says of ``known``, which has no problems."""
    flops = known.budget(law)
    run = known.size(law)
    loss = None if run is None else law.loss(run)
    return Answer(
        law=law,
        best=law.optimum(flops),
        best_loss=law.best_loss(flops),
        run=run,
        loss=loss,
        same_loss_flops=None if loss is None else law.budget_of_loss(loss),
        tokens_for_parameters=None if run is None else law.optimum(law.budget_for_parameters(run.parameters)).tokens,
    )


def counted_parameters(model: ModelConfig, law: Law) -> float:
    """Return the parameters of ``model`` as ``law`` counts them; of experts those that a token meets.

    Laws were fitted to dense models: what they say of experts is a guess.
    """
    head = model.vocab_size * model.hidden_size
    if law.counts == "compute":
        # Attention counts in full in that law; ours, halved for the causal mask, is as much at twice the length.
        return flops_per_token(model, 2 * model.seq_length) / FLOPS_PER_PARAMETER_TOKEN - head
    parameters = num_active_parameters(model)
    if law.counts == "without_embeddings":
        positions = model.seq_length * model.hidden_size if model.position_embedding == "learned" else 0
        return parameters - positions - head * (1 if model.tie_embeddings else 2)
    return parameters


def chosen_laws(names: list[str]) -> list[Law]:
    """Return the laws of these names; without any, all.

    Raises:
        ConfigError: of each name that no law has.
    """
    by_name = {law.name: law for law in LAWS}
    bad = []
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.3)
            advice = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(by_name)}"
            bad.append(f"--law: no law is called '{name}'; {advice}")
    if bad:
        raise ConfigError(bad)
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(LAWS)


def read_number(option: str, text: str) -> float:
    """Return the number that ``text`` means, such as 7B, 1.4T or 1e23.

    Raises:
        ConfigError: it is none, or not above 0.
    """
    factor = SUFFIXES.get(text[-1:].upper(), 1.0)
    digits = text[:-1] if factor != 1.0 else text
    try:
        number = float(digits) * factor
    except ValueError:
        advice = "write one such as 1e23, 7B or 1.4T (K, M, B, T: thousands, millions, …)"
        raise ConfigError([f"{option}: '{text}' is no number; {advice}"]) from None
    if not (math.isfinite(number) and number > 0.0):
        raise ConfigError([f"{option}: must be above 0 and finite, got {text}; give a number such as 1e23"])
    return number


def device_flops(devices: float, device_tflops: float, days: float) -> float:
    """Return FLOPs of so many devices in so many days, each at ``device_tflops`` of model TFLOP/s achieved."""
    return devices * device_tflops * 1e12 * days * SECONDS_PER_DAY


def nearest_preset(parameters: float, presets: dict[str, float]) -> str | None:
    """Return the name whose parameters are nearest by ratio; None where none is within a factor of two."""
    if not presets:
        return None
    name = min(presets, key=lambda one: abs(math.log(presets[one] / parameters)))
    return name if abs(math.log2(presets[name] / parameters)) <= 1.0 else None
