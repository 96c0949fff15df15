"""Datatrove's MinHash deduplication, its default settings, on a JSON Lines file: signatures, buckets, clusters.

Usage: minhash_datatrove.py TEXT_JSONL SCRATCH_FOLDER; the last line printed is JSON. The word tokenizer is loaded
before the clock starts.
"""

import json
import struct
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)


def main(path: str, scratch: str) -> None:
    """Run the three stages that find what to remove, with one task each where it may have one."""
    with Path(path).open(encoding="utf-8") as lines:
        documents = [Document(text=json.loads(line)["text"], id=str(number)) for number, line in enumerate(lines)]
    config = MinhashConfig()
    signature = MinhashDedupSignature(f"{scratch}/signatures", config)
    signature.get_shingles("a few words that load the tokenizer")
    begin = time.process_time()
    signature.run(iter(documents), 0, 1)
    signed = time.process_time() - begin
    buckets = MinhashDedupBuckets(f"{scratch}/signatures", f"{scratch}/buckets", config=config)
    for bucket in range(config.num_buckets):
        buckets.run(None, bucket, config.num_buckets)
    MinhashDedupCluster(f"{scratch}/buckets", f"{scratch}/remove", config=config).run(None, 0, 1)
    seconds = time.process_time() - begin
    found = list(Path(scratch, "remove").glob("*.remove"))
    removed = [row for file in found for (row,) in struct.iter_unpack("<I", file.read_bytes())]
    print(json.dumps({"documents": len(documents), "seconds": seconds, "signing": signed, "removed": sorted(removed)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
