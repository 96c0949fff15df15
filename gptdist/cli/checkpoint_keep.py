"""``gptdist checkpoint prune|push``: by hand what a run does with its checkpoints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import answer, print_json
from gptdist.cli.terminal import painted

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
        stays = [{"folder": folder, "reason": str(stay)} for folder, stay in decided.stays]
        lines = [f"stays  {folder}  {stay}" for folder, stay in decided.stays]
        lines += [f"goes   {folder}" for folder in decided.goes]
        answer(arguments, {"stays": stays, "goes": list(decided.goes)}, lines)
        return
    from gptdist.train.lock import lock_folder

    with lock_folder(config.folder):  # a run that is at work looks after its own
        try:
            pruned = retention.apply()
        except OSError as error:
            raise CheckpointError(f"{config.checkpoints_folder}: cannot be pruned ({error}); mend it") from None
    lines = [f"deleted  {folder}" for folder in pruned.deleted] + [f"in use   {folder}" for folder in pruned.in_use]
    answer(arguments, {"deleted": list(pruned.deleted), "in_use": list(pruned.in_use)}, lines)


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
    damaged: list[str] = []
    found: list[dict[str, Any]] = []
    for folder in reversed(step_folders(config.checkpoints_folder)):  # latest is to name the newest
        problems = verify(folder)
        damaged += problems[:1]
        if problems or is_there(store, folder):
            found.append({"folder": folder, "state": "damaged" if problems else "there"})
            if not arguments.json:
                print(painted(f"{'DAMAGED' if problems else 'there  '}  {folder}"), flush=True)
            continue
        try:
            num_bytes = send(store, folder, set())
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be read ({error}); a rule may have deleted it, try anew") from None
        found.append({"folder": folder, "state": "copied", "num_bytes": num_bytes})
        if not arguments.json:
            print(f"copied   {folder}  {num_bytes:,} bytes", flush=True)
    send_ledger(store, config.folder / LEDGER_NAME)
    if arguments.json:
        print_json({"checkpoints": found})
    if damaged:
        raise CheckpointError("; ".join(damaged))
