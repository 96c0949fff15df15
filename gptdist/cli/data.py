"""``gptdist data``: check token shards, show what is in them, and say what a run reads of them."""

import argparse
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import add_json, print_json
from gptdist.cli.data_adopt import add_arguments as add_adopt_arguments
from gptdist.cli.terminal import print_error
from gptdist.errors import EXIT_DONE, EXIT_USER_ERROR

if TYPE_CHECKING:
    from gptdist.data.plan import DataPlan
    from gptdist.data.trace import TracedSample

_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MOST_TOKENS = 10**18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="compare every file with the manifest's hashes",
        description="Read every file, compare hashes, indexes and token ids; name every damaged file. Exit 2 for one.",
    )
    verify.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="such as data/demo/python")
    add_json(verify)
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
    add_json(show)
    show.set_defaults(run=run_show)
    add_adopt_arguments(commands.add_parser("adopt", help="take over token files of Megatron-LM or GPT-NeoX"))
    _add_plan(commands.add_parser("plan", help="how often a run will read each source"))
    _add_trace(commands.add_parser("trace", help="the documents in the batch of a step"))


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.description = (
        "Count the epochs of each source that a run will see. Exit 2 if one is above its max_epochs; "
        "'gptdist launch' refuses the same."
    )
    plan.add_argument("config", type=Path, metavar="CONFIG", help="run config (YAML)")
    plan.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values to replace")
    plan.add_argument(
        "--tokens",
        type=_token_count,
        metavar="N",
        help="length of the run, such as 300B or 20_000_000, rounded up to whole steps; default: the config's",
    )
    add_json(plan)
    plan.set_defaults(run=run_plan)


def _add_trace(trace: argparse.ArgumentParser) -> None:
    trace.description = "Name the documents in the global batch that a step of a run consumed; steps count from 1."
    trace.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="folder of the run")
    what = trace.add_mutually_exclusive_group(required=True)
    what.add_argument("--step", type=int, metavar="N", help="as in the log: the step whose line says 'step N'")
    what.add_argument("--sample", type=int, metavar="I", help="one sample instead, by its number in the run, from 0")
    trace.add_argument("--rank", type=int, metavar="R", help="only what this rank read of the step")
    trace.add_argument("--attempt", type=int, metavar="A", help="default: the newest that did the step")
    add_json(trace)
    trace.set_defaults(run=run_trace)


def run_verify(arguments: argparse.Namespace) -> int:
    """Check each folder; print every problem, or what was found whole."""
    from gptdist.data.manifest import DatasetManifest
    from gptdist.data.verify import verify_dataset
    from gptdist.errors import DataError

    found: list[dict[str, Any]] = []
    for folder in arguments.folders:
        try:
            problems = verify_dataset(folder)
        except DataError as error:
            problems = [str(error)]  # the other folders are looked at as well
        for problem in problems:
            print_error("data", problem)
        found.append({"folder": folder, "is_whole": not problems, "problems": problems})
        if not problems:
            splits = DatasetManifest.read(folder).splits
            shards = sum(len(split.shards) for split in splits.values())
            tokens = sum(split.tokens for split in splits.values())
            found[-1] |= {"num_shards": shards, "tokens": tokens}
            if not arguments.json:
                print(f"{folder}: whole, {shards} shards, {tokens:,} tokens", flush=True)
    if arguments.json:
        print_json({"folders": found})
    return EXIT_DONE if all(one["is_whole"] for one in found) else EXIT_USER_ERROR


def run_show(arguments: argparse.Namespace) -> None:
    """Print documents' origins and the text."""
    from dataclasses import asdict

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
    origins = read_provenance(arguments.folder, spans)
    text = tokenizer.decode(dataset.read(start, count).tolist())
    if arguments.json:
        pairs = zip(spans, origins, strict=True)
        print_json({"text": text, "documents": [asdict(span) | {"origin": asdict(one)} for span, one in pairs]})
        return
    for span, origin in zip(spans, origins, strict=True):
        place = f", record {origin.record}" if origin.record else ""
        url = f", {origin.url}" if origin.url else ""
        print(
            f"# {span.shard} document {span.document}: {origin.path}{place}{url}; {origin.text_bytes:,} bytes, "
            f"tokens {span.first_token}:{origin.tokens}"
        )
    print(text)


