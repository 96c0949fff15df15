"""Files that list the hosts of a job, as DeepSpeed reads them: ``host slots=N``, a host a line; ``#`` begins a comment.

The rule for slots: each host has exactly ``launch.ranks_per_node`` of them. With fewer, ranks would share a GPU; with
more, most often the config has been forgotten, and the rest of each host would stand idle for the whole run.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptdist.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:-]*[A-Za-z0-9_])?")
"""Names and addresses; what begins with '-' would be an option of ssh."""


@dataclass(frozen=True)
class Host:
    """A line of a hostfile."""

    name: str
    slots: int
    """Ranks that it has room for."""

    line: int
    """Number of the line, from 1."""


def read_hostfile(path: Path, *, ranks_per_node: int | None) -> tuple[Host, ...]:
    """Return the hosts of a file, in its order: the first is the head.

    Args:
        path: of the file.
        ranks_per_node: ``launch.ranks_per_node`` of the run; None: any slots will do.

    Raises:
        ConfigError: with all that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such hostfile; check the path"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); name a file of lines 'host slots=N'"]) from None
    hosts, problems = parse_hostfile(text, str(path))
    if ranks_per_node is not None:
        problems += slots_problems(hosts, str(path), ranks_per_node)
    if problems:
        raise ConfigError(problems)
    return tuple(hosts)


def parse_hostfile(text: str, origin: str) -> tuple[list[Host], list[str]]:
    """Return the hosts of a file's ``text``, and every problem with its lines, each beginning with ``origin``."""
    hosts: list[Host] = []
    problems: list[str] = []
    first_lines: dict[str, int] = {}
    num_entries = 0
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        num_entries += 1
        found = _line_problems(words)
        first = first_lines.setdefault(words[0].lower(), number)
        if first != number:
            found.append(f"{words[0]} is on line {first} already; name each host once, with all of its slots")
        problems += [f"{origin}:{number}: {problem}" for problem in found]
        if not found:
            hosts.append(Host(words[0], int(words[1].removeprefix("slots=")), number))
    if not num_entries:
        problems.append(f"{origin}: names no host; write a line 'host slots=N' for each")
    return hosts, problems


def _line_problems(words: Sequence[str]) -> list[str]:
    name, *others = words
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(f"'{name}' is no host name; write letters, digits, '.', '-' and '_', as ssh takes it")
    slots = [word.removeprefix("slots=") for word in others if word.startswith("slots=")]
    if len(slots) != 1:
        problems.append(f"{name} has {len(slots)} of 'slots=N'; write how many ranks it has room for, once")
    problems += [
        f"slots of {name} is '{count}'; write a whole number of at least 1"
        for count in slots
        if not re.fullmatch("0*[1-9][0-9]{0,5}", count)
    ]
    unknown = [word for word in others if not word.startswith("slots=")]
    if unknown:
        problems.append(f"unknown words '{' '.join(unknown)}' behind {name}; a line is 'host slots=N'")
    if not problems and not others[0].startswith("slots="):
        problems.append(f"'slots=N' does not follow {name}; a line is 'host slots=N'")
    return problems


def slots_problems(hosts: Sequence[Host], origin: str, ranks_per_node: int) -> list[str]:
    """Return where slots are not those that the run uses, a line for each other number."""
    by_slots: defaultdict[int, list[Host]] = defaultdict(list)
    for host in hosts:
        if host.slots != ranks_per_node:
            by_slots[host.slots].append(host)
    problems = []
    for slots, wrong in by_slots.items():
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        advice = f"set launch.ranks_per_node={slots}" if len(wrong) == len(hosts) else "write them alike on every line"
        problems.append(
            f"{origin}:{wrong[0].line}: {wrong[0].name}{others}: slots={slots}, but launch.ranks_per_node is "
            f"{ranks_per_node} on every host; {advice}, or leave hosts with another number out"
        )
    return problems
