"""Pages for users of other trainers: their tables name keys and commands that exist, their configs can run."""

import ast
import dataclasses
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from gptdist.cli.main import _parser, words_problems
from gptdist.config.load import load_config
from gptdist.config.prep import PrepConfig
from gptdist.config.run import RunConfig
from gptdist.config.section import Section, _sections_in
from tests.support.ranks import repository

PAGES = ["from_gpt_neox.md", "from_hf_trainer.md", "from_megatron_lm.md"]
NOT_OF_ARGUMENTS = {"EarlyStoppingCallback", "compute_metrics"}
"""Things of the Trainer that stand in the tables of its arguments."""


@dataclasses.dataclass(frozen=True)
class Row:
    head: str
    theirs: str
    ours: str
    remark: str


def text_of(page: str) -> str:
    return (repository() / "docs" / page).read_text()


def rows(page: str) -> list[Row]:
    """Return the rows of the tables that put an option beside ours."""
    found, head = [], ""
    lines = text_of(page).splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if following.startswith("| ---"):
            head = cells[0] if len(cells) == 3 and cells[1] == "here" else ""
        elif len(cells) == 3 and head and not line.startswith("| ---"):
            found.append(Row(head, *cells))
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def fields_at(config: type[Section], key: str) -> list[Any]:
    """Return the fields that a dotted key names; lists and alternatives of sections are looked through."""
    classes, fields = [config], []
    for part in key.split("."):
        fields = [one.model_fields[part] for one in classes if part in one.model_fields]
        classes = [inner for field in fields for inner in _sections_in(field.annotation)]
    return fields


def choices(annotation: Any) -> Iterator[str]:
    if typing.get_origin(annotation) is Literal:
        yield from (str(choice) for choice in typing.get_args(annotation))
    for inner in typing.get_args(annotation):
        if not isinstance(inner, str):
            yield from choices(inner)


def key_problem(item: str) -> str | None:
    """Return what is wrong with ``key`` or ``key: value``."""
    key, _, value = item.partition(": ")
    fields = [field for config in (RunConfig, PrepConfig) for field in fields_at(config, key)]
    if not fields:
        return f"`{item}`: no such key"
    allowed = [choice for field in fields for choice in choices(field.annotation)]
    if value and allowed and value not in allowed:
        return f"`{item}`: the key takes {allowed}"
    return None


def item_problem(item: str, cell: str) -> str | None:
    if item.startswith("gptdist "):
        words = shlex.split(item)[1:]
        problems = words_problems(words) if len(words) > 1 else []
        return f"`{item}`: {problems}" if problems else None
    if item.startswith("--"):
        command = re.search(r"of gptdist ([a-z-]+) ([a-z-]+)", cell)
        assert command, cell
        chosen = _parser(command[1])._subparsers._group_actions[0].choices[command[1]]  # type: ignore[union-attr, index]
        options = chosen._subparsers._group_actions[0].choices[command[2]]._option_string_actions
        return None if item in options else f"`{item}`: no option of {command[0]}"
    return key_problem(item)


@pytest.mark.parametrize("page", PAGES)
def test_every_row_has_a_counterpart_or_says_what_instead(page: str) -> None:
    found = rows(page)
    assert 40 <= len(found) <= 140
    bad = []
    for row in found:
        items = quoted(row.ours)
        if row.ours == "none":
            continue
        if not items:
            bad.append(f"{row.theirs}: neither key nor command in '{row.ours}'")
        bad += [problem for item in items if (problem := item_problem(item, row.ours))]
        # keys in remarks are keys too: a section's name and a dot
        remarks = [item for item in quoted(row.remark) if re.match(r"(model|data|training|schedule|memory)\.\w", item)]
        bad += [problem for item in remarks if (problem := key_problem(item))]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("page", PAGES)
def test_options_stand_once(page: str) -> None:
    theirs = [option for row in rows(page) for option in quoted(row.theirs)]
    twice = {option for option in theirs if theirs.count(option) > 1} - {"hidden_size", "weight_decay", "vocab_size"}
    assert not twice


@pytest.mark.parametrize("page", PAGES)
def test_defaults_are_ours(page: str) -> None:
    told = [(row, found[1]) for row in rows(page) if (found := re.search(r"default here `([^`]+)`", row.remark))]
    assert len(told) >= 8
    for row, value in told:
        key = quoted(row.ours)[0].partition(": ")[0]
        default = next(field for config in (RunConfig, PrepConfig) for field in fields_at(config, key)).default
        assert yaml.safe_load(value) == default or float(value) == default, f"{row.theirs}: {default}"


