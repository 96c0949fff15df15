"""The fast engine behind ``BpeTokenizer``: gigatoken, checked against the ``tokenizers`` library before it is trusted.

It finds a word's ids in a cache, which grows with every new word: on text without repetition by up to eight times the
text's size. Nothing bounds it from outside, so the engine is made anew (0.1 CPU seconds for 50,000 merges, and the
cache has to be filled again) once the process has grown by a stated amount; ids do not depend on it.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gptdist.tokenizer.arrow import text_arrays
from gptdist.tokenizer.checked_texts import CHECKED_TEXTS

logger = logging.getLogger(__name__)

_MOST_GROWTH_BYTES = 128 << 20
"""Growth of the process after which the engine is made anew."""
_CALL_BYTES = 1 << 23
"""Text that the engine is given at once; a longer document is cut between words."""
_SEARCHED_BYTES = 1 << 16
"""Where to look for two words to cut between; text without any there is not cut."""
_CHECKED_PART_BYTES = 4
_SPACE = ord(" ")
_CROSSES_WORDS = re.compile("[A-Za-z][ \u0120\u2581]")
"""A piece of a vocabulary that may lie across such a place; the space as byte-level and sentencepiece write it."""

Encode = Callable[[Sequence[str]], list[np.ndarray]]


class FastBpe:
    """gigatoken for one ``tokenizer.json``, on the calling thread.

    Args:
        source: the ``tokenizer.json`` without special tokens: there, text that spells one is text.
        cuts_words: whether a text may be cut between a letter and a space before a letter (all of them ASCII) without
            a change of ids.
    """

    def __init__(self, source: str, *, cuts_words: bool = False) -> None:
        import psutil

        self._source = source
        self._cuts_words = cuts_words
        self._process = psutil.Process()
        self._make()

    def encode(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of all texts of a ``large_string`` array, flat, and the int64 number of each."""
        borders, characters = text_arrays(texts)
        if int(borders[-1] - borders[0]) <= _CALL_BYTES:
            return self._encode(borders, characters)
        pieces, first_pieces = self._cut(borders, characters)
        # A token has at least one byte; pages that no id is written to cost nothing.
        ids = np.empty(int(borders[-1] - borders[0]), dtype=np.int32)
        lengths = np.empty(pieces.size - 1, dtype=np.int64)
        begin = used = 0
        while begin < lengths.size:
            end = max(begin + 1, int(np.searchsorted(pieces, pieces[begin] + _CALL_BYTES, side="right")) - 1)
            part, lengths[begin:end] = self._encode(pieces[begin : end + 1], characters)
            ids[used : used + part.size] = part
            begin, used = end, used + part.size
        return ids[:used], np.add.reduceat(lengths, first_pieces)

    def _cut(self, borders: np.ndarray, characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the borders of pieces, and each text's first piece."""
        cuts: list[int] = [
            cut
            for text in np.flatnonzero(np.diff(borders) > _CALL_BYTES)
            if self._cuts_words
            for cut in word_cuts(characters, int(borders[text]), int(borders[text + 1]), _CALL_BYTES)
        ]
        # a text's border is never a cut, but empty texts share one: those must stay
        pieces = np.sort(np.concatenate([borders, np.array(cuts, dtype=np.int64)]), kind="stable")
        before = np.searchsorted(np.array(cuts, dtype=np.int64), borders[:-1])
        return pieces, np.arange(borders.size - 1) + before

    def _encode(self, borders: np.ndarray, characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import awkward

        layout = awkward.contents.ListOffsetArray(
            awkward.index.Index64(borders),
            awkward.contents.NumpyArray(characters, parameters={"__array__": "char"}),
            parameters={"__array__": "string"},
        )
        encoded = self._engine.encode_batch(awkward.Array(layout), parallel=False).layout
        ends = np.asarray(encoded.offsets, dtype=np.int64)
        ids = np.asarray(encoded.content.data)[ends[0] : ends[-1]].view(np.int32)
        if self._process.memory_info().rss - self._resident > _MOST_GROWTH_BYTES:
            self._make()
        return ids, np.diff(ends)

    def _make(self) -> None:
        from gigatoken.gigatoken_rs import load_hf_json

        self._engine: Any = None  # the old one's memory is what the new one takes
        self._engine = load_hf_json(self._source)
        self._resident = self._process.memory_info().rss


def word_cuts(characters: np.ndarray, begin: int, end: int, part_bytes: int) -> list[int]:
    """Return where a text can be cut into parts of about ``part_bytes``: at spaces between two ASCII letters."""
    cuts = []
    position = begin
    while end - position > part_bytes:
        first = position + part_bytes - min(part_bytes, _SEARCHED_BYTES)
        window = characters[first : position + part_bytes]
        letters = ((window | 0x20) >= ord("a")) & ((window | 0x20) <= ord("z"))
        places = np.flatnonzero(letters[:-2] & (window[1:-1] == _SPACE) & letters[2:])
        position = first + int(places[-1]) + 1 if places.size else position + part_bytes
        if places.size:
            cuts.append(position)
    return cuts


def open_fast(tree: dict[str, Any], reference: Encode, origin: str) -> FastBpe | None:
    """Return the fast engine, or None where it is not installed, does not take the file, or gives other ids.

    Args:
        tree: the data of a ``tokenizer.json``.
        reference: the ``tokenizers`` library with the same file; what it says is right.
        origin: what to put before a warning, such as the file's path.
    """
    import pyarrow

    try:
        fast = FastBpe(source_without_specials(tree), cuts_words=_cuts_words(tree, reference))
        ids, lengths = fast.encode(pyarrow.array(CHECKED_TEXTS, pyarrow.large_string()))
    except ImportError:
        logger.warning("%s: gigatoken is not installed; encoding with the tokenizers library, far slower", origin)
        return None
    except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
        logger.warning("%s: gigatoken does not take it (%s); encoding with the tokenizers library", origin, error)
        return None
    expected = reference(CHECKED_TEXTS)
    same = np.array_equal(lengths, [len(one) for one in expected]) and np.array_equal(ids, np.concatenate(expected))
    if not same:
        logger.warning("%s: gigatoken gives other ids than the tokenizers library, which is used instead", origin)
        return None
    return fast


def _cuts_words(tree: dict[str, Any], reference: Encode) -> bool:
    """Whether ids stay the same when text is cut where ``word_cuts`` does: no piece and no rule crosses it."""
    if any(_CROSSES_WORDS.search(piece) for piece in tree["model"]["vocab"]):
        return False
    for text in CHECKED_TEXTS:
        utf8 = text.encode()
        cuts = word_cuts(np.frombuffer(utf8, dtype=np.uint8), 0, len(utf8), _CHECKED_PART_BYTES)
        parts = [utf8[low:high].decode() for low, high in pairwise([0, *cuts, len(utf8)])]
        if not np.array_equal(np.concatenate(reference(parts)), reference([text])[0]):
            return False
    return True


def source_without_specials(tree: dict[str, Any]) -> str:
    """Return the ``tokenizer.json`` without its special added tokens; ids of text do not depend on them."""
    kept = [added for added in tree.get("added_tokens") or () if not added["special"]]
    return json.dumps({**tree, "added_tokens": kept, "truncation": None, "padding": None, "post_processor": None})
