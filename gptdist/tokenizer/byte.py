"""The tokenizer that needs no training: token ids are the bytes of the UTF-8 text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.tokenizer.arrow import text_arrays
from gptdist.tokenizer.folder import END_OF_DOCUMENT, TokenizerRecord, checked_ids, sha256_of

NUM_BYTES = 256


class ByteTokenizer:
    """Ids 0 … 255 are bytes, 256 ends a document."""

    kind = "byte"
    engine = "numpy"
    vocab_size = NUM_BYTES + 1
    eod_id = NUM_BYTES
    eod_token = END_OF_DOCUMENT
    unknown_id: int | None = None
    fingerprint = sha256_of(b"gptdist byte tokenizer", b"1")

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the bytes of each text as int32 ids."""
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) for text in texts]

    def encode_arrow(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of all texts as int32 ids, flat, and the int64 number of each."""
        borders, characters = text_arrays(texts)
        return characters[borders[0] : borders[-1]].astype(np.int32), np.diff(borders)

    def encode_by_reference(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what ``encode_batch`` does; there is one way only."""
        return self.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; end-of-document is dropped, bytes that are not UTF-8 become U+FFFD."""
        kept = (token for token in checked_ids(ids, self.vocab_size) if token != self.eod_id)
        return bytes(kept).decode("utf-8", errors="replace")

    def token_byte_lengths(self) -> np.ndarray:
        """Return int64[257]: 1 for a byte, 0 for end-of-document."""
        lengths = np.ones(self.vocab_size, dtype=np.int64)
        lengths[self.eod_id] = 0
        return lengths

    def save(self, folder: Path) -> None:
        """Write the record; there is nothing else to keep."""
        folder.mkdir(parents=True, exist_ok=True)
        TokenizerRecord(self.kind, self.vocab_size, self.eod_id, self.eod_token, self.fingerprint).write(folder)

    def huggingface_json(self) -> str:
        """Return a ``tokenizer.json`` with the same ids: byte-level BPE that merges nothing."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(self.eod_token, special=True, normalized=False)])
        return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)


def byte_characters() -> list[str]:
    """Return the printable character that byte-level BPE writes for each of the 256 bytes.

    Bytes that are printable in Latin-1 stand for themselves; the others take the code points from 256 on, in order.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2, and its release.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(NUM_BYTES)]
