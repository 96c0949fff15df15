"""A small corpus to measure data preparation on: some of Debian's documentation, which ``benchmarks.debian_pages`` has.

``python -m benchmarks.corpus FOLDER [--downloads DIR]`` downloads eight packages (46 MB), cuts out pages and text as
``benchmarks.data_prep`` takes them, in WARC files of the same pages, and trains a tokenizer. A corpus twenty times as
large comes from ``benchmarks.debian_pages``.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.debian_pages import lay_out, write_sample

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "some": (
        *("cppreference-doc-en-html", "postgresql-doc-15", "python3.11-doc", "python-pandas-doc", "gnome-devel-docs"),
        *("debian-reference-en", "debian-reference-de", "debian-reference-ja"),
    )
}
PAGES, TEXT_BYTES, VOCAB_SIZE = 2_000, 100_000_000, 50_257
QUICK_PAGES, QUICK_TEXT_BYTES, QUICK_VOCAB_SIZE = 120, 1_000_000, 1_000
WARCS = 4
"""Files of the same pages; each is an input shard of its own."""


def make(folder: Path, downloads: Path, *, is_quick: bool) -> None:
    """Write the corpus; its folder gets its name when all of it is there."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise SystemExit("no apt-get and dpkg here; the corpus is of Debian's packages: name another to data_prep")
    downloads.mkdir(parents=True, exist_ok=True)
    lay_out(downloads, PACKAGES)
    pages, size, vocabulary = (
        (QUICK_PAGES, QUICK_TEXT_BYTES, QUICK_VOCAB_SIZE) if is_quick else (PAGES, TEXT_BYTES, VOCAB_SIZE)
    )
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_sample(downloads, partial, pages, size, num_warcs=WARCS)
    _train_tokenizer(partial, vocabulary)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _train_tokenizer(folder: Path, vocab_size: int) -> None:
    from gptdist.tokenizer.training import train_bpe

    with (folder / "text.jsonl").open("rb") as lines:
        train_bpe([json.loads(line)["text"] for line in lines], vocab_size).save(folder / "tokenizer")


def main() -> None:
    """Make it and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--downloads", type=Path, default=Path("debian"), help="packages and their pages, kept")
    parser.add_argument("--quick", action="store_true", help="a tiny one")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.downloads, is_quick=arguments.quick)
    size = (arguments.folder / "text.jsonl").stat().st_size
    pages = len(list((arguments.folder / "pages").iterdir()))
    print(f"{arguments.folder}: {pages:,} pages, {size / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
