"""The signatures of all groups as one array of documents, numbered by place from the first group to the last."""

from collections.abc import Iterator

import numpy as np

from data_prep.dedup.pairs import meetings_of, num_equal
from data_prep.dedup.records import Array
from data_prep.dedup.signature_files import SignatureFiles

SKETCHES_AT_ONCE = 1 << 18


class SignedCorpus:
    """What the tasks behind the signatures ask for.

    Args:
        groups: files of every group, in order.
    """

    def __init__(self, groups: list[SignatureFiles]) -> None:
        self._groups = groups
        self._bases = np.cumsum([0, *(group.count for group in groups)], dtype=np.int64)
        self.count = int(self._bases[-1])

    def ids(self) -> Array:
        """Return the number of every document."""
        return np.concatenate([np.empty(0, "u8"), *(group.ids() for group in self._groups)])

    def same(self) -> Iterator[tuple[Array, Array]]:
        """Yield documents, and earlier ones of their group with the same signature."""
        for group, base in zip(self._groups, self._bases, strict=False):
            later, earlier = group.same()
            yield later + base, earlier + base

    def sketches(self, documents: Array) -> Array:
        """Return the sketches of documents that ascend, from the groups that have some of them."""
        cuts = np.searchsorted(documents, self._bases)
        parts = [
            group.sketches(documents[begin:end] - base)
            for group, base, begin, end in zip(self._groups, self._bases, cuts, cuts[1:], strict=False)
            if begin < end
        ]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.uint8)

    def num_equal(self, one: Array, other: Array) -> Array:
        """Return how many values of their signatures each pair of documents shares, as uint16."""
        equal = np.empty(len(one), dtype=np.uint16)
        for begin in range(0, len(one), SKETCHES_AT_ONCE // 2):
            some = slice(begin, begin + SKETCHES_AT_ONCE // 2)
            different, rows = np.unique(np.concatenate([one[some], other[some]]), return_inverse=True)
            equal[some] = num_equal(self.sketches(different), *np.split(rows, 2))
        return equal

    def meetings(self, rank: int, world_size: int) -> Iterator[tuple[Array, Array]]:
        """Yield the meetings of a range of keys, several bands together while few documents meet.

        Each is as ``meetings_of`` returns it; a range holds about as many documents of every band.
        """
        per_group = [group.records(rank, world_size) for group in self._groups]
        begins, members, total = [np.zeros(1, np.int64)], [np.empty(0, np.int64)], 0
        for band in range(len(per_group[0])):
            keys = np.concatenate([records[band][0] for records in per_group])
            places = [records[band][1] + base for records, base in zip(per_group, self._bases, strict=False)]
            of_band, who = meetings_of(keys, np.concatenate(places))
            begins.append(of_band[1:] + total)
            members.append(who)
            total += len(who)
            if total >= SKETCHES_AT_ONCE:
                yield np.concatenate(begins), np.concatenate(members)
                begins, members, total = [np.zeros(1, np.int64)], [np.empty(0, np.int64)], 0
        yield np.concatenate(begins), np.concatenate(members)
