"""Tokenize the surviving documents of each input shard, sorted by their place in the random order; one task a shard."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.dedup.removals import surviving
from data_prep.document import Place
from data_prep.packing.runs import ORIGIN_COLUMNS, SPLITS, RunWriter, runs_of
from data_prep.steps.tokenizer import prepared_tokenizer
from data_prep.work import Work
from gptdist.data.shards import token_dtype
from gptdist.errors import TokenizerError
from gptdist.tokenizer.arrow import encode_arrow_by, text_arrays
from gptdist.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

NAME = "tokenize"
_REFERENCE = "reference"
_COLUMNS = ("text", "key", "validation", *ORIGIN_COLUMNS)
_COMPARED_BYTES = 2_000
"""Beginning of a batch's first document that is encoded twice: 2 % of the time with the fast engine."""


class TokenizeStep:
    """Give every surviving document its tokens."""

    name = NAME

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the shard's runs.

        Of each batch some text is encoded by the reference too. Should the ids differ, which the check at the engine's
        start rules out for all that it looks at, the shard is done again by the reference alone.

        Raises:
            TokenizerError: the tokenizer gives ids outside its own vocabulary.
        """
        tokenizer = prepared_tokenizer(work)
        try:
            return _Shard(tokenizer, folder, tokenizer.engine).tokenize(surviving(work, place.rank, _COLUMNS))
        except _UnequalError:
            logger.warning("input shard %d: the fast engine differs from the reference; doing it again", place.rank)
        for path in folder.iterdir():
            path.unlink()
        return _Shard(tokenizer, folder, _REFERENCE).tokenize(surviving(work, place.rank, _COLUMNS))


def token_lengths(work: Work, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of an input shard's documents that have tokens, and how many; end-of-document counts."""
    splits = work.marker(NAME, shard)["splits"]
    found = [np.empty((2, 0), dtype=np.int64)]
    for split in splits:
        for run in runs_of([work.task_folder(NAME, shard)], [splits[split]["runs"]], split):
            with run.rows() as rows:
                found.append(np.stack([rows.column(name).to_numpy() for name in ("row", "tokens")]))
    documents, tokens = np.concatenate(found, axis=1)
    return documents, tokens


class _UnequalError(Exception):
    """Fast engine and reference gave different ids."""


@dataclass
class _Counts:
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0

    def add(self, lengths: np.ndarray, text_bytes: np.ndarray) -> None:
        self.documents += int(lengths.size)
        self.tokens += int(lengths.sum())
        self.text_bytes += int(text_bytes.sum())


@dataclass
class _Shard:
    """One input shard on its way through the tokenizer."""

    tokenizer: Tokenizer
    folder: Path
    engine: str
    splits: dict[str, _Counts] = field(default_factory=lambda: {split: _Counts() for split in SPLITS})
    languages: dict[str, _Counts] = field(default_factory=dict)
    unknown_tokens: int = 0

    def tokenize(self, batches: Iterable[Any]) -> Mapping[str, Any]:
        writer = RunWriter(self.folder, token_dtype(self.tokenizer.vocab_size))
        for batch in batches:
            self._add(writer, batch)
        writer.flush()
        return {
            "splits": {
                split: {**vars(counts), "runs": writer.runs[split]}
                for split, counts in self.splits.items()
                if counts.documents
            },
            "languages": {language: vars(counts) for language, counts in sorted(self.languages.items())},
            "unknown_tokens": self.unknown_tokens,
            "engine": self.engine,
        }

    def _add(self, writer: RunWriter, batch: Any) -> None:
        texts = batch.column("text")
        ids, lengths = self._encode(texts)
        self._check(ids)
        text_bytes = np.diff(text_arrays(texts)[0])
        tokens = writer.room(ids.size + lengths.size)
        begin = first = 0
        for length in lengths.tolist():  # a slice a document: half of what a mask over all tokens takes
            tokens[begin : begin + length] = ids[first : first + length]
            tokens[begin + length] = self.tokenizer.eod_id
            begin, first = begin + length + 1, first + length
        writer.append(batch, lengths + 1, text_bytes)
        self._count(batch, lengths + 1, text_bytes)

    def _encode(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        if self.engine == _REFERENCE:
            return encode_arrow_by(self.tokenizer.encode_by_reference, texts)
        beginning = _beginning(texts)
        compared, _ = self.tokenizer.encode_arrow(pa.array([beginning], pa.large_string()))
        if not np.array_equal(compared, self.tokenizer.encode_by_reference([beginning])[0]):
            raise _UnequalError
        return self.tokenizer.encode_arrow(texts)

    def _check(self, ids: np.ndarray) -> None:
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.tokenizer.vocab_size):
            raise TokenizerError(
                f"tokenizer: token ids {int(ids.min())} … {int(ids.max())} do not fit its vocab_size "
                f"{self.tokenizer.vocab_size}; use another tokenizer"
            )
        if self.tokenizer.unknown_id is not None:
            self.unknown_tokens += int(np.count_nonzero(ids == self.tokenizer.unknown_id))

    def _count(self, batch: Any, lengths: np.ndarray, text_bytes: np.ndarray) -> None:
        validation = batch.column("validation").to_numpy(zero_copy_only=False)
        for split, counts in self.splits.items():
            chosen = validation == (split == "validation")
            counts.add(lengths[chosen], text_bytes[chosen])
        languages = batch.column("language").fill_null("").dictionary_encode()
        codes = languages.indices.to_numpy()
        for code, language in enumerate(languages.dictionary.to_pylist()):
            chosen = codes == code
            self.languages.setdefault(language, _Counts()).add(lengths[chosen], text_bytes[chosen])


def _beginning(texts: Any) -> str:
    borders, characters = text_arrays(texts)
    first, end = int(borders[0]), int(borders[1])
    return (
        characters[first : min(end, first + _COMPARED_BYTES)].tobytes().decode(errors="ignore")
    )  # may cut a character
