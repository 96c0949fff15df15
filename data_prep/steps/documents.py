"""The first step: read an input shard and pass its documents through every stage; one task an input shard."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.card.rows import write_rows
from data_prep.decontaminate.stage import decontaminate_stage
from data_prep.document import Document, Place, Stage
from data_prep.extract import extract_stage
from data_prep.filters import filter_stage
from data_prep.kept_file import KeptWriter
from data_prep.language import language_stage
from data_prep.pii.stage import pii_stage
from data_prep.quality.stage import quality_stage, url_stage
from data_prep.readers.reader import open_reader
from data_prep.work import Work
from gptdist.config.prep import PrepConfig

NAME = "documents"
ROWS_NAME = "rows.parquet"


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
        documents = account.reading(open_reader(config, shard.source).documents(shard.pieces, account))
        for name, stage in stages(config, place, account):
            documents = account.through(name, stage, documents)
        kept_bytes = 0
        with KeptWriter(folder, config.seed, config.validation_fraction) as writer:
            for document in _until(documents, shard.max_bytes):
                account.keep(document)
                writer.append(document)
                kept_bytes += len(document.utf8)
        account.check_damage()
        write_rows(folder / ROWS_NAME, account.rows, {}, {})
        return {
            "documents": account.num_kept,
            "text_bytes": kept_bytes,
            "lowest_place": writer.lowest_place,
            "summary": account.summary(),
        }


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
