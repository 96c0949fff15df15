"""``gptdist compare A B …``: every number of several models in one table and one page."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.cli.answer import add_json, print_json
from gptdist.cli.judge_options import add_judge_arguments
from gptdist.cli.model_folder import expect_model
from gptdist.cli.quiet import hidden_libraries
from gptdist.compress.judge.metrics import FIDELITY, Gate, parse_gates
from gptdist.errors import EXIT_DONE, EXIT_FAILED, CheckpointError, ConfigError

if TYPE_CHECKING:
    from gptdist.compress.judge.judge import Judgement

DEFAULT_SUITES = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help="run, step folder or Hugging Face folder; two or more"
    )
    parser.add_argument("--eval-samples", type=int, metavar="N", help="windows a source (0: all; default: 64)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer of checkpoints (default: their runs')")
    add_judge_arguments(parser, DEFAULT_SUITES)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page")
    add_json(parser)
    parser.add_argument(
        "--max-regress", action="append", default=[], metavar="METRIC=N",
        help="exit with 1 where a model is worse than the first by more, such as bits_per_byte=0.02; repeatable",
    )  # fmt: skip
    parser.set_defaults(run=_run)


@hidden_libraries()
def _run(arguments: argparse.Namespace) -> int:
    gates = _checked(arguments)
    from gptdist.compress.judge.page import write_page
    from gptdist.compress.judge.table import comparison_lines

    judgements, same_tokens = _judged(arguments)
    if arguments.html is not None:
        write_page(arguments.html, judgements, same_tokens=same_tokens, command=" ".join(sys.argv[1:]))
    if arguments.json:
        print_json({"same_tokenizer": same_tokens, "models": [one.tree() for one in judgements]})
    else:
        print("\n".join(comparison_lines(judgements, same_tokens=same_tokens)))
    failures = [
        f"{other.model}: {line}"
        for other in judgements[1:]
        for gate in gates
        if (line := gate.failure(judgements[0].metrics, other.metrics))
    ]
    for line in failures:
        print(f"gptdist compare: past --max-regress: {line}", file=sys.stderr)
    return EXIT_FAILED if failures else EXIT_DONE


def _checked(arguments: argparse.Namespace) -> tuple[Gate, ...]:
    """Return the gates; refuse what can be refused before a model is opened."""
    from gptdist.plan.plot import check_path

    bad = [] if len(arguments.models) > 1 else ["MODEL: one is named; name two or more, or use gptdist evaluate"]
    bad += [] if arguments.html is None else check_path(arguments.html, "--html", (".html",))
    gates: tuple[Gate, ...] = ()
    try:
        gates = parse_gates(arguments.max_regress)
    except ConfigError as error:
        bad += error.problems
    for path in dict.fromkeys(arguments.models):
        try:
            expect_model(path)
        except CheckpointError as error:
            bad += error.problems
    if bad:
        raise ConfigError(bad)
    return gates


def _judged(arguments: argparse.Namespace) -> "tuple[list[Judgement], bool]":
    """Return what was measured of each model, one after the other, and whether all speak with the same tokens."""
    from gptdist.cli.judge_options import held_out_options, judge_options
    from gptdist.compress.judge.held_out import held_out_of, texts_of
    from gptdist.compress.judge.judge import judge, material_of, needs_held_out
    from gptdist.compress.judge.subject import open_subject

    options, held_out = judge_options(arguments, DEFAULT_SUITES), held_out_options(arguments)
    first = open_subject(arguments.models[0], arguments.tokenizer)
    is_needed = needs_held_out(options.suites, has_reference=arguments.reference is not None)
    material = material_of(first, held_out_of(first, held_out) if is_needed else [], options)
    texts = texts_of(first, material.held_out)
    reference = None if arguments.reference is None else open_subject(arguments.reference, None)
    judgements, same_tokens = [], True
    for path in arguments.models:
        subject = first if path == arguments.models[0] else open_subject(path, arguments.tokenizer)
        is_same = subject.speaks_like(first, texts)
        same_tokens &= is_same
        # the first is what the others are compared with: without a reference, their fidelity is to it
        compared = reference or (first if subject is not first and is_same and is_needed else None)
        judgements.append(judge(subject, material, options, compared))
    assert FIDELITY not in options.suites, "measured where there is something to compare with"
    return judgements, same_tokens
