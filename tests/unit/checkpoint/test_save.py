"""The steps of a save on the disk, without ranks."""

import threading
from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import Progress
from gptdist.checkpoint.save import UnfinishedCheckpoint

PROGRESS = Progress(step=4, consumed_samples=32, consumed_tokens=1024, optimizer_step=4)


def test_a_rank_whose_record_does_not_come_is_named(tmp_path: Path) -> None:
    target = UnfinishedCheckpoint(tmp_path / "checkpoints", PROGRESS, "a1")
    target.begin()
    (target.folder / "rank_00000.json").write_text("{}")
    with pytest.raises(TimeoutError, match=r"rank 1 has written nothing that rank 0 sees within 0.05 s; .* all ranks"):
        target.wait_for_records(2, 0.05, threading.Event())
    (target.folder / "rank_00001.json").write_text("{}")
    assert target.wait_for_records(2, 0.05, threading.Event())


def test_nobody_waits_for_a_rank_that_has_given_up(tmp_path: Path) -> None:
    target = UnfinishedCheckpoint(tmp_path / "checkpoints", PROGRESS, "a1")
    target.begin()
    given_up = threading.Event()
    given_up.set()
    assert not target.wait_for_records(1, 60.0, given_up)
    target.discard()
    assert not target.folder.exists()


def test_a_rank_of_an_attempt_that_is_gone_writes_elsewhere(tmp_path: Path) -> None:
    stale = UnfinishedCheckpoint(tmp_path / "checkpoints", PROGRESS, "a1")
    stale.begin()
    fresh = UnfinishedCheckpoint(tmp_path / "checkpoints", PROGRESS, "b2")
    fresh.begin()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [".partial-step_00000004-b2"]
    with pytest.raises(FileNotFoundError):
        (stale.folder / "rank_00000.json").write_text("{}")
    assert fresh.final == stale.final == tmp_path / "checkpoints" / "step_00000004"
