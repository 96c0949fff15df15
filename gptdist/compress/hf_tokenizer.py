"""Our tokenizer as the files from which transformers' AutoTokenizer gives the same ids."""

import json
from collections.abc import Sequence
from typing import Any

from gptdist.errors import ExportError
from gptdist.tokenizer.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def tokenizer_files(tokenizer: Tokenizer, seq_length: int) -> dict[str, str]:
    """Return ``tokenizer.json`` and ``tokenizer_config.json``.

    End-of-document also begins a text, as it does in training, where it stands between documents. It pads as well:
    padding is masked, so any id will do.

    Raises:
        TokenizerError: transformers has no equivalent of it.
    """
    eod = tokenizer.eod_token
    config = {
        # the class as transformers 4 and 5 both know it; it takes tokenizer.json as it is
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eod,
        "eos_token": eod,
        "pad_token": eod,
        "model_max_length": seq_length,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return {
        "tokenizer.json": tokenizer.huggingface_json(),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def huggingface_tokenizer(tokenizer: Tokenizer, seq_length: int) -> Any:
    """Return our tokenizer as a transformers tokenizer, in memory."""
    from tokenizers import Tokenizer as TokenizersTokenizer
    from transformers import PreTrainedTokenizerFast

    files = tokenizer_files(tokenizer, seq_length)
    settings = json.loads(files["tokenizer_config.json"])
    del settings["tokenizer_class"]
    return PreTrainedTokenizerFast(tokenizer_object=TokenizersTokenizer.from_str(files["tokenizer.json"]), **settings)


def require_same_ids(tokenizer: Tokenizer, exported: Any, samples: Sequence[Sequence[int]], where: str) -> None:
    """Refuse an exported tokenizer that gives other ids than ours on the samples' text.

    Args:
        tokenizer: the one the model was trained with.
        exported: what transformers loaded.
        samples: token ids of real text.
        where: what to name in the error.

    Raises:
        ExportError: the ids differ, or end-of-document has another id.
    """
    if exported.eos_token_id != tokenizer.eod_id:
        raise ExportError(
            f"{where}: the exported tokenizer's end-of-text is {exported.eos_token_id}, not {tokenizer.eod_id}; "
            f"nothing was written, report it with the tokenizer's kind ({tokenizer.kind})"
        )
    texts = [tokenizer.decode(part) for sample in samples for part in _documents(sample, tokenizer.eod_id)]
    for text, ours in zip(texts, tokenizer.encode_batch(texts), strict=True):
        theirs = exported(text, add_special_tokens=False)["input_ids"]
        # a text that spells a special token is plain text to us, but that token to transformers
        if theirs != ours.tolist() and exported.eos_token not in text:
            first = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), len(ours))
            raise ExportError(
                f"{where}: the exported tokenizer gives other ids from token {first} of {text[:40]!r} on; "
                f"nothing was written, report it with the tokenizer's kind ({tokenizer.kind})"
            )


def _documents(ids: Sequence[int], eod_id: int) -> list[list[int]]:
    """Cut a sample at its end-of-document tokens."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == eod_id:
            parts.append([])
        else:
            parts[-1].append(int(token))
    return [part for part in parts if part]
