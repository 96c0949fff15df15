"""Data preparation beside what one would use instead, on the same pages, in CPU seconds.

``python -m benchmarks.data_prep CORPUS [--peers PYTHON] [--only NAME …] [--rounds N]``

CORPUS is a folder that ``python -m benchmarks.corpus CORPUS`` or ``python -m benchmarks.debian_pages OUT --sample
CORPUS`` made, or any with ``*.warc.gz`` (several, for the scaling), ``pages/``, ``text.jsonl`` and a ``tokenizer/``.
PYTHON is an interpreter that has ``datatrove[io,processing]`` (with spaCy), ``trafilatura``, ``datasets`` and
``tokenizers``; without it only our own figures are printed. Nothing is asserted.
"""

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.comparison import Comparison, add_options, merged, tell, write
from benchmarks.side_by_side import Corpus

PARTS = ("extract", "quality", "near_duplicates", "tokenize", "privacy", "pipeline")


def main() -> None:
    """Run the parts one after another and print their ratios."""
    parser = argparse.ArgumentParser(description="Measure data preparation against what one would use instead.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has the other tools")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=1, help="who is first changes with each (default: 1)")
    add_options(parser)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    found: list[Comparison] = []
    for part in arguments.only:
        found += tell(measure(part, arguments.corpus.resolve(), arguments.peers, rounds))
    write(arguments.json, found)


def measure(part: str, corpus: Path, peers: str | None, rounds: int) -> list[Comparison]:
    """Return what a part finds, a value for each round."""
    once = import_module(f"benchmarks.prep_{part}").measure
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        each = (Corpus(corpus, Path(scratch), is_backwards=number % 2 == 1) for number in range(rounds))
        return merged([once(one, peers) for one in each])


if __name__ == "__main__":
    main()
