"""The account of a run that never was: two sources, twelve languages, every kind of outcome."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_prep.account import Account
from data_prep.account_rows import Row, Rows, rows_of
from data_prep.card.merge import merge_summaries
from data_prep.card.rows import Removal, read_table, rows_file_name, with_later, write_table
from data_prep.document import Document, Page

SENTENCES = {
    "en": "The river was high that spring, and the bridge had to be closed for a week. ",
    "de": "Der Fluss stand in jenem Frühling hoch, und die Brücke blieb eine Woche lang gesperrt. ",
    "fr": "La rivière était haute ce printemps-là, et le pont dut être fermé pendant une semaine. ",
    "es": "El río venía crecido aquella primavera y hubo que cerrar el puente una semana. ",
    "ru": "Той весной река стояла высоко, и мост пришлось закрыть на неделю. ",
    "el": "Εκείνη την άνοιξη το ποτάμι ήταν φουσκωμένο και η γέφυρα έκλεισε για μια εβδομάδα. ",
    "zh": "那年春天河水上涨,桥不得不关闭一个星期。",
    "ja": "その春は川の水位が高く、橋は一週間通れなかった。",
    "ko": "그해 봄에는 강물이 불어나 다리를 일주일 동안 닫아야 했다. ",
    "ar": "كان النهر مرتفعا في ذلك الربيع، فأغلق الجسر أسبوعا كاملا. ",
    "he": "הנהר גאה באותו אביב, והגשר נסגר לשבוע שלם. ",
    "hi": "उस वसंत में नदी का पानी ऊँचा था और पुल एक सप्ताह तक बंद रखना पड़ा। ",
}
WEIGHTS = (900, 260, 210, 170, 160, 60, 150, 130, 70, 60, 30, 40)
BYTES_A_TOKEN = {"en": 4.4, "zh": 3.1, "ja": 3.3, "hi": 2.9}
HOSTS = ("www.rivers.example", "news.example.org", "blog.example.net", "shop.example", "EXAMPLE.com", "wiki.example")
DROPS: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
    ("extract", "no_text", 0.03, {}),
    ("extract", "page_too_deep", 0.002, {"depth": 100_000, "threshold": 5000}),
    ("language", "not_kept", 0.05, {"confidence": 0.93}),
    ("language", "low_confidence", 0.02, {"confidence": 0.31, "threshold": 0.5}),
    ("filters", "too_short", 0.04, {"characters": 12, "threshold": 100}),
    ("gopher_quality", "max_mean_word_length", 0.03, {"value": 11.2, "threshold": 10.0}),
    ("gopher_repetition", "duplicate_line_fraction", 0.05, {"value": 0.412345, "threshold": 0.3}),
    ("c4", "too_few_sentences", 0.03, {"sentences": 2, "threshold": 5}),
    ("fineweb", "line_punctuation", 0.02, {"value": 0.04, "threshold": 0.12}),
    (
        "decontaminate",
        "overlap",
        0.004,
        {"evaluation": "q.jsonl:17", "others": '["q.jsonl:3"]', "ngrams": 9, "share": 0.4},
    ),
)
STAGES = ("extract", "language", "filters", "quality", "decontaminate", "pii")


def made_documents(source: int, shard: int, count: int) -> list[Document]:
    """Return pages of a crawl (source 0) or lines of a file (source 1)."""
    choose = random.Random(f"{source}/{shard}")
    found = []
    for record in range(count):
        language = choose.choices(list(SENTENCES), WEIGHTS)[0]
        text = SENTENCES[language] * max(1, round(choose.lognormvariate(2.2, 1.1)))
        url = f"https://{choose.choices(HOSTS, range(6, 0, -1))[0]}/{language}/{shard}-{record}"
        path = f"crawl/segment-{shard}/part.warc.gz" if source == 0 else "books/lines.jsonl"
        found.append(
            Document(
                text=text,
                path=path,
                record=record + 1,
                offset=record * 4096,
                url=url if source == 0 else None,
                language=language,
            )
        )
    return found


def write_account(output_dir: Path, *, shards: int = 3, documents: int = 600) -> dict[str, Any]:
    """Write ``account/`` as the end of a run does; return the summary."""
    folder = output_dir / "account"
    folder.mkdir(parents=True)
    sources, first = [], 0
    for number, name in enumerate(("web", "books")):
        numbers = list(range(first, first + (shards if number == 0 else 1)))
        first = numbers[-1] + 1
        found = [_write_shard(folder, name, number, shard, documents) for shard in numbers]
        sources.append(_source(name, number, numbers, found))
    summary = {
        "name": "rivers & bridges",
        "seed": 7,
        "config": {"name": "rivers & bridges", "language": {"keep": list(SENTENCES)}, "dedup": {"exact": True}},
        "sources": sources,
        "near_clusters": {
            "clusters": 43,
            "removed": 20,
            "documents": 1804,
            "sizes": {"2": 30, "4": 9, "8": 3, "16": 1},
            "largest": [],
        },
        "packing": None,
        "seconds": 12.34,
        "tokenizer": {
            "kind": "bpe",
            "vocab_size": 32000,
            "fingerprint": "0123456789abcdef",
            "engines": {"gigatoken": 3},
        },
        "evaluation": [
            {
                "label": "a.jsonl",
                "samples": 900,
                "ngrams": 40_000,
                "whole_texts": 7,
                "too_short": 2,
                "first_too_short": [4, 81],
            },
            {"label": "b.parquet", "samples": 1, "ngrams": 30, "whole_texts": 0, "too_short": 0, "first_too_short": []},
        ],
        "versions": {"gptdist": "0.1.0", "numpy": "2.4.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return summary


def _write_shard(folder: Path, name: str, source: int, shard: int, count: int) -> dict[str, Any]:
    account = Account(f"sources[{source}] '{name}', shard {shard}", 0.5)
    documents: Iterator[Document] = account.reading(iter(made_documents(source, shard, count)))
    documents = account.through("extract", lambda found: _extracted(found, account, is_page=source == 0), documents)
    for stage in STAGES[1:]:
        documents = account.through(stage, lambda found, stage=stage: _dropping(found, account, stage), documents)
    kept = []
    for document in documents:
        account.keep(document)
        kept.append(document)
    account.damaged(
        "truncated", f"crawl/segment-{shard}/part.warc.gz, byte 9000", "ends inside a record; fetch it again"
    )
    account.count("pii.documents", 4)
    account.count("decontaminate.below_threshold", 2)
    account.count("pii.email", 5)
    account.count("pii.ip_address", 1)
    account.count("c4.lines_removed", 17)
    removed = {number: ("dedup.exact", {"kept_shard": shard, "kept_row": 3}) for number in range(10, 30, 2)}
    removed |= {number: ("dedup.near", {"kept_shard": 0, "kept_row": 0}) for number in range(40, 60, 4)}
    tokens = {
        number: round(len(document.utf8) / BYTES_A_TOKEN.get(document.language or "", 3.7)) + 1
        for number, document in enumerate(kept)
        if number not in removed
    }
    write_rows(folder / rows_file_name(name, shard), account.rows, tokens, removed)
    sizes = {number: len(kept[number].utf8) for number in tokens}
    dropped = dict(sorted(Counter(outcome.removeprefix("dedup.") for outcome, _ in removed.values()).items()))
    split = {"documents": len(tokens), "tokens": sum(tokens.values()), "text_bytes": sum(sizes.values())}
    return {"summary": account.summary(), "dropped": dropped, "split": split}


def _source(name: str, number: int, shards: list[int], found: list[dict[str, Any]]) -> dict[str, Any]:
    split = {key: sum(one["split"][key] for one in found) for key in ("documents", "tokens", "text_bytes")}
    return {
        "name": name,
        "kind": ("warc", "jsonl")[number],
        "licence": ("Common Crawl terms of use", None)[number],
        "paths": (["crawl"], ["books/lines.jsonl"])[number],
        "weight": 1.0,
        "inputs": len(shards),
        "input_bytes": 60_000_000 * len(shards),
        "shards": shards,
        **_with_removals(merge_summaries([one["summary"] for one in found]), [one["dropped"] for one in found]),
        "splits": {"train": {**split, "shards": 2}},
    }


def _with_removals(summary: dict[str, Any], dropped: list[dict[str, int]]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for one in dropped:
        total.update(one)
    nothing = dict.fromkeys(("documents_in", "bytes_in", "documents_out", "bytes_out"), 0)
    summary["passages"]["dedup"] = {**nothing, "dropped": dict(total)}
    return summary


def _extracted(documents: Iterator[Document], account: Account, *, is_page: bool) -> Iterator[Document]:
    for document in documents:
        if is_page:  # as a page it has no text yet
            page = Document(**{**_fields(document), "text": "", "language": None}, page=Page(document.utf8 * 8))
            if any(_drops(page, account, "extract")):
                continue
        yield document


def _dropping(documents: Iterator[Document], account: Account, stage: str) -> Iterator[Document]:
    for document in documents:
        if not any(_drops(document, account, stage)):
            yield document


def _drops(document: Document, account: Account, stage: str) -> Iterator[bool]:
    choose = random.Random(f"{stage} {document.path} {document.record}")
    for rules, rule, share, numbers in DROPS:
        if (rules == stage or (stage == "quality" and rules not in STAGES)) and choose.random() < share:
            account.drop(document, rules, rule, **numbers)
            yield True
            return


def _fields(document: Document) -> dict[str, Any]:
    return {key: getattr(document, key) for key in ("text", "path", "record", "offset", "url", "language")}


def all_rows(output_dir: Path) -> list[dict[str, Any]]:
    """Return every row with its source, read without our code."""
    found = []
    for path in sorted((output_dir / "account").glob("*.parquet")):
        source = path.name.rpartition("-")[0]
        found += [{**row, "source": source} for row in pq.read_table(path).to_pylist()]
    return found


def write_rows(
    path: Path,
    rows: Iterable[Row],
    tokens: Mapping[int, int],
    removed: Mapping[int, Removal],
    text_bytes: Mapping[int, int] | None = None,
) -> None:
    """Write rows with what became of them later, as the account step does."""
    collected = Rows()
    for row in rows:
        collected.append(row)
    counts = np.array([[*tokens.keys()], [*tokens.values()]], dtype=np.int64)
    write_table(path, with_later(collected.table(), (counts[0], counts[1]), removed, text_bytes or {}))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, but for what came later than the first step."""
    return rows_of(read_table(path))


def make_row(document: int | None, **changes: Any) -> Row:
    """Return a row of a kept document, or of one that a filter dropped."""
    outcome = "kept" if document is not None else "filters.too_short"
    row = {"path": "a", "record": 1, "offset": None, "url": None, "language": "en", "text_bytes": 9, "numbers": None}
    return Row(**{**row, "outcome": outcome, "document": document, **changes})
