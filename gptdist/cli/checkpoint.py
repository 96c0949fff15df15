"""``gptdist checkpoint list|verify``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="checkpoints of a run, newest first")
    verifying = actions.add_parser("verify", help="read every file and compare its hash; exit status 2 on damage")
    for action, run in ((listing, _list), (verifying, _verify)):
        action.add_argument("path", type=Path, help="run folder, checkpoints folder or step folder")
        action.set_defaults(run=run)


def _folders(path: Path) -> list[Path]:
    from gptdist.checkpoint.find import step_folders
    from gptdist.checkpoint.manifest import MANIFEST_NAME
    from gptdist.errors import CheckpointError

    if (path / MANIFEST_NAME).is_file() or path.name.startswith("step_"):
        return [path]
    found = step_folders(path / "checkpoints") or step_folders(path)
    if not found:
        raise CheckpointError(f"{path}: holds no checkpoint; name a run folder or a checkpoints/step_… folder")
    return found


def _list(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.manifest import read_manifest

    print(f"{'step':>10} {'samples':>12} {'tokens':>15} {'loss (nats)':>11} {'bytes':>15}  folder")
    for folder in _folders(arguments.path):
        manifest = read_manifest(folder)
        progress = manifest.progress
        size = sum(entry.num_bytes for entry in manifest.files)
        loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
        print(
            f"{progress.step:>10} {progress.consumed_samples:>12,} {progress.consumed_tokens:>15,} {loss:>11} "
            f"{size:>15,}  {folder}"
        )


def _verify(arguments: argparse.Namespace) -> int:
    from gptdist.checkpoint.verify import verify
    from gptdist.errors import CheckpointError

    damage: list[str] = []
    for folder in _folders(arguments.path):
        problems = verify(folder)
        print(f"{'DAMAGED' if problems else 'whole'}  {folder}")
        damage += problems
    if damage:
        raise CheckpointError("; ".join(damage))
    return 0
