"""What is looked at before any rank starts: config, data, and what the run's folder holds; no torch."""

from collections.abc import Sequence
from pathlib import Path

from gptdist.checkpoint.find import named_checkpoint
from gptdist.checkpoint.identity import RunIdentity, check_folder_continues
from gptdist.checkpoint.initial import check_begins
from gptdist.checkpoint.prove import check_same_samples
from gptdist.checkpoint.teacher import check_source
from gptdist.config.load import read_config
from gptdist.config.run import RunConfig
from gptdist.data.plan import check_epochs
from gptdist.data.sources import check_data
from gptdist.device.swapping import swap_problems
from gptdist.errors import ConfigError, TrainingError
from gptdist.train.stop_signal import STOP_NAME
from launch.job import Job


def read_job(config_path: Path, words: Sequence[str], *, nodes: int = 1, others: Sequence[str] = ()) -> Job:
    """Return the job of a config file and its overrides, on so many nodes.

    Raises:
        ConfigError: every reason why it cannot be trained, and ``others``, those of the command's options.
    """
    config = read_config(RunConfig, config_path, list(words))
    problems = [*others] if nodes >= 1 else [f"--nodes: must be at least 1, got {nodes}", *others]
    world_size = config.launch.ranks_per_node * max(1, nodes)
    problems += [f"{config_path}: {problem}" for problem in config.problems(world_size)]
    if problems:
        raise ConfigError(problems)
    return Job(config, config_path, tuple(words))


def check_run(config: RunConfig) -> None:
    """Look at what the ranks of ``config`` would find, as far as this machine sees it.

    Raises:
        GptDistError: they would refuse it.
    """
    missing = config.data.path_problems() + machine_problems(config)
    if config.distillation is not None:
        missing += config.distillation.path_problems()
    if missing:
        raise ConfigError(missing)
    check_contents(config)


def machine_problems(config: RunConfig) -> list[str]:
    """Return what ``config`` needs beside its data, and this machine has not: keys, packages, a disk to swap to."""
    return (
        config.checkpoints.protection.path_problems()
        + config.telemetry.package_problems()
        + swap_problems(config.memory)
    )


def check_contents(config: RunConfig) -> None:
    """Look into the data of ``config``, which is there, and at what its run's folder holds.

    Raises:
        GptDistError: the ranks would refuse it.
    """
    if (config.folder / STOP_NAME).exists():
        raise TrainingError(f"{config.folder / STOP_NAME}: asks this run to stop; remove it to go on")
    tokenizer, data = check_data(config)
    identity = RunIdentity.of(config, tokenizer, data)
    newest = check_folder_continues(config.checkpoints_folder, identity)
    if newest is not None:
        check_same_samples(newest, identity.config, data, str(config.checkpoints_folder))
    elif config.training.init_from is not None:
        folder, manifest = named_checkpoint(config.training.init_from)
        check_begins(manifest, identity, folder)
    check_source(config, tokenizer, data)
    done = (newest.step, newest.progress.consumed_samples) if newest else (0, 0)
    check_epochs(config, data.order, step=done[0], consumed_samples=done[1])
