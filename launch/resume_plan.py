"""What a replay between two checkpoints of a run is to do; no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.identity import RunIdentity, check_continues
from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.checkpoint.proof import StepRecord
from gptdist.checkpoint.prove import check_same_samples
from gptdist.config.run import RunConfig
from gptdist.config.source import apply_overrides
from gptdist.data.sources import check_data
from gptdist.errors import CheckpointError, ConfigError
from gptdist.telemetry.ledger import read_json_lines
from gptdist.telemetry.metrics import METRICS_NAME

LAYOUT_KEYS = ("parallel.", "launch.", "memory.", "batch.micro_batch_size", "training.device")
"""What may be another than the run's in a replay: it decides how numbers are computed, not which."""

_LEFT_OUT = {"telemetry": ("wandb", "profile_steps"), "checkpoints": ("keep", "remote")}
"""What a replay has no use for, and must not do to the run's own records elsewhere."""

_WITHOUT_EFFECT = (
    "name",
    "run_dir",
    "intervals.",
    "checkpoints.",
    "telemetry.",
    "generation",
    "training.early_stopping",
)
"""Keys that change no number of a step."""


@dataclass(frozen=True)
class Plan:
    """What is to be replayed, and against what."""

    before: Path
    """Step folder that the replay goes on from."""

    saved: Path
    """Step folder that it should lead to."""

    first: Manifest
    last: Manifest
    until: int
    """Last step that is replayed."""

    config: RunConfig
    is_same_layout: bool
    recorded: dict[int, StepRecord]

    @property
    def is_whole(self) -> bool:
        """Whether it leads to the saved checkpoint."""
        return self.until == self.last.step


def make_plan(before: Path, saved: Path, overrides: Sequence[str], *, steps: int | None) -> Plan:
    """Return what to replay of the way from one step folder to another.

    Raises:
        CheckpointError: no run saved them, or there are no such steps.
        ConfigError: the layout cannot run, or an override is no part of it.
    """
    first, last = read_manifest(before), read_manifest(saved)
    proof = last.progress.proof
    if proof is None or first.progress.proof is None:
        raise CheckpointError(f"{saved}: no training step led to it or to {before.name}; name the folder of a run")
    between = last.step - first.step
    if steps is not None and not 1 <= steps <= between:
        raise CheckpointError(f"--steps: {steps}, but there are {between} from {before.name} to {saved.name}; ask less")
    config, own = _config(last, overrides), _config(last, ())
    problems = _dropout_problems(config, own)
    if problems:
        raise ConfigError(problems)
    run = saved.parents[1]
    _check_one_config(run, first, last)
    until = last.step if steps is None else first.step + steps
    recorded = _recorded(run, last)
    known = [step for step in sorted(recorded) if step > first.step]
    if until < min(known, default=last.step):
        raise CheckpointError(
            f"--steps: {steps}, but of the steps from {before.name} on the first whose loss was recorded is "
            f"{min(known, default=last.step)}; ask for {min(known, default=last.step) - first.step}"
        )
    return Plan(before, saved, first, last, until, config, config == own, recorded)


def _config(manifest: Manifest, overrides: Sequence[str]) -> RunConfig:
    """Return the config of a replay, with the layout of ``overrides`` or the one that saved."""
    for override in overrides:
        if not override.startswith(LAYOUT_KEYS):
            raise ConfigError(
                [f"{override}: is no part of the layout; a replay takes {', '.join(LAYOUT_KEYS)} and nothing else"]
            )
    tree = json.loads(json.dumps(manifest.config))
    for section, keys in _LEFT_OUT.items():
        for key in keys:
            tree.get(section, {}).pop(key, None)
    tree.setdefault("telemetry", {})["tensorboard"] = False
    tree.setdefault("launch", {})["ranks_per_node"] = manifest.layout.world_size
    config = RunConfig.from_tree(apply_overrides(tree, list(overrides)), origin="replay")
    problems = config.problems()
    if problems:
        raise ConfigError(problems)
    return config


