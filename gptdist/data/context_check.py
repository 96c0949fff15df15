"""Whether documents are long enough for the context that a model is to learn; no torch."""

from collections.abc import Iterable

from gptdist.data.dataset import TokenDataset
from gptdist.errors import DataError

_CHUNK = 1 << 20
"""Lengths read at a time: the first document that is long enough ends the search."""


def check_context(datasets: Iterable[TokenDataset], seq_length: int) -> None:
    """Refuse a context of which no document fills half, where each token attends to its own document only.

    Padding that best-fit packing put behind a document counts as its own. Nothing is read of the tokens, and of the
    indexes what comes before the first document that is long enough.

    Raises:
        DataError: it names the longest document.
    """
    longest = None
    for dataset in datasets:
        for shard in dataset.shards:
            for begin in range(0, shard.num_documents, _CHUNK):
                longest = max(longest or 0, int(shard.lengths[begin : begin + _CHUNK].max()))
                if 2 * longest >= seq_length:
                    return
    if longest is None:
        return  # no dataset to judge by
    raise DataError(
        f"model.seq_length: {seq_length}, but with data.separate_documents no token sees more than its document, and "
        f"the longest of all sources has {longest} tokens: more than half of the positions would never be trained; "
        f"set it to {longest} or less and batch.micro_batch_size higher, or leave separate_documents out"
    )
