"""BPE tokenizers in the ``tokenizer.json`` format: trained here, or brought along."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.errors import TokenizerError
from gptdist.tokenizer.arrow import encode_arrow_by
from gptdist.tokenizer.fast_bpe import FastBpe, open_fast
from gptdist.tokenizer.folder import TokenizerRecord, checked_ids, sha256_of

FILE_NAME = "tokenizer.json"
SPACE_MARK = "\u2581"
_DECIDING_PARTS = ("normalizer", "pre_tokenizer", "model", "added_tokens")
"""The parts of the file that decide ids; post-processor, padding and truncation are never applied here."""
_FEW_CHARACTERS = 1 << 16
"""Less text than this is encoded by the ``tokenizers`` library: starting the fast engine costs more."""


class BpeTokenizer:
    """A BPE that covers every byte: byte-level (GPT-2, Llama 3) or with byte fallback (Llama 2).

    The sum of ``token_byte_lengths`` over a document equals its UTF-8 size, except where a normaliser of a foreign
    file changes the text first, or its pre-tokenizer adds a space in front (one byte more).

    Args:
        text: the whole ``tokenizer.json``; it is kept and saved as it is.
        eod_token: the token that ends a document, as the file spells it.
        origin: what to put before an error, such as the file's path.

    Raises:
        TokenizerError: the text is no such file, the model is not a BPE that covers every byte, or it does not
            know ``eod_token``.
    """

    kind = "bpe"

    def __init__(self, text: str, *, eod_token: str, origin: str = FILE_NAME) -> None:
        from tokenizers import Tokenizer

        self._text = text
        self._origin = origin
        self._tree = parse(text, origin)
        self._byte_level = _check_covers_bytes(self._tree, origin)
        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower for a broken file
            raise TokenizerError(
                f"{origin}: the tokenizers library cannot load it ({error}); export it again"
            ) from None
        self._tokenizer.encode_special_tokens = True  # text that spells a special token is text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eod_token = eod_token
        eod_id = self._tokenizer.token_to_id(eod_token)
        if eod_id is None:
            raise TokenizerError(
                f"{origin}: has no token '{eod_token}' to end documents; name one that it has as eod_token"
            )
        self.eod_id = int(eod_id)
        unknown = self._tree["model"].get("unk_token")
        self.unknown_id: int | None = None if unknown is None else self._tokenizer.token_to_id(unknown)
        # Ids may have holes, so their number is not the size: embeddings and dtypes follow the largest.
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.fingerprint = sha256_of(b"tokenizer.json", str(self.eod_id).encode(), _canonical(self._tree))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return int32 ids of each text; nothing is added before or after."""
        if sum(map(len, texts)) < _FEW_CHARACTERS or self._fast is None:
            return self.encode_by_reference(texts)
        import pyarrow

        ids, lengths = self._fast.encode(pyarrow.array(texts, pyarrow.large_string()))
        return np.split(ids, np.cumsum(lengths[:-1])) if lengths.size else []

    def encode_arrow(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of all texts, flat, and the int64 number of each; on the calling thread."""
        if self._fast is None:
            return encode_arrow_by(self.encode_by_reference, texts)
        return self._fast.encode(texts)

    def encode_by_reference(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what ``encode_batch`` does, by the ``tokenizers`` library, whose ids are right by definition."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]

    @property
    def engine(self) -> str:
        """What ``encode_arrow`` runs on: the fast engine, unless it cannot be used or gives other ids."""
        return "tokenizers" if self._fast is None else "gigatoken"

    @cached_property
    def _fast(self) -> FastBpe | None:
        return open_fast(self._tree, self.encode_by_reference, self._origin)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; end-of-document is dropped."""
        kept = [token for token in checked_ids(ids, self.vocab_size) if token != self.eod_id]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def token_byte_lengths(self) -> np.ndarray:
        """Return int64[vocab_size]: UTF-8 bytes that each id stands for, 0 for special tokens."""
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        size_of = len if self._byte_level else _size_with_fallback
        for piece, token in self._tree["model"]["vocab"].items():
            lengths[token] = size_of(piece)
        for added in self._tree.get("added_tokens") or ():
            lengths[added["id"]] = 0 if added["special"] else len(added["content"].encode())
        lengths[self.eod_id] = 0
        return lengths

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and the record."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(self._text, encoding="utf-8", newline="")
        TokenizerRecord(self.kind, self.vocab_size, self.eod_id, self.eod_token, self.fingerprint).write(folder)

    def huggingface_json(self) -> str:
        """Return the file without what would add, cut or pad ids; ``eod_token`` is a special token of it."""
        tree = json.loads(self._text)
        tree["truncation"] = tree["padding"] = None
        if (tree.get("post_processor") or {}).get("type") != "ByteLevel":  # that one moves offsets, not ids
            tree["post_processor"] = None
        ends = [added for added in tree.setdefault("added_tokens", []) if added["id"] == self.eod_id]
        if ends:
            ends[0]["special"] = True
        else:  # the model knows it as an ordinary piece
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            tree["added_tokens"].append({"id": self.eod_id, "content": self.eod_token, "special": True, **flags})
        return json.dumps(tree, ensure_ascii=False)


def parse(text: str, origin: str) -> dict[str, Any]:
    """Return the data of a ``tokenizer.json``.

    Raises:
        TokenizerError: it is not JSON, or not such a file.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise TokenizerError(f"{origin}: not JSON ({error}); name a tokenizer.json") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise TokenizerError(f"{origin}: JSON, but not a tokenizer.json (no 'model'); name the right file")
    return tree


def _check_covers_bytes(tree: dict[str, Any], origin: str) -> bool:
    """Return whether the model is byte-level; otherwise it has byte fallback.

    Raises:
        TokenizerError: it is neither, or not BPE, so that some text has no ids of its own.
    """
    model = tree["model"]
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(
            f"{origin}: model type {model.get('type')}, only BPE is supported in this format; "
            "load a sentencepiece .model file, or train a tokenizer"
        )
    if "ByteLevel" in _types(tree.get("pre_tokenizer")) | _types(tree.get("normalizer")):
        return True
    if not model.get("byte_fallback"):
        raise TokenizerError(
            f"{origin}: neither byte-level nor with byte_fallback, so unknown characters would be lost; "
            "use another tokenizer"
        )
    return False


def _types(part: Any) -> set[str]:
    """Return the types named anywhere in a part such as ``pre_tokenizer``."""
    if isinstance(part, dict):
        named = {part["type"]} if isinstance(part.get("type"), str) else set()
        return named.union(*(_types(inner) for inner in part.values()))
    if isinstance(part, list):
        return set().union(*(_types(inner) for inner in part))
    return set()


def _canonical(tree: dict[str, Any]) -> bytes:
    parts = {name: tree.get(name) for name in _DECIDING_PARTS}
    return json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()


def _size_with_fallback(piece: str) -> int:
    is_byte = len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")
    return 1 if is_byte else len(piece.replace(SPACE_MARK, " ").encode())
