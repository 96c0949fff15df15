"""``gptdist completion SHELL``: a script that completes commands, options, files and keys of configs."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptdist.cli.completion_table import Command, Entry

SHELLS = ("bash", "zsh", "fish")

KEYED = ("run", "prep", "recipe")
"""Kinds of config that have overrides."""

PLACE = "@TABLE@\n"
"""Where the table goes in a script of ``shells/``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.description = "Print a script for a shell; docs/shell.md says where it goes. It starts no Python when used."
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    print(script(arguments.shell), end="")


def script(shell: str) -> str:
    """Return the script of a shell: its program in ``shells/`` with a table of all that can be typed."""
    from gptdist.cli.completion_table import keys, walk
    from gptdist.cli.main import whole_parser
    from gptdist.cli.schema import KINDS, section_of
    from gptdist.config.json_schema import json_schema

    commands = list(walk(whole_parser()))
    known = {kind: keys(json_schema(section_of(kind), KINDS[kind])) for kind in KEYED}
    shells = Path(__file__).parent / "shells"
    program = (shells / f"gptdist.{shell}").read_text(encoding="utf-8")
    if shell == "fish":
        table = fish_table(commands, known)
    else:  # bash and zsh look an option up alike
        table = f"{posix_table(commands, known)}\n{(shells / 'option.sh').read_text(encoding='utf-8')}"
    assert program.count(PLACE) == 1, f"{shell}: one place for the table"
    return program.replace(PLACE, table)


def posix_table(commands: "Iterable[Command]", known: "dict[str, list[Entry]]") -> str:
    """Return the table as bash and zsh read it: a function that sets arrays by case."""
    lines = ["_gptdist_command() {", "  gd_subs=() gd_options=() gd_values=()", '  case "$1" in']
    for one in commands:
        values = " ".join(_quoted(kind) for kind in one.positionals)
        lines += [
            f"  {_quoted(one.path)})",
            f"    gd_subs=({_words(one.subs)})",
            f"    gd_options=({_words(one.options)})",
            f"    gd_values=({values})",
            "    ;;",
        ]
    lines += ["  esac", "}", "", "_gptdist_keys() {", "  gd_keys=()", '  case "$1" in']
    for kind, entries in known.items():
        lines += [f"  {kind})", f"    gd_keys=({_words(entries)})", "    ;;"]
    return "\n".join([*lines, "  esac", "}", ""])


def fish_table(commands: "Iterable[Command]", known: "dict[str, list[Entry]]") -> str:
    """Return the table as fish reads it."""
    lines = ["function __gptdist_command --no-scope-shadowing --argument-names gd_path"]
    lines += ["  set gd_subs", "  set gd_options", "  set gd_values", '  switch "$gd_path"']
    for one in commands:
        values = " ".join(_fish_quoted(kind) for kind in one.positionals)
        lines += [
            f"  case {_fish_quoted(one.path)}",
            f"    set gd_subs {_fish_words(one.subs)}",
            f"    set gd_options {_fish_words(one.options)}",
            f"    set gd_values {values}",
        ]
    lines += ["  end", "end", "", "function __gptdist_keys --argument-names kind", '  switch "$kind"']
    for kind, entries in known.items():
        lines += [f"  case {kind}", f"    printf '%s\\n' {_fish_words(entries)}"]
    return "\n".join([*lines, "  end", "end", ""])


def _words(entries: "Iterable[Entry]") -> str:
    return " ".join(_quoted(one.line()) for one in entries)


def _fish_words(entries: "Iterable[Entry]") -> str:
    return " ".join(_fish_quoted(one.line()) for one in entries)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
