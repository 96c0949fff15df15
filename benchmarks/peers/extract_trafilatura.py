"""Trafilatura on pages: CPU seconds and the words it kept.

Usage: extract_trafilatura.py LIST RESULT precision|default; LIST holds a path a line, RESULT gets the text of each page
as JSON Lines; the last line printed is JSON.
"""

import json
import sys
import time
from pathlib import Path

from trafilatura import extract

SETTINGS = {
    "precision": {"favor_precision": True, "include_comments": False, "deduplicate": True},  # datatrove's, for FineWeb
    "default": {"include_comments": False},
}


def main(listed: str, result: str, name: str) -> None:
    """Extract every page once, after a first that is not counted."""
    pages = [Path(line).read_bytes() for line in Path(listed).read_text().splitlines()]
    extract(pages[0], **SETTINGS[name])
    before = time.process_time()
    texts = [extract(page, **SETTINGS[name]) or "" for page in pages]
    seconds = time.process_time() - before
    Path(result).write_text("\n".join(map(json.dumps, texts)))
    print(json.dumps({"seconds": seconds, "pages": len(pages)}))


main(*sys.argv[1:])
