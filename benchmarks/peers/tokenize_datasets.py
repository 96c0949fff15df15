"""JSON Lines to one file of token ids by ``datasets.map`` and ``tokenizers``, as training scripts commonly do it.

Usage: tokenize_datasets.py TEXT_JSONL TOKENIZER_JSON OUT_FOLDER; the last line printed is JSON.
"""

import json
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import tokenizers


def main(path: str, tokenizer: str, out: str) -> None:
    """Load, map, shuffle, write."""
    begin = time.process_time()
    encoder = tokenizers.Tokenizer.from_file(tokenizer)
    end = encoder.token_to_id("<|endoftext|>")

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encodings = encoder.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [[*encoding.ids, end] for encoding in encodings]}

    loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=f"{out}/cache")
    mapped = loaded.map(encode, batched=True, remove_columns=loaded.column_names).shuffle(seed=1).with_format("numpy")
    with Path(out, "train.bin").open("wb") as file:
        for batch in mapped.iter(batch_size=1000):
            for ids in batch["ids"]:
                file.write(np.asarray(ids).astype(np.uint16).tobytes())
    print(json.dumps({"cpu_seconds": time.process_time() - begin}))


if __name__ == "__main__":
    main(*sys.argv[1:])
