"""``gptdist launch local CONFIG [key=value …]``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    backends = parser.add_subparsers(dest="backend", required=True, metavar="BACKEND")
    local = backends.add_parser("local", help="torchrun with launch.ranks_per_node ranks on this machine")
    local.add_argument("config", type=Path, help="run config (YAML)")
    local.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    local.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    local.set_defaults(run=_local)


def _local(arguments: argparse.Namespace) -> int:
    import os

    from gptdist.checkpoint.find import named_checkpoint
    from gptdist.checkpoint.identity import RunIdentity, check_folder_continues
    from gptdist.checkpoint.initial import check_begins
    from gptdist.checkpoint.prove import check_same_samples
    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.data.plan import check_epochs
    from gptdist.data.sources import check_data
    from gptdist.device.swapping import swap_problems
    from gptdist.errors import ConfigError
    from gptdist.model.hf_config import export_problems
    from launch.local import local_command, run_local

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    cores = len(os.sched_getaffinity(0))
    command = local_command(config, arguments.config, arguments.overrides, cores=cores)
    if arguments.dry_run:
        print(command.shell_line())
        return 0
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
    return run_local(command)
