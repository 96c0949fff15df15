"""The page of runs that go on, served to this machine alone; each request for records reads what is new."""

import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gptdist.local_server import Answer, LocalServer, RefusedError
from gptdist.report.gather import RunRecords, report_data
from gptdist.report.page import LIVE_PATH, page, policy

HOST = "127.0.0.1"


class Watched:
    """Runs whose records are read again when one of their files has changed."""

    def __init__(self, runs: Sequence[RunRecords]) -> None:
        """Read them."""
        self._runs = runs
        self._lock = threading.Lock()  # each request has a thread
        self._data: dict[str, Any] = {}

    def data(self) -> dict[str, Any]:
        """Return the records of now."""
        with self._lock:
            # Each is asked: what it last saw is noted by the question. While one runs, time passes at least.
            changed = [run.has_changed() for run in self._runs]
            if any(changed) or any(run.is_running for run in self._runs) or not self._data:
                self._data = report_data(self._runs)
            return self._data

    def get(self, path: str) -> Answer:
        """Answer a request."""
        parts = urlsplit(path)
        if parts.path == "/":
            return HTTPStatus.OK, "text/html", page(self.data(), is_live=True)
        if parts.path == LIVE_PATH:
            data = self.data()
            if parse_qs(parts.query).get("made") == [str(data["made"])]:
                data = {"made": data["made"]}
            return HTTPStatus.OK, "application/json", json.dumps(data, allow_nan=False)
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")


def make_server(runs: Sequence[RunRecords], port: int) -> LocalServer:
    """Return a server that listens; ``serve_forever`` runs it.

    Raises:
        ConfigError: the port cannot be listened at.
    """
    return LocalServer(HOST, port, policy(is_live=True) + "; frame-ancestors 'none'", Watched(runs).get)
