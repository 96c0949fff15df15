"""Text of pages that may take long, found by a process of their own, which is ended where one does."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_PROGRAM = Path(__file__).with_name("child.py")
_LENGTH_BYTES = 8
_MEMORY_BYTES = 2 << 30
"""Address space, of which the program and its libraries take a part; a page within the other limits needs far less."""


class PageLostError(Exception):
    """A page that its process did not survive."""

    def __init__(self, signal_number: int) -> None:
        self.is_slow = signal_number == signal.SIGPROF
        self.signal_name = signal.Signals(signal_number).name if signal_number else "exit"
        super().__init__(self.signal_name)


class GuardedParser:
    """A process that parses pages, started with the first, used for the next, started again where it was ended.

    Args:
        seconds: CPU time a page.
        options: of ``extract_plain_text``.
        memory_bytes: address space of the process.
    """

    def __init__(self, seconds: float, options: Mapping[str, Any], memory_bytes: int = _MEMORY_BYTES) -> None:
        # -P: the folder of the program is not a place to import from.
        limits = [str(seconds), str(memory_bytes), json.dumps(options)]
        self._argv = [sys.executable, "-P", str(_PROGRAM), *limits]
        self._process: subprocess.Popen[bytes] | None = None

    def text(self, page: str) -> str:
        """Return the text of a page.

        Raises:
            PageLostError: it took more time or memory than it may.
        """
        if self._process is None:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        given, answers = self._process.stdin, self._process.stdout
        assert given is not None, "a pipe was asked for"
        assert answers is not None, "a pipe was asked for"
        content = page.encode()
        try:
            given.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
            given.flush()
            answer = _read(answers)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise PageLostError(self.close())
        return answer.decode()

    def close(self) -> int:
        """End the process, if there is one, and return the number of the signal that had ended it, or 0."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was not written yet: nobody is there to read it
                    pipe.close()
        return max(0, -process.wait())


def _read(answers: IO[bytes]) -> bytes | None:
    head = answers.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "little")
    answer = answers.read(length)
    return answer if len(answer) == length else None
