"""A small web server of one command: answers only who addresses it by name, and lets pages load nothing from elsewhere.

Any page in the user's browser can send requests to this machine, so the name in ``Host`` must be this server's: a name
that was made to lead here is refused.
"""

import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gptdist.errors import ConfigError

MOST_SECONDS = 30.0
"""That a request may take to arrive."""

Answer = tuple[HTTPStatus, str, str]
"""Status, content type and body."""

LOOPBACK = {"localhost", "127.0.0.1"}


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class LocalServer(ThreadingHTTPServer):
    """Listens at one address of this machine."""

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        policy: str,
        get: Callable[[str], Answer],
        post: Callable[["LocalHandler"], Answer] | None = None,
    ) -> None:
        """Listen; ``serve_forever`` answers.

        Args:
            host: address.
            port: 0 takes a free one.
            policy: of the pages, as the header ``Content-Security-Policy``.
            get: answers the path of a request.
            post: answers a request that brings something; none takes none.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        try:
            super().__init__((host, port), LocalHandler)
        except (OSError, OverflowError) as error:
            where = f"--host, --port: cannot listen at {host}:{port}"
            raise ConfigError([f"{where} ({error}); name another port"]) from None
        self.policy, self.get, self.post = policy, get, post
        bound = self.server_address[1]
        self.names = frozenset(f"{name}:{bound}" for name in {host} | (LOOPBACK if host in LOOPBACK else set()))
        """Values of the header ``Host`` that mean this server."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away in the middle is no news."""


class LocalHandler(BaseHTTPRequestHandler):
    """Answers requests; the standard library makes one object of it for each connection."""

    server: LocalServer
    server_version = "gptdist"
    sys_version = ""
    timeout = MOST_SECONDS

    def do_GET(self) -> None:
        """Answer with a page or with data."""
        self._answer(lambda: self.server.get(self.path))

    def do_POST(self) -> None:
        """Take something."""
        post = self.server.post
        if post is None:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED)
        else:
            self._answer(lambda: post(self))

    def _answer(self, work: Callable[[], Answer]) -> None:
        try:
            if self.headers.get("Host") not in self.server.names:
                raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "not the name of this server")
            status, kind, body = work()
        except RefusedError as refused:
            status, kind, body = refused.status, "application/json", json.dumps({"error": str(refused)})
            self.close_connection = True
        content = body.encode()
        self.send_response(status)
        for name, value in _headers(kind, self.server.policy).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Requests are not told: names of people may be in them."""


def _headers(kind: str, policy: str) -> dict[str, str]:
    return {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
