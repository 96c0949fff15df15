"""The interface that the rest of gptdist sees, and loading of any kind from disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gptdist.errors import TokenizerError
from gptdist.tokenizer.bpe import FILE_NAME as BPE_FILE
from gptdist.tokenizer.bpe import BpeTokenizer, parse
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.folder import END_OF_DOCUMENT, RECORD_NAME, TokenizerRecord, read_record
from gptdist.tokenizer.sentencepiece_model import FILE_NAME as SENTENCEPIECE_FILE
from gptdist.tokenizer.sentencepiece_model import SentencePieceTokenizer, open_model

KNOWN_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "[EOS]")
"""Names to look for in a foreign tokenizer, in this order."""


class Tokenizer(Protocol):
    """Text to token ids and back; ids are 0 … vocab_size - 1."""

    @property
    def kind(self) -> str:
        """``"byte"``, ``"bpe"`` or ``"sentencepiece"``."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids, end-of-document included."""
        ...

    @property
    def eod_id(self) -> int:
        """The id appended to every document."""
        ...

    @property
    def eod_token(self) -> str:
        """How ``huggingface_json`` spells ``eod_id``; ``<|endoftext|>`` unless a foreign file says otherwise."""
        ...

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for text without ids of its own; None where there is no such id."""
        ...

    @property
    def engine(self) -> str:
        """What ``encode_arrow`` runs on, such as ``gigatoken``."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides the ids; equal only if all ids are equal."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return int32 ids of each text, without end-of-document; text that spells a special token is text."""
        ...

    def encode_arrow(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of all texts, flat, and the int64 number of ids of each: ``encode_batch`` for much text.

        Args:
            texts: a pyarrow ``LargeStringArray`` without nulls; it is not copied where the engine can read it.
        """
        ...

    def encode_by_reference(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what ``encode_batch`` has to return, by the slowest and surest way there is."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; end-of-document is dropped."""
        ...

    def token_byte_lengths(self) -> np.ndarray:
        """Return int64[vocab_size]: UTF-8 bytes that each id stands for, 0 for end-of-document and control."""
        ...

    def save(self, folder: Path) -> None:
        """Write what ``load_tokenizer`` reads."""
        ...

    def huggingface_json(self) -> str:
        """Return a ``tokenizer.json`` for ``PreTrainedTokenizerFast`` that gives the same ids."""
        ...


def load_tokenizer(path: Path, eod_token: str | None = None) -> Tokenizer:
    """Load a tokenizer.

    Args:
        path: a folder that ``save`` wrote, a folder that holds ``tokenizer.json`` or one ``.model`` file, or such a
            file itself.
        eod_token: the token that ends a document, for a foreign tokenizer; by default the ``eos_token`` of a
            ``tokenizer_config.json`` beside it, else the first of ``KNOWN_ENDS`` that it has.

    Raises:
        TokenizerError: nothing there, not a tokenizer, no end-of-document token, or changed since it was saved.
    """
    if path.is_file():
        return _load_file(path, eod_token)
    if not path.is_dir():
        raise TokenizerError(f"{path}: no such tokenizer; name a folder, a tokenizer.json or a .model file")
    if not (path / RECORD_NAME).exists():
        return _load_file(_only_file(path), eod_token)
    record = read_record(path)
    tokenizer = _load_recorded(path, record)
    if tokenizer.fingerprint != record.fingerprint:
        raise TokenizerError(
            f"{path}: fingerprint {tokenizer.fingerprint[:12]}, {RECORD_NAME} says {record.fingerprint[:12]}: "
            "the files were changed; restore them, or prepare the data again"
        )
    return tokenizer


def _load_recorded(folder: Path, record: TokenizerRecord) -> Tokenizer:
    match record.kind:
        case ByteTokenizer.kind:
            return ByteTokenizer()
        case BpeTokenizer.kind:
            return _load_file(folder / BPE_FILE, record.eod_token)
        case SentencePieceTokenizer.kind:
            return _load_file(folder / SENTENCEPIECE_FILE, record.eod_token)
    raise TokenizerError(
        f"{folder / RECORD_NAME}: kind '{record.kind}' is unknown, this gptdist has byte, bpe, sentencepiece; "
        "update gptdist"
    )


def _only_file(folder: Path) -> Path:
    if (folder / BPE_FILE).is_file():
        return folder / BPE_FILE
    models = sorted(folder.glob("*.model"))
    if len(models) != 1:
        raise TokenizerError(
            f"{folder}: holds no {RECORD_NAME}, no {BPE_FILE} and {len(models)} .model files; name the file itself"
        )
    return models[0]


def _load_file(path: Path, eod_token: str | None) -> Tokenizer:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror}); restore it, or name another") from None
    if path.suffix == ".model":
        if eod_token is None:
            processor = open_model(content, str(path))
            eod_token = _known_end(path, {processor.id_to_piece(i) for i in range(processor.vocab_size())})
        return SentencePieceTokenizer(content, eod_token=eod_token, origin=str(path))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{path}: not UTF-8 at byte {error.start}; name a tokenizer.json or a .model file"
        ) from None
    if eod_token is None:
        tree = parse(text, str(path))
        names = {*(tree["model"].get("vocab") or {})} if isinstance(tree["model"].get("vocab"), dict) else set()
        eod_token = _known_end(path, names | {added["content"] for added in tree.get("added_tokens") or ()})
    return BpeTokenizer(text, eod_token=eod_token, origin=str(path))


def _known_end(path: Path, names: set[str]) -> str:
    """Return the end-of-document token of a foreign tokenizer with the tokens ``names``."""
    for name in (_configured_end(path.parent / "tokenizer_config.json"), *KNOWN_ENDS):
        if name is not None and name in names:
            return name
    raise TokenizerError(
        f"{path}: no end-of-document token found (looked for {', '.join(KNOWN_ENDS)}); name it as eod_token"
    )


def _configured_end(path: Path) -> str | None:
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None  # the file is optional, and only a hint
    named = named.get("content") if isinstance(named, dict) else named
    return named if isinstance(named, str) else None
