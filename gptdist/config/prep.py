"""What ``gptdist prep run`` reads: sources, filters, tokenizer, and how shards are cut."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from gptdist.config.section import UNION_TAG, Section

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED_NAMES = ("tokenizer",)
STDLIB, SITE_PACKAGES = "{stdlib}", "{site-packages}"
"""Roots that stand for folders of the running Python, in ``paths`` of a ``files`` source."""

LEAST_VOCAB_SIZES: Mapping[str, int] = MappingProxyType({"bpe": 257, "sentencepiece": 512})
"""Bytes, special tokens, and for sentencepiece room for characters."""


class TokenizerPrep(Section):
    """The tokenizer: trained on the documents, or loaded; exactly one of ``kind`` and ``load``."""

    kind: Literal["byte", "bpe", "sentencepiece"] | None = None
    """``byte`` needs no training; ``bpe`` is byte-level with GPT-2's word pattern."""

    model_type: Literal["bpe", "unigram"] | None = None
    """For kind sentencepiece; unset is unigram."""

    vocab_size: int | None = None
    """Most ids of a trained tokenizer, end-of-document included; a small sample may give fewer."""

    train_bytes: int = 100_000_000
    """Text to train on, taken from the training split of all sources by their weights."""

    load: Path | None = None
    """A tokenizer folder, a ``tokenizer.json`` or a sentencepiece ``.model`` file instead."""

    eod_token: str | None = None
    """With ``load``: the token that ends a document, if it is none of the usual names."""

    @property
    def is_trained(self) -> bool:
        """Whether the tokenizer depends on the documents."""
        return self.kind in ("bpe", "sentencepiece")

    def problems(self) -> list[str]:
        """Return every contradiction in the section."""
        bad = []
        if (self.kind is None) == (self.load is None):
            bad.append("tokenizer: set either kind (byte, bpe, sentencepiece) or load (a path)")
        if self.is_trained and self.vocab_size is None:
            bad.append(f"tokenizer.vocab_size: missing; set it, kind {self.kind} is trained to a size")
        if not self.is_trained and self.vocab_size is not None:
            bad.append("tokenizer.vocab_size: only a trained tokenizer has a choice; remove it")
        least = LEAST_VOCAB_SIZES.get(self.kind or "", 0)
        if self.vocab_size is not None and self.vocab_size < least:
            bad.append(
                f"tokenizer.vocab_size: {self.vocab_size} is too small for kind {self.kind}; use {least} or more"
            )
        if self.model_type is not None and self.kind != "sentencepiece":
            bad.append("tokenizer.model_type: belongs to kind sentencepiece; remove it")
        if self.eod_token is not None and self.load is None:
            bad.append("tokenizer.eod_token: belongs to load; remove it")
        if self.train_bytes < 1:
            bad.append(f"tokenizer.train_bytes: must be at least 1, got {self.train_bytes}")
        return bad


class SourceBase(Section):
    """What every source has."""

    name: str
    """Name of the folder that its shards go to."""

    weight: float = 1.0
    """Its share of the tokenizer's training text; recorded in the manifest for the run config to take up."""

    max_bytes: int | None = None
    """Stop after the document that brings the kept text to this size."""


class FilesSource(SourceBase):
    """Text files, one document each; ``.html`` and ``.htm`` are read without their tags."""

    kind: Literal["files"]
    paths: tuple[str, ...]
    """Files, and folders to walk; ``{stdlib}`` and ``{site-packages}`` are those of the running Python."""

    include: tuple[str, ...] = ("**/*.txt", "**/*.md", "**/*.rst", "**/*.html", "**/*.htm")
    """Which files of a folder: patterns over the path below it; ``**/`` is any number of folders."""

    exclude: tuple[str, ...] = ()
    """Which of these not."""

    max_file_bytes: int | None = None
    """Leave out larger files, and count them."""


class JsonLinesSource(SourceBase):
    """JSON Lines, plain or compressed (``.gz``, ``.zst``), one document a line."""

    kind: Literal["jsonl"]
    paths: tuple[str, ...]
    """Files, and folders of which every ``.jsonl``, ``.jsonl.gz`` and ``.jsonl.zst`` below is read."""

    text_key: str = "text"
    """Key of the document's text."""

    url_key: str | None = None
    """Key of its address, for the record of where it came from."""


class HuggingFaceSource(SourceBase):
    """A dataset that the ``datasets`` library reads: by name, saved on disk, or a folder of Parquet or JSON files."""

    kind: Literal["huggingface"]
    dataset: str
    """Name on the hub, or a path."""

    subset: str | None = None
    """Configuration of the dataset, where it has several."""

    split: str = "train"
    """Split of the dataset to read, as it is called there."""

    text_key: str = "text"
    """Column of the document's text."""

    url_key: str | None = None
    """Column of its address."""

    streaming: bool = True
    """Read as it arrives; false downloads the whole dataset first."""

    max_documents: int | None = None
    """Read no more documents than this."""


