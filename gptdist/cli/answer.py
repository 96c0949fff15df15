"""What a command has found: lines for a person, or with ``--json`` one document for a program."""

import argparse
import json
import math
from collections.abc import Iterable
from typing import Any

from gptdist.cli.terminal import painted


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def answer(arguments: argparse.Namespace, tree: Any, lines: Iterable[str]) -> None:
    """Print ``tree`` if JSON is asked for, else ``lines``, which may be made on the way."""
    if arguments.json:
        print_json(tree)
        return
    for line in lines:
        print(painted(line), flush=True)


def print_json(tree: Any) -> None:
    """Print ``tree`` on a line; paths are strings, and numbers that are not finite, which JSON has not, null."""
    print(json.dumps(_legal(tree), ensure_ascii=False, allow_nan=False, default=str))


def _legal(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _legal(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_legal(value) for value in tree]
    if hasattr(tree, "item"):  # a number of numpy or torch
        tree = tree.item()
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
