"""Which of the documents that meet in a band are alike: pairs of a document and an earlier one that leads it."""

import numpy as np

from data_prep.compiled import compiled
from data_prep.dedup.records import Array

_MOST_LEADERS = 64
"""Documents of one key that are compared with each further one. Keys that so many unlike documents share are those of
boilerplate; what is alike among these meets in other bands too."""


def meetings_of(keys: Array, documents: Array) -> tuple[Array, Array]:
    """Return the documents that share a key with another one.

    Args:
        keys: one for each record; ``documents`` ascends among equal keys.
        documents: number of each record's document.

    Returns:
        Where each meeting begins in the second array, with its length at the end; and the documents, by meeting.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    differs = keys[1:] != keys[:-1]
    begins = np.flatnonzero(np.concatenate([[True], differs])) if len(keys) else np.empty(0, np.int64)
    lengths = np.diff(begins, append=len(keys))
    several = lengths > 1
    chosen = np.repeat(several, lengths)
    return np.concatenate([[0], np.cumsum(lengths[several])]), documents[order[chosen]]


def alike(begins: Array, members: Array, sketches: Array, least_equal: int) -> tuple[Array, Array]:
    """Return pairs of members of a meeting, the later one first.

    Each member is compared with the leaders of its meeting, in order, until one is alike; a member like none of them
    becomes a leader. So the pairs depend on the documents and their order alone.

    Args:
        begins: where each meeting begins in ``members``, and where the last one ends.
        members: row of each member in ``sketches``.
        sketches: of every document that is in a meeting.
        least_equal: values that have to be equal.
    """
    later, earlier = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    count = _alike(begins, members, sketches, least_equal, later, earlier)
    return later[:count], earlier[:count]


@compiled
def _alike(begins: Array, members: Array, sketches: Array, least_equal: int, later: Array, earlier: Array) -> int:
    leaders = np.empty(_MOST_LEADERS, dtype=np.int64)
    count = 0
    for meeting in range(len(begins) - 1):
        num_leaders = 0
        for place in range(begins[meeting], begins[meeting + 1]):
            member = members[place]
            led = False
            for leader in leaders[:num_leaders]:
                if _num_equal(sketches, member, leader) >= least_equal:
                    later[count], earlier[count] = member, leader
                    count += 1
                    led = True
                    break
            if not led and num_leaders < _MOST_LEADERS:
                leaders[num_leaders] = member
                num_leaders += 1
    return count


@compiled
def num_equal(sketches: Array, one: Array, other: Array) -> Array:
    """Return for each pair of rows of ``sketches`` how many values are equal."""
    equal = np.empty(len(one), dtype=np.uint16)
    for pair in range(len(one)):
        equal[pair] = _num_equal(sketches, one[pair], other[pair])
    return equal


@compiled
def _num_equal(sketches: Array, one: int, other: int) -> int:
    equal = 0
    for value in range(sketches.shape[1]):
        equal += sketches[one, value] == sketches[other, value]
    return equal
