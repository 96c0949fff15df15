"""A disk that is full, a real one: a small file system in memory that the test mounts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.telemetry.ledger import read_checked, read_json_lines
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

DISK_BYTES = 2_000_000
"""Room for some three checkpoints of the small model on two ranks."""

LEFT_BYTES = {2: 0, 8: 200_000}
"""After which step the disk is filled, and what is left: first, nothing for a line of the ledger either."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _fill(disk: Path, leave: int) -> None:
    """Leave so many bytes of room, less than a checkpoint takes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "others").open("wb") as file:
        file.write(b"\1" * (free - leave))


def train_on_a_full_disk(tree: dict[str, Any], until: int) -> tuple[int, str, list[str]]:
    """Train, saving at every second step; the disk is full while steps 3 to 6 are done, and almost from step 9 on.

    Return the last step, what ended this rank, and the names among the checkpoints after step 6.
    """
    import torch.distributed as dist

    from gptdist.errors import CheckpointError
    from gptdist.train.loop import log_step, save, train_step

    run, names = open_run(tree), []
    disk = run.config.folder
    try:
        while run.state.step < until:
            result = train_step(run)
            run.state.advance(result)
            log_step(run, result)
            if run.state.step % 2 == 0:
                save(run, is_final=run.state.step == until)
            if run.state.step in (2, 6, 8):
                run.saver.settle()
                if run.state.step == 6:
                    names = sorted(path.name for path in run.config.checkpoints_folder.iterdir())
                dist.barrier()
                if dist.get_rank() == 0:
                    (disk / "others").unlink() if run.state.step == 6 else _fill(disk, LEFT_BYTES[run.state.step])
                dist.barrier()
    except CheckpointError as error:
        return run.state.step, str(error), names
    return run.state.step, "", names


def test_training_goes_on_and_saves_again_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    layout = TestedLayout(2, 1, 1)
    tree = run_tree(tmp_path, **layout.sections(), training={"train_steps": 10})
    for step, said, names in run_ranks(2, train_on_a_full_disk, tree, 10):
        assert step == 10, "training went on to the last step"
        assert names == ["latest", "step_00000002"], "what was half written is removed"
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
    checkpoints = small_disk / "checkpoints"
    assert newest_whole(checkpoints) == (checkpoints / "step_00000008", [])
    assert read_checked(tmp_path / "run" / "ledger.jsonl")[1:] == ([], [])
    rows = read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11)), "what waited is there"


def test_too_many_failures_in_a_row_end_the_run(small_disk: Path, tmp_path: Path) -> None:
    tree = run_tree(tmp_path, checkpoints={"max_failed_saves": 2})
    ((step, said, _),) = run_ranks(1, train_on_a_full_disk, tree, 10)
    assert step == 6
    assert "2 saves in a row have failed, checkpoints.max_failed_saves is 2; free space or mend the disk" in said
    assert newest_whole(small_disk / "checkpoints")[0] == small_disk / "checkpoints" / "step_00000002"
