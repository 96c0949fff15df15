"""What counts as the same."""

from typing import Literal

from gptdist.config.section import Section

_MOST_VALUES = 1024
_LEAST_SHINGLE_LETTERS, _MOST_SHINGLE_LETTERS = 4, 16


class LineDedupSection(Section):
    """Lines or paragraphs that stand in the corpus more than once: the first is kept, the others are cut out."""

    unit: Literal["line", "paragraph"] = "paragraph"
    """A paragraph is a run of lines with none of them blank."""

    min_characters: int = 30
    """Shorter units are left alone."""

    min_document_characters: int = 100
    """A document that is left with fewer after the cuts is dropped as ``lines``; one without cuts is not."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        values = {"min_characters": self.min_characters, "min_document_characters": self.min_document_characters}
        return [
            f"dedup.lines.{key}: must be at least 1, got {value}; give the characters that have to be there"
            for key, value in values.items()
            if value < 1
        ]


class NearDedupSection(Section):
    """Near-duplicates by MinHash and locality-sensitive hashing; of each cluster one document is kept.

    Two documents whose sets of shingles have the Jaccard similarity J meet in a band with probability
    1 - (1 - J ** rows) ** bands; those that meet are joined where their signatures say J >= ``min_similarity``.
    """

    bands: int = 32
    """Keys a document; more of them find more pairs, at 12 bytes of temporary disk each."""

    rows: int = 4
    """Values a key; more of them make unlike documents meet less often."""

    min_similarity: float = 0.45
    """Least share of common shingles, estimated from ``bands`` times ``rows`` values. A tenth of the words replaced,
    removed and inserted leaves 0.55 to 0.65; pages that have a quarter of their text in common have 0.15."""

    min_keeper_similarity: float = 0.25
    """Least share of shingles in common with the document that is kept in one's place, where others link the two."""

    shingle_letters: int = 12
    """Letters in a shingle, in lower case, white space and punctuation as one space; a Chinese or Japanese character
    counts as four, a Korean syllable as three."""

    min_letters: int = 100
    """Shorter documents, counted like that, are only compared as wholes."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = [
            f"dedup.near.{key}: must be at least 1, got {getattr(self, key)}; the default is {field.default}"
            for key, field in type(self).model_fields.items()
            if key in ("bands", "rows", "min_letters") and getattr(self, key) < 1
        ]
        if self.bands * self.rows > _MOST_VALUES:
            bad.append(
                f"dedup.near.bands: {self.bands} bands of {self.rows} rows are more than {_MOST_VALUES} values; "
                "use fewer of either"
            )
        if not 0.0 < self.min_similarity <= 1.0:
            bad.append(
                f"dedup.near.min_similarity: must be above 0 and at most 1, got {self.min_similarity}; the default "
                "is 0.45"
            )
        if not 0.0 <= self.min_keeper_similarity <= self.min_similarity:
            bad.append(
                f"dedup.near.min_keeper_similarity: must be 0 to min_similarity {self.min_similarity}, "
                f"got {self.min_keeper_similarity}; the higher, the less is removed"
            )
        if not _LEAST_SHINGLE_LETTERS <= self.shingle_letters <= _MOST_SHINGLE_LETTERS:
            bad.append(
                f"dedup.near.shingle_letters: must be {_LEAST_SHINGLE_LETTERS} to {_MOST_SHINGLE_LETTERS}, "
                f"got {self.shingle_letters}; 12 suits most scripts"
            )
        if self.min_letters < self.shingle_letters:
            bad.append(
                f"dedup.near.min_letters: {self.min_letters} is below shingle_letters {self.shingle_letters}; "
                "raise it, a text needs a shingle"
            )
        return bad


class DedupSection(Section):
    """Which repetitions are removed, over all sources in the order of the config."""

    exact: bool = True
    """Drop a document whose text stands earlier in the corpus."""

    lines: LineDedupSection | None = None
    near: NearDedupSection | None = None

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = self.lines.problems() if self.lines is not None else []
        return bad + (self.near.problems() if self.near is not None else [])
