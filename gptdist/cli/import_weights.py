"""``gptdist import``: make a checkpoint of weights that other programs wrote."""

import argparse
import warnings
from dataclasses import asdict
from pathlib import Path

from gptdist.cli.answer import add_json, answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder in the Hugging Face layout, or that DeepSpeed saved"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument(
        "--config", type=Path, metavar="CONFIG", help="run config whose model it has to be; DeepSpeed's files need it"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="tokenizer (default: the config's, else the one in SOURCE)"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare logits with transformers', for which the model must fit"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what came in and how it compares."""
    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError

    if arguments.overrides and arguments.config is None:
        raise ConfigError([f"{arguments.overrides[0]}: there is no config to change; name one with --config"])
    config = None if arguments.config is None else load_config(RunConfig, arguments.config, arguments.overrides)
    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    from gptdist.compress.import_model import ImportOptions, import_weights

    options = ImportOptions(config, arguments.tokenizer, is_compared=not arguments.no_check)
    result = import_weights(arguments.source, arguments.output, options)
    manifest = result.manifest
    assert manifest.origin is not None, "an import says where it is from"
    size = sum(entry.num_bytes for entry in manifest.files)
    lines = [f"source     {arguments.source} ({manifest.origin.kind})", f"tokenizer  {result.tokenizer}"]
    if result.parity is not None:
        lines.append(
            f"parity     largest logit difference to transformers {result.parity.max_abs_difference:.2e} "
            f"(allowed {result.parity.allowed_difference:.2e}) at {result.parity.positions:,} positions"
        )
    lines.append(f"written    {arguments.output}: {len(manifest.tensors)} tensors, {size:,} bytes, weights alone")
    tree = {
        "source": arguments.source,
        "kind": manifest.origin.kind,
        "tokenizer": result.tokenizer,
        "parity": None if result.parity is None else asdict(result.parity),
        "output": arguments.output,
        "num_tensors": len(manifest.tensors),
        "num_bytes": size,
    }
    answer(arguments, tree, lines)
    return 0
