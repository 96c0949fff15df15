"""Copies in a real S3 server: whole or not taken, and nothing there leads out of the folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.remote_copy import fetch, is_there, send
from gptdist.checkpoint.remote_prune import RemoteRetention
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.start_from import newest_anywhere
from gptdist.checkpoint.verify import verify
from gptdist.config.retention import KeepConfig
from gptdist.errors import CheckpointError, StoreError
from tests.support.s3_server import BUCKET, SECRET, S3Server
from tests.support.step_folders import write_checkpoint

ROOT = f"{BUCKET}/runs/test"
FILE = "rank_00000.safetensors"


def write_and_send(store: RemoteStore, folder: Path, *steps: int, **progress: Any) -> list[Path]:
    written = [write_checkpoint(folder, step, **progress) for step in steps]
    for one in written:
        send(store, one, set())
    return written


def start(folder: Path, store: RemoteStore | None) -> tuple[Path | None, list[str]]:
    """Return what a run in ``folder`` begins with."""

    def check(manifest: Manifest, *, where: str) -> None:
        assert where.endswith(f"step_{manifest.step:08d}")

    return newest_anywhere(folder, store, check)


def test_there_and_back(store: RemoteStore, tmp_path: Path) -> None:
    assert (store.step_names(), store.latest(), store.file_sizes("step_00000010")) == ([], None, {})
    source = write_checkpoint(tmp_path / "a", 10)
    assert not is_there(store, source)
    assert send(store, source, set()) == sum(path.stat().st_size for path in source.iterdir())
    assert is_there(store, source)
    assert (store.step_names(), store.latest()) == (["step_00000010"], "step_00000010")
    fetched = fetch(store, "step_00000010", tmp_path / "b")
    assert verify(fetched) == []
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert abs((fetched / "manifest.json").stat().st_mtime - (source / "manifest.json").stat().st_mtime) < 60
    assert sorted(path.name for path in fetched.parent.iterdir()) == ["latest", "step_00000010"]


def test_a_reader_sees_the_old_one_none_or_the_new_one(store: RemoteStore, tmp_path: Path) -> None:
    write_and_send(store, tmp_path / "old", 10)
    new = write_checkpoint(tmp_path / "new", 10, cuts=(3, 9))
    sent: set[str] = set()
    may_go_on = iter([True, True, False])
    assert send(store, new, sent, lambda: next(may_go_on)) == 0
    assert len(sent) == 2
    with pytest.raises(CheckpointError, match="step_00000010: has no manifest, its upload did not end; use an older"):
        fetch(store, "step_00000010", tmp_path / "seen")
    send(store, new, sent)
    fetch(store, "step_00000010", tmp_path / "seen")
    assert is_there(store, tmp_path / "seen" / "step_00000010")


def cut(server: S3Server, path: str) -> None:
    files = server.client()
    files.pipe_file(path, files.cat_file(path)[:-3])


def flip(server: S3Server, path: str) -> None:
    files = server.client()
    content = files.cat_file(path)
    files.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("harm", "file", "message"),
    [
        (cut, FILE, r"rank_00000.safetensors: has \d+ bytes, the manifest says \d+; use an older one"),
        (flip, FILE, "content has sha256 .*; use an older one"),
        (cut, "manifest.json", "manifest.json: cannot be read"),
        (lambda server, path: server.client().rm_file(path), FILE, "missing, the manifest says"),
        (lambda server, path: server.client().rm_file(path), "manifest.json", "has no manifest"),
    ],
)
def test_what_is_not_whole_is_passed_over(
    server: S3Server, store: RemoteStore, tmp_path: Path, harm: Any, file: str, message: str
) -> None:
    write_and_send(store, tmp_path / "a", 10, 20)
    harm(server, f"{ROOT}/step_00000020/{file}")
    with pytest.raises(CheckpointError, match=message):
        fetch(store, "step_00000020", tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())
    found, passed_over = start(tmp_path / "b", store)
    assert found == tmp_path / "b" / "step_00000010"
    assert len(passed_over) == 1
    assert f"s3://{ROOT}/step_00000020" in passed_over[0]
    harm(server, f"{ROOT}/step_00000010/{file}")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint there is whole .*restore one from a copy, or set another"
    ):
        start(tmp_path / "c", store)


def test_another_steps_manifest(server: S3Server, store: RemoteStore, tmp_path: Path) -> None:
    write_and_send(store, tmp_path / "a", 10, 20)
    files = server.client()
    files.copy(f"{ROOT}/step_00000010/manifest.json", f"{ROOT}/step_00000020/manifest.json")
    with pytest.raises(CheckpointError, match="step_00000020: its manifest is of step 10; use an older one"):
        fetch(store, "step_00000020", tmp_path / "b")


def test_names_there_cannot_lead_out_of_the_folder(server: S3Server, store: RemoteStore, tmp_path: Path) -> None:
    (source,) = write_and_send(store, tmp_path / "a", 10)
    files = server.client()
    for key in ("step_00000010/../../evil", "step_x/evil", "../evil"):
        files.call_s3("put_object", Bucket=BUCKET, Key=f"runs/test/{key}", Body=b"evil")
    files.pipe_file(f"{ROOT}/latest", b"../../../evil")
    assert (store.step_names(), store.latest()) == (["step_00000010"], None)
    found, _ = start(tmp_path / "b" / "c", store)
    assert found is not None
    assert not [path for path in tmp_path.rglob("*") if path.name == "evil"]
    assert {path.name for path in found.iterdir()} == {path.name for path in source.iterdir()}

    files.call_s3("put_object", Bucket=BUCKET, Key="runs/test/step_00000010/..\\evil", Body=b"evil")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        fetch(store, "step_00000010", tmp_path / "d")
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["files"][0]["name"] = "../evil"
    files.pipe_file(f"{ROOT}/step_00000010/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(CheckpointError, match=r"file name '../evil' leads out of the folder"):
        fetch(store, "step_00000010", tmp_path / "d")


def test_a_store_that_is_not_there(server: S3Server, store: RemoteStore, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(
        StoreError, match=r"checkpoints.remote.url: s3://none does not exist; make it or change the URL"
    ):
        start(tmp_path, RemoteStore("s3://none/runs", "test"))
    folder = write_checkpoint(tmp_path / "a", 10)
    with pytest.raises(StoreError, match="s3://none does not exist"):
        send(RemoteStore("s3://none/runs", "test"), folder, set())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    gone = RemoteStore(f"s3://{BUCKET}/runs", "test")
    with pytest.raises(
        StoreError, match=r"cannot be listed \(.*\); look at the network, the URL and the cred"
    ) as caught:
        start(tmp_path / "b", gone)
    assert SECRET not in str(caught.value)
    assert start(tmp_path / "a", gone) == (folder, [])


def test_something_else_arrives(store: RemoteStore, tmp_path: Path, monkeypatch) -> None:
    folder, other = write_checkpoint(tmp_path / "a", 10), write_checkpoint(tmp_path / "b", 11)
    put_file = store._files.put_file

    def put_other(source: str, target: str) -> None:
        is_data = source.endswith(FILE)
        put_file(source.replace("/a/step_00000010", "/b/step_00000011") if is_data else source, target)

    monkeypatch.setattr(store._files, "put_file", put_other)
    with pytest.raises(StoreError, match=r"rank_00000.safetensors: has MD5 \w+ after the upload, not \w+"):
        send(store, folder, set())
    (other / FILE).write_bytes(b"short")
    with pytest.raises(StoreError, match=r"rank_00000.safetensors: has 5 bytes after the upload, not \d+"):
        send(store, folder, set())


def test_what_a_run_begins_with(store: RemoteStore, tmp_path: Path) -> None:
    here = tmp_path / "here"
    assert start(here, store) == (None, []), "a new run"
    assert start(here, None) == (None, [])
    write_and_send(store, tmp_path / "there", 20)
    write_checkpoint(here, 30)
    assert start(here, store) == (here / "step_00000030", []), "newer than the copy"
    write_and_send(store, tmp_path / "there", 40)
    assert start(here, store) == (here / "step_00000040", [])
    assert [path.name for path in step_folders(here)] == ["step_00000040", "step_00000030"]
    (here / "step_00000040" / FILE).write_bytes(b"damage")
    found, passed_over = start(here, store)
    assert (found, len(passed_over)) == (here / "step_00000040", 1), "fetched anew"
    assert verify(here / "step_00000040") == []


def test_nothing_whole_here_and_nothing_there(store: RemoteStore, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / FILE).unlink()
    with pytest.raises(CheckpointError, match="none of 1 checkpoints is whole"):
        start(tmp_path, store)
    write_and_send(store, tmp_path / "there", 5)
    found, passed_over = start(tmp_path, store)
    assert (found, len(passed_over)) == (tmp_path / "step_00000005", 1)


def test_what_a_rewind_left_behind_is_not_taken(store: RemoteStore, tmp_path: Path) -> None:
    write_and_send(store, tmp_path / "there", 10, 18)
    write_and_send(store, tmp_path / "after", 16, consumed_samples=152)
    found, passed_over = start(tmp_path / "b", store)
    assert found == tmp_path / "b" / "step_00000016"
    assert passed_over == [f"s3://{ROOT}/step_00000018: a rewind has left it behind"]
    write_checkpoint(tmp_path / "c", 18)
    with pytest.raises(
        CheckpointError, match=r"step_00000016 is of step 16 and 152 samples, .*step_00000018 of step 18"
    ):
        start(tmp_path / "c", store)
    write_and_send(store, tmp_path / "after", 20, consumed_samples=200)
    store.point_latest("step_00000016")  # a kill came between the manifest and this
    found, _ = start(tmp_path / "d", store)
    assert found == tmp_path / "d" / "step_00000020"


def test_rules_for_the_copies(server: S3Server, store: RemoteStore, tmp_path: Path) -> None:
    written = write_and_send(store, tmp_path, 10, 20, 30, 40, 50)
    server.client().rm_file(f"{ROOT}/step_00000010/manifest.json")  # a killed upload or deletion
    cut(server, f"{ROOT}/step_00000040/{FILE}")
    assert RemoteRetention(store, KeepConfig()).apply(written[-1]) == []
    retention = RemoteRetention(store, KeepConfig(last=2))
    assert retention.apply(written[-1]) == [10, 20, 40], "a damaged one takes no place"
    assert store.step_names() == ["step_00000050", "step_00000030"]
    newer = write_and_send(store, tmp_path, 60)[0]
    assert retention.apply(newer) == [30]
    assert server.client().find(f"{ROOT}/step_00000030") == []


def test_a_mounted_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    store = RemoteStore(f"file://{disk}", "test")
    with pytest.raises(StoreError, match=r"checkpoints.remote.url: file:///.*/disk does not exist; make it or change"):
        store.step_names()
    folder = write_checkpoint(tmp_path / "a", 10)
    with pytest.raises(StoreError, match="does not exist"):
        send(store, folder, set())
    disk.mkdir()
    written = write_and_send(store, tmp_path / "a", 20, 30)
    assert RemoteRetention(store, KeepConfig(last=1)).apply(written[-1]) == [20]
    assert start(tmp_path / "b", store) == (tmp_path / "b" / "step_00000030", [])
    assert sorted(path.name for path in (disk / "test").iterdir()) == ["latest", "step_00000030"]
