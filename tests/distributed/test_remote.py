"""A run that begins from its copies in a store: the same bits, and never a silent new beginning."""

import shutil
from pathlib import Path

import pytest

from gptdist.checkpoint.find import step_folders
from tests.support.datasets import GPT2, run_tree
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.ranks import run_ranks

SAVE, END = 3, 5
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


def tree_of(folder: Path, name: str, store: Path) -> dict:
    return run_tree(
        folder,
        model=GPT2 | DROPOUT,
        run_dir=str(folder / name),
        launch={"ranks_per_node": 2},
        checkpoints={"remote": {"url": f"file://{store}"}},
    )


def save_and_upload(tree: dict) -> list[tuple[int, float, float]]:
    """Train to the end with a checkpoint in between, and wait for its upload. Collective: every rank calls it."""
    run = open_run(tree)
    seen = step_until(run, END, SAVE)
    run.saver.finish()
    if run.keeper is not None:
        run.keeper.finish_upload()
    return seen


def test_a_run_goes_on_from_its_copy(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    whole = run_ranks(2, save_and_upload, tree_of(tmp_path, "here", store))[0]
    assert (store / "test/latest").read_text() == f"step_{SAVE:08d}"
    other = tree_of(tmp_path, "elsewhere", store)
    assert run_ranks(2, train_steps, other, END)[0] == whole[SAVE:], "floats are compared bit for bit"
    assert len(step_folders(tmp_path / "elsewhere/checkpoints")) == 1

    shutil.rmtree(store)
    assert run_ranks(2, train_steps, other, END)[0] == whole[SAVE:], "what is here is enough"
    with pytest.raises(
        AssertionError, match=r"CheckpointError: checkpoints.remote.url: file://.*/store does not exist"
    ):
        run_ranks(2, train_steps, tree_of(tmp_path, "nowhere", store), END)


def test_another_runs_copies_are_refused_before_they_are_fetched(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    tree = tree_of(tmp_path, "here", store)
    run_ranks(1, save_and_upload, tree)
    other = tree_of(tmp_path, "other", store) | {"model": GPT2 | {"num_layers": 3}}
    with pytest.raises(
        AssertionError, match=r"file://.*/store/test/step_00000003: model.num_layers: 2 → 3; a run keeps"
    ):
        run_ranks(1, train_steps, other, END)
    assert not (tmp_path / "other/checkpoints").exists()
