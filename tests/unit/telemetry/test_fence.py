"""A launch that was given up writes no more."""

import fcntl
from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import Progress
from gptdist.checkpoint.save import UnfinishedCheckpoint
from gptdist.errors import TrainingError
from gptdist.telemetry.fence import FIRST_LAUNCH, check_current, make_current
from gptdist.telemetry.ledger import Ledger
from gptdist.telemetry.rank_log import LOG_DIR
from gptdist.train.lock import lock_folder

GIVEN_UP = r"launch_0001: was given up, and launch_0002 goes on with the run; this rank writes no more and ends"


def test_only_the_newest_launch_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "logs" / "launch_0001", tmp_path / "logs" / "launch_0002"
    check_current()  # it was started by hand
    monkeypatch.setenv(LOG_DIR, str(first))
    check_current()  # nobody has said whose turn it is
    make_current(first)
    check_current()
    make_current(second)
    with pytest.raises(TrainingError, match=GIVEN_UP):
        check_current()
    monkeypatch.setenv(LOG_DIR, str(second))
    check_current()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["current"], "nothing else is left there"


def test_neither_ledger_nor_checkpoints_are_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newer launch is writing must not go either, as left-overs do."""
    logs, checkpoints = tmp_path / "logs", tmp_path / "checkpoints"
    progress = Progress(step=4, consumed_samples=32, consumed_tokens=1024, optimizer_step=4)
    old, new = (UnfinishedCheckpoint(checkpoints, progress, attempt) for attempt in ("old", "new"))
    ledger = Ledger(tmp_path)
    ledger.write("start")
    before = ledger.path.read_bytes()
    new.begin()
    monkeypatch.setenv(LOG_DIR, str(logs / "launch_0001"))
    make_current(logs / "launch_0002")
    with pytest.raises(TrainingError, match=GIVEN_UP):
        old.begin()
    with pytest.raises(TrainingError, match=GIVEN_UP):
        ledger.write("checkpoint")
    assert ledger.path.read_bytes() == before
    assert [path.name for path in checkpoints.iterdir()] == [new.folder.name]


def test_a_lock_that_a_given_up_rank_holds_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIRST_LAUNCH, "launch_0003")
    held = lock_folder(tmp_path)
    lock_folder(tmp_path).close()
    monkeypatch.setenv(FIRST_LAUNCH, "launch_0004")
    with pytest.raises(TrainingError, match="another job is training here; wait for it, stop it, or set another run_"):
        lock_folder(tmp_path)
    monkeypatch.delenv(FIRST_LAUNCH)
    with pytest.raises(TrainingError, match="another job is training here"):
        lock_folder(tmp_path)
    held.close()
    by_hand = lock_folder(tmp_path)
    with pytest.raises(TrainingError, match="another job is training here"):
        lock_folder(tmp_path)
    fcntl.flock(by_hand, fcntl.LOCK_UN)
    lock_folder(tmp_path).close()
    by_hand.close()
