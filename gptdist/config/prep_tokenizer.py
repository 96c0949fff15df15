"""The tokenizer of a preparation run, and how its tokens are packed."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from gptdist.config.section import Section

LEAST_VOCAB_SIZES: Mapping[str, int] = MappingProxyType({"bpe": 257, "sentencepiece": 512})
"""Bytes, special tokens, and for sentencepiece room for characters."""

LONGEST_PACKED_SAMPLE = 1 << 20
"""Documents are packed 16 million tokens at a time: with few samples among these, there is nothing to choose from."""


class TokenizerPrep(Section):
    """The tokenizer: trained on the documents, or loaded; exactly one of ``kind`` and ``load``."""

    kind: Literal["byte", "bpe", "sentencepiece"] | None = None
    """``byte`` needs no training; ``bpe`` is byte-level with GPT-2's word pattern."""

    model_type: Literal["bpe", "unigram"] | None = None
    """For kind sentencepiece; unset is unigram."""

    vocab_size: int | None = None
    """Most ids of a trained tokenizer, end-of-document included; a small sample may give fewer."""

    train_bytes: int = 50_000_000
    """Text to train on, taken from the training split of all sources by their weights. Training BPE with 50,000 ids
    takes some 9 to 13 bytes of memory a byte, in one process."""

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


class PackingSection(Section):
    """Best-fit packing: only documents longer than a training sample are cut; end-of-document fills samples up.

    Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling".
    """

    method: Literal["best_fit"]
    seq_length: int
    """Tokens of a training sample; a run with another ``model.seq_length`` is refused."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        if 2 <= self.seq_length <= LONGEST_PACKED_SAMPLE:
            return []
        return [
            f"packing.seq_length: must be 2 … {LONGEST_PACKED_SAMPLE}, got {self.seq_length}; "
            "set it to the model.seq_length of the runs to come"
        ]
