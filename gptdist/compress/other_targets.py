"""What exports to other formats than transformers' share: what they are compared on, and what is said of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptdist.compress.parity import Parity
from gptdist.compress.trained_on import MAX_LOGIT_BYTES, SAMPLE_SEQUENCES
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError
from gptdist.tokenizer.tokenizer import Tokenizer

COMPARED_TOKENS = 128
TEXT = "def area(r):\n    return 3.14 * r ** 2  # MiXeD case, 12 numbers\n\n\tIt's the model's: très bien, 你好!\n"


@dataclass(frozen=True)
class Compared:
    """What an export to another format wrote, and how it compared."""

    folder: Path
    parity: Parity
    num_bytes: int


def random_tokens(config: ModelConfig) -> torch.Tensor:
    """Return token ids [b, s] to compare on, the same every time."""
    room = MAX_LOGIT_BYTES // (4 * SAMPLE_SEQUENCES * config.vocab_size)
    length = max(1, min(config.seq_length, COMPARED_TOKENS, room))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.vocab_size, (SAMPLE_SEQUENCES, length), generator=generator)


def require_text_ids(tokenizer: Tokenizer, theirs: Any, where: str) -> None:
    """Refuse a written tokenizer that gives other ids than ours for a text.

    Raises:
        ExportError: it does.
    """
    ours = tokenizer.encode_batch([TEXT])[0].tolist()
    found = theirs(TEXT, add_special_tokens=False)["input_ids"]
    if found != ours or theirs.eos_token_id != tokenizer.eod_id:
        raise ExportError(
            f"{where}: the written tokenizer gives other ids; nothing was written, report it with the tokenizer's kind "
            f"({tokenizer.kind})"
        )
