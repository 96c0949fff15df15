"""``gptdist prune structure``: neurons, heads, channels and layers are cut out; matrices become smaller."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import answer
from gptdist.cli.model_folder import expect_model
from gptdist.cli.prune_weights import add_calibration

if TYPE_CHECKING:
    from gptdist.compress.prune.structure import Structured, StructureOptions

SIZES = ("ffn", "hidden", "heads", "query_groups", "layers")


def add_structure(actions: Any) -> None:
    """Add ``structure`` to the sub-commands ``actions``."""
    parser = actions.add_parser("structure", help="cut out whole units; matrices become smaller")
    parser.add_argument("model", type=Path, metavar="MODEL", help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    sizes = parser.add_argument_group("sizes of the smaller model (those not named stay)")
    sizes.add_argument("--ffn", type=int, metavar="N", help="feed-forward neurons of a layer")
    sizes.add_argument("--hidden", type=int, metavar="N", help="channels of the residual stream")
    sizes.add_argument("--heads", type=int, metavar="N", help="query heads of a layer")
    sizes.add_argument("--query-groups", type=int, metavar="N", help="key and value heads of a layer")
    sizes.add_argument("--layers", type=int, metavar="N", help="layers")
    search = parser.add_argument_group("or its number of parameters, to which legal sizes are searched")
    search.add_argument("--target-parameters", metavar="N", help="at most so many, or a share such as 0.5")
    search.add_argument("--axes", metavar="A,B", help="of ffn, hidden, heads, layers (default: all but layers)")
    search.add_argument("--multiple-of", type=int, metavar="N", help="of new widths (default: 8)")
    search.add_argument("--candidates", type=int, metavar="N", help="shapes whose loss is measured (default: 8)")
    units = add_importance(parser)
    units.add_argument(
        "--layers-by",
        default="influence",
        choices=("influence", "loss"),
        help="how far a layer turns its input (default), or what the loss is without it",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--write-config", type=Path, metavar="FILE", help="config of a run that trains it on")
    add_calibration(parser)
    parser.set_defaults(run=_run, check=_problems)


def add_importance(parser: argparse.ArgumentParser) -> Any:
    """Add the options that say how units are compared, and return their group."""
    units = parser.add_argument_group("how units are compared")
    units.add_argument("--over-tokens", default="mean", choices=("mean", "l2"), help="in a sequence (default: mean)")
    units.add_argument("--over-sequences", default="l2", choices=("mean", "l2"), help="of those (default: l2)")
    units.add_argument(
        "--held-out-sequences", type=int, default=32, metavar="N", help="on which losses are measured (default: 32)"
    )
    return units


def _run(arguments: argparse.Namespace) -> None:
    import warnings

    from gptdist.errors import ConfigError

    if problems := _problems(arguments):
        raise ConfigError(problems)
    expect_model(arguments.model)
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.prune.structure import prune_structure

    _print(arguments, prune_structure(arguments.model, arguments.output, _options(arguments)))


def _problems(arguments: argparse.Namespace) -> list[str]:
    """Return what contradicts itself, whatever the model is."""
    named = [f"--{name.replace('_', '-')}" for name in SIZES if getattr(arguments, name) is not None]
    if arguments.target_parameters is not None:
        return [f"{name}: sizes follow from --target-parameters; name one or the other" for name in named]
    given = vars(arguments)
    bad = [
        f"--{name.replace('_', '-')}: belongs to --target-parameters; name that too, or leave it out"
        for name in ("axes", "multiple_of", "candidates")
        if given[name] is not None
    ]
    return bad if named else [*bad, "--ffn, --hidden, --heads, … or --target-parameters: none is given; name one"]


def _options(arguments: argparse.Namespace) -> "StructureOptions":
    from gptdist.compress.calibration import CalibrationOptions
    from gptdist.compress.prune.importance import ImportanceOptions
    from gptdist.compress.prune.search import SearchOptions
    from gptdist.compress.prune.shape import RequestedShape
    from gptdist.compress.prune.structure import StructureOptions

    target, given = arguments.target_parameters, vars(arguments)
    chosen = {name: given[name] for name in ("multiple_of", "candidates") if given[name] is not None}
    if arguments.axes is not None:
        chosen["axes"] = tuple(name for name in arguments.axes.split(",") if name)
    return StructureOptions(
        requested=RequestedShape(**{name: given[name] for name in SIZES}) if target is None else None,
        search=None if target is None else SearchOptions(target, **chosen),
        importance=ImportanceOptions(arguments.over_tokens, arguments.over_sequences, arguments.layers_by),
        calibration=CalibrationOptions(
            arguments.calibration_sequences, arguments.calibration_length, arguments.calibration_seed
        ),
        held_out_sequences=arguments.held_out_sequences,
        device=arguments.device,
        data=tuple(arguments.data),
        run_config=arguments.write_config,
    )


def _print(arguments: argparse.Namespace, found: "Structured") -> None:
    from gptdist.model.arithmetic import num_parameters

    decision, before, after = found.decision, num_parameters(found.whole), num_parameters(found.model)
    lines = []
    if decision.tried:
        lines.append(f"{'parameters':>14}  {'predicted':>9}  {'measured':>9}  shape (losses: nats a token, held-out)")
    for one in decision.tried:
        measured = "-" if one.measured is None else f"{one.measured:.4f}"
        lines.append(f"{one.candidate.parameters:>14,}  {one.predicted:>9.4f}  {measured:>9}  {one.candidate.shape}")
    lines += [
        f"model        {arguments.model}, step {found.manifest.step:,}",
        f"shape        {decision.shape}",
        f"parameters   {after:,} of {before:,} ({after / before:.1%})",
        f"loss         {decision.loss_before:.4f} → {decision.loss:.4f} nats a token, held-out",
        *(f"not exported {problem}" for problem in found.not_exported),
        f"written      {arguments.output}: {len(found.manifest.tensors)} tensors, weights alone",
    ]
    if arguments.write_config is None:
        lines.append(f"to train on  training.init_from={arguments.output} (--write-config writes such a run's config)")
    else:
        lines.append(f"to train on  gptdist launch local {arguments.write_config}")
        lines.append(f"to distill   gptdist distill run {arguments.write_config} --teacher {arguments.model}")
    answer(arguments, _tree(arguments, found, before, after), lines)


def _tree(arguments: argparse.Namespace, found: "Structured", before: int, after: int) -> dict[str, Any]:
    """Return what was made as plain data; losses are nats a token, held-out."""
    from dataclasses import asdict

    decision = found.decision
    return {
        "tried": [
            {
                "num_parameters": one.candidate.parameters,
                "predicted_loss": one.predicted,
                "measured_loss": one.measured,
                "shape": asdict(one.candidate.shape),
            }
            for one in decision.tried
        ],
        "model": arguments.model,
        "step": found.manifest.step,
        "shape": asdict(decision.shape),
        "num_parameters_before": before,
        "num_parameters": after,
        "loss_before": decision.loss_before,
        "loss": decision.loss,
        "not_exported": found.not_exported,
        "output": arguments.output,
    }
