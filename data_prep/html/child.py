"""Program of the process that parses pages which may take long or much memory; the kernel ends it where one does.

It stands alone, so that it starts quickly: standard library and parser only. On its input, for each page: length of the
UTF-8 as 8 bytes, little-endian, then the bytes; on its output the same of the text.

Arguments: CPU seconds a page, bytes of address space, and the parser's options as JSON.
"""

import json
import resource
import signal
import sys
from typing import IO

from resiliparse.extract.html2text import extract_plain_text

_LENGTH_BYTES = 8


def main(seconds: str, memory_bytes: str, options: str) -> None:
    """Answer pages until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    given, answers, settings = sys.stdin.buffer, sys.stdout.buffer, json.loads(options)
    while (page := _read(given)) is not None:
        # The signal has no handler: it ends the process inside compiled code too.
        signal.setitimer(signal.ITIMER_PROF, float(seconds))
        text = extract_plain_text(page.decode(), **settings).encode()
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        answers.flush()


def _read(given: IO[bytes]) -> bytes | None:
    head = given.read(_LENGTH_BYTES)
    return given.read(int.from_bytes(head, "little")) if len(head) == _LENGTH_BYTES else None


if __name__ == "__main__":
    main(*sys.argv[1:])
