"""What became of every document of an input shard: kept, or dropped by which rule and by what numbers.

Records that could not be read are damage: counted by kind, named with file and offset, and above a configured share
the reason why the shard fails.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from data_prep.account_rows import ROW_SCHEMA, Row, Rows
from data_prep.document import Document, Stage
from data_prep.texts import Texts
from gptdist.errors import DataError

KEPT = "kept"
READ, QUALITY = "read", "quality"
SAMPLES_PER_OUTCOME = 3
SAMPLE_CHARACTERS = 600
_EXAMPLES = 20
_EARLY_DAMAGE = 1_000
"""Damaged records after which the share is looked at before the shard's end."""


@dataclass
class Passage:
    """What went into a stage and came out; bytes are UTF-8 bytes of text, of pages as they came for ``read``."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_data(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "dropped": dict(sorted(self.dropped.items()))}


class Account:
    """The account of one input shard.

    Args:
        where: what to put before an error, such as ``sources[0] 'web', shard 3``.
        max_damaged_fraction: share of records that may be damaged.
    """

    def __init__(self, where: str, max_damaged_fraction: float = 0.0) -> None:
        self._where = where
        self._limit = max_damaged_fraction
        self.rows = Rows()
        self.passages: dict[str, Passage] = {READ: Passage()}
        self.counts: Counter[str] = Counter()
        self.damage: Counter[str] = Counter()
        self.damage_examples: list[str] = []
        self._read = 0
        self._kept = 0
        self._samples: dict[str, list[tuple[int, int, dict[str, Any]]]] = {}

    def through(self, name: str, stage: Stage, documents: Iterator[Document]) -> Iterator[Document]:
        """Return what ``stage``, called ``name``, makes of ``documents``, counting what goes in and comes out."""
        passage = self.passages.setdefault(name, Passage())
        return _leaving(passage, stage(_entering(passage, documents)))

    def reading(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Count records as a reader gives them; damage is measured against their number."""
        passage = self.passages[READ]
        for document in documents:
            self._read += 1
            passage.documents_out += 1
            passage.bytes_out += len(document.page.content) if document.page else len(document.utf8)
            yield document

    def drop(self, document: Document, stage: str, rule: str, **numbers: float | str) -> None:
        """Write down that ``rule`` of ``stage`` left the document out, and what it measured.

        A stage that has not been announced by ``through`` is one of the rule sets of the stage ``quality``.
        """
        outcome = f"{stage}.{rule}"
        if stage in self.passages:
            self.passages[stage].dropped[rule] += 1
        else:
            self.passages.setdefault(QUALITY, Passage()).dropped[outcome] += 1
        text = orjson.dumps(numbers, option=orjson.OPT_SORT_KEYS).decode() if numbers else None
        self._sample(outcome, document, numbers)
        self.rows.append(_row(document, outcome, text, None))

    def keep(self, document: Document) -> None:
        """Write down a document that passed every stage."""
        self._sample(KEPT, document, {})
        self.rows.append(_row(document, KEPT, None, self._kept))
        self._kept += 1

    def keep_all(self, texts: Texts) -> None:
        """Write down texts as read, and as passed by every stage that has been announced."""
        count, size = len(texts), int(texts.text_bytes.sum())
        self._read += count
        for name, passage in self.passages.items():
            if name != READ:
                passage.documents_in += count
                passage.bytes_in += size
            passage.documents_out += count
            passage.bytes_out += size
        priorities = np.array([_priority(texts.path, record) for record in texts.records], dtype=np.uint64)
        for index in np.argsort(priorities)[:SAMPLES_PER_OUTCOME].tolist():
            self._sample(KEPT, texts.document(index), {})
        self.rows.extend(_kept_rows(texts, self._kept))
        self._kept += count

    def count(self, name: str, amount: int = 1) -> None:
        """Count something that is no document, such as ``pii.email``."""
        if amount:
            self.counts[name] += amount

    def damaged(self, kind: str, place: str, detail: str) -> None:
        """Count a record that cannot be read.

        Args:
            kind: such as ``not_utf8``, ``not_json``, ``truncated``, ``bad_length``, ``record_too_large``.
            place: file and where in it, such as ``a.jsonl:17`` or ``a.warc.gz, byte 120``.
            detail: what is wrong there, and what to do.

        Raises:
            DataError: far too many records are damaged.
        """
        self.damage[kind] += 1
        if len(self.damage_examples) < _EXAMPLES:
            self.damage_examples.append(f"{place}: {detail}")
        if self.damage.total() % _EARLY_DAMAGE == 0:
            self.check_damage()

    def check_damage(self) -> None:
        """Compare the share of damaged records with the limit.

        Raises:
            DataError: it is above.
        """
        damaged = self.damage.total()
        share = damaged / max(1, damaged + self._read)
        if share > self._limit:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.damage.most_common())
            raise DataError(
                f"{self._where}: {damaged} of {damaged + self._read} records cannot be read ({kinds}), more than "
                f"max_damaged_fraction {self._limit}; first: {self.damage_examples[0]}"
            )

    @property
    def num_kept(self) -> int:
        """Number of documents that passed every stage."""
        return self._kept

    def summary(self) -> Mapping[str, Any]:
        """Return the counts as plain data; ``merge_summaries`` adds them up."""
        return {
            "passages": {name: passage.as_data() for name, passage in self.passages.items()},
            "counts": dict(sorted(self.counts.items())),
            "damage": dict(sorted(self.damage.items())),
            "damage_examples": self.damage_examples,
            "records_read": self._read,
            "samples": {
                outcome: [[-priority, sample] for priority, _, sample in sorted(kept, reverse=True)]
                for outcome, kept in sorted(self._samples.items())
            },
        }

    def _sample(self, outcome: str, document: Document, numbers: Mapping[str, Any]) -> None:
        """Keep the documents with the smallest hashes: the same sample however the corpus is cut into shards."""
        priority = _priority(document.path, document.record)
        heap = self._samples.setdefault(outcome, [])
        if len(heap) == SAMPLES_PER_OUTCOME and -priority <= heap[0][0]:
            return
        text = document.text[:SAMPLE_CHARACTERS].encode("utf-8", "replace").decode()
        sample = {"path": document.path, "record": document.record, "url": document.url, "text": text}
        entry = (-priority, len(self.rows), {**sample, "language": document.language, "numbers": dict(numbers)})
        (heapq.heappush if len(heap) < SAMPLES_PER_OUTCOME else heapq.heappushpop)(heap, entry)


