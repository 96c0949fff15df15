"""``gptdist checkpoint prune|push``: by hand what a run does with its checkpoints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptdist.config.run import RunConfig


def add_actions(actions: Any) -> None:
    """Add the actions to those of ``gptdist checkpoint``."""
    pruning = actions.add_parser("prune", help="delete the checkpoints that no rule of checkpoints.keep keeps")
    pruning.add_argument("--dry-run", action="store_true", help="delete nothing, show what would stay and why")
    pushing = actions.add_parser("push", help="copy whole checkpoints to checkpoints.remote that are not there")
    for action, run in ((pruning, _prune), (pushing, _push)):
        action.add_argument("config", type=Path, help="the run's config file")
        action.add_argument("overrides", nargs="*", metavar="key=value", help="change keys of the config")
        action.set_defaults(run=run)


def _load(arguments: argparse.Namespace) -> "RunConfig":
    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig

    return load_config(RunConfig, arguments.config, arguments.overrides)


def _prune(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.prune import Retention
    from gptdist.checkpoint.seals import Protection
    from gptdist.errors import CheckpointError

    config = _load(arguments)
    trusted = Protection.of(config.checkpoints.protection).trusted_key
    retention = Retention(config.checkpoints_folder, config.checkpoints.keep, trusted)
    if arguments.dry_run:
        decided = retention.sort()
        for folder, stay in decided.stays:
            print(f"stays  {folder}  {stay}")
        for folder in decided.goes:
            print(f"goes   {folder}")
        return
    from gptdist.train.lock import lock_folder

    with lock_folder(config.folder):  # a run that is at work looks after its own
        try:
            pruned = retention.apply()
        except OSError as error:
            raise CheckpointError(f"{config.checkpoints_folder}: cannot be pruned ({error}); mend it") from None
    for folder in pruned.deleted:
        print(f"deleted  {folder}")
    for folder in pruned.in_use:
        print(f"in use   {folder}")


def _push(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.find import step_folders
    from gptdist.checkpoint.remote_copy import is_there, send, send_ledger
    from gptdist.checkpoint.remote_store import RemoteStore
    from gptdist.checkpoint.verify import verify
    from gptdist.errors import CheckpointError, ConfigError
    from gptdist.telemetry.ledger import LEDGER_NAME

    config = _load(arguments)
    remote = config.checkpoints.remote
    if remote is None:
        raise ConfigError([f"{arguments.config}: checkpoints.remote: missing; set its url"])
    store = RemoteStore(remote.url, config.name)
    damaged = []
    for folder in reversed(step_folders(config.checkpoints_folder)):  # latest is to name the newest
        problems = verify(folder)
        damaged += problems[:1]
        if problems or is_there(store, folder):
            print(f"{'DAMAGED' if problems else 'there  '}  {folder}")
            continue
        try:
            num_bytes = send(store, folder, set())
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be read ({error}); a rule may have deleted it, try anew") from None
        print(f"copied   {folder}  {num_bytes:,} bytes")
    send_ledger(store, config.folder / LEDGER_NAME)
    if damaged:
        raise CheckpointError("; ".join(damaged))
