"""A dataset folder of conversations: whole ones packed into samples, and a mask of what is learnt beside each shard."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.conversations.encoded import EncodedConversation, encode
from data_prep.conversations.templates import template_named
from data_prep.conversations.turns import raise_problems, read_conversations
from data_prep.packing.best_fit import best_fit
from gptdist.data.label_mask import write_mask
from gptdist.data.manifest import MANIFEST_NAME, DatasetManifest, ShardEntry, SplitManifest
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter, token_dtype
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.tokenizer import Tokenizer

TooLong = Literal["refuse", "cut", "drop"]
TOO_LONG: tuple[TooLong, ...] = ("refuse", "cut", "drop")


@dataclass(frozen=True)
class ConversationOptions:
    """How conversations become samples."""

    seq_length: int
    """Tokens of a sample; the model's ``seq_length``."""

    chat_template: str = "plain"
    validation_fraction: float = 0.05
    """Share of conversations, by a hash of what they say, of the validation split; at least one is in each split."""

    too_long: TooLong = "refuse"
    """What becomes of a conversation of more than ``seq_length`` tokens; ``cut`` keeps its beginning."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = [] if self.seq_length >= 2 else [f"--seq-length: must be at least 2, got {self.seq_length}"]
        if not 0.0 < self.validation_fraction < 1.0:
            bad.append(f"--validation-fraction: must be above 0 and below 1, got {self.validation_fraction}")
        if self.too_long not in TOO_LONG:
            bad.append(f"--too-long: '{self.too_long}' is not known; use {', '.join(TOO_LONG)}")
        return bad


@dataclass
class SplitCounts:
    """What one split became."""

    conversations: int = 0
    samples: int = 0
    tokens: int = 0
    """Of conversations, padding apart."""

    learnt_tokens: int = 0
    padding_tokens: int = 0


@dataclass
class ConversationCounts:
    """What all lines became."""

    cut: int = 0
    """Conversations whose end is left out, for they are too long."""

    dropped: int = 0
    """Conversations that are left out for it."""

    splits: dict[str, SplitCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A dataset folder, and what is in it."""

    manifest: DatasetManifest
    counts: ConversationCounts
    is_new: bool
    """Whether it was written now; else it was there."""


def prepare_conversations(
    files: Sequence[Path], output: Path, tokenizer: Tokenizer, options: ConversationOptions
) -> Prepared:
    """Write the dataset folder ``output`` of the conversations in ``files``; one of the same files is left as it is.

    Raises:
        ConfigError: options out of their range, files that are missing, every line that is wrong, or ``output`` holds
            something else.
        DataError: there are fewer than two conversations, or the template does not go with the tokenizer.
        TokenizerError: a text cannot be tokenized.
    """
    problems = options.problems()
    problems += [f"{path}: no such file; change the path" for path in files if not path.is_file()]
    if problems:
        raise ConfigError(problems)
    template = template_named(options.chat_template)
    recipe = _recipe(files, tokenizer, options)
    if (output / MANIFEST_NAME).exists():
        return _found(output, recipe)
    conversations = encode(read_conversations(files), template, tokenizer)
    counts = ConversationCounts()
    kept = _fitted(conversations, options, counts)
    splits = _split(kept, options.validation_fraction, files)
    output.mkdir(parents=True, exist_ok=True)
    dtype = token_dtype(tokenizer.vocab_size)
    written: dict[str, SplitManifest] = {}
    for name, some in splits.items():
        shard = _Shard(output, f"{name}-00000", dtype, tokenizer.eod_id, options.seq_length)
        counts.splits[name] = shard.counts
        written[name] = shard.write(some)
    manifest = DatasetManifest(
        name=output.resolve().name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        dtype=dtype.name,
        splits=written,
        weight=1.0,
        funnel={"lines": len(conversations), "kept": len(kept), "cut": counts.cut, "dropped": counts.dropped},
        config={"files": [str(path) for path in files], **asdict(options)},
        recipe=recipe,
        packing={
            "method": "best_fit",
            "seq_length": options.seq_length,
            **{name: asdict(one) for name, one in counts.splits.items()},
        },
    )
    manifest.write(output)
    return Prepared(manifest, counts, is_new=True)


def _found(output: Path, recipe: str) -> Prepared:
    manifest = DatasetManifest.read(output)
    if manifest.recipe != recipe:
        raise ConfigError(
            [f"{output}: holds what other files or options made; remove it, or choose another folder for these"]
        )
    counts = ConversationCounts(int(manifest.funnel["cut"]), int(manifest.funnel["dropped"]))
    packing = manifest.packing or {}
    counts.splits = {name: SplitCounts(**packing[name]) for name in manifest.splits}
    return Prepared(manifest, counts, is_new=False)


