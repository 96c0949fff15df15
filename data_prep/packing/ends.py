"""End-of-document behind each document, in one pass over the ids."""

import numpy as np

from data_prep.compiled import compiled


@compiled
def put_with_ends(ids: np.ndarray, lengths: np.ndarray, end: int, tokens: np.ndarray) -> None:
    """Copy ids into ``tokens``, each document followed by ``end``.

    Args:
        ids: of all documents, one after the other, int32.
        lengths: ids of each, int64.
        end: the id of end-of-document.
        tokens: has room for all ids and ends; its dtype holds them, which the caller has checked.
    """
    source = target = 0
    for length in lengths:
        for _ in range(length):
            tokens[target] = ids[source]
            source += 1
            target += 1
        tokens[target] = end
        target += 1
