"""``gptdist export``: write a checkpoint as a folder that other tools load, with all that later stages need."""

import argparse
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.cli.answer import add_json, answer
from gptdist.cli.model_folder import expect_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gptdist.compress.bundle.parts import BundleOptions, BundleParts


DTYPES = {"hf": ("float32", "bfloat16"), "gguf": ("float32", "float16", "q8_0"), "onnx": ("float32",)}
"""Number formats of each target."""

PACKAGES = {"gguf": ("gguf",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""What a target needs beside gptdist's own packages, by name of import."""

_PARTS = (
    *("calibration", "calibration_sequences", "calibration_length", "calibration_seed", "held_out", "baseline"),
    *("generations", "word_list", "activations", "no_check", "data"),
)
"""Options of what goes with the model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run folder, or one checkpoint's folder")
    parser.add_argument(
        "--to",
        choices=list(DTYPES),
        required=True,
        help="hf: Hugging Face layout, read by transformers; gguf: for llama.cpp; onnx: a graph",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--dtype",
        choices=sorted({dtype for dtypes in DTYPES.values() for dtype in dtypes}),
        default="float32",
        help="number format of weights: float32; of hf also bfloat16, of gguf float16 and q8_0",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in DIR")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="tokenizer folder (default: the run's); must be the same one"
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="dataset folder whose validation split the models are compared on (default: the run's); repeatable",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not load what was written; nothing is compared or measured"
    )
    _add_parts(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _add_parts(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_argument_group(
        "what goes with the model (default: all whose data are there but --activations; named: or the export fails)"
    )
    either = argparse.BooleanOptionalAction
    parts.add_argument(
        "--calibration", action=either, help="tokens of the training mixture, for pruning by activations"
    )
    parts.add_argument("--calibration-sequences", type=int, metavar="N", help="how many (default: 128)")
    parts.add_argument("--calibration-length", type=int, metavar="N", help="tokens of each (default: 2048)")
    parts.add_argument("--calibration-seed", type=int, metavar="S", help="decides which (default: 0)")
    parts.add_argument("--held-out", action=either, help="validation windows")
    parts.add_argument("--baseline", action=either, help="losses and bits per byte on them")
    parts.add_argument("--generations", action=either, help="counts of personal data and unsuitable words in its texts")
    parts.add_argument(
        "--word-list", type=Path, action="append", default=[], metavar="FILE", help="such words, one a line"
    )
    parts.add_argument("--activations", action="store_true", help="statistics of what each layer sees of the tokens")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what was written and how it compares."""
    _check_target(arguments)
    if arguments.to == "hf":
        from gptdist.checkpoint.find import expect_checkpoint

        expect_checkpoint(arguments.checkpoint)
        _export(arguments)
    else:
        expect_model(arguments.checkpoint)
        _export_otherwise(arguments)
    return 0


def _check_target(arguments: argparse.Namespace) -> None:
    from importlib.util import find_spec

    from gptdist.errors import ConfigError

    bad, dtypes = [], DTYPES[arguments.to]
    if arguments.dtype not in dtypes:
        bad.append(f"--dtype: {arguments.dtype} is not written with --to {arguments.to}; use {' or '.join(dtypes)}")
    if any(find_spec(package) is None for package in PACKAGES.get(arguments.to, ())):
        bad.append(f"--to {arguments.to}: its packages are not installed; pip install 'gptdist[export]'")
    if arguments.to != "hf":
        given = {name: getattr(arguments, name) for name in _PARTS}
        bad += [
            f"--{name.replace('_', '-')}: belongs to --to hf, not {arguments.to}; leave it out"
            for name, value in given.items()
            if value not in (None, False, [])
        ]
    if bad:
        raise ConfigError(bad)


def _export_otherwise(arguments: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.as_checkpoint import opened_as_checkpoint
    from gptdist.compress.trained_on import trained_tokenizer

    with opened_as_checkpoint(arguments.checkpoint, arguments.output, arguments.tokenizer) as reader:
        tokenizer = trained_tokenizer(reader.manifest, arguments.tokenizer)
        if arguments.to == "gguf":
            from gptdist.compress.gguf_export import export_gguf

            result = export_gguf(
                reader, arguments.output, tokenizer, dtype=arguments.dtype, overwrite=arguments.overwrite
            )
        else:
            from gptdist.compress.onnx_export import export_onnx

            result = export_onnx(reader, arguments.output, tokenizer, overwrite=arguments.overwrite)
        step = reader.manifest.step
    parity = result.parity
    lines = [
        f"checkpoint  {arguments.checkpoint}, step {step:,}",
        f"parity      largest logit difference {parity.max_abs_difference:.2e} "
        f"(allowed {parity.allowed_difference:.2e}) at {parity.positions:,} positions, weights rounded to "
        f"{arguments.dtype} on both sides",
        f"written     {result.folder}: {result.num_bytes / 1e6:,.1f} MB",
    ]
    facts = {"step": step, "parity": asdict(parity), "output": result.folder, "num_bytes": result.num_bytes}
    answer(arguments, {"checkpoint": arguments.checkpoint, "dtype": arguments.dtype, **facts}, lines)


def _export(arguments: argparse.Namespace) -> None:
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.export import ExportOptions, export_checkpoint

    bundle = _bundle_options(arguments)
    result = export_checkpoint(
        arguments.checkpoint,
        arguments.output,
        tokenizer=arguments.tokenizer,
        data=arguments.data,
        options=ExportOptions(dtype=arguments.dtype, overwrite=arguments.overwrite, is_compared=not arguments.no_check),
        bundle=bundle,
    )
    parity = result.parity
    lines = [
        f"checkpoint  {arguments.checkpoint}, step {result.step:,}",
        f"model       {result.huggingface_class}, {result.parameters:,} parameters, {arguments.dtype}",
    ]
    if parity is None:
        lines.append("parity      not compared")
    else:
        lines.append(
            f"parity      largest logit difference {parity.max_abs_difference:.2e} "
            f"(allowed {parity.allowed_difference:.2e}), same likeliest token at {parity.argmax_agreement:.1%} "
            f"of {parity.positions:,} positions"
        )
    lines += _part_lines(result.parts)
    lines.append(f"written     {result.folder}: {len(result.files)} files, {result.num_bytes / 1e6:,.1f} MB")
    tree = {
        "checkpoint": arguments.checkpoint,
        "dtype": arguments.dtype,
        "step": result.step,
        "huggingface_class": result.huggingface_class,
        "num_parameters": result.parameters,
        "parity": None if parity is None else asdict(parity),
        "baseline": result.parts.baseline,
        "found_in_texts": None if result.parts.findings is None else dict(result.parts.findings.counts),
        "left_out": result.parts.left_out,
        "output": result.folder,
        "num_files": len(result.files),
        "num_bytes": result.num_bytes,
    }
    answer(arguments, tree, lines)


def _bundle_options(arguments: argparse.Namespace) -> "BundleOptions":
    from gptdist.cli.detectors import personal_data, unsuitable_words
    from gptdist.compress.bundle.parts import BundleOptions
    from gptdist.compress.calibration import CalibrationOptions
    from gptdist.errors import ConfigError

    given = {name: getattr(arguments, f"calibration_{name}") for name in ("sequences", "length", "seed")}
    named = {name: value for name, value in given.items() if value is not None}
    calibration = CalibrationOptions(**named)
    problems = calibration.problems()
    if named and arguments.calibration is False:
        problems.append("--no-calibration: contradicts --calibration-…; leave one out")
    if problems:
        raise ConfigError(problems)
    counts = arguments.generations is not False and not arguments.no_check
    return BundleOptions(
        calibration=arguments.calibration or (True if named else arguments.calibration),
        held_out=arguments.held_out,
        baseline=arguments.baseline,
        generations=arguments.generations,
        activations=arguments.activations,
        calibration_options=calibration,
        detectors=(personal_data(), unsuitable_words(arguments.word_list)) if counts else (),
    )


def _part_lines(parts: "BundleParts") -> "Iterator[str]":
    if parts.baseline is not None:
        yield (
            f"baseline    {parts.baseline['bits_per_byte']:.4f} bits/byte, {parts.baseline['loss']:.4f} nats/token on "
            f"held-out windows"
        )
    if parts.findings is not None:
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(parts.findings.counts.items()) if count)
        yield (
            f"texts       {parts.findings.generations} of its own, {parts.findings.tokens:,} tokens; "
            f"found in them: {found or 'nothing that was looked for'}"
        )
    for name, reason in parts.left_out.items():
        yield (f"left out    {name.replace('_', '-')}: {reason}")
