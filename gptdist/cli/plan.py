"""``gptdist plan CONFIG --nodes N --device NAME [key=value …]``: memory, time and cost before a launch."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gptdist.cli.answer import add_json, print_json
from gptdist.cli.plan_from import compare

if TYPE_CHECKING:
    from gptdist.config.run import RunConfig
    from gptdist.plan.projection import Cluster

Given = TypeVar("Given")
Result = TypeVar("Result")

SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("config", type=Path, nargs="?", help="run config, or a file of configs/models")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--device", metavar="NAME", help="of configs/devices, or a .yaml file of your own")
    parser.add_argument("--interconnect", metavar="NAME", help="of configs/devices/networks, or a .yaml file")
    parser.add_argument("--tokens", metavar="D", help="of the whole run, such as 1.4T; default: training.train_steps")
    parser.add_argument("--price", type=float, metavar="P", help="of a device (on CPU a node) for an hour")
    parser.add_argument("--constants", type=Path, metavar="FILE", help="constants of the calibration to replace (YAML)")
    parser.add_argument("--search", action="store_true", help="the fastest legal layouts that fit, ranked")
    parser.add_argument("--count", type=int, default=SHOWN, metavar="K", help=f"how many of them; default: {SHOWN}")
    parser.add_argument("--score", type=Path, metavar="CSV", help="predict published runs and compare; no config")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture (.png or .svg), over device counts too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page with picture, numbers, units and formulas")
    parser.add_argument("--from", type=Path, dest="run_folder", metavar="RUN", help="compare with what a run measured")
    parser.add_argument("--write", type=Path, metavar="FILE", help="with --from: refitted constants for --constants")
    add_json(parser)
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    if arguments.score is not None:
        return _score(arguments)
    if arguments.run_folder is not None:
        return compare(arguments)
    config, cluster, assumed = _request(arguments)
    if arguments.search:
        return _search(arguments, config, cluster, assumed)
    return _project(arguments, config, cluster, assumed)


def _problems(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with the options."""
    from gptdist.plan.device import device_names
    from gptdist.plan.plot import check_path

    bad = []
    if arguments.config is None:
        bad.append("config: missing; name a run config, or a file of configs/models")
    if arguments.device is None:
        bad.append(f"--device: missing; use one of {', '.join(device_names())}, or a .yaml file of your own")
    if arguments.nodes < 1:
        bad.append(f"--nodes: must be at least 1, got {arguments.nodes}")
    if arguments.count < 1:
        bad.append(f"--count: must be at least 1, got {arguments.count}")
    if arguments.plot is not None:
        bad += check_path(arguments.plot, "--plot")
    if arguments.html is not None:
        bad += check_path(arguments.html, "--html", (".html",))
    if arguments.price is not None and not 0 <= arguments.price < float("inf"):
        bad.append(f"--price: must be at least 0, got {arguments.price}")
    return bad


def _request(arguments: argparse.Namespace) -> "tuple[RunConfig, Cluster, list[str]]":
    """Return what is to be planned, and a line for everything that was assumed."""
    from gptdist.errors import ConfigError
    from gptdist.plan.constants import FITTED, Constants
    from gptdist.plan.device import find_device, find_network
    from gptdist.plan.projection import Cluster
    from gptdist.plan.request import read_request
    from gptdist.plan.scaling import read_number

    problems = _problems(arguments)
    device = _unless(problems, find_device, arguments.device)
    network = _unless(problems, find_network, arguments.interconnect)
    tokens = _unless(problems, partial(read_number, "--tokens"), arguments.tokens)
    constants = _unless(problems, Constants.read, arguments.constants) or FITTED
    if problems or device is None:
        raise ConfigError(problems)
    config, assumed = read_request(
        arguments.config, arguments.overrides, device, num_nodes=arguments.nodes, tokens=tokens
    )
    return config, Cluster(device, arguments.nodes, config.launch.ranks_per_node, network, constants), assumed


def _unless(problems: list[str], read: "Callable[[Given], Result]", given: "Given | None") -> "Result | None":
    """Return what ``read`` makes of an option; None where it is not given, or wrong, which is added to ``problems``."""
    from gptdist.errors import ConfigError

    try:
        return None if given is None else read(given)
    except ConfigError as error:
        problems += error.problems
        return None


def _project(arguments: argparse.Namespace, config: "RunConfig", cluster: "Cluster", assumed: list[str]) -> int:
    from gptdist.errors import EXIT_DONE, EXIT_FAILED, ConfigError
    from gptdist.plan.projection import project
    from gptdist.plan.text import plan_lines

    try:
        plan = project(config, cluster)
    except ConfigError as error:
        raise ConfigError(f"{arguments.config}: {problem}" for problem in error.problems) from None
    if arguments.plot is not None or arguments.html is not None:
        _draw(arguments, config, cluster)
    if arguments.json:
        print_json(plan.tree() | {"assumed": assumed})
    else:
        for line in [*plan_lines(plan, price=arguments.price), *_assumed(assumed)]:
            print(line)
    return EXIT_FAILED if plan.verdict == "does not fit" else EXIT_DONE


def _draw(arguments: argparse.Namespace, config: "RunConfig", cluster: "Cluster") -> None:
    """Write picture and page of the plan, and of the same run on other numbers of nodes."""
    import shlex
    import sys

    from gptdist.plan.page import write_page
    from gptdist.plan.plot import write_plot
    from gptdist.plan.sizes import project_sizes

    sizes = project_sizes(config, cluster)
    if arguments.plot is not None:
        write_plot(arguments.plot, sizes)
    if arguments.html is not None:
        write_page(arguments.html, sizes, command=shlex.join(["gptdist", *sys.argv[1:]]))


def _search(arguments: argparse.Namespace, config: "RunConfig", cluster: "Cluster", assumed: list[str]) -> int:
    from gptdist.errors import EXIT_DONE, EXIT_FAILED
    from gptdist.plan.projection import project_legal
    from gptdist.plan.search import override_line, search
    from gptdist.plan.text import search_lines

    asked = None if cluster.problems(config) else project_legal(config, cluster)
    found = search(config, cluster, count=arguments.count)
    if arguments.json:
        best = [plan.tree() | {"override": override_line(plan.config, config)} for plan in found.best]
        print_json({"legal": found.num_legal, "best": best, "assumed": assumed})
    else:
        for line in [*search_lines(found, config, asked), *_assumed(assumed)]:
            print(line)
    return EXIT_DONE if found.best else EXIT_FAILED


def _assumed(assumed: list[str]) -> list[str]:
    return [f"assumed, as the config does not say: {', '.join(assumed)}"] if assumed else []


def _score(arguments: argparse.Namespace) -> int:
    from gptdist.errors import EXIT_DONE
    from gptdist.plan.constants import FITTED, Constants
    from gptdist.plan.published import read_published
    from gptdist.plan.score import row_lines, scored, summary_lines

    constants = FITTED if arguments.constants is None else Constants.read(arguments.constants)
    scores = scored(read_published(arguments.score), constants)
    if arguments.json:
        print_json([score.tree() for score in scores])
        return EXIT_DONE
    for line in [*row_lines(scores), "", *summary_lines(scores)]:
        print(line)
    return EXIT_DONE
