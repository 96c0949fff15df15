"""docs/exit_codes.md against the constants and the code of the commands."""

import re

from gptdist import errors
from gptdist.cli.main import COMMANDS, MODULES, main, whole_parser
from tests.support.ranks import repository

PAGE = (repository() / "docs" / "exit_codes.md").read_text()
CONSTANTS = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
TRAINING = {"distill", "finetune", "launch"}
RUNS_OTHERS = {"compress"}


def _rows() -> dict[str, set[int]]:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d ]+) \|", PAGE, flags=re.MULTILINE)
    return {command: {int(word) for word in words.split()} for command, words in rows}


def test_the_table_of_statuses_holds_every_constant() -> None:
    rows = re.findall(r"^\| (\d+) \| `(EXIT_\w+)` \|", PAGE, flags=re.MULTILINE)
    assert {name: int(status) for status, name in rows} == CONSTANTS


def test_the_table_of_commands_is_what_their_code_returns() -> None:
    rows = _rows()
    assert set(rows) <= set(COMMANDS)
    for command in COMMANDS:
        names = (repository() / "gptdist" / "cli").glob(f"{MODULES.get(command, command)}*.py")
        code = "".join(path.read_text() for path in names)
        fails = "EXIT_FAILED" in code or command in TRAINING | RUNS_OTHERS
        assert (1 in rows.get(command, set())) == fails, command
        beyond = {CONSTANTS[name] for name in ("EXIT_STOPPED", "EXIT_REQUEUE", "EXIT_STALLED")}
        assert rows.get(command, set()) - {1} == (beyond if command in TRAINING | RUNS_OTHERS else set()), command


def test_no_command_writes_a_status_as_a_number() -> None:
    for path in (repository() / "gptdist" / "cli").glob("*.py"):
        assert not re.search(r"return 1\b|return 2\b|sys\.exit\(\d", path.read_text()), path


def test_help_names_the_page(capsys) -> None:
    assert "docs/exit_codes.md" in (whole_parser().epilog or "")
    assert main(["schema", "network"]) == errors.EXIT_DONE
