"""``gptdist prune sensitivity``: how the loss grows when one part of one layer is pruned."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import answer
from gptdist.cli.model_folder import expect_model
from gptdist.cli.prune_structure import add_importance
from gptdist.cli.prune_weights import add_calibration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gptdist.compress.prune.sensitivity import Sensitivity

SHOWN_LAYERS = 10

REPORT_FILE, PICTURE_FILE = "report.json", "sensitivity.png"


def add_sensitivity(actions: Any) -> None:
    """Add ``sensitivity`` to the sub-commands ``actions``."""
    parser = actions.add_parser("sensitivity", help="measure how much each layer's parts may lose; writes no model")
    parser.add_argument("model", type=Path, metavar="MODEL", help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for report and picture")
    parser.add_argument(
        "--parts", metavar="A,B", help="of qkv, proj, fc1, fc2 (single weights), neurons, heads (default: all)"
    )
    parser.add_argument("--ratios", default="0.25,0.5,0.75,0.9", metavar="R,R", help="shares that are pruned")
    parser.add_argument(
        "--method", default="magnitude", choices=("magnitude", "wanda", "sparsegpt"), help="of single weights"
    )
    add_importance(parser)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_calibration(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    import json
    import warnings

    from gptdist.durable import write_whole
    from gptdist.errors import ConfigError

    output: Path = arguments.output
    ratios, problems = _numbers(arguments.ratios)
    if output.exists() and not output.is_dir():
        problems.append(f"--output: '{output}' is a file; name a folder")
    if problems:
        raise ConfigError(problems)
    expect_model(arguments.model)
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.calibration import CalibrationOptions
    from gptdist.compress.prune.importance import ImportanceOptions
    from gptdist.compress.prune.sensitivity import PARTS, SensitivityOptions, measure_sensitivity
    from gptdist.compress.prune.sensitivity_plot import write_picture

    found = measure_sensitivity(
        arguments.model,
        output,
        SensitivityOptions(
            parts=PARTS if arguments.parts is None else tuple(filter(None, arguments.parts.split(","))),
            ratios=ratios,
            method=arguments.method,
            importance=ImportanceOptions(arguments.over_tokens, arguments.over_sequences),
            calibration=CalibrationOptions(
                arguments.calibration_sequences, arguments.calibration_length, arguments.calibration_seed
            ),
            held_out_sequences=arguments.held_out_sequences,
            device=arguments.device,
            data=tuple(arguments.data),
        ),
    )
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / REPORT_FILE, (json.dumps(found.tree(), indent=1) + "\n").encode())
    write_picture(output / PICTURE_FILE, found)
    written = f"written      {output / REPORT_FILE}, {output / PICTURE_FILE}"
    answer(arguments, {**found.tree(), "output": output}, [*_lines(found, ratios), written])


def _numbers(text: str) -> tuple[tuple[float, ...], list[str]]:
    """Return the numbers in ``text``, and a line for each that is none."""
    found, bad = [], []
    for part in filter(None, text.split(",")):
        try:
            found.append(float(part))
        except ValueError:
            bad.append(f"--ratios: '{part}' is no number; give shares such as 0.25,0.5")
    return tuple(found), bad


def _lines(found: "Sensitivity", ratios: tuple[float, ...]) -> "Iterator[str]":
    from gptdist.compress.prune.sensitivity import ratio_to_show

    ratio = ratio_to_show(ratios)
    yield (f"model        {found.model}, step {found.step:,}")
    yield (f"loss         {found.loss:.4f} nats a token on {found.held_out_tokens:,} held-out tokens")
    yield (f"increase of the loss with {ratio:g} of one part of one layer pruned; most sensitive layers first")
    yield f"{'layer':>6}" + "".join(f"{part:>10}" for part in found.parts) + f"{'left out':>10}"
    for layer in found.most_sensitive(ratio)[:SHOWN_LAYERS]:
        grown = [found.increase(layer, part, ratio) for part in found.parts]
        cells = ["-" if one is None else f"{one:+.4f}" for one in [*grown, found.without_layer[layer] - found.loss]]
        yield f"{layer:>6}" + "".join(f"{cell:>10}" for cell in cells)
