"""``gptdist data``: check token shards, and show what is in them."""

import argparse
import sys
from pathlib import Path

from gptdist.errors import EXIT_USER_ERROR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="compare every file with the manifest's hashes",
        description="Read every file, compare hashes, indexes and token ids; name every damaged file. Exit 2 for one.",
    )
    verify.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="such as data/demo/python")
    verify.set_defaults(run=run_verify)
    show = commands.add_parser(
        "show",
        help="text of documents or tokens, and where it came from",
        description="Show the text of a document or of a range of tokens, and where each document came from.",
    )
    show.add_argument("folder", type=Path, metavar="FOLDER", help="such as data/demo/python")
    show.add_argument("--split", default="train", help="train (default) or validation")
    what = show.add_mutually_exclusive_group(required=True)
    what.add_argument("--document", type=int, metavar="N", help="number of a document in the split, from 0")
    what.add_argument("--tokens", type=_token_range, metavar="START:COUNT", help="tokens of the split's stream")
    show.add_argument("--tokenizer", type=Path, help="tokenizer folder; default: 'tokenizer' beside FOLDER")
    show.set_defaults(run=run_show)


def run_verify(arguments: argparse.Namespace) -> int:
    """Check each folder; print every problem, or what was found whole."""
    from gptdist.data.manifest import DatasetManifest
    from gptdist.data.verify import verify_dataset
    from gptdist.errors import DataError

    damaged = 0
    for folder in arguments.folders:
        try:
            problems = verify_dataset(folder)
        except DataError as error:
            problems = [str(error)]  # the other folders are looked at as well
        for problem in problems:
            print(f"gptdist data: error: {problem}", file=sys.stderr)
        damaged += len(problems)
        if not problems:
            splits = DatasetManifest.read(folder).splits
            shards = sum(len(split.shards) for split in splits.values())
            tokens = sum(split.tokens for split in splits.values())
            print(f"{folder}: whole, {shards} shards, {tokens:,} tokens")
    return EXIT_USER_ERROR if damaged else 0


def run_show(arguments: argparse.Namespace) -> None:
    """Print documents' origins and the text."""
    from gptdist.data.dataset import TokenDataset
    from gptdist.data.provenance import read_provenance
    from gptdist.errors import DataError
    from gptdist.tokenizer.tokenizer import load_tokenizer

    dataset = TokenDataset(arguments.folder, arguments.split)
    folder = arguments.tokenizer or arguments.folder.resolve().parent / "tokenizer"
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != dataset.manifest.tokenizer_fingerprint:
        raise DataError(
            f"{arguments.folder}: made with tokenizer {dataset.manifest.tokenizer_fingerprint[:12]}, '{folder}' is "
            f"{tokenizer.fingerprint[:12]}; name the right one with --tokenizer"
        )
    if arguments.tokens is None:
        span = dataset.document(arguments.document)
        start, count = span.first_token, span.last_token - span.first_token + 1
    else:
        start, count = arguments.tokens
    spans = dataset.documents_in(start, count)
    for span, origin in zip(spans, read_provenance(arguments.folder, spans), strict=True):
        place = f", record {origin.record}" if origin.record else ""
        url = f", {origin.url}" if origin.url else ""
        print(
            f"# {span.shard} document {span.document}: {origin.path}{place}{url}; {origin.text_bytes:,} bytes, "
            f"tokens {span.first_token}:{origin.tokens}"
        )
    print(tokenizer.decode(dataset.read(start, count).tolist()))


def _token_range(text: str) -> tuple[int, int]:
    start, colon, count = text.partition(":")
    if not colon or not start.isdecimal() or not count.isdecimal() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not START:COUNT, such as 1000:64")
    return int(start), int(count)
