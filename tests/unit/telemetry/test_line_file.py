"""Lines that a disk refuses."""

import json
import logging
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gptdist.telemetry import line_file
from gptdist.telemetry.line_file import LineFile
from gptdist.telemetry.metrics import Metrics, set_up_logging


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let this process write no file beyond ``num_bytes``: the system takes a part of a write, then refuses."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_refused_lines_wait_and_come_in_order_and_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lines.jsonl"
    lines = LineFile(path)
    lines.append({"number": 0})
    with files_up_to(20), caplog.at_level("WARNING"):
        lines.append({"number": 1})
        lines.append({"number": 2})
        assert path.read_bytes() == b'{"number": 0}\n', "no half line"
    assert len(caplog.messages) == 1, "told once"
    assert "lines.jsonl: lines wait in memory until the disk takes them ([Errno 28]" in caplog.messages[0]
    lines.append({"number": 3})
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_they_do_not_wait_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "MOST_WAITING", 3)
    lines = LineFile(tmp_path / "missing" / "lines.jsonl")
    lines.append({})
    lines.append({})
    with pytest.raises(FileNotFoundError):
        lines.append({})


def test_tensorboard_ends_where_the_disk_refuses_and_training_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's own thread ends with a traceback
    metrics = Metrics(tmp_path, 1, train_steps=9, first_step=0, tensorboard=True)
    with files_up_to(200), caplog.at_level("WARNING"), metrics:
        for step in range(1, 10):
            metrics.log("train", step, {"loss": 1.0})
    assert "tensorboard: no more events in this attempt ([Errno 27] File too large" in caplog.text
    metrics.log("train", 10, {"loss": 1.0})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 10


def test_a_log_on_a_full_disk_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is often a file."""
    set_up_logging(0)
    with (tmp_path / "log").open("w") as log, files_up_to(4):
        monkeypatch.setattr("sys.stdout", log)
        logging.getLogger("gptdist").warning("a line that finds no room")
        monkeypatch.undo()
    assert "File too large" in capsys.readouterr().err
