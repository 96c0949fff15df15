"""megatron-core's GPTDataset on shards of ours."""

from pathlib import Path
from typing import ClassVar

from megatron.core.datasets.gpt_dataset import GPTDatasetConfig


class EndOnly:
    """What a ``GPTDataset`` asks of a tokenizer."""

    eod = pad = 256
    vocab_size = 257
    unique_identifiers: ClassVar[dict[str, str]] = {"class": "EndOnly"}


def gpt_dataset_config(stems: list[Path], cache: Path, seq_length: int) -> GPTDatasetConfig:
    """Return the config of samples of shards. The cache's key has the path, not the content: a fresh one each time."""
    return GPTDatasetConfig(
        random_seed=1,
        sequence_length=seq_length,
        blend=([str(stem) for stem in stems], None),
        split="1,0,0",
        path_to_cache=str(cache),
        num_dataset_builder_threads=1,
        tokenizer=EndOnly(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
