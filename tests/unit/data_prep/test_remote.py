"""Sources that are URLs: a real S3 server on this machine, and fsspec's own filesystems."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from data_prep.account import Account
from data_prep.readers.reader import open_reader, open_readers
from data_prep.readers.storage import open_file, version_of
from gptdist.errors import DataError
from tests.unit.data_prep.made_corpus import make_config, make_texts
from tests.unit.data_prep.made_sources import page_record, pieces_of, read, source, zipped

TEXTS = make_texts(40)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the filesystem; the bucket is called ``corpus``."""
    settings = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # others may have listed, or have another server
    filesystem.mkdir("corpus")
    yield filesystem
    filesystem.rm("corpus", recursive=True)


def test_every_kind_of_file_from_s3(bucket: Any, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
    for path, content in {
        "jsonl/b.jsonl": lines,
        "jsonl/deep/er/c.jsonl.gz": gzip.compress(lines),
        "parquet/a.parquet": (tmp_path / "a.parquet").read_bytes(),
        "warc/x.warc.gz": zipped(*(page_record(number) for number in range(5))),
        "files/t.txt": b"a text",
        "files/t.css": b"no text",
    }.items():
        bucket.pipe(f"corpus/{path}", content)
    documents, account = read(tmp_path, source("jsonl", "s3://corpus/jsonl"))
    assert [document.text for document in documents] == TEXTS * 2
    assert documents[40].path == "s3://corpus/jsonl/deep/er/c.jsonl.gz"
    assert not account.damage
    documents, _ = read(tmp_path, source("parquet", "s3://corpus/parquet/a.parquet"))
    assert [document.text for document in documents] == TEXTS
    documents, _ = read(tmp_path, source("warc", "s3://corpus"))
    assert [document.url for document in documents] == [f"http://example.org/{number}" for number in range(5)]
    documents, _ = read(tmp_path, source("files", "s3://corpus/files/"))
    assert [(document.path, document.text) for document in documents] == [("s3://corpus/files/t.txt", "a text")]


def test_a_damaged_archive_in_s3_is_read_on(bucket: Any, tmp_path: Path) -> None:
    packed = [zipped(page_record(number)) for number in range(4)]
    broken = bytearray(packed[1])
    broken[70] ^= 0xFF
    bucket.pipe("corpus/a.warc.gz", packed[0] + bytes(broken) + packed[2] + packed[3][:-10])
    documents, account = read(tmp_path, source("warc", "s3://corpus/a.warc.gz"))
    assert [document.url for document in documents] == ["http://example.org/0", "http://example.org/2"]
    assert account.damage == {"bad_compression": 1, "truncated": 1}


def test_a_plain_file_in_s3_is_cut_by_bytes(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("corpus/a.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS).encode())
    whole, _ = read(tmp_path, source("jsonl", "s3://corpus/a.jsonl"))
    config = make_config(tmp_path / "out", source("jsonl", "s3://corpus/a.jsonl"), input_shard_bytes=1000)
    (reader,) = open_readers(config)
    pieces = reader.pieces()
    assert len(pieces) > 3
    parts = [list(open_reader(config, 0).documents([piece], Account("w"))) for piece in pieces]
    assert [document for part in parts for document in part] == whole


def test_the_version_of_a_file_in_s3_changes_with_its_content(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("corpus/a.txt", b"one")
    config = make_config(tmp_path / "out", source("files", "s3://corpus"))
    before = open_reader(config, 0).versions()
    assert open_reader(config, 0).versions() == before
    bucket.pipe("corpus/a.txt", b"two")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # as in another process
    assert open_reader(config, 0).versions() != before


@pytest.mark.usefixtures("bucket")
def test_what_is_not_in_s3(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sources\[0\] 'warc': path 's3://corpus/none' does not exist; change paths"):
        pieces_of(tmp_path, source("warc", "s3://corpus/none"))
    with pytest.raises(DataError, match=r"'s3://no-such-bucket/x' (cannot be listed|does not exist)"):
        pieces_of(tmp_path, source("warc", "s3://no-such-bucket/x"))
    with pytest.raises(DataError, match=r"s3://corpus/none: cannot be read \("):
        open_file("s3://corpus/none").read()
    with pytest.raises(DataError, match=r"s3://corpus/none: cannot be read \("):
        version_of("s3://corpus/none")


def test_a_file_that_fails_while_it_is_read_is_no_damage() -> None:
    """Decompressors raise OSError for bad content; a bad disk must not look like that."""
    with open_file("/proc/self/mem") as file, pytest.raises(DataError, match=r"/proc/self/mem: cannot be read \(Input"):
        file.read(10)


def test_other_filesystems(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a/1.txt", b"one")
    memory.pipe("/corpus/b/2.txt", b"two")
    documents, _ = read(tmp_path, source("files", "memory://corpus", exclude=["b/*"]))
    assert [(document.path, document.text) for document in documents] == [("memory://corpus/a/1.txt", "one")]
    memory.rm("/corpus", recursive=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("three")
    documents, _ = read(tmp_path, source("files", f"file://{tmp_path}/in"))
    assert [(document.path, document.text) for document in documents] == [(f"file://{tmp_path}/in/a.txt", "three")]


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("gs://corpus/a", r"pip install gptdist\[gcs\]"),
        ("nosuch://corpus/a", "install the package that it names, or change the path"),
    ],
)
def test_a_filesystem_that_is_not_installed(url: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"sources\[0\] 'warc': '{url}' needs a filesystem that is not there \(.*\); {advice}"
    ):
        pieces_of(tmp_path, source("warc", url))
