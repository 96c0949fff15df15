"""Which document of a cluster each of the others goes for.

Clusters are chains: A is like B, B like C, and A and C may have nothing in common. So a document goes only for one that
it is itself like, less closely than two neighbours of a chain have to be. The first document of a cluster stays; of
those unlike it, the first stays as well, and so on.
"""

import numpy as np

from data_prep.dedup.records import Array
from data_prep.dedup.signed_corpus import SignedCorpus

_MOST_KEPT = 64
"""Documents of one cluster that the others are compared with; those like none of them all stay."""


def settle(firsts: Array, corpus: SignedCorpus, least_equal: int) -> Array:
    """Turn the first document of each document's cluster into the one it goes for, itself where it stays.

    Args:
        firsts: changed in place.
        corpus: the signatures.
        least_equal: values that a document and the one it goes for share.

    Returns:
        How many values they do share, uint16.
    """
    shared = np.zeros(len(firsts), dtype=np.uint16)
    members = _members(firsts)
    clusters = firsts[members].astype(np.int64)
    leaders = clusters
    for _ in range(_MOST_KEPT):
        equal = corpus.num_equal(members, leaders)
        goes = equal >= least_equal
        firsts[members[goes]] = leaders[goes]
        shared[members[goes]] = equal[goes]
        members, clusters = members[~goes], clusters[~goes]
        firsts[members] = members
        if not len(members):
            break
        _, begins, which = np.unique(clusters, return_index=True, return_inverse=True)
        leaders = members[begins[which]]  # members ascend, so this is the first that is left
        others = leaders != members
        members, clusters, leaders = members[others], clusters[others], leaders[others]
    return shared


def _members(firsts: Array) -> Array:
    """The documents that are not the first of their cluster, found some at a time."""
    at_once = 1 << 22
    parts = [np.empty(0, np.int64)]
    for begin in range(0, len(firsts), at_once):
        some = firsts[begin : begin + at_once]
        parts.append(begin + np.flatnonzero(some != np.arange(begin, begin + len(some), dtype=firsts.dtype)))
    return np.concatenate(parts)
