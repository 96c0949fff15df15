"""What every back end of ``gptdist launch`` takes."""

import argparse
from pathlib import Path


def add_job(
    backend: argparse.ArgumentParser,
    *,
    config: str = "run config (YAML)",
    dry_run: str = "print what would run, and run nothing",
) -> None:
    """Add the config, its overrides and ``--dry-run`` to the parser of a back end.

    Args:
        backend: the parser.
        config: help of the config.
        dry_run: help of ``--dry-run``.
    """
    backend.add_argument("config", type=Path, help=config)
    backend.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    backend.add_argument("--dry-run", action="store_true", help=dry_run)
