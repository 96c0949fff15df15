"""How the tokens of a sample are to be understood; no torch."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from gptdist.config.data import DataConfig
from gptdist.config.loss_mask import LossMaskConfig
from gptdist.data.label_mask import token_ids
from gptdist.errors import DataError
from gptdist.tokenizer.tokenizer import Tokenizer

IGNORED_LABEL = -1
"""Stands for a label that does not count in the loss."""


@dataclass(frozen=True)
class LossMask:
    """Which tokens count as labels: of those that the data itself does not mark, by the tokens alone."""

    ignored: tuple[int, ...] = ()
    """Ids that never count."""

    document_end: int | None = None
    """Token after which a label does not count: what follows it is another document."""

    @classmethod
    def of(cls, config: LossMaskConfig, tokenizer: Tokenizer) -> Self | None:
        """Return what ``config`` says of ``tokenizer``'s ids, or None where every token counts.

        Raises:
            DataError: a name that the tokenizer has no special token for.
        """
        if config.is_empty:
            return None
        known = _special_tokens(tokenizer) if any(isinstance(token, str) for token in config.ignore_tokens) else {}
        ids = []
        for token in config.ignore_tokens:
            if isinstance(token, str) and token not in known:
                raise DataError(
                    f"data.loss_mask.ignore_tokens: the tokenizer has no special token '{token}'; "
                    f"it has {', '.join(sorted(known))}"
                )
            ids.append(known[token] if isinstance(token, str) else token)
        return cls(tuple(ids), tokenizer.eod_id if config.ignore_document_starts else None)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels of ``rows`` [b, s + 1], int64 [b, s], with ``IGNORED_LABEL`` where they do not count."""
        tokens = token_ids(rows)
        labels = tokens[:, 1:].astype(np.int64)
        drops = np.isin(labels, self.ignored) | (rows[:, 1:] < 0)
        if self.document_end is not None:
            drops |= tokens[:, :-1] == self.document_end
        labels[drops] = IGNORED_LABEL
        return labels

    def num_counted(self, rows: np.ndarray) -> int:
        """Return how many labels of ``rows`` [b, s + 1] count."""
        return int(np.count_nonzero(self.labels(rows) != IGNORED_LABEL))


def _special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    added = json.loads(tokenizer.huggingface_json())["added_tokens"]
    return {str(token["content"]): int(token["id"]) for token in added}


@dataclass(frozen=True)
class SampleRules:
    """What a run makes of its samples' tokens."""

    document_end: int | None = None
    """Token that ends a document, where documents of a sample are to know nothing of each other."""

    loss_mask: LossMask | None = None
    """Which labels count; None where all do."""

    @classmethod
    def of(cls, config: DataConfig, tokenizer: Tokenizer) -> Self:
        """Return the rules of ``config``.

        Raises:
            DataError: the mask names a special token that is none.
        """
        return cls(
            document_end=tokenizer.eod_id if config.separate_documents else None,
            loss_mask=LossMask.of(config.loss_mask, tokenizer),
        )
