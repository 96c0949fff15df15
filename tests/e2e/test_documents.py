"""What README and docs say is true: their commands run, their paths exist."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptdist.cli.main import COMMANDS, _parser
from tests.support.ranks import repository

PAGES = ["README.md", *sorted(str(path.relative_to(repository())) for path in (repository() / "docs").glob("*.md"))]


EXECUTED = "console"
KILLED = 'console title="killed on the way"'
REFUSED = 'console title="is refused"'
MARKED = {
    KILLED: "run, and killed once it has saved",
    REFUSED: "run; ends with status 2 and says this",
    'console title="examples"': "more ways to call what tests run elsewhere",
    'console title="with files of your own"': "names what no demo has",
    'console title="takes minutes"': "",
    'console title="on a cluster"': "",
    'console title="what it prints"': "commands and output of a real run, shortened",
}
"""How a page says that the commands of a block are not simply run here, as those of a plain ``console`` block are."""
COMMAND = re.compile(r"\s*(\$ |(gptdist [a-z][a-z-]*|make [a-z]+|python -m [\w.]+|launch [a-z]+)( |$))")


def _blocks(page: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page: what stands behind the fence, and the text."""
    text = (repository() / page).read_text()
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def _steps(page: str) -> list[tuple[str, str]]:
    """Return what is done with a page, in its order: commands with their kind of block, files that it shows."""
    steps = []
    for kind, text in _blocks(page):
        if kind in (EXECUTED, KILLED):
            steps += [(kind, line.removeprefix("$ ")) for line in text.splitlines() if line.startswith("$ ")]
        elif file := re.fullmatch(r'yaml title="([\w.]+)"', kind):
            steps.append((file[1], text))
    return steps


def _all_commands(page: str) -> list[str]:
    """Return every ``gptdist`` command that a page shows in blocks, tables and sentences; lone words are mentions."""
    shown = [line.removeprefix("$ ") for kind, text in _blocks(page) if kind != REFUSED for line in text.splitlines()]
    text = (repository() / page).read_text()
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    shown = [re.sub(r"^timeout \S+ \S+ ", "", line) for line in shown]
    commands = [line for line in shown if re.fullmatch(r"gptdist [a-z-]+( .*)?", line)]  # 'gptdist launch: …' is said
    return [command for command in commands if len(command.split()) > 2]


@pytest.mark.parametrize("page", [page for page in PAGES if _steps(page)])
def test_commands_run_as_written(page: str, documented: Path) -> None:
    for kind, step in _steps(page):
        if kind == KILLED:
            _kill_once_saved(step, documented)
        elif kind == EXECUTED:
            done = _run(step, documented)
            assert done.returncode == 0, f"{page}: {step}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        else:
            (documented / kind).write_text(step)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}


def _run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )


def _kill_once_saved(command: str, folder: Path) -> None:
    """Do what ``timeout`` would, but when there is a checkpoint: how long that takes depends on the machine."""
    words = shlex.split(command)
    assert words[:2] == ["timeout", "--signal=KILL"]
    (run_dir,) = [word.partition("=")[2] for word in words if word.startswith("run_dir=")]
    process = subprocess.Popen(words[3:], cwd=folder, env=_environment(), stdout=subprocess.DEVNULL)
    while not list((folder / run_dir / "checkpoints").glob("step_*")):
        assert process.poll() is None, f"{command}: ended with {process.returncode} before it had saved"
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_or_says_why_not(page: str) -> None:
    for kind, text in _blocks(page):
        commands = [line for line in text.splitlines() if COMMAND.match(line)]
        assert not commands or kind == EXECUTED or kind in MARKED, (
            f"{page}: {commands[0]}: stands in a block that is not run; make it 'console', or one of {[*MARKED]}"
        )
        bare = [line for line in commands if not line.startswith("$ ") and kind in (EXECUTED, *MARKED)]
        assert not bare, f"{page}: {bare[0]}: begin it with '$ ', or it is taken for output"


def test_marks_that_nothing_has_are_dropped() -> None:
    used = {kind for page in PAGES for kind, _ in _blocks(page)}
    assert set(MARKED) <= used
    assert not [kind for kind in used if kind.startswith("console ") and kind not in MARKED]


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


@pytest.mark.parametrize("page", [page for page in PAGES if REFUSED in dict(_blocks(page))])
def test_a_documented_error_is_the_real_one(page: str, documented: Path) -> None:
    for kind, text in _blocks(page):
        if kind == REFUSED:
            command, *expected = text.splitlines()
            done = _run(command.removeprefix("$ "), documented)
            assert done.returncode == 2
            assert done.stderr.splitlines() == expected


def test_what_make_is_asked_for_is_there() -> None:
    targets = re.findall(r"^([a-z]+):", (repository() / "Makefile").read_text(), flags=re.MULTILINE)
    texts = [text for page in PAGES for _, text in _blocks(page)]
    shown = [target for text in texts for target in re.findall(r"^\$ make (\w+)", text, flags=re.MULTILINE)]
    assert shown
    assert set(shown) <= set(targets)
