"""A store for the tests of this folder."""

from collections.abc import Iterator

import pytest

from gptdist.checkpoint.remote_store import RemoteStore
from tests.support.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def running_server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(running_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Return the server, with an empty bucket."""
    for name, value in running_server.environment.items():
        monkeypatch.setenv(name, value)
    yield running_server
    files = running_server.client()
    if files.ls(BUCKET):
        files.rm(BUCKET, recursive=True)
        files.mkdir(BUCKET)


@pytest.fixture
def store(server: S3Server) -> RemoteStore:
    """Return the folder of run ``test`` in the store."""
    return RemoteStore(f"s3://{BUCKET}/runs", "test")
