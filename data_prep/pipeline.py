"""A preparation run from its config to dataset folders: plan, run every step's unfinished tasks, put the result out."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.decontaminate.table import check_decontaminate
from data_prep.executors.executor import Batch, Executor
from data_prep.finish import finish, finished_run, read_summary
from data_prep.progress import Progress
from data_prep.quality.stage import check_quality
from data_prep.readers.reader import open_readers
from data_prep.steps.all_steps import all_steps
from data_prep.steps.plan import make_plan
from data_prep.work import PLAN_NAME, Plan, Step, Work
from data_prep.work_folder import work_folder
from gptdist.config.prep import PrepConfig
from gptdist.data.manifest import DatasetManifest
from gptdist.errors import DataError, DataProblemsError


@dataclass(frozen=True)
class Preparation:
    """What a run made."""

    manifests: tuple[DatasetManifest, ...]
    summary: Mapping[str, Any]
    """What became of everything that came in, as ``account/summary.json`` holds it."""

    is_reused: bool
    """Whether an earlier run had finished it."""

    seconds: float


def prepare(config: PrepConfig, executor: Executor, progress: Progress, *, keep_work: bool = False) -> Preparation:
    """Run ``config``; what an earlier attempt finished from the same inputs is not done again.

    Raises:
        DataProblemsError: sources are missing or empty, or tasks failed; with every problem.
        DataError: the output folder cannot be used, or tasks cannot be run.
    """
    started = time.monotonic()
    readers = open_readers(config)
    if config.decontaminate is not None:
        check_decontaminate(config.decontaminate)
    check_quality(config.quality)
    with work_folder(config.output_dir) as folder:
        plan, identity = make_plan(config, readers)
        manifests = finished_run(config, identity)
        is_reused = manifests is not None
        if manifests is not None:
            progress.note(f"{config.name}: finished already from the same config and inputs; kept as it is")
        else:
            work = _opened(folder, plan)
            for step in all_steps(config):
                _run_step(work, step, executor, progress)
            manifests = finish(work, identity)
        if not keep_work:
            shutil.rmtree(folder)
    return Preparation(manifests, read_summary(config.output_dir), is_reused, time.monotonic() - started)


def _opened(folder: Path, plan: Plan) -> Work:
    """Write the plan; remove the work of other plans, but for what this one shares with them."""
    for path in folder.iterdir():
        if path.name != PLAN_NAME and path.name not in plan.folders.values():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    plan.write(folder)
    return Work(folder)


def _run_step(work: Work, step: Step, executor: Executor, progress: Progress) -> None:
    """Run the tasks of a step that are not done.

    Raises:
        DataProblemsError: with the problems of every task that failed; the others are done.
    """
    total = step.num_tasks(work)
    left = tuple(rank for rank in range(total) if not work.is_done(step.name, rank))
    if left:
        work.step_folder(step.name).mkdir(exist_ok=True)
        progress.begin(step.name, total=total, done=total - len(left))
        problems = executor.run(Batch(work.folder, step.name, left, total), lambda rank: progress.advance())
        progress.end()
        if problems:
            raise DataProblemsError(problems)
    missing = [rank for rank in range(total) if not work.is_done(step.name, rank)]
    if missing:
        raise DataError(f"step {step.name}: {len(missing)} of {total} tasks are not done; start the same command again")
