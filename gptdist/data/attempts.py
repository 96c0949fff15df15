"""Which samples each step of a run took: every attempt notes in the ledger where it begins, and with which config."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.errors import DataError
from gptdist.mesh.layout import Layout
from gptdist.telemetry.ledger import LEDGER_NAME, read_json_lines
from gptdist.telemetry.metrics import METRICS_NAME

START = "start"
INITIAL_WEIGHTS = "initial_weights"
"""Whose weights a run began with; the step in it is another run's."""

_ENDS = ("done", "stopped", "rewind")
_NEEDED = {"attempt", "step", "consumed_samples", "world_size", "config", "data_fingerprints"}


def start_facts(
    config: Mapping[str, Any],
    data_fingerprints: Mapping[str, str],
    *,
    step: int,
    consumed_samples: int,
    layout: Layout,
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """Return what the ledger keeps of the start of an attempt.

    Args:
        config: the resolved config, as plain data.
        data_fingerprints: content of each source, by its name.
        step: steps done by the checkpoint that the attempt goes on from.
        consumed_samples: samples that those took.
        layout: of the ranks.
        shares: fraction of the samples of each source, by its name.
    """
    return {
        "step": step,
        "consumed_samples": consumed_samples,
        "layout": str(layout),
        "world_size": layout.world_size,
        "config": dict(config),
        "data_fingerprints": dict(data_fingerprints),
        "data_shares": dict(shares),
    }


@dataclass(frozen=True)
class Attempt:
    """One start of a run, and how far it came."""

    number: int
    first_step: int
    """Steps done before it began."""

    consumed_samples: int
    """Samples that those took."""

    recorded_step: int
    """Last step that a record proves."""

    last_step: int
    """Last step that it can have begun: more than recorded if it was killed, failed or runs."""

    world_size: int
    config: RunConfig
    data_fingerprints: Mapping[str, str]

    @property
    def end_sample(self) -> int:
        """First sample behind those of ``last_step``."""
        return self.first_sample(self.last_step + 1)

    def first_sample(self, step: int) -> int:
        """Return the first sample of the batch that ``step`` consumes; steps count from 1."""
        return self.config.batch_sizes.after(self.consumed_samples, step - 1 - self.first_step)

    def samples_of_step(self, step: int) -> list[int]:
        """Return the samples of the global batch of ``step``."""
        first = self.first_sample(step)
        return list(range(first, first + self.config.batch_sizes.at(first)))

    def samples_of_rank(self, step: int, rank: int) -> list[int]:
        """Return the samples of ``step`` that ``rank`` reads, in its order.

        Raises:
            DataError: the attempt had no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise DataError(
                f"rank {rank}: attempt {self.number} had {self.world_size} ranks; name one of 0 … {self.world_size - 1}"
            )
        layout = Layout.of(self.config.parallel, self.world_size)
        size, replicas = self.config.batch.micro_batch_size, layout.data_parallel_size
        replica, first = layout.place(rank).dp_rank, self.first_sample(step)
        return [
            first + (micro_batch * replicas + replica) * size + row
            for micro_batch in range(self.config.batch_sizes.at(first) // (size * replicas))
            for row in range(size)
        ]

    def step_of_sample(self, sample: int) -> int:
        """Return the step that consumes ``sample``."""
        return self.first_step + self.config.batch_sizes.steps_within(self.consumed_samples, sample) + 1


def read_attempts(run: Path) -> list[Attempt]:
    """Return the attempts of the run in folder ``run``, oldest first.

    Attempts of an older gptdist, which did not note their config, are left out.

    Raises:
        DataError: there is no run, or none of its attempts noted its config.
        ConfigError: a noted config is not one of this version.
    """
    events = [event for event in read_json_lines(run / LEDGER_NAME) if isinstance(event, dict)]
    starts = [event for event in events if event.get("event") == START]
    if not starts:
        raise DataError(
            f"{run / LEDGER_NAME}: no start of a run is recorded here; name the folder of a run, such as runs/demo-cpu"
        )
    starts = [start for start in starts if start.keys() >= _NEEDED]
    if not starts:
        raise DataError(
            f"{run / LEDGER_NAME}: no attempt noted its config, so an older gptdist trained it; "
            "resume it with this one, and the steps from there on can be traced"
        )
    rows = [row for row in read_json_lines(run / METRICS_NAME) if isinstance(row, dict)]
    steps: dict[int, int] = {}
    for record in [event for event in events if event.get("event") != INITIAL_WEIGHTS] + rows:
        number = int(record.get("attempt", 0))
        steps[number] = max(steps.get(number, 0), int(record.get("step", 0)))
    ended = {int(event.get("attempt", 0)) for event in events if event.get("event") in _ENDS}
    newest = max(int(start["attempt"]) for start in starts)
    first_logged_here = min((int(row.get("attempt", 0)) for row in rows), default=newest)
    attempts = []
    for start in starts:
        number = int(start["attempt"])
        config = RunConfig.from_tree(start["config"], origin=f"{run / LEDGER_NAME}: attempt {number}")
        last = recorded = steps[number]
        if number not in ended:
            last = (_next_record if number >= first_logged_here else _unsaved)(recorded, config)
        attempts.append(_attempt(start, config, recorded, last))
    return attempts


def _attempt(start: Mapping[str, Any], config: RunConfig, recorded: int, last: int) -> Attempt:
    return Attempt(
        number=int(start["attempt"]),
        first_step=int(start["step"]),
        consumed_samples=int(start["consumed_samples"]),
        recorded_step=recorded,
        last_step=last,
        world_size=int(start["world_size"]),
        config=config,
        data_fingerprints=start["data_fingerprints"],
    )


def _next_record(recorded: int, config: RunConfig) -> int:
    """Return the next step that would have been logged: without its record, it or one before it was the last."""
    every = config.intervals.log_steps if recorded else 1  # the first step of a run always is
    return min(config.training.train_steps, (recorded // every + 1) * every)


def _unsaved(recorded: int, config: RunConfig) -> int:
    """Return the last step that leaves no record in the ledger alone, which is all that came from another machine.

    One save may be under way behind the last recorded one, and the steps up to the next are done meanwhile.
    """
    every = config.intervals.save_steps
    return min(config.training.train_steps, (recorded // every + 2) * every)


def attempt_of_step(run: Path, attempts: list[Attempt], step: int, number: int | None = None) -> Attempt:
    """Return the newest attempt that did ``step``, whose result the run went on with; or attempt ``number``.

    Raises:
        DataError: no attempt came that far, or the named one did not do the step.
    """
    among = _named(run, attempts, number)
    for attempt in reversed(among):
        if attempt.first_step < step <= attempt.last_step:
            return attempt
    first, last = min(attempt.first_step for attempt in among) + 1, max(attempt.last_step for attempt in among)
    raise DataError(f"{run}: step {step} asked for, {_range(number, 'steps', first, last)}")


def attempt_of_sample(run: Path, attempts: list[Attempt], sample: int, number: int | None = None) -> Attempt:
    """Return the newest attempt that read ``sample``, or attempt ``number``.

    Raises:
        DataError: no attempt came that far, or the named one did not read the sample.
    """
    among = _named(run, attempts, number)
    for attempt in reversed(among):
        if attempt.consumed_samples <= sample < attempt.end_sample:
            return attempt
    first, end = min(attempt.consumed_samples for attempt in among), max(attempt.end_sample for attempt in among)
    raise DataError(f"{run}: sample {sample} asked for, {_range(number, 'samples', first, end - 1)}")


def _named(run: Path, attempts: list[Attempt], number: int | None) -> list[Attempt]:
    among = [attempt for attempt in attempts if number in (None, attempt.number)]
    if not among:
        known = ", ".join(str(attempt.number) for attempt in attempts)
        raise DataError(f"{run}: has no attempt {number}; name one of {known}")
    return among


def _range(number: int | None, what: str, first: int, last: int) -> str:
    who = "the run" if number is None else f"attempt {number}"
    return f"{who} did no {what}" if last < first else f"{who} came to {what} {first} … {last}; name one of these"
