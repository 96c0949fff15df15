"""How many rows the embedding gets."""

VOCABULARY_MULTIPLE = 128
"""Each tensor-parallel rank's share of the vocabulary is padded to a multiple of this, for fast matrix kernels."""


def padded_vocab_size(vocab_size: int, tensor_parallel_size: int) -> int:
    """Return embedding rows with padding; padding rows stay zero and take no part in the loss."""
    multiple = VOCABULARY_MULTIPLE * tensor_parallel_size
    return -(-vocab_size // multiple) * multiple
