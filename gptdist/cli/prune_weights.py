"""``gptdist prune weights``: single weights become zero, by magnitude, Wanda or SparseGPT."""

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import answer
from gptdist.cli.model_folder import expect_model

if TYPE_CHECKING:
    from gptdist.compress.prune.options import WeightOptions


def add_weights(actions: Any) -> None:
    """Add ``weights`` to the sub-commands ``actions``."""
    parser = actions.add_parser("weights", help="make single weights zero; the shapes stay")
    parser.add_argument("model", type=Path, metavar="MODEL", help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument(
        "--method",
        choices=("magnitude", "wanda", "sparsegpt"),
        default="magnitude",
        help="by size (default), by size times activations, or so that the other weights make up for it",
    )
    amount = parser.add_argument_group("how much: one of these")
    amount.add_argument("--ratio", type=float, metavar="R", help="share of each matrix that becomes zero")
    amount.add_argument("--threshold", type=float, metavar="T", help="weights of a smaller size become zero")
    amount.add_argument("--pattern", metavar="N:M", help="of every M weights next to each other in a row, N stay")
    parser.add_argument(
        "--scope",
        choices=("layer", "global"),
        default="layer",
        help="magnitude: compare in each matrix, or in all",
    )
    parser.add_argument("--skip-layers", default="", metavar="LIST", help="layers that stay, from 0, such as 0,10-11")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_calibration(parser)
    parser.set_defaults(run=_run, check=lambda arguments: _options(arguments).problems())


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which tokens a method looks at."""
    tokens = parser.add_argument_group("tokens that are looked at (default: the model's own, of its training)")
    tokens.add_argument("--calibration-sequences", type=int, default=128, metavar="N", help="default: 128")
    tokens.add_argument("--calibration-length", type=int, default=2048, metavar="N", help="tokens each (default: 2048)")
    tokens.add_argument("--calibration-seed", type=int, default=0, metavar="N", help="decides which (default: 0)")
    tokens.add_argument(
        "--data", type=Path, action="append", default=[], metavar="DIR", help="dataset folder to take; repeatable"
    )


def _options(arguments: argparse.Namespace) -> "WeightOptions":
    from gptdist.compress.calibration import CalibrationOptions
    from gptdist.compress.prune.options import WeightOptions

    return WeightOptions(
        method=arguments.method,
        ratio=arguments.ratio,
        threshold=arguments.threshold,
        pattern=arguments.pattern,
        scope=arguments.scope,
        skip_layers=arguments.skip_layers,
        device=arguments.device,
        calibration=CalibrationOptions(
            arguments.calibration_sequences, arguments.calibration_length, arguments.calibration_seed
        ),
    )


def _run(arguments: argparse.Namespace) -> None:
    from gptdist.errors import ConfigError

    options = _options(arguments)
    if problems := options.problems():
        raise ConfigError(problems)
    expect_model(arguments.model)
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.prune.weights import prune_weights

    found = prune_weights(arguments.model, arguments.output, options, arguments.data)
    tree = {
        "model": arguments.model,
        "step": found.manifest.step,
        "facts": found.facts,
        "num_zeros": found.zeros,
        "num_weights": found.pruned_values,
        "num_matrices": found.matrices,
        "output": arguments.output,
    }
    lines = [
        f"model        {arguments.model}, step {found.manifest.step:,}",
        *(f"{name:<12} {value}" for name, value in found.facts.items()),
        f"zeros        {found.zeros / found.pruned_values:.2%} of {found.pruned_values:,} weights "
        f"of {found.matrices} matrices",
        f"written      {arguments.output}: {len(found.manifest.tensors)} tensors, weights alone",
        f"to train on  training.init_from={arguments.output} training.keep_zeros=true",
    ]
    answer(arguments, tree, lines)
