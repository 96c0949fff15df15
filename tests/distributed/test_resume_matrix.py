"""From every layout of up to four ranks to every other: the same bits, and the same next step."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from tests.support.datasets import run_tree
from tests.support.equality import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.matrix import (
    ALL_LAYOUTS,
    GLOBAL_BATCH_SIZE,
    STEP,
    files_of,
    load_each,
    matrix_sections,
    save_again,
    storage_twin,
    train_source,
)
from tests.support.ranks import run_ranks

ONE_RANK = TestedLayout(1, 0, 1)


class Saved(NamedTuple):
    """One state, as each layout writes it."""

    folder: Path
    state_file: str
    next_step: tuple[int, float, float]
    by_layout: dict[TestedLayout, Path]
    """The checkpoint of each layout that keeps weights in a way of its own."""

    different: list[str]
    """Those among them that are not written alike, byte for byte; each stands for all that are."""


def _tree(folder: Path, name: str, layout: TestedLayout) -> dict[str, Any]:
    return run_tree(folder, run_dir=str(folder / name), **matrix_sections(layout))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("matrix")
    state_file = str(folder / "state.safetensors")
    (next_step,) = run_ranks(1, train_source, _tree(folder, "source", ONE_RANK), state_file)
    source = folder / "source" / "checkpoints" / f"step_{STEP:08d}"
    by_layout, different = {}, {}
    for layout in dict.fromkeys(map(storage_twin, ALL_LAYOUTS)):
        run_ranks(layout.world_size, save_again, _tree(folder, f"from-{layout}", layout), str(source))
        by_layout[layout] = folder / f"from-{layout}" / "checkpoints" / source.name
        assert not verify(by_layout[layout])
        different.setdefault(files_of(by_layout[layout]), str(by_layout[layout]))
    return Saved(folder, state_file, next_step, by_layout, list(different.values()))


def test_matrix_holds_every_layout() -> None:
    assert len(ALL_LAYOUTS) == len(set(ALL_LAYOUTS)) == 90


def test_ways_to_write_differ(saved: Saved) -> None:
    """Else the matrix would load the same files again and again."""
    assert len(saved.different) == 28
    assert len(CheckpointReader(Path(saved.different[0])).tensor_names) > 50


@pytest.mark.parametrize("layout", ALL_LAYOUTS, ids=str)
def test_resumes_from_every_layout(saved: Saved, layout: TestedLayout) -> None:
    """Weights and moments are bit-equal to what one rank had in memory; so is what this layout then saves itself."""
    tree = _tree(saved.folder, f"to-{layout}", layout)
    ranks = run_ranks(layout.world_size, load_each, tree, saved.different, saved.state_file)
    _, loss, norm = saved.next_step
    for found, steps in ranks:
        for checkpoint, (different, stands) in zip(saved.different, found, strict=True):
            assert not different, checkpoint
            assert stands == (STEP, STEP * GLOBAL_BATCH_SIZE, STEP), checkpoint
        assert [step for step, *_ in steps] == [STEP + 1, STEP + 1]
        assert [seen for _, seen, _ in steps] == pytest.approx([loss, loss], abs=LOSS_TOLERANCE)
        assert [seen for *_, seen in steps] == pytest.approx([norm, norm], rel=GRADIENT_TOLERANCE)
    own = saved.folder / f"to-{layout}" / "checkpoints" / f"step_{STEP:08d}"
    assert files_of(own) == files_of(saved.by_layout[storage_twin(layout)]), "what it stands for in this matrix"


@pytest.mark.parametrize("other", [TestedLayout(1, 1, 1), TestedLayout(2, 3, 1), TestedLayout(2, 2, 2)], ids=str)
def test_three_stages_and_back(tmp_path: Path, other: TestedLayout) -> None:
    """Four layers do not divide into them; six do."""
    stages = TestedLayout(3, 2, 1, pipeline_parallel_size=3)
    model = {"model": matrix_sections(stages)["model"] | {"num_layers": 6}}
    trees = [_tree(tmp_path, "run", layout) | model for layout in (stages, other)]
    whole = run_ranks(1, train_steps, _tree(tmp_path, "whole", ONE_RANK) | model, 6)[0]
    seen = [
        step
        for tree, until in ((trees[0], 2), (trees[1], 4), (trees[0], 6))
        for step in run_ranks(tree["launch"]["ranks_per_node"], train_steps, tree, until, until)[0]
    ]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in whole], abs=5e-6)
