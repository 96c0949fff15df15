"""A sentencepiece model written as a ``tokenizer.json`` that gives the same ids."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gptdist.errors import TokenizerError
from gptdist.tokenizer.sentencepiece_proto import (
    BPE,
    NEWLINE,
    NORMAL,
    SPACE_MARK,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
)

NEVER = -10_000.0
"""Score of pieces that text must not match by their spelling, such as ``<0x0A>``: below any path of real pieces."""


def to_tokenizers_json(proto: Any, *, eod_token: str, origin: str) -> str:
    """Return the ``tokenizer.json`` of a model; ``eod_token`` is a special token of it.

    Raises:
        TokenizerError: the model normalises text, lacks byte fallback, or is neither BPE nor unigram.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers

    _check_expressible(proto, origin)
    tokenizer = Tokenizer(_model(proto))
    replace = normalizers.Replace(" ", SPACE_MARK)
    prefixed = proto.normalizer_spec.add_dummy_prefix
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), replace]) if prefixed else replace
    decoding = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(decoding + [decoders.Strip(" ", 1, 0)] * prefixed)
    tokenizer.add_special_tokens([AddedToken(eod_token, special=True, normalized=False)])
    defined = [piece.piece for piece in proto.pieces if piece.type == USER_DEFINED and piece.piece != eod_token]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in defined])
    return str(tokenizer.to_str())


def check_same_ids(encode_batch: Callable[[Sequence[str]], list[np.ndarray]], text: str, origin: str) -> None:
    """Compare ids of probing texts: scripts, runs of one character, and every spelling that has caused differences.

    Raises:
        TokenizerError: the ids differ.
    """
    from tokenizers import Tokenizer

    exported = Tokenizer.from_str(text)
    exported.encode_special_tokens = True
    probes = _probes()
    found = exported.encode_batch(probes, add_special_tokens=False)
    for probe, ours, theirs in zip(probes, encode_batch(probes), found, strict=True):
        if ours.tolist() != theirs.ids:
            raise TokenizerError(
                f"{origin}: as tokenizer.json it gives other ids, as for {probe[:40]!r}; "
                "train the tokenizer with gptdist prep, or use kind bpe"
            )


def _check_expressible(proto: Any, origin: str) -> None:
    rules, trained = proto.normalizer_spec, proto.trainer_spec
    reasons = []
    if rules.precompiled_charsmap:
        reasons.append(f"it normalises text ({rules.name or 'its own rules'})")
    if rules.remove_extra_whitespaces:
        reasons.append("it removes extra spaces")
    if not trained.byte_fallback:
        reasons.append("it has no byte fallback")
    if trained.model_type not in (BPE, UNIGRAM):
        reasons.append(f"its model_type is {trained.model_type}, not BPE or unigram")
    if any(piece.type == UNUSED for piece in proto.pieces):
        reasons.append("it has unused pieces")
    if reasons:
        raise TokenizerError(
            f"{origin}: cannot be written exactly as tokenizer.json: {', '.join(reasons)}; "
            "train the tokenizer with gptdist prep, or use kind bpe"
        )


def _model(proto: Any) -> Any:
    from tokenizers import models

    unknown = proto.trainer_spec.unk_id
    if proto.trainer_spec.model_type == UNIGRAM:
        scored = [(piece.piece, piece.score if piece.type == NORMAL else NEVER) for piece in proto.pieces]
        return models.Unigram(scored, unk_id=unknown, byte_fallback=True)
    vocabulary = {piece.piece: token for token, piece in enumerate(proto.pieces)}
    return models.BPE(
        vocab=vocabulary,
        merges=_merges(proto),
        unk_token=proto.pieces[unknown].piece,
        byte_fallback=True,
        fuse_unk=True,
    )


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Return every pair of pieces whose join is a piece, best score of the join first."""
    ids = {piece.piece: token for token, piece in enumerate(proto.pieces) if piece.type == NORMAL}
    ranked = []
    for whole, token in ids.items():
        for cut in range(1, len(whole)):
            left, right = whole[:cut], whole[cut:]
            if left in ids and right in ids:
                ranked.append((-proto.pieces[token].score, ids[left], ids[right], (left, right)))
    return [pair for *_, pair in sorted(ranked)]


def _probes() -> list[str]:
    runs = [character * length for character in " \n\t-=#_*.0a" for length in (1, 2, 3, 5, 7, 11, 13, 28, 53, 100)]
    spellings = ["<unk>", "<s>", "</s>", "<0x0A>", "<|endoftext|>", "<pad>", "a <0x41>b<unk>", "[UNK]"]
    scripts = [
        "The quick brown fox jumps over the lazy dog, 3.14159 times; isn't it?",
        "Größe, façade, naïve, Žluťoučký kůň, œuvre, Ελληνικά, Русский язык, українська",
        "中文分词。日本語のテキスト、한국어 문장. العربية עברית हिन्दी ไทย",
        "\U0001f389\U0001f469\u200d\U0001f4bb\u2764\ufe0f x\u0301 \ufeff\u200b\u00a0\u3000 \x00\x01\x7f",
        "def f(x):\n    if x > 0:\n\t\treturn [x ** 2 for _ in range(10)]\r\n\r\n        pass  \n",
    ]
    stairs = "".join(" " * i + "x" + "-" * i + "=" * (2 * i) + "0" * i for i in range(60))
    return [
        *runs,
        *spellings,
        *scripts,
        stairs,
        "\n".join(scripts * 3),
        "a" + NEWLINE,
        NEWLINE + " a",
        " " + scripts[0],
    ]
