"""``gptdist plan --from RUN``: the plan of a run beside what it measured."""

import argparse

from gptdist.cli.answer import answer

DEVICE = "cpu"
"""Where ``--device`` is not given: a run on a GPU needs the name of its kind."""


def compare(arguments: argparse.Namespace) -> int:
    """Print plan and measurement side by side, and write refitted constants where they are asked for."""
    from gptdist.durable import write_whole
    from gptdist.errors import EXIT_DONE, ConfigError
    from gptdist.plan.constants import FITTED, Constants
    from gptdist.plan.device import find_device, find_network
    from gptdist.plan.measured import Comparison, cluster_of, constants_text, read_run
    from gptdist.plan.projection import Cluster, project

    if arguments.config is not None:
        raise ConfigError([f"config: '{arguments.config}' beside --from, whose run has its own; leave it out"])
    run = read_run(arguments.run_folder)
    network = None if arguments.interconnect is None else find_network(arguments.interconnect)
    constants = FITTED if arguments.constants is None else Constants.read(arguments.constants)
    cluster = cluster_of(run, Cluster(find_device(arguments.device or DEVICE), 1, 1, network, constants))
    comparison = Comparison(run, project(run.config, cluster))
    if arguments.write is not None:
        write_whole(arguments.write, constants_text(comparison.refit(), run).encode())
    answer(arguments, comparison.tree(), comparison.lines())
    return EXIT_DONE
