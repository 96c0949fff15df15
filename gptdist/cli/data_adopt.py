"""``gptdist data adopt``: make a dataset folder of token files that Megatron-LM or GPT-NeoX wrote."""

import argparse
import math
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        "Check .bin and .idx files of Megatron-LM, Megatron-DeepSpeed or GPT-NeoX against each other and against the "
        "tokenizer they were made with, and copy them to DIR/NAME with a manifest; the tokenizer goes to DIR/tokenizer."
    )
    parser.add_argument(
        "prefixes", nargs="+", type=Path, metavar="PREFIX", help="path without .bin and .idx; several are one source"
    )
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="PATH", help="tokenizer.json or .model file, or its folder"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets tokenizer/ and the dataset")
    parser.add_argument("--name", help="folder of the dataset in DIR; default: the first PREFIX's file name")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation",
        nargs="+",
        type=Path,
        default=[],
        metavar="PREFIX",
        help="files of validation documents (--valid-data-path)",
    )
    held_out.add_argument(
        "--split",
        type=_shares,
        metavar="A,B[,C]",
        help="cut the documents as Megatron-LM's --split does: A to train, B to validate, C left out",
    )
    parser.add_argument("--add-ends", action="store_true", help="append end-of-document to documents without one")
    parser.add_argument("--eod-token", metavar="TOKEN", help="what ends a document; default: as the tokenizer says")
    parser.add_argument(
        "--shard-tokens",
        type=_positive,
        default=100_000_000,
        metavar="N",
        help="of a shard, at most (default: %(default)s)",
    )
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Adopt, and print what came of it."""
    from gptdist.data.adopt import TOKENIZER_DIR, AdoptOptions, adopt
    from gptdist.data.sources import VALIDATION_SPLIT

    options = AdoptOptions(
        name=arguments.name or arguments.prefixes[0].name,
        validation=tuple(arguments.validation),
        split=arguments.split,
        add_ends=arguments.add_ends,
        eod_token=arguments.eod_token,
        shard_tokens=arguments.shard_tokens,
        workers=arguments.workers,
    )
    adopted = adopt(arguments.prefixes, arguments.tokenizer, arguments.output, options)
    for name, split in adopted.manifest.splits.items():
        print(
            f"{name:<11} {split.documents:,} documents, {split.tokens:,} tokens, {split.text_bytes:,} bytes of text, "
            f"{len(split.shards)} shards"
        )
    if VALIDATION_SPLIT not in adopted.manifest.splits:
        print(f"{VALIDATION_SPLIT:<11} none: a source that is trained on needs one, by --split or --validation")
    told = (
        (adopted.empty, "empty documents left out"),
        (adopted.left_out, "documents left out by --split"),
        (adopted.ends_added, "ends of documents added"),
    )
    for count, what in told:
        if count:
            print(f"{'':<11} {count:,} {what}")
    print(f"written     {arguments.output / options.name}, tokenizer {arguments.output / TOKENIZER_DIR}")


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    is_usable = len(shares) in (2, 3) and all(math.isfinite(share) and share >= 0 for share in shares)
    if not is_usable or not shares[0] > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not two or three shares, the first above 0, such as 969,30,1")
    return shares


def _positive(text: str) -> int:
    number = int(text.replace("_", "")) if text.replace("_", "").isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return number
