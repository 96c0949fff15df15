"""Which tokens two tokenizers spell alike."""

import json

import numpy as np

from gptdist.tokenizer.tokenizer import Tokenizer

NO_MATCH = -1


def matched_tokens(ours: Tokenizer, theirs: Tokenizer, vocab_size: int) -> np.ndarray:
    """Return int64 [vocab_size]: the id that ``theirs`` gives the token of each of our ids, or ``NO_MATCH``.

    Tokens match where both spell them alike in ``tokenizer.json``; the tokens that end a document match whatever they
    are called.

    Args:
        ours: ids count from its vocabulary.
        theirs: the other one.
        vocab_size: of our model; ids that the tokenizer does not know have no match.
    """
    found = np.full(vocab_size, NO_MATCH, dtype=np.int64)
    other = _spellings(theirs)
    for spelling, token in _spellings(ours).items():
        found[token] = other.get(spelling, NO_MATCH)
    found[ours.eod_id] = theirs.eod_id
    return found


def _spellings(tokenizer: Tokenizer) -> dict[str, int]:
    tree = json.loads(tokenizer.huggingface_json())
    vocabulary = tree["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece: at for at, (piece, _) in enumerate(vocabulary)}
    return ids | {added["content"]: added["id"] for added in tree.get("added_tokens") or ()}
