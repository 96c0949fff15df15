"""A disk that is full, a real one: a small file system in memory that the test mounts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

DISK_BYTES = 2_000_000
"""Room for some three checkpoints of the small model on two ranks."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _fill(disk: Path) -> None:
    """Leave less room than a checkpoint takes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "others").open("wb") as file:
        file.write(b"\1" * (free - 200_000))


def train_on_a_full_disk(tree: dict[str, Any], until: int) -> tuple[int, str, list[str]]:
    """Train, saving at every second step; the disk is full while steps 3 to 6 are done, and again from step 9 on.

    Return the last step, what ended this rank, and the names in the folder after step 6.
    """
    import torch.distributed as dist

    from gptdist.errors import CheckpointError
    from gptdist.train.loop import save, train_step

    run, names = open_run(tree), []
    disk = run.config.checkpoints_folder
    try:
        while run.state.step < until:
            run.state.advance(train_step(run))
            if run.state.step % 2 == 0:
                save(run, is_final=run.state.step == until)
            if run.state.step in (2, 6, 8):
                run.saver.settle()
                if run.state.step == 6:
                    names = sorted(path.name for path in disk.iterdir())
                dist.barrier()
                if dist.get_rank() == 0:
                    (disk / "others").unlink() if run.state.step == 6 else _fill(disk)
                dist.barrier()
    except CheckpointError as error:
        return run.state.step, str(error), names
    return run.state.step, "", names


def test_training_goes_on_and_saves_again_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    layout = TestedLayout(2, 1, 1)
    tree = run_tree(tmp_path, **layout.sections(), training={"train_steps": 10})
    for step, said, names in run_ranks(2, train_on_a_full_disk, tree, 10):
        assert step == 10, "training went on to the last step"
        assert names == ["latest", "others", "step_00000002"], "what was half written is removed"
        assert "step_00000010: not written (rank 0: [Errno 28] No space left on device" in said
        assert "older checkpoints are untouched; it was to be the last one of this run, free space" in said
    events = [event for event in read_json_lines(tmp_path / "run" / "ledger.jsonl") if event["event"] != "start"]
    assert [(event["event"], event["step"]) for event in events] == [
        ("checkpoint", 2),
        ("checkpoint_failed", 4),
        ("checkpoint_failed", 6),
        ("checkpoint", 8),
        ("checkpoint_failed", 10),
    ]
    assert [event.get("in_a_row") for event in events] == [None, 1, 2, None, 1]
    assert "rank 1: [Errno 28] No space left on device" in events[1]["reason"]
    newest, passed_over = newest_whole(small_disk)
    assert (newest, passed_over) == (small_disk / "step_00000008", [])


def test_too_many_failures_in_a_row_end_the_run(small_disk: Path, tmp_path: Path) -> None:
    tree = run_tree(tmp_path, checkpoints={"max_failed_saves": 2})
    ((step, said, _),) = run_ranks(1, train_on_a_full_disk, tree, 10)
    assert step == 6
    assert "2 saves in a row have failed, checkpoints.max_failed_saves is 2; free space or mend the disk" in said
    assert newest_whole(small_disk)[0] == small_disk / "step_00000002"
