"""``gptdist bundle verify|sign|encrypt|decrypt``: the folder that an export wrote, on its way to others."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, answer, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verifying = actions.add_parser("verify", help="compare every file with its hash; exit status 2 if one is off")
    verifying.add_argument("folder", type=Path, metavar="DIR", help="exported or encrypted folder")
    verifying.add_argument("--trusted-key", type=Path, metavar="PEM", help="public key: it must be signed, too")
    verifying.set_defaults(run=_verify)
    signing = actions.add_parser("sign", help="sign a folder that is whole with a private Ed25519 key")
    signing.add_argument("folder", type=Path, metavar="DIR", help="exported folder")
    signing.add_argument("--key", type=Path, required=True, metavar="PEM", help="the private key")
    signing.set_defaults(run=_sign)
    for name, text, run in (
        ("encrypt", "write a folder that is whole encrypted with AES-256-GCM", _encrypt),
        ("decrypt", "write what an encrypted folder holds", _decrypt),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("folder", type=Path, metavar="DIR", help="folder to read")
        action.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
        action.add_argument("--key", type=Path, metavar="FILE", help="key file (default: in GPTDIST_CHECKPOINT_KEY)")
        action.set_defaults(run=run)
    for action in actions.choices.values():
        add_json(action)


def _verify(arguments: argparse.Namespace) -> None:
    from gptdist.checkpoint.keys import TrustedKey
    from gptdist.compress.bundle.protect import bundle_problems
    from gptdist.errors import BundleError

    trusted = None if arguments.trusted_key is None else TrustedKey.read(arguments.trusted_key)
    problems = bundle_problems(arguments.folder, trusted)
    tree = {"folder": arguments.folder, "is_whole": not problems, "problems": problems}
    if problems:
        if arguments.json:
            print_json(tree)
        raise BundleError(problems)
    by = f", signed by the private key of {trusted.path}" if trusted else ""
    answer(arguments, tree, [f"whole  {arguments.folder}{by}"])


def _sign(arguments: argparse.Namespace) -> None:
    from gptdist.compress.bundle.protect import sign_bundle

    sign_bundle(arguments.folder, arguments.key)
    answer(arguments, {"folder": arguments.folder}, [f"signed  {arguments.folder}"])


def _encrypt(arguments: argparse.Namespace) -> None:
    from gptdist.compress.bundle.protect import encrypt_bundle, find_key

    count = encrypt_bundle(arguments.folder, arguments.output, find_key(arguments.key))
    tree = {"folder": arguments.folder, "output": arguments.output, "num_files": count}
    answer(arguments, tree, [f"encrypted  {arguments.folder} → {arguments.output}: {count} files"])


def _decrypt(arguments: argparse.Namespace) -> None:
    from gptdist.compress.bundle.protect import decrypt_bundle, find_key

    count = decrypt_bundle(arguments.folder, arguments.output, find_key(arguments.key))
    tree = {"folder": arguments.folder, "output": arguments.output, "num_files": count}
    answer(arguments, tree, [f"decrypted  {arguments.folder} → {arguments.output}: {count} files"])
