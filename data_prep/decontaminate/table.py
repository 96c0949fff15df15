"""The n-grams of all evaluation sets of a section, built once a process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.decontaminate.evaluation import read_samples
from data_prep.decontaminate.kernels import sequence_hash
from data_prep.decontaminate.ngrams import HashTable, Measure
from data_prep.decontaminate.units import letter_table, units_of
from gptdist.config.prep_decontaminate import DecontaminateSection
from gptdist.errors import DataError

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class EvaluationFile:
    """What of an evaluation set is looked for."""

    label: str
    """The path as the config writes it."""

    samples: int
    ngrams: int
    """N-grams, repeated ones and ignored ones too."""

    whole_texts: int
    """Texts shorter than an n-gram that are looked for as a whole."""

    too_short: tuple[int, ...]
    """Numbers of the samples that are too short to look for."""


@dataclass(frozen=True)
class Overlap:
    """What a document has in common with evaluation sets."""

    ngrams: int
    """Its n-grams that are in an evaluation set; a short text found whole is one."""

    share: float
    """Their share of the document's n-grams."""

    samples: tuple[int, ...]
    """Samples by number in the table, in the order of the document; of an n-gram that several have, the first."""


@dataclass(frozen=True)
class _Whole:
    """A text shorter than an n-gram."""

    length: int
    digest: int
    sample: int