def run_plan(arguments: argparse.Namespace) -> int:
    """Print what a run takes of each source, and every source that it would read too often."""
    from dataclasses import asdict

    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.data.plan import plan_data
    from gptdist.data.sources import sample_order, training_tokens
    from gptdist.errors import ConfigError

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    missing = config.data.source_problems()
    if missing:
        raise ConfigError(missing)
    steps = None
    if arguments.tokens is not None:
        before_last = -(-arguments.tokens // config.model.seq_length) - 1
        steps = config.batch_sizes.steps_within(0, before_last) + 1
    plan = plan_data(config, sample_order(config, training_tokens(config)), steps=steps)
    if arguments.json:
        sources = [asdict(one) | {"epochs": one.epochs, "verdict": one.verdict} for one in plan.sources]
        print_json(asdict(plan) | {"sources": sources})
    else:
        _print_plan(plan)
    problems = plan.problems()
    for problem in problems:
        print_error("data", problem)
    return EXIT_USER_ERROR if problems else 0


def _print_plan(plan: "DataPlan") -> None:
    from gptdist.data.plan import plain

    width = max(len("source"), *(len(one.name) for one in plan.sources))
    print(f"{plan.steps:,} steps, {plan.samples:,} samples, {plan.tokens:,} tokens")
    print(f"{'source':<{width}} {'tokens':>20} {'share':>8} {'samples':>16} {'epochs':>10} {'max_epochs':>10}  verdict")
    for one in plan.sources:
        print(
            f"{one.name:<{width}} {one.tokens:>20,} {one.share:>8.2%} {one.samples:>16,} {one.epochs:>10.4f} "
            f"{plain(one.max_epochs):>10}  {one.verdict}"
        )
    if plan.most_steps is not None:
        print(f"most that every max_epochs allows: {plan.most_steps:,} steps, {plan.most_tokens:,} tokens")


def run_trace(arguments: argparse.Namespace) -> None:
    """Print the documents that a step's batch, a rank's part of it, or one sample is made of."""
    from dataclasses import asdict

    from gptdist.data.attempts import attempt_of_sample, attempt_of_step, read_attempts
    from gptdist.data.trace import open_traced_data, trace_samples
    from gptdist.errors import DataError

    run, step, rank = arguments.run_folder, arguments.step, arguments.rank
    attempts = read_attempts(run)
    if arguments.sample is not None:
        if rank is not None:
            raise DataError(f"--rank {rank}: goes with --step only; leave it out for one sample")
        attempt = attempt_of_sample(run, attempts, arguments.sample, arguments.attempt)
        step, samples = attempt.step_of_sample(arguments.sample), [arguments.sample]
    else:
        attempt = attempt_of_step(run, attempts, step, arguments.attempt)
        samples = attempt.samples_of_step(step) if rank is None else attempt.samples_of_rank(step, rank)
    traced = trace_samples(open_traced_data(attempt.config, attempt.data_fingerprints), samples)
    facts = {"run": str(run), "step": step, "rank": rank, "attempt": attempt.number}
    facts["is_recorded"] = step <= attempt.recorded_step
    if arguments.json:
        print_json({**facts, "samples": [asdict(one) for one in traced]})
        return
    unproven = "" if facts["is_recorded"] else f", behind its last record (step {attempt.recorded_step})"
    reader = "all ranks" if rank is None else f"rank {rank}"
    part = f"{len(traced)} samples of {reader}" if arguments.sample is None else "one sample of it"
    print(f"{run}: step {step} of attempt {attempt.number}{unproven}; {part}")
    for one in traced:
        _print_sample(one)


def _print_sample(traced: "TracedSample") -> None:
    print(f"sample {traced.sample}: {traced.source}, epoch {traced.epoch}, tokens {traced.first_token}:{traced.tokens}")
    for part in traced.documents:
        place = f", record {part.record}" if part.record or part.offset is not None else ""
        place += f", byte {part.offset}" if part.offset is not None else ""
        place += f", piece {part.piece}" if part.piece else ""
        url = f", {part.url}" if part.url else ""
        learnt = "" if part.learnt_tokens is None else f", {part.learnt_tokens} of them learnt"
        print(
            f"  {part.tokens:>6} tokens from {part.document_token} of {part.document_tokens}: "
            f"{part.path}{place}{url}; {part.shard} document {part.document}{learnt}"
        )


def _token_count(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 1)
    try:
        count = Decimal(text[:-1] if unit > 1 else text) * unit
    except ArithmeticError:  # not a number, or one beyond all bounds
        count = Decimal(0)
    if not count.is_finite() or not 1 <= count <= _MOST_TOKENS or count != int(count):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of tokens, such as 300B, 1.5T or 20_000_000")
    return int(count)


def _token_range(text: str) -> tuple[int, int]:
    start, colon, count = text.partition(":")
    if not colon or not start.isdecimal() or not count.isdecimal() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not START:COUNT, such as 1000:64")
    return int(start), int(count)
