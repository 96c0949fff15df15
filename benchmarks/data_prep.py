"""Data preparation beside what one would use instead, on the same pages, in CPU seconds.

``python -m benchmarks.data_prep CORPUS [--peers PYTHON] [--only NAME …]``

CORPUS is a folder that ``python -m benchmarks.debian_pages OUT --sample CORPUS`` cut out, or any with ``*.warc.gz``
(several, for the scaling), ``pages/``, ``text.jsonl`` and a ``tokenizer/``. PYTHON is an interpreter that has
``datatrove[io,processing]`` (with spaCy), ``trafilatura``, ``datasets`` and ``tokenizers``; without it only our own
figures are printed. Nothing is asserted.
"""

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.side_by_side import Corpus

PARTS = ("extract", "quality", "near_duplicates", "tokenize", "privacy", "pipeline")


def main() -> None:
    """Run the parts one after another and print their ratios."""
    parser = argparse.ArgumentParser(description="Measure data preparation against what one would use instead.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has the other tools")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    print(f"{'what':<44} {'ours':>12} {'theirs':>12} {'unit':<18} {'ratio':>8}")
    for part in arguments.only:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            measure = import_module(f"benchmarks.prep_{part}").measure
            for ratio in measure(Corpus(arguments.corpus.resolve(), Path(scratch)), arguments.peers):
                print(ratio.line(), flush=True)


if __name__ == "__main__":
    main()
