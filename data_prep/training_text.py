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
_MOST_HELD = 1.4
"""Text that is held, as a multiple of what is wanted, before some is let go of."""
_COLUMNS = ("text", "key", "validation")


def training_text(work: Work) -> Iterator[str]:
    """Yield training documents of each source up to its weight's part of ``train_bytes``, smallest keys first.

    Validation documents are left out. A source with less text gives all of it; the others do not fill its part.
    Memory: about one and a half times a source's part.
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
        del sample
        pa.default_memory_pool().release_unused()  # the trainer takes its memory next


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
        if self._held_bytes > _MOST_HELD * self.wanted_bytes:
            self._shrink()

    def texts(self) -> Iterator[str]:
        """Yield the sample, smallest keys first; equal keys keep the order in which they came."""
        if not self._texts:
            return
        self._shrink()
        sizes = [len(keys) for keys in self._keys]
        batches = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        order = np.argsort(np.concatenate(self._keys), kind="stable")
        for batch, row in zip(batches[order].tolist(), rows[order].tolist(), strict=True):
            yield self._texts[batch][row].as_py()

    def _shrink(self) -> None:
        """Let go of what is not needed, a batch at a time."""
        keys = np.concatenate(self._keys)
        sizes = np.concatenate([np.diff(text_arrays(texts)[0]) for texts in self._texts])
        order = np.argsort(keys, kind="stable")
        total = np.cumsum(sizes[order])
        last = int(np.searchsorted(total, self.wanted_bytes))
        if last >= order.size - 1:
            return
        kept = np.zeros(order.size, dtype=np.bool_)
        kept[order[: last + 1]] = True
        self._held_bytes = int(total[last])
        self._key_end = int(keys[order[last]])
        begin = 0
        for number, texts in enumerate(self._texts):
            here = kept[begin : begin + len(texts)]
            begin += len(texts)
            self._texts[number] = texts.filter(pa.array(here))
            self._keys[number] = self._keys[number][here]
        pairs = [pair for pair in zip(self._texts, self._keys, strict=True) if len(pair[1])]
        self._texts, self._keys = [texts for texts, _ in pairs], [found for _, found in pairs]
