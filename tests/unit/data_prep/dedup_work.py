"""A work folder whose documents step is done, so that the dedup steps can be run on it."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.dedup.removals import Removals, removals_of, surviving
from data_prep.document import Document, Place
from data_prep.kept_file import KeptWriter
from data_prep.work import InputShard, Piece, Plan, Step, Work, run_task
from gptdist.config.prep import PrepConfig

STEPS = (
    *("documents", "exact_records", "exact", "line_records", "line_ranges", "line_cuts"),
    *("near_signatures", "near_edges", "near_clusters"),
)


class FakeDocuments:
    """Writes given texts where the documents step writes its own."""

    name = "documents"

    def __init__(self, shards: Sequence[Sequence[str]]) -> None:
        self._shards = shards

    def num_tasks(self, work: Work) -> int:
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        texts = self._shards[place.rank]
        with KeptWriter(folder, seed=0, validation_fraction=0.0) as writer:
            for record, text in enumerate(texts):
                writer.append(Document(text, path=f"{place.rank}.txt", record=record))
        return {"documents": len(texts)}


def make_dedup_work(folder: Path, shards: Sequence[Sequence[str]], dedup: Mapping[str, Any]) -> Work:
    """Return the work of a run over texts given by input shard."""
    source = {"name": "words", "kind": "files", "paths": ["words"]}
    tree = {"name": "test", "output_dir": "out", "tokenizer": {"kind": "byte"}, "sources": [source], "dedup": dedup}
    config = PrepConfig.from_tree(tree)
    assert config.dedup.problems() == []
    folder.mkdir(parents=True)
    inputs = tuple(InputShard(0, (Piece(f"{number}.txt", f"{number}.txt", 1),)) for number in range(len(shards)))
    Plan(config, inputs, {step: step for step in STEPS}).write(folder)
    work = Work(folder)
    run_steps(work, FakeDocuments(shards))
    return work


def run_steps(work: Work, *steps: Step) -> None:
    """Run every task of some steps, the last task first: order must not matter."""
    for step in steps:
        tasks = step.num_tasks(work)
        for rank in reversed(range(tasks)):
            run_task(work, step, Place(rank, tasks))


def surviving_texts(work: Work) -> dict[tuple[int, int], str]:
    """Return the text of every surviving document by shard and row."""
    found = {}
    for shard in range(work.num_shards):
        for batch in surviving(work, shard, ("text", "path")):
            assert batch.schema.names == ["text", "path", "row"]
            rows = zip(batch.column("row").to_pylist(), batch.column("text").to_pylist(), strict=True)
            found.update({(shard, row): text for row, text in rows})
    return found


def all_removals(work: Work) -> list[Removals]:
    """Return what goes from each shard."""
    return [removals_of(work, shard) for shard in range(work.num_shards)]


def cut_into(texts: Sequence[str], shards: int) -> list[list[str]]:
    """Cut a corpus into shards of unequal size."""
    cuts = [0, *(len(texts) * (number * number) // (shards * shards) for number in range(1, shards)), len(texts)]
    return [list(texts[begin:end]) for begin, end in itertools.pairwise(cuts)]
