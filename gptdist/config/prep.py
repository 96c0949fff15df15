"""What ``gptdist prep run`` reads: sources, stages, tokenizer, and how shards are cut."""

from pathlib import Path
from typing import Literal

from gptdist.config.prep_decontaminate import DecontaminateSection
from gptdist.config.prep_dedup import DedupSection
from gptdist.config.prep_extract import ExtractSection
from gptdist.config.prep_filters import FilterSection
from gptdist.config.prep_privacy import PiiSection
from gptdist.config.prep_quality import LanguageSection, QualitySection
from gptdist.config.prep_sources import AnySource, source_problems
from gptdist.config.prep_tokenizer import PackingSection, TokenizerPrep
from gptdist.config.section import Section


class PrepConfig(Section):
    """A preparation run: read → extract → language → filters → quality → decontaminate → PII → dedup → shards."""

    name: str
    """What logs call the run."""

    output_dir: Path
    """Folder that gets a folder for each source, ``tokenizer/`` and ``account/``."""

    seed: int = 0
    """Keys the order of documents, and which files are taken where ``max_bytes`` cuts."""

    tokenizer: TokenizerPrep
    sources: tuple[AnySource, ...]
    extract: ExtractSection = ExtractSection()
    language: LanguageSection | None = None
    filters: FilterSection = FilterSection()
    quality: QualitySection = QualitySection()
    decontaminate: DecontaminateSection | None = None
    pii: PiiSection | None = None
    dedup: DedupSection = DedupSection()
    packing: PackingSection | None = None
    """Lay documents out for one sample length; unset concatenates them."""

    validation_fraction: float = 0.005
    """Share of documents, chosen by a hash of their text, that are kept from training; 0 makes no such split."""

    shard_tokens: int = 100_000_000
    """Begin a new shard after the document that brings one to this size."""

    input_shard_bytes: int = 64_000_000
    """Bytes of input that are done, or done again after a kill, as one; larger compressed files stay whole."""

    work_compression: Literal["lz4", "zstd"] | None = None
    """Of the kept text between steps, which is gone at the end: zstd needs a third of the disk, and reading clean text
    takes a sixth longer."""

    max_record_bytes: int = 30_000_000
    """A larger record (a line, a row, a WARC record) is damage; it also bounds what a compression bomb can unpack, and
    with it a worker's memory: tokenizing one unbroken word takes about 24 bytes a byte."""

    max_damaged_fraction: float = 0.01
    """Share of an input shard's records that may be unreadable, and are counted and named; above it the shard fails."""

    def problems(self) -> list[str]:
        """Return every reason why the run cannot start, without a look at the disk."""
        bad = [] if self.sources else ["sources: empty; name at least one"]
        for index, source in enumerate(self.sources):
            bad += [f"sources[{index}].{problem}" for problem in source_problems(source)]
        names = [source.name for source in self.sources]
        bad += [
            f"sources: two are called '{name}'; give each a name of its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        sections = (self.tokenizer, self.extract, self.language, self.filters, self.quality)
        for section in (*sections, self.decontaminate, self.pii, self.dedup, self.packing):
            bad += section.problems() if section is not None else []
        return bad + self._number_problems()

    def _number_problems(self) -> list[str]:
        bad = []
        if not 0.0 <= self.validation_fraction < 1.0:
            bad.append(f"validation_fraction: must be at least 0 and below 1, got {self.validation_fraction}")
        if not 0.0 <= self.max_damaged_fraction < 1.0:
            bad.append(f"max_damaged_fraction: must be at least 0 and below 1, got {self.max_damaged_fraction}")
        for key in ("shard_tokens", "input_shard_bytes", "max_record_bytes"):
            if getattr(self, key) < 1:
                bad.append(f"{key}: must be at least 1, got {getattr(self, key)}")
        if not -(2**63) <= self.seed < 2**63:
            bad.append(f"seed: must fit 64 bits, got {self.seed}")
        return bad
