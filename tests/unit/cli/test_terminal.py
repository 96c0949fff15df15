"""Colours on a real terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest

RED_ERROR = "gptdist config: \x1b[31merror:\x1b[0m "
PLAIN_ERROR = "gptdist config: error: "
VERDICTS = "from gptdist.cli.terminal import painted\nfor a in ('PASS  a', 'FAIL  b FAIL', 'a FAIL'): print(painted(a))"


def _said(code: list[str], environment: dict[str, str], *, on_terminal: bool) -> str:
    """Return what a command says on stderr and stdout, on a terminal or into a pipe."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    told = {**inherited, "TERM": "xterm", **environment}
    if not on_terminal:
        done = subprocess.run(code, env=told, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr
    outer, inner = pty.openpty()
    subprocess.run(code, env=told, stdin=subprocess.DEVNULL, stdout=inner, stderr=inner, check=False)
    os.close(inner)
    said = os.read(outer, 65536).decode()
    os.close(outer)
    return said.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("environment", "on_terminal", "is_red"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "", "TERM": "xterm"}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_errors_are_red_on_a_terminal_only(environment: dict[str, str], on_terminal: bool, is_red: bool) -> None:
    said = _said([sys.executable, "-m", "gptdist.cli.main", "config", "no.yaml"], environment, on_terminal=on_terminal)
    assert said.startswith(RED_ERROR if is_red else PLAIN_ERROR), repr(said)
    assert ("\x1b" in said) == is_red


def test_verdicts_at_the_beginning_of_a_line_are_green_or_red() -> None:
    code = [sys.executable, "-c", VERDICTS]
    coloured = "\x1b[32mPASS\x1b[0m  a\n\x1b[31mFAIL\x1b[0m  b FAIL\na FAIL\n"
    assert _said(code, {}, on_terminal=True) == coloured
    assert _said(code, {}, on_terminal=False) == "PASS  a\nFAIL  b FAIL\na FAIL\n"