def _tag(source: Any) -> str | None:
    kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    return f"{UNION_TAG}{kind}"


AnySource = Annotated[
    Annotated[FilesSource, Tag(f"{UNION_TAG}files")]
    | Annotated[JsonLinesSource, Tag(f"{UNION_TAG}jsonl")]
    | Annotated[HuggingFaceSource, Tag(f"{UNION_TAG}huggingface")],
    Discriminator(
        _tag,
        custom_error_type="source_kind",
        custom_error_message="kind must be files, jsonl or huggingface",
    ),
]


class FilterSection(Section):
    """Rules a document has to pass, in this order; each counts what it drops."""

    min_characters: int = 1
    """Shortest text."""

    max_characters: int | None = None
    """Longest text."""

    max_line_characters: int | None = None
    """Longest line; data tables and minified code have longer ones."""

    min_alphabetic_fraction: float = 0.0
    """Least share of letters, of any script, among the characters that are not white space."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = []
        if self.min_characters < 1:
            bad.append(f"filters.min_characters: must be at least 1, got {self.min_characters}")
        if self.max_characters is not None and self.max_characters < self.min_characters:
            bad.append(f"filters.max_characters: {self.max_characters} is below min_characters {self.min_characters}")
        if self.max_line_characters is not None and self.max_line_characters < 1:
            bad.append(f"filters.max_line_characters: must be at least 1, got {self.max_line_characters}")
        if not 0.0 <= self.min_alphabetic_fraction <= 1.0:
            bad.append(f"filters.min_alphabetic_fraction: must be 0 … 1, got {self.min_alphabetic_fraction}")
        return bad


class DedupSection(Section):
    """What counts as the same document."""

    exact: bool = True
    """Drop a document whose text was kept before, in its own or an earlier source."""


class PrepConfig(Section):
    """A preparation run: sources → filters → exact dedup → tokenizer → shards."""

    name: str
    """What logs call the run."""

    output_dir: Path
    """Folder that gets a folder for each source, and ``tokenizer/``."""

    seed: int = 0
    """Keys the order of documents, and which files are taken where ``max_bytes`` cuts."""

    tokenizer: TokenizerPrep
    sources: tuple[AnySource, ...]
    filters: FilterSection = FilterSection()
    dedup: DedupSection = DedupSection()

    validation_fraction: float = 0.005
    """Share of documents, chosen by a hash of their text, that are kept from training; 0 makes no such split."""

    shard_tokens: int = 100_000_000
    """Begin a new shard after the document that brings one to this size."""

    on_bad_encoding: Literal["error", "skip"] = "error"
    """A text that is not UTF-8 stops the run, or is left out and counted."""

    def problems(self) -> list[str]:
        """Return every reason why the run cannot start, without a look at the disk."""
        bad = [] if self.sources else ["sources: empty; name at least one"]
        for index, source in enumerate(self.sources):
            bad += [f"sources[{index}].{problem}" for problem in _source_problems(source)]
        names = [source.name for source in self.sources]
        bad += [
            f"sources: two are called '{name}'; give each a name of its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        bad += self.tokenizer.problems() + self.filters.problems()
        if not 0.0 <= self.validation_fraction < 1.0:
            bad.append(f"validation_fraction: must be at least 0 and below 1, got {self.validation_fraction}")
        if self.shard_tokens < 1:
            bad.append(f"shard_tokens: must be at least 1, got {self.shard_tokens}")
        if not -(2**63) <= self.seed < 2**63:
            bad.append(f"seed: must fit 64 bits, got {self.seed}")
        return bad


def _source_problems(source: FilesSource | JsonLinesSource | HuggingFaceSource) -> list[str]:
    bad = []
    if not _NAME.fullmatch(source.name) or source.name in _RESERVED_NAMES:
        bad.append(
            f"name: '{source.name}' cannot be a folder here; use letters, digits, '.', '_', '-', not 'tokenizer'"
        )
    if source.weight <= 0.0:
        bad.append(f"weight: must be above 0, got {source.weight}; remove the source instead")
    limits = {"max_bytes": source.max_bytes}
    if isinstance(source, FilesSource):
        limits["max_file_bytes"] = source.max_file_bytes
        if not source.include:
            bad.append("include: empty, so no file is taken; remove it for the default, or name patterns")
    if isinstance(source, HuggingFaceSource):
        limits["max_documents"] = source.max_documents
    elif not source.paths:
        bad.append("paths: empty; name at least one file or folder")
    bad += [
        f"{key}: must be at least 1, got {limit}" for key, limit in limits.items() if limit is not None and limit < 1
    ]
    return bad
