"""The teacher that a run's config names, and whether the run can learn from it; no torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptdist.checkpoint.find import named_checkpoint
from gptdist.checkpoint.manifest import MANIFEST_NAME, Manifest
from gptdist.config.distillation import DistillationConfig
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.data.logit_cache import CacheFacts, CacheManifest, read_cache_manifest
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError, ConfigError
from gptdist.tokenizer.matching import NO_MATCH, matched_tokens
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

_HUGGINGFACE_CONFIG = "config.json"


@dataclass(frozen=True)
class Teacher:
    """A teacher's checkpoint, of which the manifest is read."""

    folder: Path
    manifest: Manifest
    model: ModelConfig
    matched: np.ndarray | None = None
    """The teacher's id of each of the run's ids, where vocabularies are mapped; see ``matched_tokens``."""

    end_of_document: int = 0
    """The teacher's, where vocabularies are mapped."""

    @property
    def num_shared(self) -> int:
        """Tokens that both know; of vocabularies that are not mapped, all."""
        return self.model.vocab_size if self.matched is None else int(np.count_nonzero(self.matched != NO_MATCH))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which holds the hashes of the weights."""
        return hashlib.sha256((self.folder / MANIFEST_NAME).read_bytes()).hexdigest()


def named_teacher(path: Path) -> Teacher:
    """Return the teacher that a user means by a run folder or a checkpoint.

    Raises:
        CheckpointError: there is none, or its manifest is damaged.
        ConfigError: its model section is damaged.
    """
    if (path / _HUGGINGFACE_CONFIG).is_file() and not (path / MANIFEST_NAME).is_file():
        raise CheckpointError(
            f"distillation.teacher: {path}: is in the Hugging Face layout; make a checkpoint of it first "
            f"(`gptdist import {path} FOLDER`), and name that"
        )
    folder, manifest = named_checkpoint(path)
    return Teacher(folder, manifest, ModelConfig.from_tree(manifest.config.get("model", {}), origin=str(folder)))


def teacher_fingerprint(settings: DistillationConfig | None) -> str:
    """Return what the numbers that a run learns from are known by; nothing of a run without a teacher.

    Raises:
        CheckpointError: the teacher is missing or damaged.
        DataError: the cache is.
    """
    if settings is None:
        return ""
    if settings.cache is not None:
        return read_cache_manifest(settings.cache).facts.fingerprint()
    assert settings.teacher is not None, "the config's problems were looked at"
    return named_teacher(settings.teacher).fingerprint


def check_teacher(config: RunConfig, tokenizer: Tokenizer) -> Teacher:
    """Return the teacher of a run that names one.

    Raises:
        CheckpointError: it is missing or damaged.
        ConfigError: every reason why the run cannot learn from it.
        TokenizerError: its tokenizer, where vocabularies are mapped, cannot be loaded.
    """
    settings = config.distillation
    assert settings is not None, "there is a teacher"
    assert settings.teacher is not None, "there is a teacher"
    teacher = named_teacher(settings.teacher)
    where, model = f"distillation.teacher: {teacher.folder}", teacher.model
    bad = [
        f"distillation.hidden[{index}].teacher_layer: {term.teacher_layer}, but {teacher.folder} has layers 0 to "
        f"{model.num_layers - 1}; name one of them"
        for index, term in enumerate(settings.hidden)
        if term.teacher_layer >= model.num_layers
    ]
    if model.seq_length < config.model.seq_length:
        bad.append(
            f"{where}: knows {model.seq_length} positions, model.seq_length is {config.model.seq_length}; shorten "
            f"that, or train the teacher further with longer samples"
        )
    bad += [
        f"parallel.tensor_parallel_size ({config.parallel.tensor_parallel_size}) does not divide the teacher's "
        f"{name} ({size}); use a divisor"
        for name, size in model.split_sizes().items()
        if size % config.parallel.tensor_parallel_size
    ]
    if settings.map_vocabulary:
        teacher = _mapped(teacher, config, settings, tokenizer)
        if not teacher.num_shared:
            bad.append(f"{where}: its tokenizer shares no token with data.tokenizer; take another teacher")
    else:
        bad += _vocabulary_problems(where, teacher, config, tokenizer)
    if bad:
        raise ConfigError(bad)
    return teacher


def _vocabulary_problems(where: str, teacher: Teacher, config: RunConfig, tokenizer: Tokenizer) -> list[str]:
    advice = "take a teacher of this tokenizer, or set distillation.map_vocabulary"
    was, have = teacher.manifest.tokenizer_fingerprint, tokenizer.fingerprint
    if was and was != have:
        return [f"{where}: trained with tokenizer {was[:12]}, data.tokenizer is {have[:12]}; {advice}"]
    sizes = teacher.model.vocab_size, config.model.vocab_size
    return [] if sizes[0] == sizes[1] else [f"{where}: vocab_size {sizes[0]}, model.vocab_size is {sizes[1]}; {advice}"]


def _mapped(teacher: Teacher, config: RunConfig, settings: DistillationConfig, tokenizer: Tokenizer) -> Teacher:
    path = settings.teacher_tokenizer
    if path is None:
        named = teacher.manifest.config.get("data", {}).get("tokenizer")
        if named is None:
            raise ConfigError(
                [f"distillation.teacher_tokenizer: missing, and {teacher.folder} names none; name the teacher's"]
            )
        path = Path(named)
    theirs = load_tokenizer(path)
    was = teacher.manifest.tokenizer_fingerprint
    if was and was != theirs.fingerprint:
        raise ConfigError(
            [
                f"distillation.teacher_tokenizer: {path} is {theirs.fingerprint[:12]}, {teacher.folder} was trained "
                f"with {was[:12]}; name that one"
            ]
        )
    if theirs.eod_id >= teacher.model.vocab_size:  # what stands in for tokens that it does not know
        raise ConfigError(
            [
                f"distillation.teacher_tokenizer: {path} ends documents with id {theirs.eod_id}, and "
                f"{teacher.folder} has a vocabulary of {teacher.model.vocab_size}; name the teacher's own"
            ]
        )
    matched = matched_tokens(tokenizer, theirs, config.model.vocab_size)
    matched[matched >= teacher.model.vocab_size] = NO_MATCH
    return Teacher(teacher.folder, teacher.manifest, teacher.model, matched, theirs.eod_id)


def check_cache(config: RunConfig, tokenizer: Tokenizer, data: TrainingData) -> CacheManifest:
    """Return the manifest of the cache that a run names.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: it is of another order of samples, tokenizer or temperature, or ends before the run.
    """
    settings = config.distillation
    assert settings is not None, "there is a cache"
    assert settings.cache is not None, "there is a cache"
    manifest = read_cache_manifest(settings.cache)
    facts = manifest.facts
    wanted = CacheFacts.of(
        config,
        data.order,
        teacher=facts.teacher,
        tokenizer_fingerprint=tokenizer.fingerprint,
        data_fingerprints=data.fingerprints(),
        method=facts.method,
        kept=facts.kept,
        temperature=settings.temperature,
    )
    where = f"distillation.cache: {settings.cache}"
    bad = [
        f"{where}: {line} (the run's); write a cache for this run, or restore what it was written for"
        for line in facts.differences(wanted)
    ]
    needed = config.batch_sizes.after(0, config.training.train_steps)
    if settings.until_step is not None:
        needed = config.batch_sizes.after(0, settings.until_step)
    if manifest.num_samples < needed:
        bad.append(
            f"{where}: holds {manifest.num_samples} samples, the run learns from {needed}; write the rest with "
            f"`gptdist distill cache`, or lower training.train_steps"
        )
    if bad:
        raise ConfigError(bad)
    return manifest


def check_source(config: RunConfig, tokenizer: Tokenizer, data: TrainingData) -> Teacher | CacheManifest | None:
    """Return what a run learns from beside its data, if there is something; see ``check_teacher``, ``check_cache``."""
    if config.distillation is None:
        return None
    if config.distillation.cache is not None:
        return check_cache(config, tokenizer, data)
    return check_teacher(config, tokenizer)
