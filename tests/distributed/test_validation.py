"""Validation sets: measured at any time, they change nothing, and a resumed run measures what the whole one did."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptdist.config.run import RunConfig
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, run_tree, write_dataset
from tests.support.jobs import train_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SAVE, END = 3, 6
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
LAYOUTS = [TestedLayout(1, 1, 1), TestedLayout(2, 3, 1), TestedLayout(2, 2, 2, sequence_parallel=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    write_dataset(folder / "data" / "other", seed=9)
    return folder


def _tree(folder: Path, name: str, layout: TestedLayout, **changes: Any) -> dict[str, Any]:
    return run_tree(folder, model=GPT2 | DROPOUT, run_dir=str(folder / name), **layout.sections(), **changes)


def _sets(folder: Path) -> dict[str, Any]:
    path = folder / "data"
    return {
        "validation": [
            {"name": "other", "path": str(path / "other"), "samples": 3},
            {"name": "seen", "path": str(path / "prose"), "split": "train"},
            {"name": "again", "path": str(path / "prose")},
        ],
        "validation_set": "other",
    }


def _records(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_json_lines(run / "metrics.jsonl") if record["kind"] == kind]


def _measured(run: Path, attempt: int) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key != "attempt"}
        for record in _records(run, "validation")
        if record["attempt"] == attempt
    ]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_evaluation_disturbs_nothing_and_resume_repeats_it(folder: Path, layout: TestedLayout) -> None:
    plain, often = f"plain-{layout}", f"often-{layout}"
    run_ranks(layout.world_size, train_run, _tree(folder, plain, layout))
    tree = _tree(folder, often, layout, data=_sets(folder), intervals={"eval_steps": 1, "save_steps": SAVE})
    run_ranks(layout.world_size, train_run, tree)
    losses = [[record["loss"] for record in _records(folder / name, "train")] for name in (plain, often)]
    assert len(losses[0]) == END
    assert losses[0] == losses[1], "floats are compared bit for bit"

    shutil.rmtree(folder / often / "checkpoints" / f"step_{END:08d}")
    run_ranks(layout.world_size, train_run, tree)
    whole, resumed = _measured(folder / often, 1), _measured(folder / often, 2)
    assert [record["step"] for record in resumed] == list(range(SAVE + 1, END + 1))
    assert resumed == whole[SAVE:]


def test_the_numbers_are_those_of_each_set(folder: Path) -> None:
    tree = _tree(folder, "numbers", LAYOUTS[0], data=_sets(folder))
    run_ranks(1, train_run, tree)
    (found,) = _measured(folder / "numbers", 1)
    for name in ("other", "seen", "again", "prose"):
        assert found[f"perplexity_{name}"] == math.exp(found[f"loss_{name}"])
    assert found["loss_again"] == found["loss_prose"], "the same windows of the same split"
    assert len({found[f"loss_{name}"] for name in ("other", "seen", "prose", "code")}) == 4
    assert found["validation_loss"] == found["loss_other"]
    assert found["bits_per_byte"] == found["bits_per_byte_other"]

    without = _tree(folder, "without", LAYOUTS[0])
    run_ranks(1, train_run, without)
    (mixed,) = _measured(folder / "without", 1)
    weighted = 0.7 * mixed["loss_prose"] + 0.3 * mixed["loss_code"]
    assert mixed["validation_loss"] == pytest.approx(weighted, rel=1e-12)
    assert mixed["loss_prose"] == found["loss_prose"]


def test_a_set_is_the_mean_of_its_windows_alone(folder: Path) -> None:
    tree = _tree(folder, "windows", LAYOUTS[0], data=_sets(folder))
    run_ranks(1, train_run, tree)
    (found,) = _measured(folder / "windows", 1)
    losses = run_ranks(1, _window_losses, tree, "other")[0]
    assert len(losses) == 3
    assert found["loss_other"] == pytest.approx(sum(losses) / 3, rel=1e-6)


def _window_losses(tree: dict[str, Any], name: str) -> list[float]:
    """Return the loss of each window of a named set by the trained model in one process."""
    import torch

    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.data.sources import validation_sources
    from gptdist.train.inference import load_model, single_process_mesh

    config = RunConfig.from_tree(tree)
    model = load_model(CheckpointReader(resolve_checkpoint(config.folder)), single_process_mesh())
    source = {one.name: one for one in validation_sources(config)}[name]
    losses = []
    for row in source.rows(0, len(source.first_tokens)):
        tokens = torch.from_numpy(row).unsqueeze(0)
        with torch.no_grad():
            logits = model(tokens[:, :-1], torch.arange(tokens.shape[1] - 1).unsqueeze(0), None)
        losses.append(torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:]).item())
    return losses
