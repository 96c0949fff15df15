"""Datatrove's quality filters on a text.jsonl: their decisions, and the CPU seconds of each set of rules.

Usage: quality_datatrove.py TEXT_JSONL NUM_DOCUMENTS; the last line printed is JSON.
"""

import json
import sys
import time
from hashlib import blake2b
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

FILTERS = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}


def main(path: str, count: int) -> None:
    """Run every filter on every document, each on the text as it is in the file."""
    with Path(path).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]
    filters = {name: made() for name, made in FILTERS.items()}
    for one in filters.values():
        one.filter(Document(text="One sentence. Another one.", id="0"))  # loads spaCy, which is not measured
    seconds = dict.fromkeys(filters, 0.0)
    decisions: dict[str, list[str]] = {name: [] for name in filters}
    kept_texts = []
    for number, text in enumerate(texts):
        for name, one in filters.items():
            document = Document(text=text, id=str(number))
            begin = time.process_time()
            answer = one.filter(document)
            seconds[name] += time.process_time() - begin
            decisions[name].append("kept" if answer is True else answer[1])
            if name == "c4":
                kept_texts.append(blake2b(document.text.encode(), digest_size=8).hexdigest() if answer is True else "")
    print(json.dumps({"seconds": seconds, "decisions": decisions, "c4_texts": kept_texts, "documents": len(texts)}))


main(sys.argv[1], int(sys.argv[2]))
