"""A real S3 server on this machine, in a process of its own: it can be killed, and comes back empty."""

import contextlib
import socket
import subprocess
import sys
import time
from typing import Any

import fsspec

START_TIMEOUT_SECONDS = 60
BUCKET = "models"

SECRET = "a-secret-that-nobody-may-read"


class S3Server:
    """moto's server on one port, started and killed at will."""

    def __init__(self) -> None:
        """Choose a port; start nothing."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client finds the server with."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def start(self) -> None:
        """Start it, and make the bucket."""
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                break
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.05)
        self.client().mkdir(BUCKET)

    def kill(self) -> None:
        """Kill it with all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> Any:
        """Return a filesystem of its own."""
        return fsspec.filesystem(
            "s3",
            key="key",
            secret=SECRET,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            skip_instance_cache=True,
            use_listings_cache=False,
        )
