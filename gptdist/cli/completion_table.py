"""What can be typed behind ``gptdist``: commands, options, what each value is, and keys of configs.

Kinds of values, as the scripts in ``shells/`` read them: ``none``; ``dir``, ``file`` and ``yaml`` are paths;
``@a,b`` is one of these words; ``keys-run`` (``keys-prep``, ``keys-recipe``) are overrides of that kind of config. A
``*`` behind it: any number of them. ``-`` is an option without a value.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("RUN", "DIR", "FOLDER", "OUT", "WORK", "OTHER", "PATH", "MODEL", "CHECKPOINT", "SOURCE", "A B")
"""Metavariables, or what they begin with, of folders: run, checkpoint, dataset, exported model."""

CONFIGS = ("config", "recipe", "constants")
"""Destinations of YAML files."""

OTHER_KEYS = {"prep run": "prep", "compress": "recipe"}
"""Commands whose overrides are not those of a run config."""


@dataclass(frozen=True)
class Entry:
    """A word, what its value is, and what it is for."""

    word: str
    kind: str
    text: str

    def line(self) -> str:
        """Return it as one word of a script's table."""
        return f"{self.word}:{self.kind}:{self.text}"


@dataclass(frozen=True)
class Command:
    """A command or sub-command: ``path`` is its words behind ``gptdist``."""

    path: str
    subs: tuple[Entry, ...]
    options: tuple[Entry, ...]
    positionals: tuple[str, ...]


def walk(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Command]:
    """Yield the command that ``parser`` parses and all below it."""
    subs: list[Entry] = []
    below: list[Command] = []
    options: list[Entry] = []
    positionals: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {one.dest: one.help or "" for one in action._choices_actions}
            for name, inner in action.choices.items():
                subs.append(Entry(name, "-", texts.get(name, "")))
                below += walk(inner, f"{path} {name}".strip())
        elif action.option_strings:
            takes_none = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
            kind = "-" if takes_none else value_kind(action, path)
            options += [Entry(flag, kind, _plain(action.help, action)) for flag in action.option_strings]
        else:
            count = action.nargs if isinstance(action.nargs, int) else 1
            positionals += [value_kind(action, path)] * count
    yield Command(path, tuple(subs), tuple(options), tuple(positionals))
    yield from below


def value_kind(action: argparse.Action, path: str) -> str:
    """Return the kind of an argument's value."""
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    many = "*" if action.nargs in ("*", "+") else ""
    if action.choices is not None:
        return "@" + ",".join(str(choice) for choice in action.choices) + many
    if metavar.lower().startswith("key=value"):
        return f"keys-{'prep' if action.dest == 'prep' else OTHER_KEYS.get(path, 'run')}{many}"
    if action.dest in CONFIGS:
        return f"yaml{many}"
    if metavar.startswith(FOLDERS) or action.dest == "path":
        return f"dir{many}"
    return ("file" if action.type is Path else "none") + many


def keys(schema: dict[str, Any]) -> list[Entry]:
    """Return every key of a config by its dotted name; ``schema`` is what ``json_schema`` makes of its section."""
    return list(_keys(schema, schema, ""))


def _keys(schema: dict[str, Any], whole: dict[str, Any], prefix: str) -> Iterator[Entry]:
    for name, one in schema["properties"].items():
        if prefix + name == "base":
            continue  # of files alone
        choices = _alternatives(one)
        sections = [inner for inner in choices if "$ref" in inner]
        kind = _key_kind([inner for inner in choices if "$ref" not in inner])
        if not sections or kind != "none":
            yield Entry(prefix + name, kind, _first_sentence(one.get("description", "")))
        for inner in sections:
            yield from _keys(whole["definitions"][inner["$ref"].rpartition("/")[2]], whole, f"{prefix}{name}.")


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of which a value fulfils one; references are not followed."""
    parts = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    return [schema] if parts is None else [inner for part in parts for inner in _alternatives(part)]


def _key_kind(choices: list[dict[str, Any]]) -> str:
    words: list[str] = []
    for one in choices:
        if one.get("format") == "path":
            return "file"
        if one.get("type") == "boolean":
            words += ["true", "false"]
        elif one.get("type") == "null":
            words.append("null")
        elif "enum" in one or "const" in one:
            words += [str(value) for value in one.get("enum", [one.get("const")])]
        else:
            return "none"
    return "@" + ",".join(words) if words else "none"


def _first_sentence(text: str) -> str:
    first = text.split(". ", maxsplit=1)[0].split("; ", maxsplit=1)[0].rstrip(".")
    return first if len(first) <= 100 else first[:99] + "…"


def _plain(text: str | None, action: argparse.Action) -> str:
    """Return an argument's help with its default put in, as ``--help`` has it."""
    return (text or "") % {"default": action.default} if "%(" in (text or "") else (text or "").replace("%%", "%")
