"""The text that a tokenizer is trained on: the same documents give the same text."""

from collections.abc import Iterator, Sequence

from data_prep.spool import Spool


def training_text(spools: Sequence[tuple[Spool, float]], train_bytes: int) -> Iterator[str]:
    """Yield training documents of each source up to its weight's part of ``train_bytes``.

    Validation documents are left out. A source with less text gives all of it; the others do not fill its part.
    """
    total = sum(weight for _, weight in spools)
    for spool, weight in spools:
        left = train_bytes * weight / total
        for document in spool.read(spool.order(validation=False)):
            if left <= 0:
                break
            yield document.text
            left -= len(document.utf8)
