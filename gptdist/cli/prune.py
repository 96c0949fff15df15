"""``gptdist prune``: a model with fewer weights; each kind of pruning has a file of its own."""

import argparse

from gptdist.cli.answer import add_json
from gptdist.cli.prune_sensitivity import add_sensitivity
from gptdist.cli.prune_structure import add_structure
from gptdist.cli.prune_units import add_units
from gptdist.cli.prune_weights import add_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_weights(actions)
    add_structure(actions)
    add_units(actions)
    add_sensitivity(actions)
    for action in actions.choices.values():
        add_json(action)
