"""A run as a job of Slurm: the batch script, and its submission."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptdist.config.launch import LaunchConfig
from gptdist.durable import write_whole
from gptdist.errors import LaunchError
from launch.job import Job

Runtime = Literal["pyxis", "apptainer"]

LAUNCH_NAME = "launch"
"""Folder in a run's folder, of scripts that were submitted and what their jobs said."""

EARLY_SECONDS = 60
"""Slurm may send the signal before the time limit so much earlier than it is told."""

_SCRIPT_NAME = re.compile(r"slurm_(\d{4,})\.sbatch")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Container:
    """In what each node's agent runs."""

    image: str
    runtime: Runtime = "pyxis"
    mounts: tuple[str, ...] = ()
    """Each ``PATH`` or ``OUTSIDE:INSIDE``."""

    python: str = "python3"
    """Of the image."""

    def words(self) -> list[str]:
        """Return it as options of ``launch.slurm_job``."""
        words = [f"--container-image={self.image}", f"--container-runtime={self.runtime}"]
        return [*words, *(f"--container-mount={one}" for one in self.mounts), f"--container-python={self.python}"]


@dataclass(frozen=True)
class SlurmOptions:
    """What the user says about a job of Slurm."""

    nodes: int
    name: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    """As sbatch takes it; default: the partition's."""

    gpus: int | None = None
    """Of a node; default: not asked for."""

    cpus: int | None = None
    """Of a node; default: as ``gpus``."""

    chain: int | None = None
    """So many jobs, one after the other, instead of one that is requeued."""

    exclude: tuple[str, ...] = ()
    container: Container | None = None
    extra: tuple[str, ...] = ()
    """More options of sbatch, which win over ours."""

    def problems(self, limits: LaunchConfig) -> list[str]:
        """Return every value that cannot be meant."""
        bad = []
        for option, number in (("--gpus", self.gpus), ("--cpus", self.cpus), ("--chain", self.chain)):
            if number is not None and number < 1:
                bad.append(f"{option}: must be at least 1, got {number}")
        texts = {"--name": self.name, "--partition": self.partition, "--account": self.account, "--qos": self.qos}
        bad += [
            f"{option}: must be one line of printable characters, got {text!r}"
            for option, text in texts.items()
            if text is not None and not (text and text.isprintable())
        ]
        bad += [f"--exclude: must be names of nodes, got {one!r}" for one in self.exclude if not _is_word(one)]
        bad += [
            f"--sbatch: must be one option such as --mem=0, got {one!r}"
            for one in self.extra
            if not (one.startswith("--") and one.isprintable())
        ]
        return bad + self._time_problems(limits)

    def _time_problems(self, limits: LaunchConfig) -> list[str]:
        if self.time is None:
            return []
        seconds = time_seconds(self.time)
        if seconds is None:
            return [
                f"--time: must be as sbatch takes it, such as 90 (minutes), 8:00:00 or 2-00:00:00, got '{self.time}'"
            ]
        needed = limits.save_margin_seconds + EARLY_SECONDS
        if seconds <= needed:
            return [
                f"--time: {self.time} is {seconds} s, and the run is told to stop {needed:g} s before its end "
                f"(launch.save_margin_seconds, and {EARLY_SECONDS} that Slurm may be early); raise it, or lower that"
            ]
        return []


def _is_word(text: str) -> bool:
    return bool(text) and text.isprintable() and not re.search(r"\s", text)


def time_seconds(text: str) -> int | None:
    """Return the seconds of a time limit as sbatch reads it; none where it does not."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*parts, 0, 0][:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:  # minutes[:seconds]
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return 3600 * hours + 60 * minutes + seconds


def batch_script(job: Job, options: SlurmOptions, *, working_dir: Path) -> str:
    """Return the script; every word of the user's is quoted, as sbatch and bash both read quotes alike."""
    folder = (working_dir / job.config.folder / LAUNCH_NAME).absolute()
    log = "slurm-%j.out" if options.chain is None else "slurm-%A_%a.out"
    asked = [
        f"--job-name={options.name}",
        f"--nodes={options.nodes}",
        "--ntasks-per-node=1",
        *_given("--partition", options.partition),
        *_given("--account", options.account),
        *_given("--qos", options.qos),
        *_given("--time", options.time),
        *_given("--gpus-per-node", options.gpus),
        *_given("--cpus-per-task", options.cpus),
        *_given("--exclude", ",".join(options.exclude) or None),
        *([] if options.chain is None else [f"--array=1-{options.chain}%1"]),
        f"--chdir={working_dir}",
        f"--output={str(folder).replace('%', '%%')}/{log}",
        "--open-mode=append",
        "--requeue",
        # To the script alone: it asks the ranks to save, and then for the job to be run again.
        f"--signal=B:USR1@{job.config.launch.save_margin_seconds:.0f}",
        *options.extra,
    ]
    command = [sys.executable, "-m", "launch.slurm_job"]
    command += options.container.words() if options.container else []
    command += ["--", str(job.config_path), *job.words]
    lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in asked), f"exec {shlex.join(command)}"]
    return "\n".join([*lines, ""])


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [f"{option}={value}"]


def next_script(run: Path) -> Path:
    """Return where the next script of the run in ``run`` is written; makes nothing."""
    folder = run / LAUNCH_NAME
    known = [_SCRIPT_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return folder / f"slurm_{1 + max((int(match[1]) for match in known if match), default=0):04d}.sbatch"


def check_sbatch() -> None:
    """Refuse where there is no Slurm.

    Raises:
        LaunchError: says so.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(["sbatch: is not installed here; log in to a host of the cluster, or use another back end"])


def submit(script: str, path: Path) -> str:
    """Write ``script`` to ``path``, submit it, and return the job's id.

    Raises:
        LaunchError: Slurm refuses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, script.encode())
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LaunchError([f"{path}: refused by Slurm: {line.removeprefix('sbatch: error: ')}" for line in lines])
    return done.stdout.strip().split(";")[0]
