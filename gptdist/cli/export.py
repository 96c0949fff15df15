"""``gptdist export``: write a checkpoint as a folder that other tools load."""

import argparse
import warnings
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run folder, or one checkpoint's folder")
    parser.add_argument("--to", choices=["hf"], required=True, help="hf: Hugging Face layout, read by transformers")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="number format of weights")
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what was written and how it compares."""
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.export import ExportOptions, export_checkpoint

    result = export_checkpoint(
        arguments.checkpoint,
        arguments.output,
        tokenizer=arguments.tokenizer,
        data=arguments.data,
        options=ExportOptions(dtype=arguments.dtype, overwrite=arguments.overwrite),
    )
    parity = result.parity
    print(f"checkpoint  {arguments.checkpoint}, step {result.step:,}")
    print(f"model       {result.huggingface_class}, {result.parameters:,} parameters, {arguments.dtype}")
    print(
        f"parity      largest logit difference {parity.max_abs_difference:.2e} "
        f"(allowed {parity.allowed_difference:.2e}), same likeliest token at {parity.argmax_agreement:.1%} "
        f"of {parity.positions:,} positions"
    )
    print(f"written     {result.folder}: {len(result.files)} files, {result.num_bytes / 1e6:,.1f} MB")
    return 0
