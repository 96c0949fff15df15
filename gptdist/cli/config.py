"""``gptdist config CONFIG [key=value …]``: check a run config and print it resolved; list or copy the shipped ones."""

import argparse
import sys
from pathlib import Path

from gptdist.cli.answer import add_json, answer, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("config", type=Path, nargs="?", help="run config (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    parser.add_argument("--quiet", action="store_true", help="only check; print nothing when all is well")
    parser.add_argument("--list", action="store_true", help="the names of the shipped configs, instead")
    parser.add_argument("--copy", type=Path, metavar="DIR", help="copy the shipped configs into DIR, instead")
    add_json(parser)
    parser.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> None:
    from gptdist.config.shipped import copy_shipped, shipped_names
    from gptdist.errors import ConfigError

    if sum([arguments.config is not None, arguments.list, arguments.copy is not None]) != 1:
        raise ConfigError(["CONFIG, --list or --copy DIR: exactly one of them is needed; 'gptdist config --help'"])
    if arguments.list:
        names = shipped_names()
        answer(arguments, {"configs": names}, names)
    elif arguments.copy is not None:
        files = copy_shipped(arguments.copy)
        answer(arguments, {"files": files}, [f"{len(files)} files written to {arguments.copy}"])
    else:
        _show(arguments)


def _show(arguments: argparse.Namespace) -> None:
    from ruamel.yaml import YAML

    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    if arguments.quiet:
        return
    flops = sum(flops_per_token(config.model, length) * part for length, part in config.tokens_by_seq_length())
    if arguments.json:
        print_json(
            {
                "config": config.tree(),
                "num_parameters": num_parameters(config.model),
                "num_active_parameters": num_active_parameters(config.model),
                "train_tokens": config.train_tokens,
                "train_flops": flops,
            }
        )
        return
    yaml = YAML(pure=True)
    yaml.dump(config.tree(), sys.stdout)
    tokens = config.train_tokens
    print(f"# parameters: {num_parameters(config.model):,}")
    if config.model.moe is not None:
        print(f"# of which a token meets: {num_active_parameters(config.model):,}")
    print(f"# training tokens (samples of train_steps x seq_length): {tokens:,}")
    print(f"# training FLOPs (a token: 6 x values of matrices it meets + causal attention; x tokens): {flops:.3e}")
