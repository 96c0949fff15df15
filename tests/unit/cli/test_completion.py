"""Completion in real shells, against the parsers' own help and the configs' own loader."""

import argparse
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptdist.cli.completion import KEYED, SHELLS, script
from gptdist.cli.main import COMMANDS, main, whole_parser
from gptdist.cli.schema import section_of
from gptdist.config.source import apply_overrides, read_tree
from gptdist.errors import ConfigError
from tests.support.ranks import repository
from tests.support.shells import Zsh, bash_completions, fish_completions

COMMAND_OF = {"run": "config x.yaml", "prep": "prep run x.yaml", "recipe": "compress x.yaml"}
CONFIG_OF = {"run": "runs/llama-cpu.yaml", "prep": "data/demo.yaml", "recipe": "recipes/demo-cpu.yaml"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    return {shell: folder / shell for shell in SHELLS}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("configs", "runs/first", "data"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("configs/a.yaml", "configs/b.txt", "notes.txt", "prompts.txt"):
        (tmp_path / file).touch()
    return tmp_path


def _parsers(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _parsers(inner, f"{path} {name}")


def _told_options(parser: argparse.ArgumentParser) -> set[str]:
    """Return options by the help's text."""
    listed = re.findall(r"^  (-.*?)(?:  |$)", parser.format_help(), flags=re.MULTILINE)
    return {word.strip().split(" ")[0] for line in listed for word in line.split(", ")}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_every_command_and_option_is_offered(shell: str, scripts: dict[str, Path], place: Path) -> None:
    _need(shell)
    complete = {"bash": bash_completions, "fish": fish_completions}[shell]
    parsers = {f"gptdist{path} -": parser for path, parser in _parsers(whole_parser())}
    assert len(parsers) > len(COMMANDS) + 20
    found = complete(scripts[shell], list(parsers), place)
    for line, parser in parsers.items():
        assert set(found[line]) == _told_options(parser), line
    assert set(complete(scripts[shell], ["gptdist "], place)["gptdist "]) == set(COMMANDS)


EXPECTED = {
    "gptdist chec": ["checkpoint"],
    "gptdist checkpoint l": ["list"],
    "gptdist prep run --executor ": ["local", "ray", "slurm"],
    "gptdist prep run --executor local c": ["configs/"],
    "gptdist prep run --keep-work c": ["configs/"],
    "gptdist prep run configs/": ["configs/a.yaml"],
    "gptdist launch slurm --nodes 2 configs/": ["configs/a.yaml"],
    "gptdist audit ": ["configs/", "data/", "runs/"],
    "gptdist audit runs/": ["runs/first/"],
    "gptdist audit runs/first ": [],
    "gptdist checkpoint average runs/first runs/": ["runs/first/"],
    "gptdist generate runs/first --prompt-file p": ["prompts.txt"],
    "gptdist generate runs/first --prompt ": [],
    "gptdist config x.yaml model.hidden_s": ["model.hidden_size="],
    "gptdist config x.yaml batch.x=1 mode": ["model."],
    "gptdist config x.yaml model.moe": ["model.moe.", "model.moe="],
    "gptdist config x.yaml training.device=c": ["training.device=cpu", "training.device=cuda"],
    "gptdist config x.yaml training.keep_zeros=t": ["training.keep_zeros=true"],
    "gptdist config x.yaml data.tokenizer=n": ["data.tokenizer=notes.txt"],
    "gptdist demo --prep seed=1 tokenizer.kin": ["tokenizer.kind="],
    "gptdist demo --prep seed=1 -h model.hidden_s": ["model.hidden_size="],
    "gptdist prep run x.yaml tokenizer.kind=b": ["tokenizer.kind=bpe", "tokenizer.kind=byte"],
    "gptdist compress x.yaml comp": ["compare="],
    "gptdist nonsense ": [],
}
"""What is offered, as whole words."""


def _whole(line: str, words: list[str]) -> list[str]:
    """Return bash's words as whole ones: it breaks words at '='; and folders with the slash that readline adds."""
    before, equals, _ = line.rpartition(" ")[2].rpartition("=")
    return sorted(before + equals + word for word in words)


def test_bash(scripts: dict[str, Path], place: Path) -> None:
    found = bash_completions(scripts["bash"], list(EXPECTED), place)
    for line, expected in EXPECTED.items():
        assert _whole(line, found[line]) == [word.removesuffix("/") for word in expected], line
    equals = bash_completions(scripts["bash"], ["gptdist prep run --executor=s"], place)
    assert list(equals.values()) == [["slurm"]]


def test_fish(scripts: dict[str, Path], place: Path) -> None:
    _need("fish")
    found = fish_completions(scripts["fish"], list(EXPECTED), place)
    assert {line: sorted(words) for line, words in found.items()} == EXPECTED
    equals = fish_completions(scripts["fish"], ["gptdist prep run --executor=s"], place)
    assert list(equals.values()) == [["--executor=slurm"]]


def test_zsh(scripts: dict[str, Path], place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    _need("zsh")
    zsh = Zsh(scripts["zsh"], tmp_path_factory.mktemp("zsh"), place)
    typed = {
        "gptdist chec": "gptdist checkpoint ",
        "gptdist checkpoint l": "gptdist checkpoint list ",
        "gptdist checkpoint show runs --ag": "gptdist checkpoint show runs --against ",
        "gptdist prep run --executor s": "gptdist prep run --executor slurm ",
        "gptdist prep run --executor=s": "gptdist prep run --executor=slurm ",
        "gptdist prep run --keep-work configs/": "gptdist prep run --keep-work configs/a.yaml ",
        "gptdist audit ru": "gptdist audit runs/",
        "gptdist generate runs/first --prompt-file p": "gptdist generate runs/first --prompt-file prompts.txt ",
        "gptdist config x.yaml model.hidden_s": "gptdist config x.yaml model.hidden_size=",
        "gptdist config x.yaml mode": "gptdist config x.yaml model.",
        "gptdist config x.yaml training.device=cu": "gptdist config x.yaml training.device=cuda ",
        "gptdist config x.yaml data.tokenizer=n": "gptdist config x.yaml data.tokenizer=notes.txt ",
        "gptdist demo --prep seed=1 tokenizer.kin": "gptdist demo --prep seed=1 tokenizer.kind=",
        "gptdist compress x.yaml comp": "gptdist compress x.yaml compare=",
    }
    try:
        assert {line: zsh.tab(line) for line in typed} == typed
    finally:
        zsh.close()


@pytest.mark.parametrize("kind", KEYED)
def test_keys_are_those_that_the_loader_takes(kind: str, scripts: dict[str, Path], place: Path) -> None:
    tree = read_tree(repository() / "configs" / CONFIG_OF[kind])
    offered, open_prefixes = [], [""]
    while open_prefixes:
        lines = [f"gptdist {COMMAND_OF[kind]} {prefix}" for prefix in open_prefixes]
        words = [word for found in bash_completions(scripts["bash"], lines, place).values() for word in found]
        offered += [word.removesuffix("=") for word in words if word.endswith("=")]
        open_prefixes = [word for word in words if word.endswith(".")]
    assert len(offered) == len(set(offered))
    section = section_of(kind)
    whole = section.from_tree(tree).tree()
    missing = [key for key in _leaves(whole) if key not in offered]
    assert not missing
    for key in offered:
        try:
            section.from_tree(apply_overrides(whole, [f"{key}=nonsense"]))
        except ConfigError as error:
            assert "unknown key" not in str(error), key  # noqa: PT017 - any other complaint is of the value


def _leaves(tree: dict, prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        elif not isinstance(value, dict):
            yield prefix + name


def test_offered_values_are_legal(scripts: dict[str, Path], place: Path) -> None:
    whole = section_of("run").from_tree(read_tree(repository() / "configs/runs/llama-cpu.yaml")).tree()
    keys = [key for key in _leaves(whole) if not isinstance(whole.get(key), str)]
    found = bash_completions(scripts["bash"], [f"gptdist config x.yaml {key}=" for key in keys], place)
    paths = {path.name for path in place.iterdir()}
    checked = 0
    for key, words in zip(keys, found.values(), strict=True):
        for word in [] if set(words) == paths else words:
            section_of("run").from_tree(apply_overrides(whole, [f"{key}={word}"]))
            checked += 1
    assert checked > 60


def test_a_completion_takes_no_noticeable_time(scripts: dict[str, Path], place: Path) -> None:
    lines = [f"gptdist config x.yaml seed={number} mode" for number in range(20)]
    begin = time.perf_counter()
    bash_completions(scripts["bash"], lines, place)
    assert time.perf_counter() - begin < 20 * 0.3


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script("bash")


def _need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
