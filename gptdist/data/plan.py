"""How often a run will read each of its sources, counted and not estimated, and whether its config allows that."""

from dataclasses import dataclass
from fractions import Fraction

from gptdist.config.run import RunConfig
from gptdist.data.order import SampleOrder
from gptdist.errors import ConfigError

_SHOWN_SOURCES = 8
"""Sources in a line of the log; the others are counted."""


@dataclass(frozen=True)
class SourcePlan:
    """What a run takes of one source."""

    index: int
    """Place in ``data.sources``."""

    name: str
    tokens: int
    """Of its training split."""

    share: float
    """Fraction of the samples of every whole block, in the stage that the run stands in."""

    windows: int
    """Samples of one epoch."""

    samples: int
    """Samples that the run takes."""

    max_epochs: float | None

    @property
    def epochs(self) -> float:
        """How often the run reads the source."""
        return self.samples / self.windows

    @property
    def most_samples(self) -> int | None:
        """Samples that ``max_epochs`` allows; none if it is unset."""
        # By the decimal digits of the config: 0.29 of 100 windows are 29, while the float 0.29 * 100 is below it.
        return None if self.max_epochs is None else int(Fraction(str(self.max_epochs)) * self.windows)

    @property
    def is_allowed(self) -> bool:
        """Whether the run stays within ``max_epochs``."""
        return self.most_samples is None or self.samples <= self.most_samples

    @property
    def needed_max_epochs(self) -> float:
        """Smallest ``max_epochs`` of two decimals that allows the run."""
        return -(-self.samples * 100 // self.windows) / 100

    @property
    def verdict(self) -> str:
        """The outcome, in words of a table."""
        if self.max_epochs is None:
            return "no limit"
        return "ok" if self.is_allowed else "too often"


@dataclass(frozen=True)
class DataPlan:
    """What a run takes of all its sources."""

    steps: int
    samples: int
    tokens: int
    most_steps: int | None
    """Steps that every ``max_epochs`` allows; none if no source has one."""

    most_tokens: int | None
    """Tokens of these steps."""

    sources: tuple[SourcePlan, ...]

    def problems(self) -> list[str]:
        """Return a line for each source that the run would read too often."""
        shorter = ""
        if self.most_steps:
            shorter = f"train at most {self.most_steps:,} steps ({self.most_tokens:,} tokens), "
        return [
            f"data.sources[{source.index}].max_epochs: {plain(source.max_epochs)}, but {self.steps:,} steps "
            f"({self.tokens:,} tokens) take {source.samples:,} samples of '{source.name}', which has "
            f"{source.windows:,}: {source.epochs:.4f} epochs; {shorter}lower its weight, "
            f"or set it to {plain(source.needed_max_epochs)} or more"
            for source in self.sources
            if not source.is_allowed
        ]

    def summary(self) -> str:
        """Return names, shares and epochs in one line."""
        shown = [f"{one.name} {one.share:.2%} ({one.epochs:.3g} epochs)" for one in self.sources[:_SHOWN_SOURCES]]
        more = len(self.sources) - len(shown)
        return ", ".join(shown) + (f" and {more} more sources" if more else "")


def plain(max_epochs: float | None) -> str:
    """Return a limit as a config would have it: every digit, since a rounded one might not be enough."""
    return "-" if max_epochs is None else repr(max_epochs).removesuffix(".0")


def plan_data(
    config: RunConfig, order: SampleOrder, *, steps: int | None = None, step: int = 0, consumed_samples: int = 0
) -> DataPlan:
    """Count what a run takes of each source.

    Args:
        config: of the run.
        order: of its samples.
        steps: optimizer steps in all; default ``training.train_steps``.
        step: steps that are done.
        consumed_samples: samples that those took, maybe with another batch size. They count as if they had come in
            today's order.
    """
    steps = config.training.train_steps if steps is None else steps
    sizes, length = config.batch_sizes, config.model.seq_length
    samples = sizes.after(consumed_samples, max(0, steps - step))
    counts = order.mixture.counts_among(samples)
    sources = tuple(
        SourcePlan(
            index=index,
            name=source.name,
            tokens=order.tokens[index],
            share=order.mixture.shares_at(consumed_samples)[index],
            windows=order.windows[index],
            samples=counts[index],
            max_epochs=source.max_epochs,
        )
        for index, source in enumerate(config.data.sources)
    )
    most = order.most_samples([source.most_samples for source in sources])
    most_steps = most_tokens = None
    if most is not None:
        more_steps = sizes.steps_within(consumed_samples, most)
        most_steps, most_tokens = step + more_steps, sizes.after(consumed_samples, more_steps) * length
        if most < consumed_samples:
            most_steps = most_tokens = 0  # what is done is too much already
    return DataPlan(steps, samples, samples * length, most_steps, most_tokens, sources)


def check_epochs(config: RunConfig, order: SampleOrder, *, step: int = 0, consumed_samples: int = 0) -> DataPlan:
    """Return the plan of a run that stands at ``step``.

    Raises:
        ConfigError: it would read a source more often than ``max_epochs`` says; a line for each.
    """
    plan = plan_data(config, order, step=step, consumed_samples=consumed_samples)
    problems = plan.problems()
    if problems:
        raise ConfigError(problems)
    return plan
