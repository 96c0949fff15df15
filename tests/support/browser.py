"""Debian's Chromium, driven over its DevTools protocol: real clicks and keys, screenshots, and what its console says.

The protocol runs over two pipes (file descriptors 3 and 4 of the browser, messages that end with a zero byte), so that
neither a port nor a driver is needed.
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_SECONDS = 60.0
"""A browser that starts on two busy cores takes some."""

_ERRORS = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}


_BECOME = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Gives the browser its pipes under the numbers that it reads and writes."""


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._last_id = 0
        self._bytes = b""
        self.told: list[dict[str, Any]] = []
        """Errors, warnings and console messages of the page."""

        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        found = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str | None = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    _session = None

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters or {}}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            answer = self._next()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if answer.get("method") in _ERRORS:
                self.told.append(answer)
        raise TimeoutError(method)

    def _next(self) -> Any:
        while b"\0" not in self._bytes:
            part = os.read(self._from, 1 << 16)
            assert part, "the browser has ended"
            self._bytes += part
        message, self._bytes = self._bytes.split(b"\0", 1)
        return json.loads(message)

    def open(self, url: str) -> None:
        self._call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.run(condition):
            assert time.monotonic() < end, f"never: {condition}\n{self.run('document.body.innerText')}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Click on the middle of an element, as a mouse does."""
        box = self.run(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", {"type": kind, **place})

    def press(self, key: str) -> None:
        """Press and release a key; a printed character is its own text."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, **text})
        self._call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    def type(self, text: str) -> None:
        self._call("Input.insertText", {"text": text})

    def look(self, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Be a window of so many CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def screenshot(self, path: Path) -> None:
        found = self._call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(found["data"]))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.run("document.documentElement.scrollWidth - window.innerWidth"))


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """A tab of a fresh browser."""
    assert CHROMIUM is not None, "Debian's chromium is not installed"
    read_there, write_here = _high_pipe()
    read_here, write_there = _high_pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, str(read_there), str(write_there), *_command(profile)],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_there)
        os.close(write_there)
        try:
            yield Page(write_here, read_here)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(write_here)
            os.close(read_here)


def _command(profile: str) -> list[str]:
    options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
    options += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--mute-audio"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with it
    return [str(CHROMIUM), *options, "about:blank"]


def _high_pipe() -> tuple[int, int]:
    """Return a pipe whose numbers are not 3 or 4, which the browser takes."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
