"""sentencepiece models (BPE and unigram): trained here, or brought along."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.errors import TokenizerError
from gptdist.tokenizer.arrow import encode_arrow_by
from gptdist.tokenizer.folder import TokenizerRecord, checked_ids, sha256_of
from gptdist.tokenizer.sentencepiece_export import check_same_ids, to_tokenizers_json
from gptdist.tokenizer.sentencepiece_proto import NEWLINE, SPACE_MARK, newline_piece, parse_model

FILE_NAME = "sentencepiece.model"


class SentencePieceTokenizer:
    """A sentencepiece model.

    The sum of ``token_byte_lengths`` over a document equals its UTF-8 size for models trained here, except for text
    that holds U+2581 itself: sentencepiece reads it as a space (1 byte instead of 3). A foreign model with a dummy
    prefix counts one byte more a document; one that normalises text or removes spaces counts the normalised text;
    one without byte fallback counts 0 for an unknown character.

    Models trained here have the newline as a piece of its own. Documents are cut there and each line is encoded alone,
    which keeps the sums of scores short and so exactly the same in every implementation.

    Args:
        model: the content of a ``.model`` file.
        eod_token: the piece that ends a document.
        origin: what to put before an error, such as the file's path.

    Raises:
        TokenizerError: the bytes are no model, or it does not know ``eod_token``.
    """

    kind = "sentencepiece"
    engine = "sentencepiece"

    def __init__(self, model: bytes, *, eod_token: str, origin: str = FILE_NAME) -> None:
        self._model = model
        self._processor = open_model(model, origin)
        self._origin = origin
        self.eod_token = eod_token
        self.vocab_size = int(self._processor.vocab_size())
        self.eod_id = int(self._processor.piece_to_id(eod_token))
        self.unknown_id: int | None = int(self._processor.unk_id())
        if self._processor.id_to_piece(self.eod_id) != eod_token:
            raise TokenizerError(
                f"{origin}: has no piece '{eod_token}' to end documents; name one that it has as eod_token"
            )
        self._newline_id = newline_piece(parse_model(model))
        lines = b"whole" if self._newline_id is None else b"lines"
        self.fingerprint = sha256_of(b"sentencepiece", lines, str(self.eod_id).encode(), model)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return int32 ids of each text, on all cores; nothing is added before or after."""
        return self._encode(texts, num_threads=-1)

    def encode_arrow(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of all texts, flat, and the int64 number of each; on the calling thread."""
        return encode_arrow_by(self.encode_by_reference, texts)

    def encode_by_reference(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what ``encode_batch`` does, on the calling thread."""
        return self._encode(texts, num_threads=1)

    def _encode(self, texts: Sequence[str], num_threads: int) -> list[np.ndarray]:
        if self._newline_id is None:
            encoded = self._processor.encode(list(texts), num_threads=num_threads)
            return [np.asarray(ids, dtype=np.int32) for ids in encoded]
        lines: list[str] = []
        ends: list[int] = []
        for text in texts:
            lines += text.split(NEWLINE)
            ends.append(len(lines))
        encoded = self._processor.encode(lines, num_threads=num_threads)
        starts = [0, *ends][:-1]
        return [_joined(encoded[start:end], self._newline_id) for start, end in zip(starts, ends, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; end-of-document is dropped."""
        return str(self._processor.decode([i for i in checked_ids(ids, self.vocab_size) if i != self.eod_id]))

    def token_byte_lengths(self) -> np.ndarray:
        """Return int64[vocab_size]: UTF-8 bytes that each id stands for, 0 for control and unknown."""
        return np.array([self._size(token) for token in range(self.vocab_size)], dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write ``sentencepiece.model`` and the record."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_bytes(self._model)
        TokenizerRecord(self.kind, self.vocab_size, self.eod_id, self.eod_token, self.fingerprint).write(folder)

    def huggingface_json(self) -> str:
        """Return a ``tokenizer.json`` with the same ids.

        Raises:
            TokenizerError: the model cannot be expressed exactly in that format.
        """
        text = to_tokenizers_json(parse_model(self._model), eod_token=self.eod_token, origin=self._origin)
        check_same_ids(self.encode_batch, text, self._origin)
        return text

    def _size(self, token: int) -> int:
        if token == self.eod_id or self._processor.is_control(token) or self._processor.is_unknown(token):
            return 0
        if self._processor.is_byte(token):
            return 1
        return len(self._processor.id_to_piece(token).replace(SPACE_MARK, " ").encode())


def open_model(model: bytes, origin: str) -> Any:
    """Return a ``SentencePieceProcessor``.

    Raises:
        TokenizerError: the bytes are no model.
    """
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise TokenizerError(f"{origin}: not a sentencepiece model; name a .model file") from None


def _joined(lines: list[list[int]], newline_id: int) -> np.ndarray:
    ids = list(lines[0])
    for line in lines[1:]:
        ids.append(newline_id)
        ids += line
    return np.asarray(ids, dtype=np.int32)
