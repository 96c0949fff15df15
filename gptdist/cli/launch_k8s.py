"""``gptdist launch k8s CONFIG [key=value …] --nodes N --image IMAGE --volume CLAIM:MOUNT``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.launch_job import add_job

if TYPE_CHECKING:
    from gptdist.config.run import RunConfig
    from launch.k8s_options import ClusterOptions


def add(backends: Any) -> None:
    """Add this back end's parser."""
    k8s = backends.add_parser("k8s", help="a JobSet, TrainJob or Job of Kubernetes, one pod a node")
    add_job(k8s, config="run config (YAML); the pods get it resolved", dry_run="print the manifest, and apply nothing")
    k8s.add_argument("--nodes", type=int, required=True, help="pods, each with launch.ranks_per_node ranks")
    k8s.add_argument("--image", required=True, help="image that has this package")
    k8s.add_argument(
        "--volume", action="append", default=[], metavar="CLAIM:MOUNT", help="a claim and its path in all pods"
    )
    k8s.add_argument("--kind", choices=("jobset", "trainjob", "job"), default="jobset", help="default: jobset")
    k8s.add_argument("--name", help="of the objects (default: the run's, made legal)")
    k8s.add_argument("--namespace", help="default: kubectl's")
    k8s.add_argument("--gpus", type=int, help="of a pod (default: launch.ranks_per_node, 0 with training.device cpu)")
    k8s.add_argument("--gpu-resource", default="nvidia.com/gpu", help="what a GPU is called (default: nvidia.com/gpu)")
    k8s.add_argument("--cpus", help="of a pod, such as 32")
    k8s.add_argument("--memory", help="of a pod, such as 256Gi; /dev/shm is part of it")
    k8s.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of every rank")
    k8s.add_argument("--working-dir", help="where relative paths of the config begin (default: the first volume)")
    k8s.add_argument("--python", default="python3", help="the image's interpreter (default: python3)")
    k8s.add_argument("--port", type=int, default=29400, help="on which the nodes meet (default: 29400)")
    k8s.add_argument("--output", type=Path, help="write the manifest to this file, and apply nothing")
    k8s.set_defaults(run=_k8s)


def _k8s(arguments: argparse.Namespace) -> int:
    from launch.checks import read_job
    from launch.k8s import documents, to_yaml
    from launch.kubectl import apply

    config = read_job(arguments.config, arguments.overrides, nodes=arguments.nodes).config
    text = to_yaml(documents(config, _options(arguments, config)))
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
        print(arguments.output)
    elif arguments.dry_run:
        print(text, end="")
    else:
        print(apply(text, arguments.namespace))
    return 0


def _options(arguments: argparse.Namespace, config: "RunConfig") -> "ClusterOptions":
    from gptdist.errors import LaunchError
    from launch.k8s_options import ClusterOptions, legal_name, longest_name, parse_volume

    gpus = 0 if config.training.device == "cpu" else config.launch.ranks_per_node
    options = ClusterOptions(
        kind=arguments.kind,
        name=arguments.name or legal_name(config.name, longest_name(arguments.kind, arguments.nodes)),
        image=arguments.image,
        nodes=arguments.nodes,
        volumes=tuple(parse_volume(word) for word in arguments.volume),
        namespace=arguments.namespace,
        gpus=gpus if arguments.gpus is None else arguments.gpus,
        gpu_resource=arguments.gpu_resource,
        cpus=arguments.cpus,
        memory=arguments.memory,
        environment=tuple((name, value) for name, _, value in (word.partition("=") for word in arguments.env)),
        working_dir=arguments.working_dir,
        python=arguments.python,
        port=arguments.port,
    )
    problems = options.problems(config.folder)
    if problems:
        raise LaunchError(problems)
    return options
