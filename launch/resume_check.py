"""Replay the steps between two checkpoints of a run, in a folder of its own, and compare what comes of it."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.hold import hold
from gptdist.checkpoint.manifest import read_manifest
from gptdist.config.run import RunConfig
from gptdist.errors import CheckpointError, DataError, TrainingError
from launch.job import Job
from launch.local import local_command, run_local
from launch.resume_plan import Plan, check_plan_data, make_plan
from launch.verdict import Findings


def resume_check(
    run: Path, overrides: Sequence[str], say: Callable[[str], None], *, steps: int | None, tolerance: float | None
) -> Findings:
    """Replay the steps between the two newest whole checkpoints of ``run`` and return what was found.

    Args:
        run: folder of the run, which is only read.
        overrides: another layout, as ``key=value``.
        say: shows a line to the user.
        steps: so many only; default: all to the newest checkpoint.
        tolerance: of losses and gradient norms; default: none on the run's own layout, a stated one on another.

    Raises:
        CheckpointError: there are no two whole checkpoints, or no such steps between them.
        ConfigError: the layout cannot run, or an override is no part of it.
        TrainingError: the ranks failed.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="gptdist-resume-check-") as scratch:
        before, saved = two_newest(run / "checkpoints")
        for folder in (before, saved):
            held = hold(folder)
            if held is not None:
                stack.enter_context(held)
        plan = make_plan(before, saved, overrides, steps=steps)
        findings = Findings.of(plan, tolerance)
        try:
            check_plan_data(plan)
        except (CheckpointError, DataError) as error:
            findings.fail(str(error))
            return findings
        say(findings.heading())
        findings.take(_replay(plan, Path(scratch)))
        return findings


def two_newest(checkpoints: Path) -> tuple[Path, Path]:
    """Return the newest whole step folder and the one before it, older one first.

    Raises:
        CheckpointError: there are no two.
    """
    saved, _ = newest_whole(checkpoints)
    if saved is None:
        raise CheckpointError(f"{checkpoints}: holds no checkpoint; name the folder of a run")
    before, _ = newest_whole(checkpoints, before_step=read_manifest(saved).step)
    if before is None:
        raise CheckpointError(
            f"{checkpoints}: {saved.name} is the only checkpoint, a replay goes from one to the next; check again once "
            f"there is another, or keep more (checkpoints.keep.last)"
        )
    return before, saved


def _replay(plan: Plan, scratch: Path) -> dict[str, Any]:
    """Run the ranks and return their report."""
    config, report, path = scratch_config(plan, scratch), scratch / "report.json", scratch / "config.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(config.tree(), file)
    words = [str(plan.until), str(report), *([str(plan.saved)] if plan.is_whole else [])]
    cores = len(os.sched_getaffinity(0))
    job = Job(config, path, tuple(words), module="gptdist.train.replay")
    outcome = run_local(job, local_command(job, cores=cores))
    if outcome.status or not report.exists():
        first = outcome.first_failure
        said = f" ({first.heading()}: {first.text.splitlines()[-1]})" if first is not None else ""
        raise TrainingError(
            f"resume-check: the ranks ended with status {outcome.status} before the replay was done{said}"
        )
    return dict(json.loads(report.read_text()))


def scratch_config(plan: Plan, scratch: Path) -> RunConfig:
    """Make a run folder in ``scratch`` that goes on from the plan's checkpoint, and return its config."""
    run = scratch / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / plan.before.name).symlink_to(plan.before.absolute(), target_is_directory=True)
    return plan.config.model_copy(update={"run_dir": run})
