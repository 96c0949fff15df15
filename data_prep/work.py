"""A run's unfinished work on disk: steps of tasks, each task a folder that appears whole or not at all.

A step has a folder, named by the hash of everything that decides its content, so that a changed config never meets
another config's work. A task writes into ``NNNNN.partial``; a marker, ``done.json``, is written last, then the folder
gets its name: a finished task is never done twice, and a killed one leaves nothing that looks finished.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from data_prep.document import Place
from gptdist.config.prep import PrepConfig
from gptdist.durable import partial_path, replace, sync_folder, write_whole

MARKER_NAME = "done.json"
PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Piece:
    """A file of a source, or a part of one."""

    path: str
    """Local path or URL that fsspec opens."""

    label: str
    """How provenance calls it."""

    size: int
    """Bytes on disk that the piece stands for; 0 where that is not known."""

    begin: int = 0
    end: int | None = None
    """Part of the file in the reader's own unit (bytes, row groups, rows); ``None`` is its end."""

    first_record: int = 0
    """Records of the file before ``begin``: numbers do not depend on how it is cut."""


@dataclass(frozen=True)
class InputShard:
    """What one task of the first step reads: pieces of one source, in order."""

    source: int
    pieces: tuple[Piece, ...]
    max_bytes: int | None = None
    """Text that passed the stages after which the shard ends, for a source that is to be cut."""


@dataclass(frozen=True)
class Plan:
    """What a run does, fixed when it begins: the config, the input shards, and the folder of each step."""

    config: PrepConfig
    shards: tuple[InputShard, ...]
    folders: Mapping[str, str]
    """Name of each step's folder in the work folder."""

    def write(self, folder: Path) -> None:
        """Write the plan, whole or not at all."""
        tree = {
            "config": self.config.tree(),
            "shards": [asdict(shard) for shard in self.shards],
            "folders": dict(self.folders),
        }
        write_whole(folder / PLAN_NAME, json.dumps(tree, sort_keys=True).encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the plan that ``write`` wrote."""
        tree = json.loads((folder / PLAN_NAME).read_bytes())
        shards = tuple(_shard(found) for found in tree["shards"])
        return cls(PrepConfig.from_tree(tree["config"]), shards, tree["folders"])


class Work:
    """The work folder of a run, as every task of every step sees it.

    Args:
        folder: holds ``plan.json`` and the steps' folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = Plan.read(folder)
        self.config = self.plan.config

    @property
    def num_shards(self) -> int:
        """Number of input shards."""
        return len(self.plan.shards)

    def step_folder(self, step: str) -> Path:
        """Return the folder that holds a step's tasks."""
        return self.folder / self.plan.folders[step]

    def task_folder(self, step: str, rank: int) -> Path:
        """Return the folder of a finished task."""
        return self.step_folder(step) / f"{rank:06d}"

    def is_done(self, step: str, rank: int) -> bool:
        """Whether a task is finished."""
        return (self.task_folder(step, rank) / MARKER_NAME).is_file()

    def marker(self, step: str, rank: int) -> dict[str, Any]:
        """Return what a finished task wrote into its marker."""
        return dict(json.loads((self.task_folder(step, rank) / MARKER_NAME).read_bytes()))


class Step(Protocol):
    """One kind of work, cut into tasks that run anywhere and in any order, once the steps before it are done."""

    name: str

    def num_tasks(self, work: Work) -> int:
        """Return how many tasks there are; asked when the steps before it are done."""
        ...

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Do task ``place.rank``: write its files into the empty ``folder`` and return what its marker holds.

        The files may depend on the earlier steps' files and on ``place`` alone: not on time, host, or who runs it.
        """
        ...


def run_task(work: Work, step: Step, place: Place) -> None:
    """Do one task, unless it is done."""
    target = work.task_folder(step.name, place.rank)
    if work.is_done(step.name, place.rank):
        return
    partial = partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)  # left by a kill
    shutil.rmtree(target, ignore_errors=True)  # a folder without a marker is nothing
    partial.mkdir(parents=True)
    marker = step.run(work, place, partial)
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            _sync(path)
    write_whole(partial / MARKER_NAME, json.dumps(marker).encode())  # the order of stages has a meaning
    sync_folder(partial)
    replace(partial, target)


def _shard(tree: Mapping[str, Any]) -> InputShard:
    pieces = tuple(Piece(**piece) for piece in tree["pieces"])
    return InputShard(tree["source"], pieces, tree["max_bytes"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
