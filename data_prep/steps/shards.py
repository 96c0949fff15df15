"""From sorted runs to the shards of each source: where each ends (one task), then each of them (a task each)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.document import Place
from data_prep.packing.blocks import key_order_blocks
from data_prep.packing.cuts import shard_ends
from data_prep.packing.runs import SPLITS, RunFile, runs_of
from data_prep.packing.shard_files import PACKING_COUNTS, ShardFiles
from data_prep.steps.tokenize import NAME as TOKENIZE
from data_prep.steps.tokenizer import prepared_tokenizer
from data_prep.work import Work
from gptdist.data.manifest import ShardEntry, SplitManifest
from gptdist.data.shards import token_dtype
from gptdist.durable import write_whole
from gptdist.errors import DataError

LAYOUT, SHARDS = "layout", "shards"
LAYOUT_NAME = "layout.json"


@dataclass(frozen=True)
class OutputShard:
    """What one task of the ``shards`` step writes: the documents of a split whose keys are in a range."""

    source: int
    split: str
    number: int
    key_begin: int
    key_end: int
    """The key after the last; 2^64 for the last shard."""

    @property
    def name(self) -> str:
        """Of its files, without their endings."""
        return f"{self.split}-{self.number:05d}"


class LayoutStep:
    """Decide which keys each output shard has."""

    name = LAYOUT

    def num_tasks(self, work: Work) -> int:
        """Return 1."""
        return 1

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the list of output shards.

        Raises:
            DataError: a source leaves nothing, or a split without documents.
        """
        layout = [shard for source in range(len(work.config.sources)) for shard in _source_layout(work, source)]
        write_whole(folder / LAYOUT_NAME, json.dumps([asdict(shard) for shard in layout], indent=0).encode())
        return {"shards": len(layout)}


class ShardsStep:
    """Gather each output shard from the runs of its source."""

    name = SHARDS

    def num_tasks(self, work: Work) -> int:
        """Return the number of output shards."""
        return int(work.marker(LAYOUT, 0)["shards"])

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write ``.bin``, ``.idx`` and ``.parquet``; the marker holds what the manifest says of the shard."""
        shard = read_layout(work)[place.rank]
        tokenizer = prepared_tokenizer(work)
        dtype = token_dtype(tokenizer.vocab_size)
        files = ShardFiles(folder, shard.name, dtype, tokenizer.eod_id, work.config.packing)
        runs = _runs(work, shard.source, shard.split)
        finished = files.write(key_order_blocks(runs, (shard.key_begin, shard.key_end), dtype))
        return {
            "source": shard.source,
            "split": shard.split,
            "entry": asdict(finished.entry),
            "text_bytes": finished.text_bytes,
            "packing": finished.packing,
        }


def read_layout(work: Work) -> list[OutputShard]:
    """Return the output shards, in the order of the tasks that write them."""
    found = json.loads((work.task_folder(LAYOUT, 0) / LAYOUT_NAME).read_bytes())
    return [OutputShard(**shard) for shard in found]


def finished_splits(work: Work, source: int) -> dict[str, SplitManifest]:
    """Return what the manifest of a source says of its splits."""
    splits = {}
    for split in SPLITS:
        markers = list(_markers(work, source, split))
        entries = tuple(ShardEntry(**marker["entry"]) for marker in markers)
        if entries:
            splits[split] = SplitManifest(
                documents=sum(entry.documents for entry in entries),
                tokens=sum(entry.tokens for entry in entries),
                text_bytes=sum(marker["text_bytes"] for marker in markers),
                shards=entries,
            )
    return splits


def finished_packing(work: Work, source: int) -> dict[str, Any] | None:
    """Return what the manifest of a source says of packing; None where documents follow each other."""
    section = work.config.packing
    if section is None:
        return None
    splits = {}
    for split in SPLITS:
        found = [marker["packing"] for marker in _markers(work, source, split)]
        if found:
            splits[split] = {name: sum(counts[name] for counts in found) for name in PACKING_COUNTS}
    return {"method": section.method, "seq_length": section.seq_length, "splits": splits}


def _markers(work: Work, source: int, split: str) -> Iterator[dict[str, Any]]:
    for rank, shard in enumerate(read_layout(work)):
        if (shard.source, shard.split) == (source, split):
            yield work.marker(SHARDS, rank)


def _source_layout(work: Work, source: int) -> Iterator[OutputShard]:
    counts = dict.fromkeys(SPLITS, 0)
    for rank in _ranks(work, source):
        for split, found in work.marker(TOKENIZE, rank)["splits"].items():
            counts[split] += found["documents"]
    _check_splits(work, source, counts)
    for split, documents in counts.items():
        if documents:
            ends = shard_ends(_runs(work, source, split), documents, work.config.shard_tokens)
            for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
                yield OutputShard(source, split, number, begin, end)


def _check_splits(work: Work, source: int, counts: Mapping[str, int]) -> None:
    """Refuse a source that leaves a split empty.

    Raises:
        DataError: nothing is left, or nothing for training, or nothing for validation though some was asked for.
    """
    where, fraction = f"sources[{source}] '{work.config.sources[source].name}'", work.config.validation_fraction
    markers = [work.marker("documents", rank) for rank in _ranks(work, source)]
    left = sum(counts.values())
    kept = f"{left} documents kept of {sum(marker['summary']['records_read'] for marker in markers)}"
    if not left:
        raise DataError(f"{where}: empty: {kept}{_dropped(markers)}; name other paths, or loosen filters")
    if not counts["train"]:
        raise DataError(f"{where}: no document for training, {kept}; lower validation_fraction ({fraction})")
    if fraction > 0.0 and not counts["validation"]:
        lowest = min(marker["lowest_place"] for marker in markers)
        raise DataError(
            f"{where}: the validation split is empty, {kept}; raise validation_fraction from {fraction} to "
            f"{min(lowest + 0.001, 0.999):.3f} or more, or set it to 0 for no such split"
        )


def _dropped(markers: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for marker in markers:
        for stage, passage in marker["summary"]["passages"].items():
            for rule, count in passage["dropped"].items():
                counts[f"{stage}.{rule}"] = counts.get(f"{stage}.{rule}", 0) + count
    found = ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items()))
    return f" (dropped: {found})" if found else ""


def _ranks(work: Work, source: int) -> list[int]:
    return [rank for rank, shard in enumerate(work.plan.shards) if shard.source == source]


def _runs(work: Work, source: int, split: str) -> list[RunFile]:
    ranks = _ranks(work, source)
    counts = [work.marker(TOKENIZE, rank)["splits"].get(split, {"runs": 0})["runs"] for rank in ranks]
    return runs_of([work.task_folder(TOKENIZE, rank) for rank in ranks], counts, split)
