"""Conversations as token ids, each with whether it is learnt."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from data_prep.conversations.templates import ChatTemplate, Part, laid_out
from data_prep.conversations.turns import Conversation
from gptdist.errors import DataError
from gptdist.tokenizer.tokenizer import Tokenizer

_ENCODED_AT_ONCE = 4096
"""Conversations."""


@dataclass(frozen=True)
class EncodedConversation:
    """One conversation's tokens, end-of-document included."""

    source: Conversation
    tokens: np.ndarray
    """int64."""

    is_learnt: np.ndarray
    """bool, one a token; of the first one never, as what comes before it is another conversation."""

    text_bytes: int
    digest: bytes
    """BLAKE2b-128 of what is said by whom: equal conversations are of one split."""

    def cut(self, length: int) -> "EncodedConversation":
        """Return the beginning, ``length`` tokens with an end-of-document that is not learnt."""
        tokens, is_learnt = self.tokens[:length].copy(), self.is_learnt[:length].copy()
        tokens[-1], is_learnt[-1] = self.tokens[-1], False
        return EncodedConversation(self.source, tokens, is_learnt, self.text_bytes, self.digest)


def encode(
    conversations: Sequence[Conversation], template: ChatTemplate, tokenizer: Tokenizer
) -> list[EncodedConversation]:
    """Return the conversations as tokens.

    Parts that are learnt and parts that are not are tokenized each for itself, as a prompt is when a text is generated.

    Raises:
        DataError: the template puts the tokenizer's end-of-document within conversations.
    """
    ids = _special_ids(template, tokenizer)
    found: list[EncodedConversation] = []
    for begin in range(0, len(conversations), _ENCODED_AT_ONCE):
        some = conversations[begin : begin + _ENCODED_AT_ONCE]
        laid = [laid_out(one, template) for one in some]
        texts = [part.text for part in chain.from_iterable(laid) if not _is_one(part, ids)]
        rows = iter(tokenizer.encode_batch(texts))
        for one, parts in zip(some, laid, strict=True):
            pieces = [
                np.array([ids[part.text]]) if _is_one(part, ids) else np.asarray(next(rows), dtype=np.int64)
                for part in parts
            ]
            found.append(_joined(one, parts, pieces, tokenizer.eod_id))
    return found


def _is_one(part: Part, ids: dict[str, int]) -> bool:
    return part.is_markup and part.text in ids


def _special_ids(template: ChatTemplate, tokenizer: Tokenizer) -> dict[str, int]:
    if not template.specials:
        return {}
    added = json.loads(tokenizer.huggingface_json())["added_tokens"]
    ids = {str(token["content"]): int(token["id"]) for token in added if token["content"] in template.specials}
    for text, token in ids.items():
        if token == tokenizer.eod_id:
            raise DataError(
                f"--chat-template: it puts '{text}' within conversations, and the tokenizer ends documents with it; "
                f"take another template, or a tokenizer folder whose eos_token is another one"
            )
    return ids


def _joined(
    source: Conversation, parts: Sequence[Part], pieces: Sequence[np.ndarray], eod_id: int
) -> EncodedConversation:
    tokens = np.concatenate([*pieces, [eod_id]]).astype(np.int64)
    counts = [np.full(len(piece), part.is_learnt) for part, piece in zip(parts, pieces, strict=True)]
    is_learnt = np.concatenate([*counts, [source.turns[-1].is_learnt]]).astype(np.bool_)
    is_learnt[0] = False
    said = json.dumps([(turn.role, turn.content) for turn in source.turns])
    return EncodedConversation(
        source=source,
        tokens=tokens,
        is_learnt=is_learnt,
        text_bytes=sum(len(part.text.encode()) for part in parts),
        digest=hashlib.blake2b(said.encode(), digest_size=16).digest(),
    )
