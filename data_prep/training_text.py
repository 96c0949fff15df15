"""The text that a tokenizer is trained on: the same documents give the same text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.dedup.removals import surviving
from data_prep.work import Work
from gptdist.tokenizer.arrow import text_arrays

_EVERY_KEY = 1 << 64
_COLUMNS = ("text", "key", "validation")


def training_text(work: Work) -> Iterator[str]:
    """Yield training documents of each source up to its weight's part of ``train_bytes``, smallest keys first.

    Validation documents are left out. A source with less text gives all of it; the others do not fill its part.
    Memory: about three times a source's part.
    """
    config = work.config
    total = sum(source.weight for source in config.sources)
    for index, source in enumerate(config.sources):
        sample = _Sample(config.tokenizer.train_bytes * source.weight / total)
        for rank, shard in enumerate(work.plan.shards):
            if shard.source == index:
                for batch in surviving(work, rank, _COLUMNS):
                    sample.add(batch)
        yield from sample.texts()


@dataclass
class _Sample:
    """The documents with the smallest keys that together have ``wanted_bytes``, the one that reaches it included."""

    wanted_bytes: float
    _texts: list[Any] = field(default_factory=list)
    _keys: list[np.ndarray] = field(default_factory=list)
    _held_bytes: int = 0
    _key_end: int = _EVERY_KEY
    """No document from this key on can be in the sample any more."""

    def add(self, batch: Any) -> None:
        keys = batch.column("key").to_numpy()
        chosen = ~batch.column("validation").to_numpy(zero_copy_only=False)
        if self._key_end < _EVERY_KEY:
            chosen &= keys < np.uint64(self._key_end)
        if not chosen.any():
            return
        texts = batch.column("text").take(pa.array(np.flatnonzero(chosen)))
        self._texts.append(texts)
        self._keys.append(keys[chosen])
        self._held_bytes += int(np.diff(text_arrays(texts)[0]).sum())
        if self._held_bytes > 2 * self.wanted_bytes:
            self._shrink()

    def texts(self) -> Iterator[str]:
        if self._texts:
            self._shrink()
        for texts in self._texts:
            yield from (text.as_py() for text in texts)

    def _shrink(self) -> None:
        """Keep what is needed, in order; equal keys keep the order in which they came."""
        texts, keys = pa.concat_arrays(self._texts), np.concatenate(self._keys)
        order = np.argsort(keys, kind="stable")
        total = np.cumsum(np.diff(text_arrays(texts)[0])[order])
        kept = order[: int(np.searchsorted(total, self.wanted_bytes)) + 1]
        self._texts, self._keys = [texts.take(pa.array(kept))], [keys[kept]]
        self._held_bytes = int(total[kept.size - 1])
        if kept.size < order.size:
            self._key_end = int(self._keys[0][-1])