def _check_one_config(run: Path, first: Manifest, last: Manifest) -> None:
    """Refuse to replay steps that no single config has done.

    Raises:
        CheckpointError: the run resumed between the two with other keys, and the checkpoint of there is gone.
    """
    for one in audit(run).line:
        changed = [line for line in one.changed if not line.startswith(_WITHOUT_EFFECT)]
        if first.step < one.attempt.first_step < last.step and changed:
            raise CheckpointError(
                f"{run}: attempt {one.number} went on from step {one.attempt.first_step} with {'; '.join(changed)}, "
                f"and that checkpoint is gone: no one config leads from step {first.step} to {last.step}; check again "
                f"once there is another checkpoint, or keep more (checkpoints.keep.last)"
            )


def _dropout_problems(config: RunConfig, own: RunConfig) -> list[str]:
    """Return each layout key on which dropout's masks depend, so that another value is another run."""
    drops = {"attention_dropout": config.model.attention_dropout, "hidden_dropout": config.model.hidden_dropout}
    keys = {
        "parallel.tensor_parallel_size": (
            ("attention_dropout",),
            own.parallel.tensor_parallel_size,
            config.parallel.tensor_parallel_size,
        ),
        "parallel.context_parallel_size": (
            tuple(drops),
            own.parallel.context_parallel_size,
            config.parallel.context_parallel_size,
        ),
        "parallel.sequence_parallel": (
            ("hidden_dropout",),
            own.parallel.sequence_parallel,
            config.parallel.sequence_parallel,
        ),
        "batch.micro_batch_size": (tuple(drops), own.batch.micro_batch_size, config.batch.micro_batch_size),
    }
    return [
        f"{key}: {was} → {now}, but each of its parts draws masks of its own for model.{name} ({drops[name]}): "
        f"that is another run; keep {was} in the replay"
        for key, (names, was, now) in keys.items()
        for name in names
        if was != now and drops[name]
    ]


def _recorded(run: Path, last: Manifest) -> dict[int, StepRecord]:
    """Return what the run noted of the steps up to a checkpoint: in it, and of older ones in metrics.jsonl."""
    found: dict[int, tuple[int, StepRecord]] = {}
    proof = last.progress.proof
    assert proof is not None, "a run saved it"
    for row in read_json_lines(run / METRICS_NAME):
        step, attempt = row.get("step", 0), row.get("attempt", 0)
        if row.get("kind") == "train" and step <= last.step and found.get(step, (0,))[0] <= attempt <= proof.attempt:
            record = StepRecord(
                step=step, loss=row.get("loss"), grad_norm=row.get("grad_norm"), skipped=row.get("skipped", False)
            )
            found[step] = (attempt, record)
    return {step: record for step, (_, record) in found.items()} | {record.step: record for record in proof.steps}


def check_plan_data(plan: Plan) -> None:
    """Refuse a replay on other data, or where samples were left out between the two checkpoints.

    Raises:
        ConfigError: a folder of the data is not there.
        CheckpointError: tokenizer, data or order are not those of the checkpoints.
        DataError: a dataset is damaged.
    """
    missing = plan.config.data.path_problems()
    if missing:
        raise ConfigError(missing)
    tokenizer, data = check_data(plan.config)
    identity = RunIdentity.of(plan.config, tokenizer, data)
    for folder, manifest in ((plan.before, plan.first), (plan.saved, plan.last)):
        check_continues(manifest, identity, str(folder))
        check_same_samples(manifest, identity.config, data, str(folder))
    begin, end = plan.first.progress, plan.last.progress
    expected = plan.config.batch_sizes.after(begin.consumed_samples, end.step - begin.step)
    if begin.guards.rewinds == end.guards.rewinds and expected != end.consumed_samples:
        raise CheckpointError(
            f"{plan.saved}: {end.consumed_samples} samples are consumed at step {end.step}, from {plan.before.name} on "
            f"it should be {expected}; see 'gptdist audit'"
        )
