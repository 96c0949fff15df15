"""Datatrove's PIIFormatter on a text.jsonl: what it replaces, and its CPU seconds.

Usage: pii_datatrove.py TEXT_JSONL NUM_DOCUMENTS; the last line printed is JSON.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.pipeline.formatters.pii import PIIFormatter


def main(path: str, count: int) -> None:
    """Format every document."""
    with Path(path).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]
    formatter = PIIFormatter(email_replacement="<EMAIL>", ip_replacement="<IP_ADDRESS>")
    before = sum(text.count("<EMAIL>") + text.count("<IP_ADDRESS>") for text in texts)
    begin = time.process_time()
    formatted = [formatter.format(text) for text in texts]
    seconds = time.process_time() - begin
    after = sum(text.count("<EMAIL>") + text.count("<IP_ADDRESS>") for text in formatted)
    size = sum(len(text.encode()) for text in texts)
    print(json.dumps({"bytes": size, "cpu_seconds": seconds, "replaced": after - before}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
