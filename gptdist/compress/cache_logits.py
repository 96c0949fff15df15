"""Write a teacher's logits on a run's samples, a few tokens of each place, once for many students.

Letters: b batch, s sequence, v vocabulary, k tokens kept of each place.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.teacher import Teacher
from gptdist.checkpoint.verify import verify
from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch
from gptdist.data.logit_cache import (
    MANIFEST_NAME,
    CacheFacts,
    CacheManifest,
    KeptLogits,
    Method,
    read_cache_manifest,
    write_cache_file,
)
from gptdist.data.rules import SampleRules
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError, ConfigError
from gptdist.mesh.groups import destroy_mesh
from gptdist.model.gpt import LanguageModel
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.train.inference import load_model, single_process_mesh

logger = logging.getLogger(__name__)

FILE_BYTES = 1 << 26
"""Of a file, about; what a kill loses at most."""

MOST_DRAWS = 255
"""They are counted in a byte."""

_CHUNK_ELEMENTS = 1 << 22
"""Probabilities in fp64 that are summed up at a time; 32 MiB."""


@dataclass(frozen=True)
class CacheOptions:
    """What is kept of each place."""

    method: Method = "sampled"
    kept: int = 12
    samples: int | None = None
    """Of the run, from the first on; default: all."""

    device: str = "auto"

    def problems(self, vocab_size: int) -> list[str]:
        """Return every value out of its range."""
        bad = []
        if self.method == "sampled" and not 1 <= self.kept <= MOST_DRAWS:
            bad.append(f"--samples-per-token: must be from 1 to {MOST_DRAWS}, got {self.kept}")
        if self.method == "top_k" and not 1 <= self.kept < vocab_size:
            bad.append(f"--top-k: must be from 1 to model.vocab_size - 1 ({vocab_size - 1}), got {self.kept}")
        if self.samples is not None and self.samples < 1:
            bad.append(f"--samples: must be at least 1, got {self.samples}")
        return bad


@dataclass(frozen=True)
class CacheRun:
    """The run that the cache is for, opened."""

    config: RunConfig
    tokenizer: Tokenizer
    data: TrainingData
    teacher: Teacher

    def facts(self, options: CacheOptions) -> CacheFacts:
        """Return what decides every number of its cache."""
        settings = self.config.distillation
        assert settings is not None, "it names the teacher"
        return CacheFacts.of(
            self.config,
            self.data.order,
            teacher=self.teacher.fingerprint,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            data_fingerprints=self.data.fingerprints(),
            method=options.method,
            kept=options.kept,
            temperature=settings.temperature,
        )


def write_cache(
    run: CacheRun, output: Path, options: CacheOptions, tell: Callable[[int, int], None] = lambda done, of: None
) -> CacheManifest:
    """Write what is missing of a cache into ``output``; after a kill it goes on behind the last whole file.

    Args:
        run: whose samples.
        output: folder of the cache.
        options: what is kept.
        tell: is called with the samples that are there, and how many there will be.

    Raises:
        CheckpointError: the teacher is damaged.
        ConfigError: an option is out of its range, or ``output`` holds a cache of something else.
        DataError: the cache that is there is damaged.
    """
    if problems := options.problems(run.config.model.vocab_size):
        raise ConfigError(problems)
    manifest = _begun(output, run.facts(options))
    wanted = options.samples or run.config.batch_sizes.after(0, run.config.training.train_steps)
    if manifest.num_samples >= wanted:
        return manifest
    if problems := verify(run.teacher.folder):
        raise CheckpointError(f"{problems[0]}; the teacher is damaged, use another checkpoint")
    mesh = single_process_mesh()
    try:
        model = load_model(CheckpointReader(run.teacher.folder), mesh, options.device)
        while manifest.num_samples < wanted:
            first = manifest.num_samples
            count = min(_file_samples(run.config, options), wanted - first)
            kept = list(_answers(run, model, options, range(first, first + count)))
            file = write_cache_file(output, first, kept, run.data.rows(first, count), manifest.facts)
            manifest = CacheManifest(facts=manifest.facts, files=(*manifest.files, file))
            manifest.write(output)
            tell(manifest.num_samples, wanted)
    finally:
        destroy_mesh()
    return manifest


def _begun(output: Path, facts: CacheFacts) -> CacheManifest:
    """Return what is there, or begin."""
    if (output / MANIFEST_NAME).exists():
        manifest = read_cache_manifest(output)
        if differences := manifest.facts.differences(facts):
            raise ConfigError(
                [
                    f"--output: {output} holds a cache of something else ({', '.join(differences)}); remove it, or "
                    f"choose another folder"
                ]
            )
        return manifest
    if output.exists() and any(output.iterdir()):
        raise ConfigError([f"--output: {output} is not empty and holds no cache; choose another folder"])
    output.mkdir(parents=True, exist_ok=True)
    manifest = CacheManifest(facts=facts)
    manifest.write(output)
    return manifest


def _file_samples(config: RunConfig, options: CacheOptions) -> int:
    """Return the samples of a file: whole micro batches, so that a run that goes on has the same ones."""
    place_bytes = options.kept * (3 if options.method == "sampled" else 6) + 4
    size = config.batch.micro_batch_size
    return max(1, FILE_BYTES // (place_bytes * config.model.seq_length * size)) * size


def _answers(run: CacheRun, model: LanguageModel, options: CacheOptions, samples: range) -> Iterator[KeptLogits]:
    size, device = run.config.batch.micro_batch_size, next(model.parameters()).device
    rules, settings = SampleRules.of(run.config.data, run.tokenizer), run.config.distillation
    assert settings is not None, "it names the teacher"
    for first in range(samples.start, samples.stop, size):
        count = min(size, samples.stop - first)
        batch = Batch.of(run.data.rows(first, count), device, rules)
        with torch.no_grad():
            logits = model(batch.tokens, batch.positions(), batch.attention_mask()) / settings.temperature
        if options.method == "sampled":
            numbers = [
                uniform_numbers(run.config.seed, first + at, logits.shape[1], options.kept) for at in range(count)
            ]
            yield drawn_tokens(logits, torch.from_numpy(np.stack(numbers)).to(device))
        else:
            yield likeliest_tokens(logits, options.kept)


def uniform_numbers(seed: int, sample: int, places: int, draws: int) -> np.ndarray:
    """Return [places, draws] in [0, 1), fp64, that depend on seed and sample alone."""
    digest = hashlib.blake2b(f"{seed}/distillation/{sample}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64)))
    return generator.random((places, draws))


def drawn_tokens(logits: Tensor, numbers: Tensor) -> KeptLogits:
    """Return tokens drawn with replacement from softmax(logits), and how often each came up.

    The mean of the gradient to such targets is that to all of the teacher's probabilities; of the likeliest tokens
    alone it is not.

    Shapes: logits [b, s, v], numbers [b, s, k] uniform in [0, 1).

    Source: Anshumann et al. 2025, "Sparse Logit Sampling", arXiv 2503.16870, with draws from the teacher itself.
    """
    flat, uniform = logits.flatten(0, 1), numbers.flatten(0, 1)
    step = max(1, _CHUNK_ELEMENTS // flat.shape[1])
    parts = [_drawn(flat[at : at + step].double(), uniform[at : at + step]) for at in range(0, flat.shape[0], step)]
    ids, shares, entropy = (torch.cat(some) for some in zip(*parts, strict=True))
    batch, places = logits.shape[:2]
    return KeptLogits(
        ids.view(batch, places, -1).cpu().numpy(),
        shares.view(batch, places, -1).cpu().numpy(),
        entropy.view(batch, places).cpu().numpy(),
    )


def _drawn(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids and shares of draws [c, k], each id with all its draws in one place, and entropies [c]."""
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(1)
    heights = p.cumsum(1)
    drawn = torch.searchsorted(heights, uniform * heights[:, -1:], right=True).clamp_max(logits.shape[1] - 1)
    ids = drawn.sort(dim=1).values
    is_first = torch.ones_like(ids, dtype=torch.bool)
    is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    group = is_first.cumsum(1) - 1
    counts = torch.zeros_like(ids).scatter_add_(1, group, torch.ones_like(ids))
    shares = counts.gather(1, group) * is_first
    return ids, shares.float() / ids.shape[1], entropy.float()


def likeliest_tokens(logits: Tensor, kept: int) -> KeptLogits:
    """Return the ``kept`` likeliest tokens of softmax(logits), [b, s, v]; what they leave is one rest."""
    log_p, ids = logits.double().log_softmax(-1).topk(kept, dim=-1)
    p = log_p.exp().float().double()  # as they are stored
    rest = (1.0 - p.sum(-1)).clamp_min(0.0)
    entropy = -torch.xlogy(p, p).sum(-1) - torch.xlogy(rest, rest)
    return KeptLogits(ids.cpu().numpy(), p.float().cpu().numpy(), entropy.float().cpu().numpy())
