"""The protocol buffer inside a ``.model`` file: what sentencepiece's own interface does not tell."""

from typing import Any

SPACE_MARK = "\u2581"
NEWLINE = "\n"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of a piece, as sentencepiece_model.proto numbers them."""
UNIGRAM, BPE = 1, 2
"""Types of a model, likewise."""

SCORE_STEPS = 64


def parse_model(model: bytes) -> Any:
    """Return the ``ModelProto`` of a model that sentencepiece has already accepted."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def keeps_text(proto: Any) -> bool:
    """Whether the model encodes the text as it is: nothing normalised, removed or put in front."""
    rules = proto.normalizer_spec
    return not (rules.precompiled_charsmap or rules.remove_extra_whitespaces or rules.add_dummy_prefix)


def newline_piece(proto: Any) -> int | None:
    """Return the id of the newline if documents may be cut there without changing any id, else None."""
    if not keeps_text(proto):
        return None
    found = (i for i, piece in enumerate(proto.pieces) if piece.piece == NEWLINE and piece.type == USER_DEFINED)
    return next(found, None)


def round_scores(proto: Any) -> None:
    """Round a unigram model's scores to multiples of 1/64, in place.

    Ties are common (a run of 28 spaces is 12 + 16 or 16 + 12), and float32 sums of arbitrary scores break them by
    rounding error, differently in each implementation. Sums of such multiples are exact in float32 up to 2^18, which
    is thousands of tokens a line, so ties are broken by position everywhere. A score moves by at most 1/128 nat.
    """
    for piece in proto.pieces:
        if piece.type == NORMAL:
            piece.score = round(piece.score * SCORE_STEPS) / SCORE_STEPS
