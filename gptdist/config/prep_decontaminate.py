"""Evaluation sets that must not be trained on."""

from pathlib import Path

from gptdist.config.section import Section

EVALUATION_SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")


class DecontaminateSection(Section):
    """Documents that share n-grams with an evaluation set are dropped; without this section none is.

    Words are compared without case, accents and punctuation. In scripts that have no blanks between words (Chinese,
    Japanese, Thai …) a unit is a character. Source: Brown et al. 2020, "Language Models are Few-Shot Learners",
    appendix C.
    """

    files: tuple[Path, ...]
    """Evaluation sets: ``.txt`` (one sample a line), ``.jsonl``, ``.json`` or ``.parquet``; all but the last ``.gz``
    too."""

    text_keys: tuple[str, ...] = ()
    """Keys or columns whose text is looked for; empty takes every text of a sample."""

    ngram_words: int = 13
    """Words in a row that a document and a sample have in common."""

    ngram_characters: int = 24
    """The same for scripts without blanks, in characters; text of both kinds counts each unit by its own share."""

    min_sample_words: int = 8
    """A shorter text of an evaluation set than an n-gram is looked for as a whole, if it has this many words (in
    scripts without blanks: as large a share of ``ngram_characters``); shorter ones are listed as too short."""

    min_ngrams: int = 1
    """Drop a document with at least so many n-grams of evaluation sets …"""

    min_share: float = 0.0
    """… if they are at least this share of its n-grams, 0 … 1."""

    ignore_files: tuple[Path, ...] = ()
    """Texts, in the same formats, whose n-grams do not count: licences, instructions that many samples repeat."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = [] if self.files else ["decontaminate.files: empty; name at least one file, or remove the section"]
        for key in ("files", "ignore_files"):
            bad += [
                f"decontaminate.{key}[{index}]: '{path}' is none of {', '.join(EVALUATION_SUFFIXES)}; convert it"
                for index, path in enumerate(getattr(self, key))
                if evaluation_suffix(path) not in EVALUATION_SUFFIXES
            ]
        bad += [
            f"decontaminate.files: '{path}' is named twice; remove one"
            for path in sorted({path for path in self.files if self.files.count(path) > 1})
        ]
        for key, most in (("ngram_words", 255), ("ngram_characters", 255), ("min_sample_words", self.ngram_words)):
            if not 1 <= getattr(self, key) <= most:
                bad.append(f"decontaminate.{key}: must be 1 … {most}, got {getattr(self, key)}")
        if self.min_ngrams < 1:
            bad.append(f"decontaminate.min_ngrams: must be at least 1, got {self.min_ngrams}")
        if not 0.0 <= self.min_share <= 1.0:
            bad.append(f"decontaminate.min_share: must be 0 … 1, got {self.min_share}")
        return bad


def evaluation_suffix(path: Path) -> str:
    """Return what a file's name says about its format, ``.gz`` put aside; ``.parquet.gz`` is no format."""
    if path.suffix.lower() != ".gz":
        return path.suffix.lower()
    inner = path.with_suffix("").suffix.lower()
    return inner if inner != ".parquet" else ".parquet.gz"
