"""``gptdist compress RECIPE``: make a smaller model of a trained one, stage by stage."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gptdist.compress.recipe import RecipeRecord, StageCommand
    from gptdist.config.recipe import RecipeConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.epilog = "The same command again goes on behind the last stage that was done."
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the recipe to replace")
    parser.add_argument("--dry-run", action="store_true", help="check the recipe, print its commands, and run nothing")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import shlex

    from gptdist.compress.recipe import RecipeRecord, stage_commands
    from gptdist.config.load import load_config
    from gptdist.config.recipe import RecipeConfig
    from gptdist.errors import EXIT_DONE, ConfigError

    recipe = load_config(RecipeConfig, arguments.recipe, arguments.overrides)
    commands = stage_commands(recipe)
    bad = [f"{arguments.recipe}: {problem}" for problem in _word_problems(commands)]
    record = RecipeRecord(recipe)
    bad += [f"{arguments.recipe}: {problem}" for problem in record.problems(commands)]
    if bad:
        raise ConfigError(bad)
    if arguments.dry_run:
        for command in commands:
            print(shlex.join(["gptdist", *command.words]))
        return EXIT_DONE
    for index, command in enumerate(commands):
        if record.is_done(index):
            print(f"== {command.stage.name}: done before, {command.output}", flush=True)
        elif status := _perform(index, command, record):
            return status
    return _compare(recipe, commands) if recipe.compare else EXIT_DONE


def _perform(index: int, command: "StageCommand", record: "RecipeRecord") -> int:
    """Run a stage; return its exit status."""
    # An output appears whole: where it is there, the stage was ended between that and its note.
    is_there = record.was_begun(index) and command.output.exists() and not command.can_go_on
    print(f"\n== {command.stage.name}", flush=True)
    if not is_there:
        record.begin(index, command)
        if status := _gptdist(command.words):
            return status
    record.finish(index, command)
    return 0


def _compare(recipe: "RecipeConfig", commands: "Sequence[StageCommand]") -> int:
    from gptdist.compress.recipe import COMPARED

    print("\n== compare", flush=True)
    models = [str(recipe.model), *(str(command.output) for command in commands)]
    return _gptdist(["compare", *models, "--html", str(recipe.output_dir / COMPARED)])


def _gptdist(words: "Sequence[str]") -> int:
    """Run a command in a process of its own, which lets go of all memory at its end; return its exit status."""
    import shlex
    import subprocess
    import sys

    print(f"$ gptdist {shlex.join(words)}", flush=True)
    return subprocess.run([sys.executable, "-m", "gptdist.cli.main", *words], check=False).returncode


def _word_problems(commands: "Sequence[StageCommand]") -> list[str]:
    """Return what the commands themselves would refuse of their options, before any of them has run for hours."""
    from gptdist.cli.main import words_problems

    return [
        f"stages[{index}] '{command.stage.name}': {problem}"
        for index, command in enumerate(commands)
        for problem in words_problems(command.words)
    ]
