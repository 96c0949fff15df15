"""Lines or paragraphs that stand earlier in the corpus are cut out of the texts.

The first of equal units is the one in the document that comes first; its own document's repetitions go as well. A task
of a range holds 40 bytes a unit of its range (160 MB); a unit comes to its range once a shard.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.dedup.cutting import text_bytes
from data_prep.dedup.line_cuts import Cuts, cuts_of
from data_prep.dedup.records import Array, hash_range, num_ranges, read_range, write_records
from data_prep.dedup.removals import CUTS_NAME, LEFT_NAME, removals_of, surviving_but_for
from data_prep.dedup.units import Units, units_of
from data_prep.document import Place
from data_prep.work import Work
from gptdist.config.prep_dedup import LineDedupSection

_UNITS_NAME, _UNITS_TYPES = "units.records", ("u8",)
"""Hashes of the units of a shard, each once."""
_REPEATED_NAME = "repeated.records"
"""Those of them that the shard has more than once."""
_ELSEWHERE_NAME, _ELSEWHERE_TYPES = "elsewhere.records", ("u8", "u8")
"""Shard, and the hash of a unit of its that an earlier shard has."""


@dataclass
class LineRecords:
    """Hash the units of a shard."""

    name: str = "line_records"

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the hashes."""
        least = _section(work).min_characters
        parts = [np.empty(0, "u8")]
        for _, _, _, units in _units(work, place.rank):
            parts.append(units.keys[units.characters >= least])
        keys, counts = np.unique(np.concatenate(parts), return_counts=True)
        write_records(folder / _UNITS_NAME, (keys,))
        write_records(folder / _REPEATED_NAME, (keys[counts > 1],))
        return {"tasks": place.world_size, "units": int(counts.sum()), "different_units": len(keys)}


@dataclass
class LineRanges:
    """Find the units that several shards have, a range of hashes a task."""

    units_per_range: int = 1 << 22
    name: str = "line_ranges"

    def num_tasks(self, work: Work) -> int:
        """Return the number of ranges."""
        units = sum(work.marker("line_records", shard)["different_units"] for shard in range(work.num_shards))
        return num_ranges(units, self.units_per_range)

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write for each shard the units that an earlier shard has."""
        bounds = hash_range(place.rank, place.world_size)
        keys, shards = [np.empty(0, "u8")], [np.empty(0, "u4")]
        for shard in range(work.num_shards):
            path = work.task_folder("line_records", shard) / _UNITS_NAME
            keys += read_range(path, _UNITS_TYPES, bounds)
            shards.append(np.full(len(keys[-1]), shard, dtype=np.uint32))
        elsewhere, owners = _not_first(np.concatenate(keys), np.concatenate(shards))
        order = np.lexsort((elsewhere, owners))
        write_records(folder / _ELSEWHERE_NAME, (owners[order].astype("u8"), elsewhere[order]))
        return {"tasks": place.world_size, "repeated_units": len(elsewhere)}


@dataclass
class LineCuts:
    """Turn the units that go from a shard into spans of its texts."""

    name: str = "line_cuts"

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the spans, and the documents of which too little is left."""
        section, shard = _section(work), place.rank
        repeated = read_range(work.task_folder("line_records", shard) / _REPEATED_NAME, _UNITS_TYPES, (0, 1 << 64))[0]
        cuts = Cuts(_elsewhere(work, shard), repeated, section.min_characters)
        spans, left, units_cut = [np.empty((3, 0), dtype=np.int64)], [np.empty((2, 0), dtype=np.int64)], 0
        for rows, offsets, data, units in _units(work, shard) if cuts.has_any else ():
            found, remaining, count = cuts_of(cuts, units, offsets, data)
            found[0], remaining[0] = rows[found[0]], rows[remaining[0]]
            spans.append(found)
            left.append(remaining[:, remaining[1] < section.min_document_characters])
            units_cut += count
        cut, dropped = np.concatenate(spans, axis=1).astype("u8"), np.concatenate(left, axis=1).astype("u8")
        cut = cut[:, ~np.isin(cut[0], dropped[0])]
        write_records(folder / CUTS_NAME, list(cut))
        write_records(folder / LEFT_NAME, list(dropped))
        counts = {
            "units_cut": units_cut,
            "bytes_cut": int((cut[2] - cut[1]).sum()),
            "documents_dropped": dropped.shape[1],
        }
        return {"tasks": place.world_size, "documents_cut": len(np.unique(cut[0])), **counts}


def _section(work: Work) -> LineDedupSection:
    lines = work.config.dedup.lines
    assert lines is not None, "line-dedup steps run only where the config has the section"
    return lines


def _units(work: Work, shard: int) -> Iterator[tuple[Array, Array, Array, Units]]:
    """Yield batches of rows that exact dedup leaves: rows, offsets, bytes and units."""
    paragraphs = _section(work).unit == "paragraph"
    for batch in surviving_but_for(work, shard, ("text",), removals_of(work, shard, ("exact",))):
        offsets, data = text_bytes(batch.column("text"))
        yield batch.column("row").to_numpy(), offsets, data, units_of(offsets, data, paragraphs=paragraphs)


def _not_first(keys: Array, shards: Array) -> tuple[Array, Array]:
    """Return the keys that have an equal one before them, and their shards; ``shards`` ascends."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    later = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    return keys[later], shards[order[later]]


def _elsewhere(work: Work, shard: int) -> Array:
    """The hashes of a shard's units that an earlier shard has, ascending."""
    tasks = range(work.marker("line_ranges", 0)["tasks"])
    bounds = (shard, shard + 1)
    paths = [work.task_folder("line_ranges", task) / _ELSEWHERE_NAME for task in tasks]
    return np.sort(np.concatenate([read_range(path, _ELSEWHERE_TYPES, bounds)[1] for path in paths]))
