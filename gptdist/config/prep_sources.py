"""Where a preparation run's documents come from."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from gptdist.config.section import UNION_TAG, Section

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED_NAMES = ("tokenizer", "account")
STDLIB, SITE_PACKAGES = "{stdlib}", "{site-packages}"
"""Roots that stand for folders of the running Python, in ``paths`` of a source."""


class SourceBase(Section):
    """What every source has."""

    name: str
    """Name of the folder that its shards go to."""

    weight: float = 1.0
    """Its share of the tokenizer's training text; recorded in the manifest for the run config to take up."""

    max_bytes: int | None = None
    """Stop after the document that brings the kept text to this size."""

    licence: str | None = None
    """Under what terms its text is used, for the data card."""


class PathsSource(SourceBase):
    """What every source of files has."""

    paths: tuple[str, ...]
    """Files, and folders to walk: local ones, or URLs that fsspec opens (``s3://``, ``gs://``, ``hf://`` …).

    ``{stdlib}`` and ``{site-packages}`` are those of the running Python.
    """


class FilesSource(PathsSource):
    """Text files, one document each; ``.html`` and ``.htm`` are pages, whose text the extraction finds."""

    kind: Literal["files"]
    include: tuple[str, ...] = ("**/*.txt", "**/*.md", "**/*.rst", "**/*.html", "**/*.htm")
    """Which files of a folder: patterns over the path below it; ``**/`` is any number of folders."""

    exclude: tuple[str, ...] = ()
    """Which of these not."""

    max_file_bytes: int | None = None
    """Leave out larger files, and count them."""


class KeyedSource(SourceBase):
    """What every source of records has whose fields have names."""

    text_key: str = "text"
    """Key or column of the document's text, or of its page."""

    url_key: str | None = None
    """Key or column of its address, for the record of where it came from."""

    format: Literal["text", "html"] = "text"
    """``html``: the field holds a page, whose text the extraction finds."""


class JsonLinesSource(PathsSource, KeyedSource):
    """JSON Lines, plain or compressed (``.gz``, ``.zst``), one document a line; of a folder every ``.jsonl`` file."""

    kind: Literal["jsonl"]


class ParquetSource(PathsSource, KeyedSource):
    """Parquet files, one document a row; of a folder every ``.parquet`` file below it."""

    kind: Literal["parquet"]


class WarcSource(PathsSource):
    """Web archives: WARC (pages) and WET (text), plain or compressed (``.gz``, ``.zst``).

    Pages are the HTML of successful ``response`` records; texts are ``conversion`` records. Other types of record,
    other media types and other HTTP statuses are counted, as ``read.<type>``.
    """

    kind: Literal["warc"]


class HuggingFaceSource(KeyedSource):
    """A dataset that the ``datasets`` library reads: by name, saved on disk, or a folder of Parquet or JSON files."""

    kind: Literal["huggingface"]
    dataset: str
    """Name on the hub, or a path."""

    subset: str | None = None
    """Configuration of the dataset, where it has several."""

    split: str = "train"
    """Split of the dataset to read, as it is called there."""

    streaming: bool = True
    """Read as it arrives; false downloads the whole dataset first."""

    max_documents: int | None = None
    """Read no more documents than this."""


Source = FilesSource | JsonLinesSource | ParquetSource | WarcSource | HuggingFaceSource


def _tag(source: Any) -> str | None:
    kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    return f"{UNION_TAG}{kind}"


AnySource = Annotated[
    Annotated[FilesSource, Tag(f"{UNION_TAG}files")]
    | Annotated[JsonLinesSource, Tag(f"{UNION_TAG}jsonl")]
    | Annotated[ParquetSource, Tag(f"{UNION_TAG}parquet")]
    | Annotated[WarcSource, Tag(f"{UNION_TAG}warc")]
    | Annotated[HuggingFaceSource, Tag(f"{UNION_TAG}huggingface")],
    Discriminator(
        _tag,
        custom_error_type="source_kind",
        custom_error_message="kind must be files, jsonl, parquet, warc or huggingface",
    ),
]


def source_problems(source: Source) -> list[str]:
    """Return everything wrong with a source, each beginning with the key within it."""
    bad = []
    if not _NAME.fullmatch(source.name) or source.name in _RESERVED_NAMES:
        bad.append(
            f"name: '{source.name}' cannot be a folder here; use letters, digits, '.', '_', '-', "
            f"not {' or '.join(repr(name) for name in _RESERVED_NAMES)}"
        )
    if source.weight <= 0.0:
        bad.append(f"weight: must be above 0, got {source.weight}; remove the source instead")
    if isinstance(source, PathsSource) and not source.paths:
        bad.append("paths: empty; name at least one file or folder")
    if isinstance(source, FilesSource) and not source.include:
        bad.append("include: empty, so no file is taken; remove it for the default, or name patterns")
    return bad + [
        f"{key}: must be at least 1, got {limit}"
        for key, limit in _limits(source).items()
        if limit is not None and limit < 1
    ]


def _limits(source: Source) -> Mapping[str, int | None]:
    limits = {"max_bytes": source.max_bytes}
    if isinstance(source, FilesSource):
        limits["max_file_bytes"] = source.max_file_bytes
    if isinstance(source, HuggingFaceSource):
        limits["max_documents"] = source.max_documents
    return limits