class EvaluationTable:
    """What documents are held against.

    Memory: 14 to 16 bytes for each different n-gram of the evaluation sets.

    Args:
        section: names the files.

    Raises:
        DataError: with a line for every file that cannot be used.
    """

    def __init__(self, section: DecontaminateSection) -> None:
        self._measure = Measure(section.ngram_words, section.ngram_characters, section.min_sample_words)
        self._letters = letter_table()
        self._names: list[tuple[int, int]] = []
        self._wholes: dict[int, list[_Whole]] = {}
        hashes: list[np.ndarray] = []
        numbers: list[np.ndarray] = []
        problems: list[str] = []
        files = []
        for path in section.files:
            try:
                files.append(self._add(path, section, hashes, numbers))
            except DataError as error:
                problems.append(f"decontaminate.files: {error}")
        ignored = self._ignored(section, problems)
        if problems:
            raise DataError("\n".join(problems))
        self.files = tuple(files)
        every = np.concatenate([*hashes, np.empty(0, dtype=np.uint64)])
        owners = np.concatenate([*numbers, np.empty(0, dtype=np.uint32)])
        counted = ~np.isin(every, ignored)
        self._ngrams = HashTable(every[counted], owners[counted])
        beginnings = np.array(sorted(self._wholes), dtype=np.uint64)
        self._beginnings = HashTable(beginnings, np.arange(len(beginnings)))

    def __len__(self) -> int:
        """Return the number of different n-grams, of whole texts one each beginning."""
        return len(self._ngrams) + len(self._beginnings)

    def label(self, sample: int) -> str:
        """Return the label of the file that a sample is in."""
        return self.files[self._names[sample][0]].label

    def name(self, sample: int) -> str:
        """Return file label and number of a sample, as ``mmlu.jsonl:17``."""
        return f"{self.label(sample)}:{self._names[sample][1]}"

    def overlap(self, utf8: bytes) -> Overlap | None:
        """Return what a document's text has in common with the evaluation sets, if anything."""
        units = units_of(utf8, self._letters)
        windows = self._measure.windows(units)
        places = self._ngrams.places(windows)
        if not len(places) and not self._wholes:
            return None
        owners = self._ngrams.numbers[places[:, 1]]
        first = np.sort(np.unique(owners, return_index=True)[1])  # of each sample, the place that stands first
        samples = list(zip(places[first, 0].tolist(), owners[first].tolist(), strict=True))
        wholes = list(self._whole_texts(units)) if self._wholes else []
        hits = len(places) + len(wholes)
        if not hits:
            return None
        named = tuple(dict.fromkeys(sample for _, sample in sorted(samples + wholes)))
        return Overlap(hits, min(1.0, hits / max(1, len(windows))), named)

    def _whole_texts(self, units: np.ndarray) -> Iterator[tuple[int, int]]:
        for at, row in self._beginnings.places(self._measure.beginnings(units)).tolist():
            for whole in self._wholes[int(self._beginnings.keys[row])]:
                text = units[at : at + whole.length]
                if len(text) == whole.length and int(sequence_hash(text)) == whole.digest:
                    yield at, whole.sample

    def _add(
        self, path: Path, section: DecontaminateSection, hashes: list[np.ndarray], numbers: list[np.ndarray]
    ) -> EvaluationFile:
        """Read a file into the table."""
        file, samples, ngrams, wholes = len({file for file, _ in self._names}), 0, 0, 0
        too_short = []
        for number, texts in read_samples(path, section.text_keys):
            sample, used = len(self._names), False
            self._names.append((file, number))
            for text in texts:
                units = units_of(text.encode("utf-8", "replace"), self._letters)
                windows = self._measure.windows(units)
                if len(windows):
                    hashes.append(windows)
                    numbers.append(np.full(len(windows), sample, dtype=np.uint32))
                    ngrams += len(windows)
                elif not self._add_whole(units, sample):
                    continue
                else:
                    wholes += 1
                used = True
            samples += 1
            if not used:
                too_short.append(number)
        return EvaluationFile(path.as_posix(), samples, ngrams, wholes, tuple(too_short))

    def _add_whole(self, units: np.ndarray, sample: int) -> bool:
        """Take in a text shorter than an n-gram; return whether it is long enough."""
        beginnings = self._measure.beginnings(units)
        if not len(beginnings):
            return False
        whole = _Whole(len(units), int(sequence_hash(units)), sample)
        known = self._wholes.setdefault(int(beginnings[0]), [])
        if all((whole.length, whole.digest) != (other.length, other.digest) for other in known):
            known.append(whole)
        return True

    def _ignored(self, section: DecontaminateSection, problems: list[str]) -> np.ndarray:
        """Return the n-grams that do not count, and take whole texts that do not count out of the table."""
        hashes = [np.empty(0, dtype=np.uint64)]
        for path in section.ignore_files:
            try:
                for _, texts in read_samples(path, ()):
                    for text in texts:
                        units = units_of(text.encode("utf-8", "replace"), self._letters)
                        hashes.append(self._measure.windows(units))
                        self._remove_whole(units)
            except DataError as error:
                problems.append(f"decontaminate.ignore_files: {error}")
        return np.concatenate(hashes)

    def _remove_whole(self, units: np.ndarray) -> None:
        for beginning in self._measure.beginnings(units)[:1].tolist():
            digest = int(sequence_hash(units))
            known = [whole for whole in self._wholes.pop(beginning, []) if whole.digest != digest]
            if known:
                self._wholes[beginning] = known


def evaluation_table(section: DecontaminateSection) -> EvaluationTable:
    """Return the table of a section; it is built once a process, and again if a file changes.

    Raises:
        DataError: with a line for every file that cannot be used.
    """
    return _cached_table(section, tuple(_state(path) for path in (*section.files, *section.ignore_files)))


@lru_cache(maxsize=1)
def _cached_table(section: DecontaminateSection, states: tuple[tuple[int, int], ...]) -> EvaluationTable:
    return EvaluationTable(section)


def _state(path: Path) -> tuple[int, int]:
    try:
        state = os.stat(path)  # noqa: PTH116 - Path.stat is the same
    except OSError:
        return -1, -1  # the table names it
    return state.st_size, state.st_mtime_ns


def check_decontaminate(section: DecontaminateSection) -> tuple[EvaluationFile, ...]:
    """Build the table before a run begins, and return what of each evaluation set is looked for.

    Raises:
        DataError: with a line for every file that is missing, unreadable, empty, or not of its format.
    """
    return evaluation_table(section).files
