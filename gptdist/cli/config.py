"""``gptdist config CONFIG [key=value …]``: check a run config and print it resolved."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("config", type=Path, help="run config (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    parser.add_argument("--quiet", action="store_true", help="only check; print nothing when all is well")
    parser.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> None:
    from ruamel.yaml import YAML

    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    if arguments.quiet:
        return
    yaml = YAML(pure=True)
    yaml.dump(config.tree(), sys.stdout)
    tokens = config.train_tokens
    print(f"# parameters: {num_parameters(config.model):,}")
    if config.model.moe is not None:
        print(f"# of which a token meets: {num_active_parameters(config.model):,}")
    print(f"# training tokens (samples of train_steps x seq_length): {tokens:,}")
    flops = sum(flops_per_token(config.model, length) * part for length, part in config.tokens_by_seq_length())
    print(f"# training FLOPs (a token: 6 x values of matrices it meets + causal attention; x tokens): {flops:.3e}")
