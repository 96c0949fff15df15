"""``gptdist prep``: documents to token shards."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gptdist.cli.answer import add_json, answer
from gptdist.cli.terminal import print_error
from gptdist.errors import EXIT_USER_ERROR

EXECUTORS = ("local", "slurm", "ray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="prep_command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="prepare what a config names; a finished run is kept",
        description="Prepare token shards from documents. The same command goes on after a kill.",
    )
    run.add_argument("config", type=Path, metavar="CONFIG", help="a file such as configs/data/demo.yaml")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as output_dir=data/other seed=1")
    run.add_argument("--executor", choices=EXECUTORS, default="local", help="who runs the tasks (default: local)")
    run.add_argument("--workers", type=_positive, metavar="N", help="tasks at a time (default: this machine's cores)")
    run.add_argument(
        "--slurm-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="passed to sbatch, such as --slurm-option=--partition=cpu; may be repeated",
    )
    run.add_argument("--keep-work", action="store_true", help="keep the finished steps for a later, changed run")
    add_json(run)
    run.set_defaults(run=run_prep)
    task = commands.add_parser("task", help="do a share of one step's tasks (what job arrays run)")
    task.add_argument("work", type=Path, metavar="WORK", help="the run's work folder")
    task.add_argument("step", metavar="STEP", help="name of the step")
    task.add_argument("--batch", type=Path, required=True, help="file that lists the tasks")
    task.add_argument("--element", type=int, required=True, help="which share, from 0")
    task.add_argument("--of", type=_positive, required=True, help="number of shares")
    task.set_defaults(run=run_task_share)
    _add_report(commands)


def run_prep(arguments: argparse.Namespace) -> None:
    """Prepare, and print what came in and what came out."""
    # The tokenizers library asks the environment how many cores it may use, and is silent about one.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from data_prep.executors.choose import make_executor
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress
    from data_prep.report import report
    from gptdist.config.load import load_config
    from gptdist.config.prep import PrepConfig

    config = load_config(PrepConfig, arguments.config, arguments.overrides)
    executor = make_executor(arguments.executor, arguments.workers or os.cpu_count() or 1, arguments.slurm_option)
    preparation = prepare(config, executor, Progress(sys.stderr), keep_work=arguments.keep_work)
    answer(
        arguments,
        {
            "output_dir": config.output_dir,
            "is_reused": preparation.is_reused,
            "seconds": preparation.seconds,
            "summary": dict(preparation.summary),
        },
        [report(preparation.summary), f"{preparation.seconds:.1f} seconds; written to {config.output_dir}"],
    )


def run_report(arguments: argparse.Namespace) -> None:
    """Write the data card, or say what became of a document."""
    from data_prep.card.card import read_view, write_page
    from data_prep.card.explain import explain
    from data_prep.report import report

    if arguments.explain is not None:
        explanation = explain(arguments.output_dir, arguments.explain)
        answer(arguments, explanation.as_data(), [explanation.as_text()])
        return
    view = read_view(arguments.output_dir)
    target = arguments.html or arguments.output_dir / "report.html"
    write_page(view, target)
    answer(arguments, {"html": str(target), **view.as_data()}, [report(view.summary), f"written to {target}"])


def run_task_share(arguments: argparse.Namespace) -> int:
    """Do every ``of``-th task of a batch, beginning with ``element``; failures are left for the run that waits."""
    from data_prep.executors.share import perform_share

    problems = perform_share(arguments.work, arguments.step, arguments.batch, (arguments.element, arguments.of))
    for problem in problems:
        print_error("prep", problem)
    return EXIT_USER_ERROR if problems else 0


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write the data card of a finished run, or say why a document is in or out",
        description="Write one HTML file that shows what a run read, dropped and kept.",
    )
    report.add_argument("output_dir", type=Path, metavar="OUT", help="the run's output_dir")
    report.add_argument("--html", type=Path, metavar="FILE", help="where the page goes (default: OUT/report.html)")
    report.add_argument(
        "--explain",
        metavar="WHAT",
        help="instead, say what became of a URL, a path, PATH:RECORD, or all that contain WHAT",
    )
    add_json(report)
    report.set_defaults(run=run_report)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return int(text)
