"""The ``gptdist`` command: parse, run one sub-command, turn a user's mistake into one line and exit status 2."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gptdist.cli.terminal import print_error
from gptdist.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_ERROR, GptDistError
from gptdist.version import VERSION

COMMANDS = {
    "demo": "the whole way on this machine: prepare, train, kill, resume, export",
    "prep": "turn documents into token shards",
    "data": "verify token shards, show what a sample is made of",
    "config": "check a run config and show it resolved",
    "schema": "JSON Schema of config files, for editors",
    "scaling": "best size and tokens for a budget, by published scaling laws",
    "rehearse": "go through a whole run of a config in small, on this machine",
    "launch": "start training, here or on a cluster",
    "plan": "memory, time and cost of a run before it is launched; the fastest layout",
    "doctor": "check the hosts of a run before it starts there",
    "nodes": "show and edit which nodes of a run are left out",
    "checkpoint": "list, show, verify and average checkpoints",
    "resume-check": "replay the steps between two checkpoints and say PASS or FAIL",
    "triage": "what happened at a step: numbers, batch, gradients, the way back",
    "audit": "prove from a run's records that every sample was seen as scheduled",
    "report": "curves, attempts, checkpoints and texts of runs as one page",
    "finetune": "train a model further on prompts with completions, or on chats",
    "evaluate": "loss, cloze accuracy, texts, size and speed of a model; tasks of lm-evaluation-harness",
    "compare": "models side by side: every number in one table and one page",
    "rate": "have people rate two models side by side, blind; report win rates",
    "generate": "continue a prompt",
    "compress": "make a smaller model by a recipe: prune, distil, quantize",
    "prune": "make a model smaller or sparse, see which layers bear it",
    "distill": "train a student on a teacher's answers, or keep those of a run's samples",
    "import": "make a checkpoint of weights that other programs wrote",
    "quantize": "weights in int8 or int4, with what that costs",
    "export": "write a checkpoint as a folder other tools load",
    "bundle": "verify, sign, encrypt and decrypt an exported folder",
    "completion": "print a script that lets a shell complete all of this",
}
"""Each sub-command and its one-line help; the code is the module ``gptdist.cli.<name>``."""

MODULES = {"import": "import_weights", "resume-check": "resume_check"}
"""Modules that cannot be called as their command, whose name is no name in the language."""


def main(argv: list[str] | None = None) -> int:
    """Run ``gptdist`` and return its exit status: 0 done, 1 failed, 2 the input has to be mended."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv and argv[0] in COMMANDS else None
    parser = _parser(name)
    arguments = _parse(parser, argv)
    _say_shipped(name, arguments)
    try:
        return int(arguments.run(arguments) or 0)
    except GptDistError as error:
        for line in error.problems:
            print_error(name, line)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing is left to say, and Python must not try at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE


def _say_shipped(name: str | None, arguments: argparse.Namespace) -> None:
    """Say of a config that is not in the working folder which shipped file stands for it."""
    path = getattr(arguments, "config", None) or getattr(arguments, "recipe", None)
    if isinstance(path, Path) and not path.exists():
        from gptdist.config.shipped import shipped_file

        file = shipped_file(path)
        if file is not None:
            print(f"gptdist {name}: {path} is not in this folder, the shipped one is taken: {file}", file=sys.stderr)


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; overrides may stand behind options, which argparse has no way to say under sub-commands."""
    arguments, others = parser.parse_known_args(argv)
    is_override = [not other.startswith("-") and "=" in other for other in others]
    if not hasattr(arguments, "overrides") or not all(is_override):
        parser.parse_args(argv)  # says what is wrong, and ends
    if others:
        arguments.overrides = [*arguments.overrides, *others]
    return arguments


def words_problems(words: Sequence[str]) -> list[str]:
    """Return what is wrong with a command's words, by its parser and by its own look at them; reads no model."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            arguments = _parse(_parser(words[0]), list(words))
    except SystemExit:
        return [said.getvalue().strip().rpartition("\n")[2].partition("error: ")[2]]
    return list(arguments.check(arguments)) if hasattr(arguments, "check") else []


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with every command's arguments; imports the modules of all."""
    return _parser(*COMMANDS)


def _parser(*chosen: str | None) -> argparse.ArgumentParser:
    """Build the parser; only the chosen commands' modules are imported, so that ``--help`` stays fast."""
    parser = argparse.ArgumentParser(
        prog="gptdist",
        description="Pretrain GPT-style language models on many machines.",
        epilog="Exit status: 0 done, 1 failed, 2 the input has to be mended; all of them are in docs/exit_codes.md.",
    )
    parser.add_argument("--version", action="version", version=f"gptdist {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
        if name in chosen:
            import_module(f"gptdist.cli.{MODULES.get(name, name)}").add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
