"""The first step: read an input shard and pass its documents through every stage; one task an input shard."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.card.rows import write_table
from data_prep.decontaminate.stage import decontaminate_stage
from data_prep.document import Document, Place, Stage
from data_prep.extract import extract_stage
from data_prep.filters import filter_stage
from data_prep.kept_file import KeptWriter
from data_prep.language import language_stage
from data_prep.pii.stage import pii_stage
from data_prep.quality.stage import quality_stage, url_stage
from data_prep.readers.reader import TextReader, open_reader
from data_prep.texts import Texts
from data_prep.work import InputShard, Work
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_filters import FilterSection
from gptdist.config.prep_quality import QualitySection

NAME = "documents"
ROWS_NAME = "rows.parquet"
_GATHERED, _GATHERED_BYTES = 256, 1 << 22


class DocumentsStep:
    """Read, extract, identify, filter, decontaminate, redact."""

    name = NAME

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the kept documents and the account of all of them.

        Raises:
            DataError: too many records are damaged, or something cannot be read at all.
        """
        config, shard = work.config, work.plan.shards[place.rank]
        where = f"sources[{shard.source}] '{config.sources[shard.source].name}', input shard {place.rank}"
        account = Account(where, config.max_damaged_fraction)
        with KeptWriter(folder, config.seed, config.validation_fraction, config.work_compression) as writer:
            kept = _Kept(account, writer)
            _read(config, shard, place, kept)
        account.check_damage()
        write_table(folder / ROWS_NAME, account.rows.table([piece.label for piece in shard.pieces]))
        return {
            "documents": account.num_kept,
            "text_bytes": kept.text_bytes,
            "lowest_place": writer.lowest_place,
            "summary": account.summary(),
        }


@dataclass
class _Kept:
    """Where documents go that passed every stage."""

    account: Account
    writer: KeptWriter
    text_bytes: int = 0

    def add(self, document: Document) -> None:
        self.account.keep(document)
        self.writer.append(document)
        self.text_bytes += len(document.utf8)

    def add_all(self, texts: Texts) -> None:
        self.account.keep_all(texts)
        self.writer.append_all(texts)
        self.text_bytes += int(texts.text_bytes.sum())


def _read(config: PrepConfig, shard: InputShard, place: Place, kept: _Kept) -> None:
    """Pass a shard's documents through the stages; texts that none has to look into go by in columns."""
    reader = open_reader(config, shard.source)
    passed = _through_stages(config, place, kept.account, gather=shard.max_bytes is None)
    if shard.max_bytes is not None or not isinstance(reader, TextReader) or not _take_all_texts(config, shard.source):
        for document in _until(passed(reader.documents(shard.pieces, kept.account)), shard.max_bytes):
            kept.add(document)
        return
    for _ in passed(iter(())):  # announces the stages
        pass
    for found in reader.texts(shard.pieces, kept.account):
        if isinstance(found, Texts):
            kept.add_all(found)
        else:
            for document in passed(iter((found,))):
                kept.add(document)


def _through_stages(config: PrepConfig, place: Place, account: Account, *, gather: bool) -> Stage:
    """Return all stages as one.

    Args:
        config: the run.
        place: which task this is.
        account: of its input shard.
        gather: whether each stage may do many documents before the next one begins; it then reads ahead.
    """
    made = list(stages(config, place, account))

    def passed(documents: Iterator[Document]) -> Iterator[Document]:
        documents = account.reading(documents)
        for name, stage in made:
            documents = account.through(name, stage, documents)
            if gather:
                documents = _gathered(documents)
        return documents

    return passed


def _gathered(documents: Iterator[Document]) -> Iterator[Document]:
    """Take documents some hundreds at a time, so that what a stage looks things up in stays in the processor's cache.

    Between pages the language stage takes 1.75 times as long.
    """
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.page.content) if document.page else len(document.text)
        if len(batch) == _GATHERED or size >= _GATHERED_BYTES:
            yield from batch
            batch, size = [], 0
    yield from batch


def _take_all_texts(config: PrepConfig, source: int) -> bool:
    """Whether every stage passes what ``TextsBuilder`` takes on."""
    looks = (config.language, config.decontaminate, config.pii)
    return (
        getattr(config.sources[source], "format", None) == "text"
        and all(section is None for section in looks)
        and config.quality == QualitySection()
        and config.filters == FilterSection(min_characters=config.filters.min_characters)
    )


def stages(config: PrepConfig, place: Place, account: Account) -> Iterator[tuple[str, Stage]]:
    """Yield the stages that the config asks for, in order, with their names."""
    if config.quality.url_blocklist is not None:
        yield "url", url_stage(config.quality, place, account)
    yield "extract", extract_stage(config.extract, place, account)
    if config.language is not None:
        yield "language", language_stage(config.language, place, account)
    yield "filters", filter_stage(config.filters, place, account)
    yield "quality", quality_stage(config.quality, place, account)
    if config.decontaminate is not None:
        yield "decontaminate", decontaminate_stage(config.decontaminate, place, account)
    if config.pii is not None:
        yield "pii", pii_stage(config.pii, place, account)


def _until(documents: Iterator[Document], max_bytes: int | None) -> Iterator[Document]:
    """End after the document that brings the text to ``max_bytes``."""
    passed = 0
    for document in documents:
        yield document
        passed += len(document.utf8)
        if max_bytes is not None and passed >= max_bytes:
            return
