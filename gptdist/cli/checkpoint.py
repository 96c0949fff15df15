"""``gptdist checkpoint list|show|verify|sign|average``, and what is in ``checkpoint_keep``, ``checkpoint_rewind``."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, answer, print_json
from gptdist.cli.checkpoint_keep import add_actions
from gptdist.cli.checkpoint_rewind import add_action as add_rewind
from gptdist.cli.terminal import painted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="checkpoints of a run, newest first")
    verifying = actions.add_parser("verify", help="read every file and compare its hash; exit status 2 on damage")
    showing = actions.add_parser("show", help="what one checkpoint holds: progress, layout, tensors")
    for action, run in ((listing, _list), (verifying, _verify), (showing, _show)):
        action.add_argument("path", type=Path, help="run folder, checkpoints folder or step folder")
        action.set_defaults(run=run)
    showing.add_argument("--against", type=Path, metavar="OTHER", help="another one: what differs, was → now")
    showing.add_argument("--all", action="store_true", help="one line for each tensor, not one for all layers")
    verifying.add_argument("--trusted-key", type=Path, metavar="PEM", help="public key: it must be signed, too")
    signing = actions.add_parser("sign", help="sign a finished checkpoint with a private Ed25519 key")
    signing.add_argument("path", type=Path, help="run folder (its newest checkpoint) or step folder")
    signing.add_argument("--key", type=Path, required=True, metavar="PEM", help="the private key")
    signing.set_defaults(run=_sign)
    averaging = actions.add_parser("average", help="the mean of several checkpoints' weights, as a checkpoint")
    averaging.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="run folder or step folder")
    averaging.add_argument("--last", type=int, metavar="N", help="take the N newest of the one run named")
    averaging.add_argument("--weights", type=float, nargs="+", metavar="W", help="how much each counts (default: 1)")
    averaging.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    averaging.set_defaults(run=_average)
    add_actions(actions)
    add_rewind(actions)
    for action in actions.choices.values():
        add_json(action)


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

    lines = [f"{'step':>10} {'samples':>12} {'tokens':>15} {'loss (nats)':>11} {'bytes':>15}  folder"]
    found = []
    for folder in _folders(arguments.path):
        manifest = read_manifest(folder)
        progress = manifest.progress
        size = sum(entry.num_bytes for entry in manifest.files)
        loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
        lines.append(
            f"{progress.step:>10} {progress.consumed_samples:>12,} {progress.consumed_tokens:>15,} {loss:>11} "
            f"{size:>15,}  {folder}"
        )
        facts = {name: getattr(progress, name) for name in ("step", "consumed_samples", "consumed_tokens", "loss")}
        found.append({**facts, "num_bytes": size, "folder": folder})
    answer(arguments, {"checkpoints": found}, lines)


def _verify(arguments: argparse.Namespace) -> int:
    from gptdist.checkpoint.keys import TrustedKey
    from gptdist.checkpoint.verify import verify
    from gptdist.errors import CheckpointError

    trusted = None if arguments.trusted_key is None else TrustedKey.read(arguments.trusted_key)
    found = []
    damage: list[str] = []
    for folder in _folders(arguments.path):
        problems = verify(folder, trusted)
        found.append({"folder": folder, "is_whole": not problems, "problems": problems})
        if not arguments.json:
            print(painted(f"{'DAMAGED' if problems else 'whole'}  {folder}"), flush=True)
        damage += problems
    if arguments.json:
        print_json({"checkpoints": found})
    if damage:
        raise CheckpointError("; ".join(damage))
    return 0


def _sign(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.seals import sign_checkpoint

    folder = resolve_checkpoint(arguments.path)
    sign_checkpoint(folder, arguments.key)
    answer(arguments, {"folder": folder}, [f"signed  {folder}"])


def _show(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.find import named_checkpoint
    from gptdist.checkpoint.show import checkpoint_tree, difference_lines, summary_lines, tensor_lines

    folder, manifest = named_checkpoint(arguments.path)
    tree = checkpoint_tree(folder, manifest)
    lines = [*summary_lines(folder, manifest), ""]
    if arguments.against is not None:
        other, before = named_checkpoint(arguments.against)
        differences = list(difference_lines(manifest, before))
        tree["against"] = {"folder": other, "step": before.step, "differences": differences}
        lines.append(f"{other}, step {before.step:,} → step {manifest.step:,}")
        lines += [*(f"  {line}" for line in differences), ""]
    lines += tensor_lines(manifest.tensors, manifest.whole_states, every=arguments.all)
    answer(arguments, tree, lines)


def _average(arguments: argparse.Namespace) -> None:
    from gptdist.errors import ConfigError

    paths, last = arguments.paths, arguments.last
    if last is not None and (len(paths) != 1 or last < 2):
        raise ConfigError([f"--last: takes at least 2 of one run, got --last {last} of {len(paths)} paths; mend it"])
    from gptdist.checkpoint.average import average, newest_folders

    manifest = average(
        paths if last is None else newest_folders(paths[0], last), arguments.output, shares=arguments.weights
    )
    assert manifest.origin is not None, "an average says what it was made of"
    sources = manifest.origin.sources
    size = sum(entry.num_bytes for entry in manifest.files)
    tree = {
        "sources": [{"share": one.share, "path": one.path, "step": one.step} for one in sources],
        "output": arguments.output,
        "num_tensors": len(manifest.tensors),
        "num_bytes": size,
    }
    lines = [f"{one.share:.6f} x {one.path}, step {one.step:,}" for one in sources]
    written = f"written  {arguments.output}: {len(manifest.tensors)} tensors, {size:,} bytes, weights alone"
    answer(arguments, tree, [*lines, written])
