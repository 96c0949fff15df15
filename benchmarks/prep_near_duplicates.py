"""Near-duplicates over a whole corpus: signatures, meetings and clusters, and what of the planted ones is found.

``python -m benchmarks.prep_near_duplicates TEXT_JSONL SCRATCH`` is run in a process of its own by ``measure``.
"""

import itertools
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, by_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS, Corpus, run_ours, run_script

_OURS, _THEIRS = 20_000, 1_500
"""Documents: theirs takes 12 milliseconds each."""
_TARGET = 40.0
_PLANTED_EVERY = 20
_EDITED_FRACTION = 0.1
_LEAST_CHARACTERS = 500
_SHARDS = 4
_UNRELATED = 0.2
"""Share of common shingles below which two texts of the same kind of page, such as of API references, lie too."""


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return the ratio of documents a CPU second; print what was found of what was planted."""
    missing = why_missing(peers, "datatrove")
    ours, theirs = by_turns(
        lambda: _found(corpus, _OURS, None),
        lambda: {} if missing else _found(corpus, _THEIRS, peers),
        is_backwards=corpus.is_backwards,
    )
    speeds = [side["documents"] / side["seconds"] for side in (ours, theirs) if side]
    note = f"{ours['documents']:,} documents" + (f" against {theirs['documents']:,}" if theirs else "")
    return [
        Comparison(
            "near-duplicates",
            "datatrove",
            "docs/CPU-second",
            speeds[:1],
            speeds[1:],
            "higher",
            _TARGET,
            note=note,
            missing=missing,
        )
    ]


def _found(corpus: Corpus, count: int, python: str | None) -> dict[str, Any]:
    """Plant copies, look for them (with ours where no interpreter is named), and print what was found."""
    folder = corpus.scratch / f"near{count}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    planted = folder / "planted.jsonl"
    copies = _plant(corpus.folder / "text.jsonl", planted, count)
    if python is None:
        result = run_ours("benchmarks.prep_near_duplicates", str(planted), str(folder)).result
    else:
        result = run_script(python, PEERS / "minhash_datatrove.py", str(planted), str(folder)).result
    _print_found("theirs" if python else "ours", result, copies)
    return result


def _print_found(name: str, result: Mapping[str, Any], copies: Mapping[int, int]) -> None:
    gone = set(result["removed"])
    found = sum(copy in gone or original in gone for original, copy in copies.items())
    notes = {key: result[key] for key in ("parts", "unrelated", "megabytes") if key in result}
    print(
        f"  {name}: {result['documents']:,} documents, {result['seconds']:.2f} CPU seconds, {len(gone):,} removed; of "
        f"{len(copies)} copies with {_EDITED_FRACTION:.0%} of the words edited {found / len(copies):.1%} found {notes}"
    )


def _plant(source: Path, target: Path, count: int) -> dict[int, int]:
    """Write ``count`` documents and, at the end, edited copies of some; return the number of each copy by original."""
    choose = random.Random(0)
    texts: list[str] = []
    with source.open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if len(text) >= _LEAST_CHARACTERS:
                texts.append(text)
            if len(texts) == count:
                break
    words = [word for text in texts[:500] for word in text.split()]
    originals = range(0, len(texts), _PLANTED_EVERY)
    copies = {original: len(texts) + number for number, original in enumerate(originals)}
    texts += [_edited(choose, texts[original], words) for original in originals]
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "id": str(number)}) + "\n" for number, text in enumerate(texts))
    return copies


def _edited(choose: random.Random, text: str, words: list[str]) -> str:
    """Replace, remove or follow by another word a tenth of the words, anywhere."""
    parts = re.findall(r"\S+\s*", text)
    for place in choose.sample(range(len(parts)), round(_EDITED_FRACTION * len(parts))):
        new = choose.choice(words) + re.sub(r"^\S+", "", parts[place])
        parts[place] = choose.choice([new, "", parts[place] + new])
    return "".join(parts)


def main(path: str, scratch: str) -> None:
    """Run our steps on a file; the documents step, and numba's compiler, come before the clock starts."""
    from data_prep.document import Place
    from data_prep.steps.near import NearClusters, NearEdges, NearSignatures
    from data_prep.work import run_task

    with Path(path).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    steps = (NearSignatures(), NearEdges(), NearClusters())
    for name, some in (("warm", texts[:40]), ("work", texts)):
        work, numbers = _work(Path(scratch) / name, some)
        seconds = {}
        for step in steps:
            begin = time.process_time()
            tasks = step.num_tasks(work)
            for rank in range(tasks):
                run_task(work, step, Place(rank, tasks))
            seconds[step.name] = round(time.process_time() - begin, 3)
    removed = dict(_removed(work, numbers))
    unlike = sum(_in_common(texts[gone], texts[kept]) < _UNRELATED for gone, kept in removed.items())
    result = {"documents": len(texts), "megabytes": round(sum(map(len, texts)) / 1e6, 1), "unrelated": unlike}
    print(json.dumps({**result, "seconds": sum(seconds.values()), "parts": seconds, "removed": sorted(removed)}))


def _work(folder: Path, texts: list[str]) -> tuple[Any, list[range]]:
    """Return a run whose documents step is done, and the numbers of each shard's documents."""
    from data_prep.document import Document
    from data_prep.kept_file import KeptWriter
    from data_prep.work import MARKER_NAME, InputShard, Piece, Plan, Work
    from gptdist.config.prep import PrepConfig

    source = {"name": "pages", "kind": "jsonl", "paths": ["text.jsonl"]}
    dedup = {"exact": False, "near": {}}
    tree = {"name": "near", "output_dir": "out", "tokenizer": {"kind": "byte"}, "sources": [source], "dedup": dedup}
    steps = ("documents", "near_signatures", "near_edges", "near_clusters")
    shards = tuple(InputShard(0, (Piece("text.jsonl", "text.jsonl", 1),)) for _ in range(_SHARDS))
    folder.mkdir(parents=True)
    Plan(PrepConfig.from_tree(tree), shards, {step: step for step in steps}).write(folder)
    work = Work(folder)
    cuts = [len(texts) * shard // _SHARDS for shard in range(_SHARDS + 1)]
    numbers = [range(begin, end) for begin, end in itertools.pairwise(cuts)]
    for shard, rows in enumerate(numbers):
        task = work.task_folder("documents", shard)
        task.mkdir(parents=True)
        with KeptWriter(task, seed=0, validation_fraction=0.0) as writer:
            for number in rows:
                writer.append(Document(texts[number], path="text.jsonl", record=number))
        (task / MARKER_NAME).write_text(json.dumps({"documents": len(rows)}))
    return work, numbers


def _removed(work: Any, numbers: list[range]) -> Iterator[tuple[int, int]]:
    from data_prep.dedup.removals import removal_outcomes

    for shard, rows in enumerate(numbers):
        for row, (_, kept) in removal_outcomes(work, shard).items():
            yield rows[row], numbers[kept["kept_shard"]][kept["kept_row"]]


def _in_common(one: str, other: str) -> float:
    """Jaccard similarity of the sets of 12 letters in a row."""
    sets = []
    for text in (one, other):
        letters = re.sub(r"\W+", " ", text.lower())
        sets.append({letters[begin : begin + 12] for begin in range(len(letters) - 11)})
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
