"""A real run and a real S3 server: killed during an upload, and begun anew on a machine that has nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.verify import verify
from gptdist.telemetry.ledger import read_json_lines
from tests.e2e.test_kill_and_resume import START_TIMEOUT_SECONDS, _finish, _kill_everything, _launch, _losses
from tests.support.datasets import run_tree
from tests.support.s3_server import BUCKET, SECRET, S3Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()


def _config(folder: Path, name: str, train_steps: int) -> Path:
    tree = run_tree(
        folder,
        name="test",
        run_dir=str(folder / name),
        training={"train_steps": train_steps},
        intervals={"log_steps": 1, "save_steps": 2},
        launch={"ranks_per_node": 2, "threads_per_rank": 1},
        checkpoints={
            "keep": {"last": 2},
            "remote": {"url": f"s3://{BUCKET}/runs", "keep": {"last": 2}, "retry_seconds": 0.1},
        },
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_killed_during_an_upload_and_begun_anew_elsewhere(server: S3Server, tmp_path: Path) -> None:
    files = server.client()
    config = _config(tmp_path, "here", 30)
    process = _launch(config)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not files.find(f"{BUCKET}/runs/test"):  # its first file has arrived
        assert process.poll() is None, config.with_suffix(".log").read_text()
        assert time.monotonic() < deadline
    _kill_everything(process)
    _finish(config)
    losses = _losses(config)
    assert set(losses) == set(range(1, 31))
    store = RemoteStore(f"s3://{BUCKET}/runs", "test")
    assert (store.latest(), store.step_names()[0]) == ("step_00000030", "step_00000030")
    kept = step_folders(tmp_path / "here/checkpoints")
    assert [path.name for path in kept] == ["step_00000030", "step_00000028"]
    events = [event["event"] for event in read_json_lines(tmp_path / "here/ledger.jsonl")]
    assert "checkpoint_uploaded" in events
    assert events.index("checkpoints_deleted") > 0
    written = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert not [path for path in [*written, config.with_suffix(".log")] if SECRET.encode() in path.read_bytes()]

    other = _config(tmp_path, "elsewhere", 32)
    log = _finish(other)
    assert f"fetching s3://{BUCKET}/runs/test/step_00000030" in log
    assert set(_losses(other)) == {31, 32}, "it went on from the copy"
    proven = audit(tmp_path / "elsewhere")
    assert not proven.problems
    assert [(one.number, one.kept_step) for one in proven.line][-2:] == [(2, 30), (3, 32)], "the ledger came along"
    assert all(not verify(folder) for folder in step_folders(tmp_path / "elsewhere/checkpoints"))
