"""Which bytes of a shard's texts go with the units that stand earlier in the corpus."""

from dataclasses import dataclass, field

import numpy as np

from data_prep.compiled import compiled
from data_prep.dedup.records import Array
from data_prep.dedup.units import Units


@dataclass
class Cuts:
    """What goes from a shard, and what of it was seen; batches are to be given in order."""

    elsewhere: Array
    """Hashes of units that an earlier shard has, ascending."""

    repeated: Array
    """Hashes of units that this shard has more than once, ascending."""

    min_characters: int
    """Units with fewer stay."""

    seen: Array = field(init=False)
    """For each of ``repeated`` whether it has come."""

    def __post_init__(self) -> None:
        self.seen = np.zeros(len(self.repeated), dtype=np.bool_)

    @property
    def has_any(self) -> bool:
        """Whether anything goes."""
        return bool(len(self.elsewhere) or len(self.repeated))


def cuts_of(cuts: Cuts, units: Units, offsets: Array, data: Array) -> tuple[Array, Array, int]:
    """Return what goes from a batch of texts.

    A unit goes with the blank lines after it; where the last units of a document go, the blank lines before them go
    and the document's own end stays.

    Returns:
        The spans: document, first byte, first byte after, (3, n); the documents that are cut and the characters that
        are left of each, (2, n); and the number of units that go.
    """
    can_go = units.characters >= cuts.min_characters
    goes = can_go & _among(units.keys, cuts.elsewhere)
    unsure = np.flatnonzero(can_go & ~goes & _among(units.keys, cuts.repeated))
    which = np.searchsorted(cuts.repeated, units.keys[unsure])
    _mark_repeats(unsure, which, cuts.seen, goes)
    spans = np.empty((3, len(units.keys)), dtype=np.int64)
    left = np.empty((2, len(offsets)), dtype=np.int64)
    places = np.stack([units.documents, units.begins, units.content_begins, units.content_ends])
    num_spans, num_left = _spans(goes, places, offsets, data, spans, left)
    return spans[:, :num_spans], left[:, :num_left], int(goes.sum())


def _among(keys: Array, ascending: Array) -> Array:
    if not len(ascending):
        return np.zeros(len(keys), dtype=np.bool_)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.asarray(ascending[place] == keys)


@compiled
def _mark_repeats(unsure: Array, which: Array, seen: Array, goes: Array) -> None:
    for place in range(len(unsure)):
        goes[unsure[place]] = seen[which[place]]
        seen[which[place]] = True


@compiled
def _spans(goes: Array, places: Array, offsets: Array, data: Array, spans: Array, left: Array) -> tuple[int, int]:
    documents, begins, _, content_ends = places
    num_spans, num_left, unit = 0, 0, 0
    while unit < len(documents):
        document = documents[unit]
        first_span, kept_end = num_spans, 0
        while unit < len(documents) and documents[unit] == document:
            if not goes[unit]:
                kept_end = content_ends[unit]
                unit += 1
                continue
            begin = begins[unit]
            while unit < len(documents) and documents[unit] == document and goes[unit]:
                unit += 1
            is_last = unit == len(documents) or documents[unit] != document
            spans[0, num_spans] = document
            spans[1, num_spans] = kept_end if is_last else begin
            spans[2, num_spans] = content_ends[unit - 1] if is_last else begins[unit]
            num_spans += 1
        if num_spans > first_span:
            base = offsets[document]
            characters = _num_characters(data, base, offsets[document + 1])
            for span in range(first_span, num_spans):
                characters -= _num_characters(data, base + spans[1, span], base + spans[2, span])
            left[0, num_left], left[1, num_left] = document, characters
            num_left += 1
    return num_spans, num_left


@compiled
def _num_characters(data: Array, begin: int, end: int) -> int:
    count = 0
    for place in range(begin, end):
        count += (data[place] & 0xC0) != 0x80  # a continuation byte begins none
    return count
