"""Personal data and decontamination: MB of text a CPU second, the first against datatrove's PIIFormatter.

``python -m benchmarks.prep_privacy TEXT_JSONL NUM_DOCUMENTS`` is run in a process of its own by ``measure``.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.comparison import Comparison, by_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS, Corpus, run_ours, run_script
from data_prep.account import Account
from data_prep.decontaminate.stage import decontaminate_stage
from data_prep.document import Document, Place, Stage
from data_prep.pii.stage import pii_stage
from gptdist.config.prep_decontaminate import DecontaminateSection
from gptdist.config.prep_privacy import PiiSection

MOST_DOCUMENTS = 10_000
_TARGET = 1.0
EVALUATION_SAMPLES, SAMPLE_WORDS = 20_000, 60


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return the ratio to datatrove, which looks for e-mail and IPv4 addresses only; print what both found."""
    arguments = (str(corpus.folder / "text.jsonl"), str(MOST_DOCUMENTS))
    missing = why_missing(peers, "datatrove")
    ours, theirs = by_turns(
        lambda: run_ours("benchmarks.prep_privacy", *arguments).result,
        lambda: {} if missing else run_script(str(peers), PEERS / "pii_datatrove.py", *arguments).result,
        is_backwards=corpus.is_backwards,
    )
    size = ours["bytes"] / 1e6
    print(
        f"decontaminate: {size / ours['decontaminate_cpu_seconds']:.0f} MB/CPU-second, "
        f"{ours['ngrams']:,} n-grams, "
        f"{5000 * ours['decontaminate_cpu_seconds'] / size / 1e3:.3f} ms a page of 5 KB"
    )
    print(f"pii: {5000 * ours['pii_cpu_seconds'] / size / 1e3:.3f} ms a page of 5 KB; replaced {ours['replaced']}")
    speeds = [size / ours["pii_cpu_seconds"]]
    if theirs:
        print(f"datatrove: replaced {theirs['replaced']} e-mail and IPv4 addresses")
        speeds.append(theirs["bytes"] / 1e6 / theirs["cpu_seconds"])
    return [
        Comparison(
            "personal data",
            "datatrove PIIFormatter",
            "MB/CPU-second",
            speeds[:1],
            speeds[1:],
            "higher",
            _TARGET,
            note="ours: six kinds, theirs: two",
            missing=missing,
        )
    ]


def main(path: str, count: int) -> None:
    """Pass the documents through both stages; the last line printed is JSON."""
    with Path(path).open(encoding="utf-8") as lines:
        documents = [Document(json.loads(line)["text"], path) for line, _ in zip(lines, range(count), strict=False)]
    size = sum(len(document.utf8) for document in documents)  # the pipeline has counted it too: cached
    account = Account("benchmark")
    pii_seconds = _seconds(pii_stage(PiiSection(), Place(0, 1), account), documents)
    with tempfile.TemporaryDirectory() as folder:
        section = DecontaminateSection(files=(_made_evaluation_set(Path(folder), documents),))
        decontaminate_seconds = _seconds(decontaminate_stage(section, Place(0, 1), Account("benchmark")), documents)
    result = {
        "bytes": size,
        "pii_cpu_seconds": pii_seconds,
        "replaced": dict(sorted(account.counts.items())),
        "decontaminate_cpu_seconds": decontaminate_seconds,
        "ngrams": EVALUATION_SAMPLES * (SAMPLE_WORDS - section.ngram_words + 1),
    }
    print(json.dumps(result))


def _seconds(stage: Stage, documents: list[Document]) -> float:
    """Return the CPU seconds of a stage, compiled before."""
    list(stage(iter([Document("a@b.co 1234567", "warm")])))
    begin = time.process_time()
    for _ in stage(iter(documents)):
        pass
    return time.process_time() - begin


def _made_evaluation_set(folder: Path, documents: list[Document]) -> Path:
    """Write samples of the corpus's own words in random order: as likely words as can be, and no copies."""
    choose = random.Random(0)
    words = " ".join(document.text for document in documents[:200]).split()
    path = folder / "made.txt"
    path.write_text("\n".join(_samples(choose, words)), encoding="utf-8")
    return path


def _samples(choose: random.Random, words: list[str]) -> Iterator[str]:
    for _ in range(EVALUATION_SAMPLES):
        yield " ".join(choose.choices(words, k=SAMPLE_WORDS))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
