"""``gptdist prune units``: neurons and query groups with small weights are cut out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import answer
from gptdist.cli.model_folder import expect_model

if TYPE_CHECKING:
    from gptdist.compress.prune.options import UnitOptions


def add_units(actions: Any) -> None:
    """Add ``units`` to the sub-commands ``actions``."""
    parser = actions.add_parser("units", help="cut out units whose weights are small; matrices become smaller")
    parser.add_argument("model", type=Path, metavar="MODEL", help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    amount = parser.add_argument_group("how much: one of these")
    amount.add_argument("--ratio", type=float, metavar="R", help="share of each layer's units that goes")
    amount.add_argument("--threshold", type=float, metavar="T", help="units of a smaller size go")
    parser.add_argument(
        "--norm",
        default="l2",
        choices=("l1", "l2"),
        help="size of a unit: mean of its weights' absolute values, or root of the mean of squares (default)",
    )
    parser.add_argument("--units", default="neurons,groups", metavar="A,B", help="default: neurons,groups")
    parser.add_argument("--write-config", type=Path, metavar="FILE", help="config of a run that trains it on")
    parser.set_defaults(run=_run, check=lambda arguments: _options(arguments).problems())


def _options(arguments: argparse.Namespace) -> "UnitOptions":
    from gptdist.compress.prune.options import UnitOptions

    return UnitOptions(
        norm=arguments.norm,
        ratio=arguments.ratio,
        threshold=arguments.threshold,
        units=tuple(name for name in arguments.units.split(",") if name),
        run_config=arguments.write_config,
    )


def _run(arguments: argparse.Namespace) -> None:
    import warnings

    expect_model(arguments.model)
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.prune.units import layer_lines, prune_units
    from gptdist.model.arithmetic import num_parameters

    found = prune_units(arguments.model, arguments.output, _options(arguments))
    before, after = num_parameters(found.whole), num_parameters(found.model)
    layers = [
        {"neurons": now.ffn, "neurons_before": was.ffn, "groups": now.groups, "groups_before": was.groups}
        for was, now in zip(found.whole.shapes(), found.model.shapes(), strict=True)
    ]
    tree = {
        "model": arguments.model,
        "step": found.manifest.step,
        "layers": layers,
        "num_parameters_before": before,
        "num_parameters": after,
        "not_exported": found.not_exported,
        "output": arguments.output,
    }
    lines = [
        f"model        {arguments.model}, step {found.manifest.step:,}",
        *layer_lines(found.whole, found.model),
        f"parameters   {after:,} of {before:,} ({after / before:.1%})",
        *(f"not exported {problem}" for problem in found.not_exported),
        f"written      {arguments.output}: {len(found.manifest.tensors)} tensors, weights alone",
    ]
    answer(arguments, tree, lines)
