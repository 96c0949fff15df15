"""The same run on other numbers of nodes: the batch stays as it is, so this is strong scaling."""

from dataclasses import dataclass, replace

from gptdist.config.run import RunConfig
from gptdist.plan.projection import Cluster, Projection, project, project_legal

MOST_TIMES = 8
"""Up to so many times the nodes that are asked for."""


@dataclass(frozen=True)
class Sizes:
    """Plans of a run, from few nodes to many."""

    asked: Projection
    legal: tuple[Projection, ...]
    """Of all sizes on which the config can run, the asked one among them; fewest nodes first."""

    left_out: dict[int, tuple[str, ...]]
    """Why it cannot run on the others, by number of nodes."""


def default_sizes(num_nodes: int) -> list[int]:
    """Return powers of two up to ``MOST_TIMES`` as many nodes, and ``num_nodes`` itself."""
    most = MOST_TIMES * num_nodes
    powers = {2**power for power in range(most.bit_length()) if 2**power <= most}
    return sorted(powers | {num_nodes})


def project_sizes(config: RunConfig, cluster: Cluster, sizes: list[int] | None = None) -> Sizes:
    """Return the plans of ``config`` on clusters like ``cluster`` with as many nodes as each of ``sizes``.

    Args:
        config: of the run.
        cluster: with the number of nodes that is asked for.
        sizes: numbers of nodes; default: ``default_sizes``.

    Raises:
        ConfigError: the config cannot run on the number of nodes that is asked for, with every reason.
    """
    asked = project(config, cluster)
    legal, left_out = [], {}
    for num_nodes in sizes or default_sizes(cluster.num_nodes):
        other = replace(cluster, num_nodes=num_nodes)
        problems = other.problems(config)
        if problems:
            left_out[num_nodes] = tuple(problems)
        else:
            legal.append(project_legal(config, other))
    return Sizes(asked, tuple(legal), left_out)
