"""Text from HTML against trafilatura: pages a CPU second, and how much of its text is in ours.

Neither start-up is counted, on either side, nor is reading the files.
``python -m benchmarks.prep_extract pages LIST RESULT`` is run in a process of its own by ``measure``.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, by_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS, Corpus, run_ours, run_script

PAGES = 300
_TARGET = 15.0


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return one comparison with the settings that FineWeb was made with and one with trafilatura's own."""
    listed, result = corpus.scratch / "pages.txt", corpus.scratch / "ours.jsonl"
    found = sorted(str(path) for path in (corpus.folder / "pages").rglob("*.html"))
    listed.write_text("\n".join(random.Random(0).sample(found, min(PAGES, len(found)))))
    missing = why_missing(peers, "trafilatura")
    ours, theirs = by_turns(
        lambda: run_ours("benchmarks.prep_extract", "pages", str(listed), str(result)).result,
        lambda: {} if missing else {name: _theirs(str(peers), listed, name) for name in ("precision", "default")},
        is_backwards=corpus.is_backwards,
    )
    _print_warc(corpus)
    texts, lines = _texts(result), []
    for name in ("precision", "default"):
        note = f"{_size(texts):.2f} MB of text"
        if theirs:
            note += _beside(texts, _texts(corpus.scratch / f"{name}.jsonl"))
        speeds = [side["pages"] / side["seconds"] for side in (ours, *([theirs[name]] if theirs else []))]
        lines.append(
            Comparison(
                "HTML extraction",
                f"trafilatura {name}",
                "pages/CPU-second",
                speeds[:1],
                speeds[1:],
                "higher",
                _TARGET,
                note=note,
                missing=missing,
            )
        )
    return lines


def _theirs(python: str, listed: Path, name: str) -> dict[str, Any]:
    there = listed.with_name(f"{name}.jsonl")
    return run_script(python, PEERS / "extract_trafilatura.py", str(listed), str(there), name).result


def _print_warc(corpus: Corpus) -> None:
    warcs = sorted(str(path) for path in corpus.folder.rglob("*.warc.gz"))
    if warcs:
        read = run_ours("benchmarks.prep_extract", "warc", warcs[0]).result
        records = read["records"] / read["seconds"]
        print(f"reading WARC: {records:,.0f} records/CPU-s, {read['mb_per_second']:.0f} MB/CPU-s")


def _beside(texts: list[str], their_texts: list[str]) -> str:
    """Say how much of each one's words is in the other's."""
    empty, empty_there = (sum(not text.strip() for text in side) for side in (texts, their_texts))
    return (
        f" against {_size(their_texts):.2f}, {_share_in(their_texts, texts):.1%} of its words are in ours, "
        f"{_share_in(texts, their_texts):.1%} of ours in its; pages without text {empty} against {empty_there}"
    )


def _texts(path: Path) -> list[str]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _size(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _share_in(some: list[str], others: list[str]) -> float:
    """Return the share of the words of ``some`` that their counterparts in ``others`` hold too."""
    words = shared = 0
    for text, other in zip(some, others, strict=True):
        counts = Counter(text.split())
        words += counts.total()
        shared += (counts & Counter(other.split())).total()
    return shared / max(1, words)


def extract_pages(listed: str, result: str) -> None:
    """Extract every page once, after a first pass that compiles, and print one line of JSON."""
    from data_prep.account import Account
    from data_prep.document import Document, Page, Place
    from data_prep.extract import extract_stage
    from gptdist.config.prep_extract import ExtractSection

    paths = Path(listed).read_text().splitlines()
    documents = [Document("", path, page=Page(Path(path).read_bytes())) for path in paths]
    stage = extract_stage(ExtractSection(), Place(0, 1), Account("benchmark"))
    large = max(documents, key=lambda document: len(document.page.content) if document.page else 0)
    list(stage(iter([large])))
    before = time.process_time()
    texts = {document.path: document.text for document in stage(iter(documents))}
    seconds = time.process_time() - before
    Path(result).write_text("\n".join(json.dumps(texts.get(path, "")) for path in paths))
    print(json.dumps({"seconds": seconds, "pages": len(paths)}))


def read_warc(path: str) -> None:
    """Read the first records of a web archive and print one line of JSON."""
    from data_prep.account import Account
    from data_prep.readers.warc import WarcReader
    from gptdist.config.prep import PrepConfig

    source = {"name": "w", "kind": "warc", "paths": [path]}
    tree = {"name": "b", "output_dir": "unused", "tokenizer": {"kind": "byte"}, "sources": [source]}
    config = PrepConfig.from_tree(tree)
    reader = WarcReader(config.sources[0], config, "benchmark")  # type: ignore[arg-type] # it is the source of a WARC
    pieces, records, size = reader.pieces(), 0, 0
    before = time.process_time()
    for document in reader.documents(pieces, Account("benchmark")):
        records += 1
        size += len(document.page.content) if document.page is not None else len(document.text)
        if records == 10 * PAGES:
            break
    seconds = time.process_time() - before
    print(json.dumps({"seconds": seconds, "records": records, "mb_per_second": size / seconds / 1e6}))


if __name__ == "__main__":
    {"pages": extract_pages, "warc": read_warc}[sys.argv[1]](*sys.argv[2:])
