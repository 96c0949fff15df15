"""What every back end of ``gptdist launch`` checks before it starts anything."""

from collections.abc import Sequence
from pathlib import Path

from gptdist.config.load import read_config
from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError


def config_for(path: Path, overrides: Sequence[str], *, nodes: int, others: Sequence[str] = ()) -> RunConfig:
    """Return the config of ``path`` with ``overrides``, checked for so many hosts.

    Raises:
        ConfigError: with every problem, and with ``others``, those of the command's options.
    """
    config = read_config(RunConfig, path, list(overrides))
    problems = [*others] if nodes >= 1 else [f"--nodes: must be at least 1, got {nodes}", *others]
    world_size = config.launch.ranks_per_node * max(1, nodes)
    problems += [f"{path}: {problem}" for problem in config.problems(world_size)]
    if problems:
        raise ConfigError(problems)
    return config


def check_run(config: RunConfig) -> None:
    """Check data, tokenizer, checkpoints and packages of a run, and show warnings.

    Raises:
        GptDistError: the run cannot start, or cannot go on where it stands.
    """
    from gptdist.checkpoint.find import named_checkpoint
    from gptdist.checkpoint.identity import RunIdentity, check_folder_continues
    from gptdist.checkpoint.initial import check_begins
    from gptdist.checkpoint.prove import check_same_samples
    from gptdist.data.plan import check_epochs
    from gptdist.data.sources import check_data
    from gptdist.device.swapping import swap_problems
    from gptdist.model.hf_config import export_problems

    missing = (
        config.data.path_problems()
        + config.checkpoints.protection.path_problems()
        + config.telemetry.package_problems()
        + swap_problems(config.memory)
    )
    if missing:
        raise ConfigError(missing)
    tokenizer, data = check_data(config)
    identity = RunIdentity.of(config, tokenizer, data)
    newest = check_folder_continues(config.checkpoints_folder, identity)
    if newest is not None:
        check_same_samples(newest, identity.config, data, str(config.checkpoints_folder))
    elif config.training.init_from is not None:
        folder, manifest = named_checkpoint(config.training.init_from)
        check_begins(manifest, identity, folder)
    done = (newest.step, newest.progress.consumed_samples) if newest else (0, 0)
    check_epochs(config, data.order, step=done[0], consumed_samples=done[1])
    for problem in export_problems(config.model):
        print(f"gptdist launch: warning: {problem}")
