"""A preparation run from its config to dataset folders: sources → filter → exact dedup → tokenizer → shards."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.dedup import DigestSet, dedup_stage
from data_prep.document import Document, Stage
from data_prep.filters import filter_stage, stop_stage
from data_prep.funnel import Funnel
from data_prep.pack import SplitPacker
from data_prep.progress import Progress
from data_prep.readers.reader import OpenSource, open_sources
from data_prep.recipe import recorded_config, source_recipe
from data_prep.spool import Settings, Spool
from data_prep.tokenizer_stage import ready_tokenizer, trained_tokenizer
from data_prep.work_folder import work_folder
from gptdist.config.prep import PrepConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.manifest import DatasetManifest
from gptdist.data.provenance import read_digests
from gptdist.data.shards import token_dtype
from gptdist.durable import swap_in
from gptdist.errors import DataError
from gptdist.tokenizer.tokenizer import Tokenizer

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True)
class PreparedSource:
    """One source, done."""

    manifest: DatasetManifest
    is_reused: bool
    """Whether an earlier run had finished it."""


@dataclass(frozen=True)
class Preparation:
    """What a run made."""

    tokenizer: Tokenizer
    sources: tuple[PreparedSource, ...]
    seconds: float


def prepare(config: PrepConfig, progress: Progress) -> Preparation:
    """Run ``config``; sources that an earlier run finished from the same inputs are kept as they are.

    Raises:
        DataError: a source is missing, empty or damaged, or leaves a split without documents.
        TokenizerError: the tokenizer cannot be trained or loaded.
    """
    started = time.monotonic()
    sources = open_sources(config)
    with work_folder(config.output_dir) as work:
        run = _Run(config, sources, work, progress)
        tokenizer = run.tokenizer()
        prepared = tuple(run.source(index, tokenizer) for index in range(len(sources)))
    return Preparation(tokenizer, prepared, time.monotonic() - started)


@dataclass(frozen=True)
class _Collected:
    """A source after the first pass."""

    spool: Spool
    funnel: Funnel


class _Run:
    """One run's state: what was seen, and what is collected but not yet packed."""

    def __init__(self, config: PrepConfig, sources: list[OpenSource], work: Path, progress: Progress) -> None:
        self._config = config
        self._sources = sources
        self._work = work
        self._progress = progress
        self._seen = DigestSet()
        self._collected: dict[int, _Collected] = {}

    def tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer; training needs the first pass over every source."""
        found = ready_tokenizer(self._config, self._sources, self._work)
        if found is not None:
            return found
        for index in range(len(self._sources)):
            self._collect(index)
        spools = [(self._collected[index].spool, source.section.weight) for index, source in enumerate(self._sources)]
        self._progress.begin("training the tokenizer")
        tokenizer = trained_tokenizer(self._config, self._sources, spools, self._work)
        self._progress.note(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} ids, trained")
        return tokenizer

    def source(self, index: int, tokenizer: Tokenizer) -> PreparedSource:
        """Return one source's finished folder, making it if need be."""
        recipe = source_recipe(self._config, self._sources, index, tokenizer.fingerprint)
        name = self._sources[index].section.name
        target = self._config.output_dir / name
        finished = _finished(target, recipe)
        if finished is not None:
            self._progress.note(f"{name}: finished already from the same config and inputs; kept as it is")
            self._reuse(index, target, finished)
            return PreparedSource(finished, is_reused=True)
        if index not in self._collected:
            self._collect(index)
        return PreparedSource(self._pack(index, tokenizer, recipe), is_reused=False)

    def _collect(self, index: int) -> None:
        """First pass: read, filter, drop duplicates, spool."""
        source, config = self._sources[index], self._config
        funnel = Funnel()
        stages: list[Stage] = [funnel.entering, filter_stage(config.filters, funnel)]
        if config.dedup.exact:
            stages.append(dedup_stage(self._seen, funnel))
        stages += [stop_stage(source.section.max_bytes), funnel.leaving, self._progress.watching]
        documents: Iterator[Document] = source.reader.documents(funnel)
        for stage in stages:
            documents = stage(documents)
        self._progress.begin(f"{source.section.name}: reading", source.section.max_bytes or 0)
        spool = Spool(self._work / f"{source.section.name}.spool", Settings(config.seed, config.validation_fraction))
        spool.fill(documents)
        self._progress.end()
        self._check_splits(index, spool, funnel)
        self._collected[index] = _Collected(spool, funnel)

    def _check_splits(self, index: int, spool: Spool, funnel: Funnel) -> None:
        """Refuse a source that leaves a split empty, before any tokenizer is trained.

        Raises:
            DataError: nothing is left, or nothing for training, or nothing for validation though some was asked for.
        """
        where = f"sources[{index}] '{self._sources[index].section.name}'"
        fraction = self._config.validation_fraction
        kept = f"{funnel.documents_kept} documents kept of {funnel.documents_in}"
        if not funnel.documents_kept:
            raise DataError(
                f"{where}: empty: {kept} (dropped: {funnel.describe_dropped()}); name other paths, or loosen filters"
            )
        if not spool.order(validation=False).size:
            raise DataError(f"{where}: no document for training, {kept}; lower validation_fraction ({fraction})")
        if fraction > 0.0 and not spool.order(validation=True).size:
            raise DataError(
                f"{where}: the validation split is empty, {kept}; raise validation_fraction from {fraction} to "
                f"{spool.lowest_place + 0.001:.3f} or more, or set it to 0 for no such split"
            )

    def _pack(self, index: int, tokenizer: Tokenizer, recipe: str) -> DatasetManifest:
        """Second pass: shuffle, tokenize, write shards, and swap the finished folder in."""
        section, collected = self._sources[index].section, self._collected.pop(index)
        folder = self._work / section.name
        folder.mkdir()
        splits = {}
        self._progress.begin(f"{section.name}: tokenizing", collected.funnel.bytes_kept)
        for split in (TRAIN, VALIDATION):
            order = collected.spool.order(validation=split == VALIDATION)
            if order.size:
                packer = SplitPacker(folder, split, tokenizer, self._config.shard_tokens)
                splits[split] = packer.pack(collected.spool.read(order), self._progress)
        manifest = DatasetManifest(
            name=section.name,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eod_id=tokenizer.eod_id,
            dtype=token_dtype(tokenizer.vocab_size).name,
            splits=splits,
            weight=section.weight,
            funnel=collected.funnel.as_data(),
            config=recorded_config(self._config),
            recipe=recipe,
        )
        manifest.write(folder)
        swap_in(folder, self._config.output_dir / section.name)
        collected.spool.remove()
        self._progress.end()
        return manifest

    def _reuse(self, index: int, target: Path, manifest: DatasetManifest) -> None:
        """Let later sources know the finished one's documents, unless its first pass was run in this run anyway."""
        collected = self._collected.pop(index, None)
        if collected is not None:
            collected.spool.remove()
        elif self._config.dedup.exact:
            for split in manifest.splits.values():
                for entry in split.shards:
                    self._seen.update(bytes.fromhex(digest) for digest in read_digests(target, entry.name))


def _finished(folder: Path, recipe: str) -> DatasetManifest | None:
    """Return the manifest of a folder that an earlier run finished from the same recipe, if its files are all there."""
    try:
        manifest = DatasetManifest.read(folder)
        if manifest.recipe != recipe:
            return None
        for split in manifest.splits:
            TokenDataset(folder, split)
    except DataError:
        return None  # missing or damaged: it is made again
    return manifest
