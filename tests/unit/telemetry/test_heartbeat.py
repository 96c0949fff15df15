"""A rank's heartbeat is read by another process, whatever has become of the rank."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptdist.telemetry.heartbeat import HEARTBEAT_DIR, Heartbeat, node_folder, read_beats


def test_what_a_rank_says_is_read(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, 3)
    begin = time.monotonic()
    (beat,) = read_beats(tmp_path)
    assert (beat.rank, beat.pid, beat.step, beat.phase, beat.progress) == (3, os.getpid(), 0, "start", 1)
    heartbeat.enter("forward_backward")
    heartbeat.step_done(7, 0.25)
    heartbeat.step_done(8, 0.5)
    (beat,) = read_beats(tmp_path)
    assert (beat.step, beat.phase, beat.work_seconds, beat.progress) == (8, "step", 0.75, 4)
    assert begin <= beat.since <= time.monotonic()


def test_it_is_read_of_a_rank_that_is_stopped_and_of_one_that_is_gone(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from gptdist.telemetry.heartbeat import Heartbeat\n"
        f"beat = Heartbeat(pathlib.Path({str(tmp_path)!r}), 0); beat.step_done(5, 1.0); beat.enter('data')\n"
        "print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == b"there\n"
        for number in (signal.SIGSTOP, signal.SIGKILL):
            rank.send_signal(number)
            (beat,) = read_beats(tmp_path)
            assert (beat.pid, beat.step, beat.phase) == (rank.pid, 5, "data")


def test_half_of_a_write_is_not_believed(tmp_path: Path) -> None:
    Heartbeat(tmp_path, 0).enter("data")
    path = tmp_path / "rank_00000"
    whole = path.read_bytes()
    path.write_bytes((7).to_bytes(8, "little") + whole[8:])  # its end is of the write before
    assert read_beats(tmp_path) == []
    path.write_bytes(whole[:20])
    assert read_beats(tmp_path) == []


def test_a_rank_without_a_folder_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEARTBEAT_DIR, raising=False)
    heartbeat = Heartbeat.of_environment(0)
    heartbeat.step_done(4, 1.0)
    assert (heartbeat.step, heartbeat.phase) == (4, "step")
    monkeypatch.setenv(HEARTBEAT_DIR, str(tmp_path / "beats"))
    node_folder(str(tmp_path / "beats")).mkdir()
    Heartbeat.of_environment(2)
    assert [beat.rank for beat in read_beats(node_folder(str(tmp_path / "beats")))] == [2]
