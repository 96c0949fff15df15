"""Uploads in the background: the store dies and comes back, the run rewinds or ends, and training goes on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.after_commit import Keeper
from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.remote_copy import RECORDS_FOLDER, fetch, is_there
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.config.checkpoints import CheckpointsConfig
from gptdist.errors import StoreError
from gptdist.telemetry.ledger import LEDGER_NAME, Ledger, read_json_lines
from tests.support.s3_server import BUCKET, SECRET, S3Server
from tests.support.step_folders import write_checkpoint

MANY_FILES = tuple(range(1, 24, 2))
DEADLINE_SECONDS = 60


def make_keeper(folder: Path, here: dict[str, Any] | None = None, **remote: Any) -> Keeper:
    tree = {"keep": here or {}, "remote": {"url": f"s3://{BUCKET}/runs", "retry_seconds": 0.05, **remote}}
    return Keeper(folder, CheckpointsConfig.from_tree(tree), "test", Ledger(folder.parent))


def events(folder: Path) -> list[tuple[str, Any]]:
    return [(event["event"], event.get("step")) for event in read_json_lines(folder.parent / "ledger.jsonl")]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Gate:
    """Lets an upload's files through one by one, so that a test can act between two of them."""

    def __init__(self, store: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_arrived, self.may_pass = threading.Event(), threading.Event()
        inner = RemoteStore.upload

        def upload(store: RemoteStore, source: Path, name: str) -> int:
            self.has_arrived.set()
            assert self.may_pass.wait(DEADLINE_SECONDS)
            return inner(store, source, name)

        monkeypatch.setattr(RemoteStore, "upload", upload)


def test_each_commit_is_uploaded_and_both_sides_keep_their_own(store: RemoteStore, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints, {"last": 1}, keep={"last": 2}) as keeper:
        for step in (10, 20, 30):
            keeper.after_commit(write_checkpoint(checkpoints, step))
            keeper.finish_upload()
    assert [path.name for path in step_folders(checkpoints)] == ["step_00000030"]
    assert store.step_names() == ["step_00000030", "step_00000020"]
    assert [step for event, step in events(checkpoints) if event == "checkpoint_uploaded"] == [10, 20, 30]
    (there,) = [event for event in read_json_lines(tmp_path / "ledger.jsonl") if "remote" in event["event"]]
    assert there["steps"] == [10]


def test_the_server_dies_during_an_upload_and_comes_back(tmp_path: Path, monkeypatch, caplog) -> None:
    """It comes back empty: what was there before the crash has to be sent again."""
    caplog.set_level("INFO")
    server = S3Server()
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    try:
        checkpoints = tmp_path / "checkpoints"
        folder = write_checkpoint(checkpoints, 10, cuts=MANY_FILES)
        with make_keeper(checkpoints, upload_attempts=20) as keeper:
            keeper.after_commit(folder)
            wait_until(lambda: len(server.client().find(BUCKET)) > 1)
            server.kill()
            wait_until(lambda: "upload of step 10 is tried again in" in caplog.text)
            server.start()
        store = RemoteStore(f"s3://{BUCKET}/runs", "test")
        assert is_there(store, folder)
        fetch(store, "step_00000010", tmp_path / "fetched")
    finally:
        server.kill()
    (uploaded,) = read_json_lines(tmp_path / "ledger.jsonl")
    assert uploaded["event"] == "checkpoint_uploaded"
    assert uploaded["attempts"] > 1
    assert SECRET not in caplog.text


def test_a_store_that_stays_away_is_a_warning(server: S3Server, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints, upload_attempts=2) as keeper:
        keeper.after_commit(write_checkpoint(checkpoints, 10))
    (failed,) = read_json_lines(tmp_path / "ledger.jsonl")
    assert (failed["event"], failed["step"], failed["attempts"]) == ("upload_failed", 10, 2)
    assert "Could not connect" in failed["problem"]
    assert "step 10 is not uploaded after 2 attempts: checkpoints.remote: " in caplog.text
    assert "training goes on" in caplog.text
    assert SECRET not in caplog.text + str(failed)


def test_a_ledger_that_is_not_taken_is_a_warning(store: RemoteStore, tmp_path: Path, monkeypatch, caplog) -> None:
    upload = RemoteStore.upload

    def refusing(self: RemoteStore, source: Path, name: str) -> int:
        if name == RECORDS_FOLDER:
            raise StoreError("no room for it")
        return upload(self, source, name)

    monkeypatch.setattr(RemoteStore, "upload", refusing)
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints, keep={"last": 1}) as keeper:
        for step in (10, 20):
            keeper.after_commit(write_checkpoint(checkpoints, step))
            keeper.finish_upload()
    assert [step for event, step in events(checkpoints) if event == "checkpoint_uploaded"] == [10, 20]
    assert store.step_names() == ["step_00000020"], "older ones are deleted nevertheless"
    assert "the ledger is not uploaded: no room for it; it goes with the next checkpoint" in caplog.text
    assert store.content(RECORDS_FOLDER, LEDGER_NAME) is None


