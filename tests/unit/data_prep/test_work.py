"""Tasks appear whole or not at all, once; the plan survives the way to another process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_prep.document import Place
from data_prep.work import InputShard, Piece, Plan, Work, run_task
from tests.unit.data_prep.made_corpus import files_source, make_config


class Counting:
    """A step that notes how often it ran, and may fail half-way."""

    name = "counting"

    def __init__(self, fails: bool = False) -> None:
        self.runs = 0
        self.fails = fails

    def num_tasks(self, work: Work) -> int:
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        self.runs += 1
        (folder / "half").write_text("written")
        if self.fails:
            raise OSError(28, "No space left on device")
        return {"rank": place.rank, "b": 1, "a": 2}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    pieces = (Piece("a.txt", "a.txt", 5), Piece("b.txt", "b.txt", 6, begin=3, end=6))
    config = make_config(tmp_path / "out", files_source(tmp_path))
    plan = Plan(config, (InputShard(0, pieces), InputShard(0, pieces[:1], max_bytes=7)), {"counting": "counting-1"})
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    return Work(tmp_path)


def test_a_task_is_done_once(work: Work) -> None:
    step = Counting()
    for _ in range(2):
        run_task(work, step, Place(1, 2))
    assert step.runs == 1
    assert work.is_done("counting", 1)
    assert not work.is_done("counting", 0)
    assert list(work.marker("counting", 1)) == ["rank", "b", "a"], "the order of a marker has a meaning"


def test_a_failed_task_leaves_nothing_that_looks_finished(work: Work) -> None:
    with pytest.raises(OSError, match="No space left"):
        run_task(work, Counting(fails=True), Place(0, 2))
    assert not work.is_done("counting", 0)
    assert not work.task_folder("counting", 0).exists()
    step = Counting()
    run_task(work, step, Place(0, 2))
    assert step.runs == 1
    assert (work.task_folder("counting", 0) / "half").read_text() == "written"


def test_a_folder_without_a_marker_is_done_again(work: Work) -> None:
    folder = work.task_folder("counting", 0)
    folder.mkdir(parents=True)
    (folder / "stale").write_text("x")
    run_task(work, Counting(), Place(0, 2))
    assert sorted(path.name for path in folder.iterdir()) == ["done.json", "half"]
    assert json.loads((folder / "done.json").read_text())["rank"] == 0
