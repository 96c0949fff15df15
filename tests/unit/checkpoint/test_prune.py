"""Deletion leaves what it must, spares what is read, and a kill at any instant harms nothing that has its name."""

import os
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from gptdist.checkpoint.after_commit import DELETED, Keeper
from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.hold import hold, unheld
from gptdist.checkpoint.prune import DELETED_PREFIX, Retention, delete_checkpoint
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.config.checkpoints import CheckpointsConfig
from gptdist.config.retention import KeepConfig
from gptdist.errors import CheckpointError
from gptdist.telemetry.ledger import Ledger, read_json_lines
from tests.support.step_folders import write_checkpoint

LAST = KeepConfig(last=2)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    for step in (10, 20, 30, 40):
        write_checkpoint(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def steps(checkpoints: Path) -> list[int]:
    return [step_of(folder) for folder in step_folders(checkpoints)]


def flip(folder: Path) -> None:
    path = folder / "rank_00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_no_rule_keeps_is_deleted(checkpoints: Path) -> None:
    sizes = {folder: sum(path.stat().st_size for path in folder.iterdir()) for folder in step_folders(checkpoints)}
    pruned = Retention(checkpoints, LAST).apply()
    assert [step_of(folder) for folder in pruned.deleted] == [10, 20]
    assert pruned.num_bytes == sum(sizes[folder] for folder in pruned.deleted)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_00000030", "step_00000040"]
    assert Retention(checkpoints, LAST).apply().deleted == []
    assert Retention(checkpoints, KeepConfig()).apply().deleted == []


@pytest.mark.parametrize("harm", [flip, lambda folder: (folder / "rank_00001.safetensors").unlink()])
def test_damage_is_found_before_anything_goes(checkpoints: Path, harm) -> None:
    """The newest is damaged, and one of those that ``last`` would count."""
    harm(checkpoints / "step_00000040")
    harm(checkpoints / "step_00000020")
    Retention(checkpoints, LAST).apply()
    assert steps(checkpoints) == [40, 30, 10]


def test_a_manifest_of_another_step_does_not_count(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "step_00000010", checkpoints / "step_00000050")
    Retention(checkpoints, KeepConfig(last=1)).apply()
    assert steps(checkpoints) == [50, 40]


def test_what_this_process_wrote_is_trusted_by_its_size(checkpoints: Path) -> None:
    retention = Retention(checkpoints, KeepConfig(last=1))
    retention.trust(checkpoints / "step_00000040")
    (checkpoints / "step_00000040" / "rank_00000.safetensors").write_bytes(b"torn")
    assert [step_of(folder) for folder in retention.sort().goes] == [20, 10]


def test_the_best_by_the_loss_of_their_own_step(tmp_path: Path) -> None:
    for step, loss, measured in ((10, 2.0, 10), (20, 1.0, 20), (30, 1.0, 20), (40, 1.5, 40), (50, 3.0, 50)):
        write_checkpoint(tmp_path, step, validation_loss=loss, validation_step=measured)
    Retention(tmp_path, KeepConfig(best=2)).apply()
    assert steps(tmp_path) == [50, 40, 20]


def test_one_that_is_read_stays_until_the_next_time(checkpoints: Path) -> None:
    reader = CheckpointReader(checkpoints / "step_00000010")
    pruned = Retention(checkpoints, LAST).apply()
    assert ([step_of(folder) for folder in pruned.in_use], steps(checkpoints)) == ([10], [40, 30, 10])
    assert reader.weight("x").shape == (6, 4)
    del reader
    Retention(checkpoints, LAST).apply()
    assert steps(checkpoints) == [40, 30]


def test_one_that_is_being_deleted_cannot_be_read(checkpoints: Path) -> None:
    folder = checkpoints / "step_00000010"
    with unheld(folder) as is_free:
        assert is_free
        with pytest.raises(CheckpointError, match="step_00000010: is being deleted; name a newer checkpoint"):
            CheckpointReader(folder)
    assert hold(checkpoints / "none") is None


def test_a_rewind_deletes_what_is_read_too(checkpoints: Path) -> None:
    folder = checkpoints / "step_00000040"
    held = hold(folder)
    assert not delete_checkpoint(folder)
    assert folder.exists()
    assert delete_checkpoint(folder, even_if_read=True)
    assert steps(checkpoints) == [30, 20, 10]
    assert held is not None


def test_left_overs_of_a_killed_deletion_go_at_the_next(checkpoints: Path) -> None:
    left_over = checkpoints / f"{DELETED_PREFIX}step_00000010"
    shutil.copytree(checkpoints / "step_00000010", left_over)
    assert delete_checkpoint(checkpoints / "step_00000010"), "another left-over of the same name is no hindrance"
    shutil.copytree(checkpoints / "step_00000020", left_over)
    (left_over / "manifest.json").unlink()
    assert steps(checkpoints) == [40, 30, 20]
    Retention(checkpoints, KeepConfig()).apply()
    assert not left_over.exists()


def _delete_all_but_one(checkpoints: Path) -> None:
    Retention(checkpoints, KeepConfig(last=1)).apply()


def test_killed_at_any_instant(tmp_path: Path) -> None:
    """What has a checkpoint's name is whole; the next deletion finishes the job."""
    interrupted = 0
    for attempt in range(6):
        checkpoints = tmp_path / str(attempt)
        for step in range(1, 41):
            write_checkpoint(checkpoints, step)
        process = get_context("fork").Process(target=_delete_all_but_one, args=(checkpoints,))
        process.start()
        while process.is_alive() and len(step_folders(checkpoints)) > 38 - 3 * attempt:
            time.sleep(0)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        interrupted += len(step_folders(checkpoints)) > 1
        for folder in step_folders(checkpoints):
            assert verify(folder) == []
        _delete_all_but_one(checkpoints)
        assert [path.name for path in checkpoints.iterdir()] == ["step_00000040"]
    assert interrupted > 1, "the kill came too late to prove anything"


def test_the_keeper_does_it_in_the_background_and_tells(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = CheckpointsConfig(keep=KeepConfig(last=1))
    with Keeper(checkpoints, config, "test", Ledger(checkpoints.parent)) as keeper:
        keeper.after_commit(checkpoints / "step_00000040")
    assert steps(checkpoints) == [40]
    (event,) = read_json_lines(checkpoints.parent / "ledger.jsonl")
    assert (event["event"], event["steps"]) == (DELETED, [10, 20, 30])
    assert event["bytes"] > 0
    assert "checkpoints: deleted step 10, 20, 30" in caplog.text


def test_a_folder_that_cannot_be_deleted_is_a_warning(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkpoints / f"{DELETED_PREFIX}x").write_text("a file, where only folders should be")
    config = CheckpointsConfig(keep=KeepConfig(last=1))
    with Keeper(checkpoints, config, "test", Ledger(checkpoints.parent)) as keeper:
        keeper.after_commit(checkpoints / "step_00000040")
    assert "older checkpoints cannot be deleted" in caplog.text
    assert "Not a directory" in read_json_lines(checkpoints.parent / "ledger.jsonl")[0]["problem"]
    assert steps(checkpoints) == [40, 30, 20, 10]