def test_fields_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    named = {
        item for row in rows("from_hf_trainer.md") if row.head == "TrainingArguments" for item in quoted(row.theirs)
    }
    assert len(named) > 60
    assert named - known == NOT_OF_ARGUMENTS


def our_config(page: str) -> str:
    blocks = re.findall(r"```yaml\n(name: .*?)```", text_of(page), flags=re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def load_ours(page: str, folder: Path) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(our_config(page))
    return load_config(RunConfig, path)


@pytest.mark.parametrize("page", PAGES)
def test_our_config_can_run(page: str, tmp_path: Path) -> None:
    config = load_ours(page, tmp_path)
    assert config.launch.ranks_per_node == 8
    assert config.problems(world_size=16) == []


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def their_values(page: str) -> dict[str, Any]:
    """Return the options that their config sets, by the names of the tables."""
    text = text_of(page)
    if page == "from_gpt_neox.md":
        block = re.search(r"```yaml\n(\{.*?)```", text, flags=re.DOTALL)
        assert block
        return dict(flat(yaml.safe_load(block[1])))
    if page == "from_megatron_lm.md":
        block = re.search(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        assert block
        options = re.findall(r"(--[a-z0-9-]+) ([^-\s\\]\S*)", block[1])
        return {name: yaml.safe_load(value) for name, value in options}
    block = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert block
    calls = [node for node in ast.walk(ast.parse(block[1])) if isinstance(node, ast.Call)]
    constants = [word for call in calls for word in call.keywords if isinstance(word.value, ast.Constant)]
    return {word.arg: word.value.value for word in constants if word.arg}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("page", "least"), [(PAGES[0], 20), (PAGES[1], 17), (PAGES[2], 18)])
def test_what_is_the_same_is_the_same_in_both_configs(page: str, least: int, tmp_path: Path) -> None:
    """A row that says 'same' carries its number over: theirs in their config is ours in ours."""
    theirs, ours = their_values(page), load_ours(page, tmp_path)
    compared = 0
    for row in rows(page):
        keys = quoted(row.ours)
        for option in quoted(row.theirs) if row.remark.startswith("same") and len(keys) == 1 else []:
            if option in theirs:
                value: Any = ours
                for part in keys[0].split("."):
                    value = getattr(value, part)
                assert value == pytest.approx(float(theirs[option])), f"{option}: {theirs[option]}, {keys[0]}: {value}"
                compared += 1
    assert compared >= least, f"{compared} rows of {page} are in both configs"


def test_batches_and_rates_are_converted(tmp_path: Path) -> None:
    neox, trainer, megatron = (load_ours(page, tmp_path) for page in PAGES)
    theirs = their_values(PAGES[0])
    assert neox.schedule.warmup_steps == theirs["warmup"] * theirs["lr_decay_iters"]
    assert neox.schedule.min_lr_ratio * neox.optimizer.lr == pytest.approx(theirs["min_lr"])
    assert neox.data.eval_samples == theirs["eval_iters"] * theirs["train_batch_size"]
    theirs = their_values(PAGES[1])
    sequences = theirs["per_device_train_batch_size"] * theirs["gradient_accumulation_steps"]
    assert trainer.batch.global_batch_size == sequences * trainer.launch.ranks_per_node
    theirs = their_values(PAGES[2])
    assert megatron.schedule.warmup_steps == theirs["--lr-warmup-fraction"] * theirs["--lr-decay-iters"]
    assert megatron.schedule.min_lr_ratio * megatron.optimizer.lr == pytest.approx(float(theirs["--min-lr"]))
    assert megatron.data.eval_samples == theirs["--eval-iters"] * theirs["--global-batch-size"]


@pytest.mark.parametrize(
    ("item", "cell", "match"),
    [
        ("model.n_layers", "", "no such key"),
        ("model.activation: relu", "", "the key takes"),
        ("data.sources.path.name", "", "no such key"),
        ("gptdist launch local", "", "required"),
        ("--no-such", "`--no-such` of gptdist data adopt", "no option"),
    ],
)
def test_the_check_can_fail(item: str, cell: str, match: str) -> None:
    assert match in (item_problem(item, cell) or "")