def _recipe(files: Sequence[Path], tokenizer: Tokenizer, options: ConversationOptions) -> str:
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    deciding: list[Any] = ["conversations 1", hashes, tokenizer.fingerprint, asdict(options)]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _fitted(
    conversations: Sequence[EncodedConversation], options: ConversationOptions, counts: ConversationCounts
) -> list[EncodedConversation]:
    """Return what fits into a sample, after what ``too_long`` says of the rest.

    Raises:
        ConfigError: every conversation that is too long, or has nothing to learn once it is cut.
    """
    kept, problems, limit = [], [], options.seq_length
    for one in conversations:
        if one.tokens.size <= limit:
            kept.append(one)
        elif options.too_long == "drop":
            counts.dropped += 1
        elif options.too_long == "cut" and one.cut(limit).is_learnt.any():
            kept.append(one.cut(limit))
            counts.cut += 1
        else:
            within = " and nothing to learn within these" if options.too_long == "cut" else ""
            problems.append(
                f"{one.source.where}: {one.tokens.size} tokens for samples of {limit}{within}; raise --seq-length, "
                f"or say --too-long {'drop' if within else 'cut or drop'}"
            )
    raise_problems(problems)
    return kept


def _split(
    kept: Sequence[EncodedConversation], fraction: float, files: Sequence[Path]
) -> dict[str, list[EncodedConversation]]:
    """Return the conversations of each split; equal ones are in the same.

    Raises:
        DataError: there are not two different ones.
    """
    digests = sorted({one.digest for one in kept})
    if len(digests) < 2:
        raise DataError(
            f"{', '.join(map(str, files))}: {len(digests)} different conversations, and one each for training and "
            f"validation is the least; add some"
        )
    # Bytes that do not decide the order within a split; a digest is as good as a random number.
    chosen = {one for one in digests if int.from_bytes(one[8:], "big") < fraction * 2**64}
    chosen = (chosen or {digests[0]}) - ({digests[-1]} if len(chosen) == len(digests) else set())
    return {
        "train": [one for one in kept if one.digest not in chosen],
        "validation": [one for one in kept if one.digest in chosen],
    }


class _Shard:
    """The files of a split, which is one shard."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype, eod_id: int, seq_length: int) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._eod_id, self._seq_length = eod_id, seq_length
        self.counts = SplitCounts()

    def write(self, conversations: Sequence[EncodedConversation]) -> SplitManifest:
        """Pack and write all of them.

        Behind the last sample comes one of padding: each sample also needs the token after its last one.
        """
        lengths = np.array([one.tokens.size for one in conversations])
        keys = np.array([int.from_bytes(one.digest[:8], "big") for one in conversations], dtype=np.uint64)
        found = best_fit(lengths, keys, self._seq_length)
        padding = found.padding.copy()
        padding[-1] += self._seq_length
        ordered = [conversations[index] for index in found.document.tolist()]
        tokens, masks = [], []
        for one, fill in zip(ordered, padding.tolist(), strict=True):
            tokens += [one.tokens, np.full(fill, self._eod_id)]
            masks += [one.is_learnt, np.zeros(fill, dtype=np.bool_)]
        whole, learnt = np.concatenate(tokens), np.concatenate(masks)
        with ShardWriter(self._folder, self._name, self._dtype) as shard:
            shard.append(whole, found.tokens + padding)
            written = shard.close()
        self.counts.conversations, self.counts.samples = len(ordered), whole.size // self._seq_length - 1
        self.counts.tokens, self.counts.learnt_tokens = int(lengths.sum()), int(learnt.sum())
        self.counts.padding_tokens = int(padding.sum())
        entry = ShardEntry(
            name=self._name,
            provenance_sha256=self._write_provenance(ordered, (found.tokens + padding).tolist()),
            mask_sha256=write_mask(self._folder, self._name, learnt),
            **vars(written),
        )
        text_bytes = sum(one.text_bytes for one in ordered)
        return SplitManifest(written.documents, written.tokens, text_bytes, (entry,))

    def _write_provenance(self, ordered: Sequence[EncodedConversation], lengths: Sequence[int]) -> str:
        writer = ProvenanceWriter(self._folder, self._name)
        try:
            writer.append_rows(
                [
                    Provenance(
                        path=one.source.path,
                        record=one.source.line,
                        url=None,
                        text_bytes=one.text_bytes,
                        tokens=length,
                        text_digest=one.digest.hex(),
                        offset=one.source.offset,
                    )
                    for one, length in zip(ordered, lengths, strict=True)
                ]
            )
            return writer.close()
        finally:
            writer.discard()
