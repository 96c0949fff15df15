"""``gptdist prep``: documents to token shards."""

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="prep_command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="prepare what a config names; finished sources are kept",
        description="Prepare token shards from documents. The same command goes on after a kill.",
    )
    run.add_argument("config", type=Path, metavar="CONFIG", help="a file such as configs/data/demo.yaml")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as output_dir=data/other seed=1")
    run.set_defaults(run=run_prep)


def run_prep(arguments: argparse.Namespace) -> None:
    """Prepare, and print what came in and what came out."""
    # The tokenizers library asks the environment how many cores it may use, and is silent about one.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress
    from data_prep.report import report
    from gptdist.config.load import load_config
    from gptdist.config.prep import PrepConfig

    config = load_config(PrepConfig, arguments.config, arguments.overrides)
    print(report(prepare(config, Progress(sys.stderr))))
    print(f"written to {config.output_dir}")
