"""JSON Lines to token files by datatrove: its reader and its tokenizer stage, one task, documents shuffled.

Usage: tokenize_datatrove.py TEXT_JSONL TOKENIZER_JSON OUT_FOLDER; the last line printed is JSON.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer


def main(path: str, tokenizer: str, out: str) -> None:
    """Run both stages."""
    begin = time.process_time()
    file = Path(path)
    documents = JsonlReader(str(file.parent), glob_pattern=file.name).run(None, 0, 1)
    stage = DocumentTokenizer(out, tokenizer, eos_token="<|endoftext|>", seed=1)
    for _ in stage.run(documents, 0, 1) or ():
        pass
    print(json.dumps({"cpu_seconds": time.process_time() - begin}))


if __name__ == "__main__":
    main(*sys.argv[1:])
