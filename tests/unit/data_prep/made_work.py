"""A run's work folder with documents in it, for the steps behind the documents step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.document import Document, Place
from data_prep.kept_file import KeptWriter
from data_prep.steps.shards import LayoutStep, ShardsStep
from data_prep.steps.tokenize import TokenizeStep
from data_prep.steps.tokenizer import TokenizerStep
from data_prep.work import InputShard, Piece, Plan, Step, Work, run_task
from tests.unit.data_prep.made_corpus import make_config

STEPS = ("documents", "tokenizer", "tokenize", "layout", "shards")


class GivenDocuments:
    """Stands where the documents step does."""

    name = "documents"

    def __init__(self, shards: Sequence[Sequence[Document]]) -> None:
        self._shards = shards

    def num_tasks(self, work: Work) -> int:
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> dict[str, Any]:
        account = Account("a test")
        documents = list(account.reading(iter(self._shards[place.rank])))
        with KeptWriter(folder, work.config.seed, work.config.validation_fraction) as writer:
            for document in documents:
                writer.append(document)
        return {"documents": len(documents), "lowest_place": writer.lowest_place, "summary": account.summary()}


def make_work(folder: Path, shards: Sequence[tuple[int, Sequence[Document]]], **changes: Any) -> Work:
    """Return a run whose input shards hold ``shards``: source and documents of each; dedup is off."""
    names = [f"s{number}" for number in range(max(source for source, _ in shards) + 1)]
    weights = changes.pop("weights", [1.0] * len(names))
    sources = [
        {"name": name, "kind": "files", "paths": ["x"], "weight": weight}
        for name, weight in zip(names, weights, strict=True)
    ]
    config = make_config(folder / "out", *sources, **{"dedup": {"exact": False}, **changes})
    inputs = tuple(InputShard(source, (Piece(f"{n}", f"{n}", 1),)) for n, (source, _) in enumerate(shards))
    folder.mkdir(parents=True, exist_ok=True)
    Plan(config, inputs, {step: step for step in STEPS}).write(folder)
    work = Work(folder)
    run_step(work, GivenDocuments([documents for _, documents in shards]))
    return work


def run_step(work: Work, step: Step, *, backwards: bool = False) -> None:
    """Do all tasks of a step."""
    count = step.num_tasks(work)
    for rank in sorted(range(count), reverse=backwards):
        run_task(work, step, Place(rank, count))


def run_all(work: Work, *, backwards: bool = False) -> None:
    """Do the steps from the tokenizer to the shards."""
    for step in (TokenizerStep(), TokenizeStep(), LayoutStep(), ShardsStep()):
        run_step(work, step, backwards=backwards)