def _entering(passage: Passage, documents: Iterator[Document]) -> Iterator[Document]:
    for document in documents:
        passage.documents_in += 1
        passage.bytes_in += len(document.utf8)
        yield document


def _leaving(passage: Passage, documents: Iterator[Document]) -> Iterator[Document]:
    for document in documents:
        passage.documents_out += 1
        passage.bytes_out += len(document.utf8)
        yield document


def _priority(path: str, record: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{path}\0{record}".encode())


def _row(document: Document, outcome: str, numbers: str | None, number: int | None) -> Row:
    return Row(
        document.path,
        document.record,
        document.offset,
        document.url,
        document.language,
        len(document.utf8),
        outcome,
        numbers,
        number,
    )


def _kept_rows(texts: Texts, first: int) -> Any:
    count = len(texts)
    unknown = pa.nulls(count, pa.string())
    columns = {
        "path": pa.repeat(texts.path, count),
        "record": pa.array(texts.records, pa.int64()),
        "offset": pa.nulls(count, pa.int64()) if texts.offsets is None else pa.array(texts.offsets, pa.int64()),
        "url": unknown if texts.urls is None else pa.array(texts.urls, pa.string()),
        "language": unknown,
        "text_bytes": pa.array(texts.text_bytes),
        "outcome": pa.repeat(KEPT, count),
        "numbers": unknown,
        "document": pa.array(np.arange(first, first + count)),
    }
    return pa.RecordBatch.from_pydict(columns, schema=ROW_SCHEMA)
