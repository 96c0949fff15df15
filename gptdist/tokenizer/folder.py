"""A saved tokenizer's folder: what its record file says, and the checks every kind shares."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.errors import TokenizerError

RECORD_NAME = "gptdist_tokenizer.json"
FORMAT_VERSION = 1
END_OF_DOCUMENT = "<|endoftext|>"
"""How every tokenizer made here spells its end-of-document token."""


@dataclass(frozen=True)
class TokenizerRecord:
    """What ``gptdist_tokenizer.json`` holds; compared with the loaded tokenizer, so that files cannot be swapped."""

    kind: str
    vocab_size: int
    eod_id: int
    eod_token: str
    fingerprint: str
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Write the record into ``folder``, whole or not at all; call it after the other files."""
        path = folder / RECORD_NAME
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, path)  # noqa: PTH105 - the same call that every durable write of the project makes


def read_record(folder: Path) -> TokenizerRecord:
    """Return the record of a tokenizer folder.

    Raises:
        TokenizerError: it is not JSON, not ours, or from a newer version.
    """
    path = folder / RECORD_NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = found["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{path}: not a tokenizer record ({error}); prepare the data again") from None
    if version != FORMAT_VERSION:
        raise TokenizerError(f"{path}: format_version {version}, this gptdist reads {FORMAT_VERSION}; update gptdist")
    try:
        record = TokenizerRecord(**found)
    except TypeError as error:
        raise TokenizerError(f"{path}: not a tokenizer record ({error}); prepare the data again") from None
    return record


def sha256_of(*parts: bytes) -> str:
    """Return the hash of ``parts``, each preceded by its length, so that their borders count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def checked_ids(ids: Sequence[int], vocab_size: int) -> list[int]:
    """Return ``ids`` as plain integers.

    Raises:
        TokenizerError: one is negative or not below ``vocab_size``.
    """
    array = np.asarray(ids, dtype=np.int64)
    if array.size and (int(array.min()) < 0 or int(array.max()) >= vocab_size):
        wrong = int(array[(array < 0) | (array >= vocab_size)][0])
        raise TokenizerError(
            f"decode: token id {wrong} is outside 0 … {vocab_size - 1}; "
            "the tokens were made with another tokenizer, or come from padded vocabulary rows"
        )
    return [int(token) for token in array]
