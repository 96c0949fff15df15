"""``gptdist quantize MODEL``: weights in int8 or int4, with what that costs."""

import argparse
import sys
from pathlib import Path

from gptdist.cli.answer import add_json, answer
from gptdist.cli.model_folder import expect_model
from gptdist.cli.quiet import hidden_libraries
from gptdist.compress.judge.metrics import Gate, parse_gates
from gptdist.compress.quantize.options import BACKENDS, SCHEMES, TORCHAO, QuantizeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="run, step folder or Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--scheme", choices=list(SCHEMES), required=True, help="bits of a weight")
    parser.add_argument(
        "--group-size", type=int, metavar="N", help="int4: weights that share a scale: 32 (default), 64 or 128"
    )
    parser.add_argument("--backend", choices=BACKENDS, default=TORCHAO, help="what rounds (default: torchao)")
    parser.add_argument(
        "--python", type=Path, metavar="PATH", help="interpreter of the environment that llmcompressor-gptq lives in"
    )
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="DIR",
        help="dataset folder to measure on (default: the model's own held-out text); repeatable",
    )  # fmt: skip
    parser.add_argument("--eval-samples", type=int, metavar="N", help="windows a source (0: all; default: 64)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer of a checkpoint (default: the run's)")
    parser.add_argument(
        "--max-regress", action="append", default=[], metavar="METRIC=N",
        help="write nothing and exit with 1 where it gets worse by more, such as bits_per_byte=0.02",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier folder of gptdist in DIR")
    add_json(parser)
    parser.set_defaults(run=_run)


@hidden_libraries()
def _run(arguments: argparse.Namespace) -> int:
    from gptdist.errors import EXIT_FAILED, ConfigError

    options = QuantizeOptions(
        scheme=arguments.scheme,
        group_size=arguments.group_size,
        backend=arguments.backend,
        python=arguments.python,
        overwrite=arguments.overwrite,
    )
    bad = options.problems()
    gates: tuple[Gate, ...] = ()
    try:
        gates = parse_gates(arguments.max_regress, ("loss",))
    except ConfigError as error:
        bad += error.problems
    if bad:
        raise ConfigError(bad)
    expect_model(arguments.model)
    from gptdist.cli.judge_options import held_out_options
    from gptdist.compress.quantize.quantize import RegressedError, quantize_model

    try:
        found = quantize_model(
            arguments.model,
            arguments.output,
            options,
            held_out=held_out_options(arguments),
            gates=gates,
            tokenizer=arguments.tokenizer,
        )
    except RegressedError as error:
        print(f"gptdist quantize: past --max-regress, nothing was written: {error}", file=sys.stderr)
        return EXIT_FAILED
    tree = {
        "before": dict(found.before),
        "after": dict(found.after),
        "weights_bytes_before": found.bytes_before,
        "weights_bytes": found.bytes_after,
        "num_layers": found.layers,
        "scheme": arguments.scheme,
        "output": found.folder,
    }
    lines = [f"{'':<28} {'before':>16} {'after':>16}"]
    for name in ("perplexity", "bits_per_byte", "validation_loss"):
        lines.append(f"{name:<28} {found.before[name]:>16.4f} {found.after[name]:>16.4f}")
    lines.append(f"{'bytes of the weights':<28} {found.bytes_before:>16,} {found.bytes_after:>16,}")
    lines.append(f"written     {found.folder}: {found.layers} linear layers in {arguments.scheme}")
    answer(arguments, tree, lines)
    return 0