def test_a_start_uploads_what_is_missing_there(store: RemoteStore, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    folder = write_checkpoint(checkpoints, 10)
    for _ in range(2):  # the second finds it there
        with make_keeper(checkpoints) as keeper:
            keeper.after_resume(10)
        assert is_there(store, folder)
    assert events(checkpoints) == [("checkpoint_uploaded", 10)]


def test_a_start_does_what_a_killed_attempt_could_not(store: RemoteStore, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        write_checkpoint(checkpoints, step)
    (checkpoints / "latest").write_text("step_00000020")
    (checkpoints / "latest.partial").write_text("step_0")
    with make_keeper(checkpoints, {"last": 2}) as keeper:
        keeper.after_resume(30)
    assert {path.name for path in checkpoints.iterdir()} == {"step_00000030", "step_00000020", "latest"}
    assert (checkpoints / "latest").read_text() == "step_00000030"


def test_a_start_ends_an_upload_that_was_killed_behind_the_manifest(store: RemoteStore, tmp_path: Path) -> None:
    """Only ``latest`` and the ledger were missing: nothing is sent twice, and both are there afterwards."""
    checkpoints = tmp_path / "checkpoints"
    folder = write_checkpoint(checkpoints, 20)
    with make_keeper(checkpoints) as keeper:
        keeper.after_resume(20)
    store.point_latest("step_00000010")
    store.remove_file(RECORDS_FOLDER, LEDGER_NAME)
    with make_keeper(checkpoints) as keeper:
        keeper.after_resume(20)
    assert store.latest() == "step_00000020"
    assert store.content(RECORDS_FOLDER, LEDGER_NAME) == (tmp_path / LEDGER_NAME).read_bytes()
    assert events(checkpoints) == [("checkpoint_uploaded", 20)]
    assert is_there(store, folder)


def test_a_newer_one_takes_the_place_of_one_that_waits(store: RemoteStore, tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    gate = Gate(store, monkeypatch)
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints, {"last": 1}) as keeper:
        keeper.after_commit(write_checkpoint(checkpoints, 10))
        assert gate.has_arrived.wait(DEADLINE_SECONDS)
        for step in (20, 30):
            keeper.after_commit(write_checkpoint(checkpoints, step))
            keeper.settle()
        assert [path.name for path in step_folders(checkpoints)] == ["step_00000030", "step_00000010"], "10 is in use"
        gate.may_pass.set()
    assert [path.name for path in step_folders(checkpoints)] == ["step_00000030"], "the end looks once more"
    assert store.step_names() == ["step_00000030", "step_00000010"]
    assert ("upload_replaced", 20) in events(checkpoints)
    assert "step 20 is not uploaded: the one before it is still on its way, and step 30 is newer" in caplog.text


def test_the_end_of_the_run_waits_no_longer_than_it_may(
    store: RemoteStore, tmp_path: Path, monkeypatch, caplog
) -> None:
    gate = Gate(store, monkeypatch)
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints, upload_timeout_seconds=0.1) as keeper:
        keeper.after_commit(write_checkpoint(checkpoints, 10))
        assert gate.has_arrived.wait(DEADLINE_SECONDS)
    assert events(checkpoints) == [("upload_unfinished", 10)]
    assert "the upload of step 10 did not end within 0.1 s" in caplog.text
    gate.may_pass.set()
    wait_until(lambda: store.content(RECORDS_FOLDER, LEDGER_NAME) is not None)  # the keeper waits 0.1 s only
    assert store.step_names() == ["step_00000010"]


def test_a_rewind_takes_back_what_is_there_and_on_its_way(store: RemoteStore, tmp_path: Path, monkeypatch) -> None:
    checkpoints = tmp_path / "checkpoints"
    with make_keeper(checkpoints) as keeper:
        for step in (10, 20):
            keeper.after_commit(write_checkpoint(checkpoints, step))
            keeper.finish_upload()
        gate = Gate(store, monkeypatch)
        keeper.after_commit(write_checkpoint(checkpoints, 30, cuts=MANY_FILES))
        assert gate.has_arrived.wait(DEADLINE_SECONDS)
        keeper.after_rewind(10)
        after = tmp_path / "after"
        again = write_checkpoint(after, 10, cuts=(2, 3), consumed_samples=240)
        keeper.after_commit(again)
        gate.may_pass.set()
    assert store.step_names() == ["step_00000010"]
    assert store.latest() == "step_00000010"
    assert is_there(store, again)
    keeper.after_commit(write_checkpoint(after, 20, consumed_samples=300))
    keeper.finish_upload()
    assert store.step_names() == ["step_00000020", "step_00000010"], "what comes after the rewind is wanted"
