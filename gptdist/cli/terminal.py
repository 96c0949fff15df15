"""Colours, only where a person looks: on a terminal, and as the variables NO_COLOR and FORCE_COLOR say."""

import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

RED, GREEN, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"

_VERDICT = re.compile(r"^(PASS|FAIL|DAMAGED)\b")


def has_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether ``stream`` gets colours: not with NO_COLOR; else with FORCE_COLOR, or on a terminal that is not dumb."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return environment.get("TERM") != "dumb" and stream.isatty()


def painted(line: str) -> str:
    """Return a line for stdout: the verdict that it begins with is green or red where there are colours."""
    found = _VERDICT.match(line)
    if found is None or not has_colours(sys.stdout, os.environ):
        return line
    return f"{GREEN if found[1] == 'PASS' else RED}{found[1]}{PLAIN}{line[found.end() :]}"


def print_error(command: str | None, line: str) -> None:
    """Print a mistake of a user on stderr."""
    word = f"{RED}error:{PLAIN}" if has_colours(sys.stderr, os.environ) else "error:"
    print(f"gptdist {command}: {word} {line}", file=sys.stderr)
