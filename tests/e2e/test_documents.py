"""What README and docs say is true: their commands run, their paths exist."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gptdist.cli.main import COMMANDS, _parser
from tests.support.ranks import repository

PAGES = ["README.md", *sorted(str(path.relative_to(repository())) for path in (repository() / "docs").glob("*.md"))]


def _console_commands(page: str) -> list[str]:
    """Return the commands of a page's ``console`` blocks; each is run."""
    blocks = re.findall(r"```console\n(.*?)```", (repository() / page).read_text(), flags=re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def _all_commands(page: str) -> list[str]:
    """Return every ``gptdist`` command that a page shows in blocks, tables and sentences; lone words are mentions."""
    text = (repository() / page).read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    shown = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [line for line in shown if re.fullmatch(r"gptdist [a-z-]+( .*)?", line)]  # 'gptdist launch: …' is said
    return [command for command in commands if len(command.split()) > 2]


@pytest.mark.parametrize("page", [page for page in PAGES if _console_commands(page)])
def test_commands_run_as_written(page: str, documented: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    for command in _console_commands(page):
        done = subprocess.run(
            shlex.split(command), cwd=documented, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_these_options(page: str, capsys) -> None:
    for command in _all_commands(page):
        words = shlex.split(command)[1:]
        assert words[0] in COMMANDS, f"{page}: {command}"
        try:
            _parser(words[0]).parse_args(words)
        except SystemExit as done:
            raise AssertionError(f"{page}: {command}\n{capsys.readouterr().err}") from done


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    text = (repository() / page).read_text()
    named = re.findall(r"\b(?:gptdist|data_prep|launch|configs|tests|benchmarks|docs)/[\w./-]+", text)
    made = ("data/", "runs/", "export/")
    missing = [path for path in named if not path.startswith(made) and not (repository() / path.rstrip(".")).exists()]
    assert not missing, f"{page}: {missing}"
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert all(((repository() / page).parent / link).exists() for link in links), links


def test_readme_is_what_ci_runs() -> None:
    assert "make lint test" in (repository() / ".ci" / "run").read_text()
    assert "make test" in (repository() / "README.md").read_text()


def test_every_deliverable_of_the_tree_is_there() -> None:
    for name in ("launch", "gptdist", "data_prep", "tests", "configs", "benchmarks", "docs"):
        assert (repository() / name).is_dir()
    for name in ("pyproject.toml", "Makefile", "README.md", "LICENSE", "constraints.txt", ".ci/run"):
        assert (repository() / name).is_file()


def test_a_documented_error_is_the_real_one(documented: Path) -> None:

    text = (repository() / "README.md").read_text()
    command = next(line for line in text.splitlines() if "micro_batchsize" in line and line.startswith("$ "))
    expected = [line for line in text.splitlines() if line.startswith("gptdist launch: error: ")]
    with contextlib.chdir(documented):
        done = subprocess.run(
            [sys.executable, "-m", "gptdist.cli.main", *shlex.split(command)[2:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == expected
