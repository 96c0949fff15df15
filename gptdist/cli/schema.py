"""``gptdist schema KIND``: the JSON Schema of a kind of config file, for editors."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptdist.config.section import Section

KINDS = {
    "run": "Run config of gptdist",
    "prep": "Data config of gptdist",
    "recipe": "Recipe of gptdist compress",
    "device": "Device of gptdist plan",
    "network": "Network of gptdist plan",
}
"""What files there are, and each schema's title."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("kind", choices=list(KINDS), help="run configs and models; data; recipes; configs/devices")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there (default: print it)")
    parser.set_defaults(run=_run)


def section_of(kind: str) -> "type[Section]":
    """Return the section that a kind of file holds."""
    from gptdist.config.prep import PrepConfig
    from gptdist.config.recipe import RecipeConfig
    from gptdist.config.run import RunConfig
    from gptdist.plan.device import Device, Network

    sections: dict[str, type[Section]] = {
        "run": RunConfig,
        "prep": PrepConfig,
        "recipe": RecipeConfig,
        "device": Device,
        "network": Network,
    }
    return sections[kind]


def schema_text(kind: str) -> str:
    """Return the schema of a kind of file as it is printed."""
    import json

    from gptdist.config.json_schema import json_schema

    return json.dumps(json_schema(section_of(kind), KINDS[kind]), indent=1, ensure_ascii=False) + "\n"


def _run(arguments: argparse.Namespace) -> None:
    from gptdist.durable import write_whole

    text = schema_text(arguments.kind)
    if arguments.output is None:
        print(text, end="")
        return
    write_whole(arguments.output, text.encode())
    print(f"written  {arguments.output}")
