"""The rows of an account and its sums, and what is counted in them."""

import hashlib
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.account import Account
from data_prep.card.figures import count_figures
from data_prep.card.folder import AccountFolder
from data_prep.card.frequent import FrequentKeys
from data_prep.card.histogram import EDGES, LogHistogram
from data_prep.card.merge import DAMAGE_EXAMPLES, merge_summaries
from data_prep.card.place import places
from data_prep.card.rows import ACCOUNT_SCHEMA, rows_file_name, shard_of
from data_prep.document import Document
from tests.unit.data_prep.made_account import all_rows, make_row, read_rows, write_account, write_rows


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_account(folder)
    return folder


@pytest.fixture(scope="module")
def rows(output_dir: Path) -> list[dict[str, Any]]:
    return all_rows(output_dir)


# Sums


def made_summary(texts: list[str], path: str) -> Any:
    account = Account("here", 0.9)
    for number, text in enumerate(texts):
        document = Document(text, path, record=number)
        if text.startswith("x"):
            account.drop(document, "filters", "too_short", characters=len(text))
        else:
            account.keep(document)
        account.count("pii.email")
    account.damaged("not_utf8", f"{path}:{len(texts)}", "is not UTF-8")
    return account.summary()


def test_summaries_add_up() -> None:
    first, second = made_summary(["a", "xb", "c"], "one"), made_summary(["xd", "xe"], "two")
    merged = merge_summaries([first, second])
    assert merged["counts"] == {"pii.email": 5}
    assert merged["damage"] == {"not_utf8": 2}
    assert merged["damage_examples"] == ["one:3: is not UTF-8", "two:2: is not UTF-8"]
    dropped: Counter[str] = Counter()
    for passage in merged["passages"].values():
        dropped.update(passage["dropped"])
    assert sum(dropped.values()) == 3
    assert merge_summaries([merge_summaries([first]), second]) == merged
    assert merge_summaries([])["records_read"] == 0


def test_samples_do_not_depend_on_the_cut() -> None:
    texts = [f"text {number}" for number in range(40)]
    whole = Account("here")
    halves = [Account("here"), Account("here")]
    for number, text in enumerate(texts):
        whole.keep(Document(text, "p", record=number))
        halves[number % 2].keep(Document(text, "p", record=number))
    merged = merge_summaries([half.summary() for half in halves])
    assert merged["samples"] == merge_summaries([whole.summary()])["samples"]
    assert len(merged["samples"]["kept"]) == 3


def test_stages_stand_where_they_first_appear_and_examples_are_few() -> None:
    summaries = [dict(made_summary(["a"], f"p{number}")) for number in range(30)]
    summaries[0]["passages"] = {"read": summaries[0]["passages"]["read"], "zoo": summaries[0]["passages"]["read"]}
    merged = merge_summaries(summaries)
    assert list(merged["passages"])[:2] == ["read", "zoo"]
    assert merged["damage_examples"] == [f"p{number}:1: is not UTF-8" for number in range(DAMAGE_EXAMPLES)]
    assert merged["damage"] == {"not_utf8": 30}


# Rows


def test_rows_get_their_last_outcome(tmp_path: Path) -> None:
    rows = [make_row(None, numbers='{"characters": 3}'), make_row(0), make_row(1), make_row(2)]
    removed = {1: ("dedup.exact", {"kept_shard": 4, "kept_row": 0})}
    write_rows(tmp_path / "a.parquet", rows, {0: 5, 2: 7}, removed, text_bytes={2: 8})
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.equals(ACCOUNT_SCHEMA)
    found = table.to_pylist()
    assert [row["outcome"] for row in found] == ["filters.too_short", "kept", "dedup.exact", "kept"]
    assert [row["tokens"] for row in found] == [None, 5, None, 7]
    assert [row["text_bytes"] for row in found] == [9, 9, 9, 8]
    assert [row["document"] for row in found] == [None, 0, 1, 2]
    assert json.loads(found[2]["numbers"]) == {"kept_shard": 4, "kept_row": 0}
    assert found[0]["numbers"] == '{"characters": 3}'


def test_rows_are_read_back_and_the_bytes_are_always_the_same(tmp_path: Path) -> None:
    rows = [make_row(number, record=number, url=f"https://x.example/{number % 7}") for number in range(70_000)]
    for name in ("a", "b"):
        write_rows(tmp_path / name, iter(rows), {}, {})
    assert list(read_rows(tmp_path / "a")) == rows
    assert pq.ParquetFile(tmp_path / "a").num_row_groups == 2
    first, second = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("a", "b"))
    assert first == second


def test_no_rows_and_odd_strings(tmp_path: Path) -> None:
    write_rows(tmp_path / "a", [], {}, {})
    assert list(read_rows(tmp_path / "a")) == []
    write_rows(tmp_path / "b", [make_row(0, url="https://x.example/\ud800", path="é\x00")], {}, {})
    (row,) = read_rows(tmp_path / "b")
    assert (row.url, row.path) == ("https://x.example/?", "é\x00")


def test_file_names() -> None:
    assert rows_file_name("my-source-2", 7) == "my-source-2-00007.parquet"
    assert shard_of("my-source-2-00007.parquet") == ("my-source-2", 7)
    assert shard_of("a-123456.parquet") == ("a", 123456)
    assert shard_of("a-1.parquet") is None


# Counting


def test_figures_equal_a_plain_count(output_dir: Path, rows: list[dict[str, Any]]) -> None:
    figures = count_figures(AccountFolder(output_dir))
    cells: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        cell = cells[row["source"], row["outcome"], row["language"]]
        cell[0] += 1
        cell[1] += row["text_bytes"]
        cell[2] += row["tokens"] or 0
    found = {key: [tally.documents, tally.text_bytes, tally.tokens] for key, tally in figures.cells.items()}
    assert found == dict(cells)
    kept = [row for row in rows if row["outcome"] == "kept"]
    assert figures.kept_bytes.total == sum(row["text_bytes"] for row in kept)
    assert figures.kept_tokens.total == sum(row["tokens"] for row in kept)
    assert figures.kept_bytes.size + figures.dropped_bytes.size == len(rows)
    overlaps = [row for row in rows if row["outcome"] == "decontaminate.overlap"]
    assert {name: hit.documents for name, hit in figures.hits.items()} == dict.fromkeys(
        ("q.jsonl:17", "q.jsonl:3"), len(overlaps)
    )
    assert figures.hits["q.jsonl:3"].first in {row["url"] for row in overlaps}


def test_top_places_equal_a_plain_count(output_dir: Path, rows: list[dict[str, Any]]) -> None:
    figures = count_figures(AccountFolder(output_dir))
    wanted: dict[str, Counter[bool]] = defaultdict(Counter)
    for row in rows:
        place = row["url"].split("/")[2].lower().removeprefix("www.") if row["url"] else "books/"
        wanted[place][row["outcome"] == "kept"] += 1
    found = {name: {True: fates.kept.documents, False: fates.dropped.documents} for name, fates in figures.places}
    assert found == {name: dict(counts) for name, counts in wanted.items()}
    assert [fates.documents for _, fates in figures.places] == sorted(map(Counter.total, wanted.values()), reverse=True)
    assert figures.num_places == 7


def test_groups_of_duplicates(output_dir: Path, rows: list[dict[str, Any]]) -> None:
    groups = count_figures(AccountFolder(output_dir)).groups
    wanted: Counter[tuple[int, int]] = Counter()
    for row in rows:
        numbers = json.loads(row["numbers"] or "{}")
        if "kept_row" in numbers:
            wanted[numbers["kept_shard"], numbers["kept_row"]] += 1
    assert {(group.kept_shard, group.kept_row): group.copies for group in groups} == wanted
    largest = groups[0]
    assert (largest.copies, largest.kept_shard, largest.kept_row, largest.outcome) == (20, 0, 0, "dedup.near")
    first_kept = next(row for row in rows if row["document"] == 0 and row["source"] == "web")
    assert largest.kept_name == first_kept["url"]
    near = {row["url"] for row in rows if row["outcome"] == "dedup.near"}
    assert len(largest.examples) == 3
    assert set(largest.examples) <= near


def test_a_group_whose_document_is_gone(tmp_path: Path) -> None:
    write_account(tmp_path, shards=1, documents=40)
    removed = {0: ("dedup.exact", {"kept_shard": 77, "kept_row": 5})}
    write_rows(tmp_path / "account" / "web-00000.parquet", [make_row(0)], {}, removed)
    groups = count_figures(AccountFolder(tmp_path)).groups
    assert [group.kept_name for group in groups if group.kept_shard == 77] == ["(not in the account)"]


def test_frequent_keys_are_exact_though_buckets_are_shared() -> None:
    choose = random.Random(1)
    keys = [int(choose.paretovariate(0.6)) for _ in range(20_000)]
    counts = Counter(keys)
    hashes = np.array([key * 0x9E3779B97F4A7C15 % 2**64 for key in counts], np.uint64)
    frequent = FrequentKeys(bucket_bits=8, heavy_buckets=12)
    for half in (slice(None, None, 2), slice(1, None, 2)):
        frequent.note(hashes[half], np.array(list(counts.values()), np.int64)[half])
    frequent.settle()
    heavy = {key for key, is_heavy in zip(counts, frequent.heavy(hashes), strict=True) if is_heavy}
    assert max(count for key, count in counts.items() if key not in heavy) <= frequent.missed_at_most
    top = [key for key, count in counts.most_common(5) if count > frequent.missed_at_most]
    assert len(top) >= 3
    assert set(top) <= heavy


def test_the_number_of_keys_is_estimated() -> None:
    frequent = FrequentKeys()
    hashes = np.random.default_rng(0).integers(0, 2**64, 50_000, np.uint64)
    frequent.note(hashes, np.ones(hashes.size, np.int64))
    assert abs(frequent.num_keys() - 50_000) < 1_000


def test_histogram_bins_and_quantiles() -> None:
    values = np.random.default_rng(0).lognormal(7, 2, 10_000).astype(np.int64)
    histogram = LogHistogram()
    for part in np.array_split(values, 3):
        histogram.add(part)
    histogram.add(np.array([0, 0, -1, 10**15], np.int64))
    assert (histogram.zeros, histogram.size) == (3 + int((values == 0).sum()), 10_004)
    assert histogram.counts[-1] == 1
    for quantile in (0.1, 0.5, 0.9):
        exact = np.quantile(values, quantile)
        assert exact / 1.35 <= histogram.quantile(quantile) <= exact * 1.01
        assert exact * 0.99 <= histogram.bound(quantile) <= exact * 1.35
    place = int(np.flatnonzero(EDGES == 1000)[0])
    edges = LogHistogram()
    edges.add(np.array([999, 1000, 1249, 1250], np.int64))
    assert edges.counts[place - 1 : place + 2].tolist() == [1, 2, 1]
    assert (LogHistogram().quantile(0.5), LogHistogram().bound(0.5)) == (0, 1)


def test_places_of_addresses_and_files() -> None:
    cases = {
        ("https://www.A.example:8080/x?y", "w.warc"): "a.example",
        ("http://user:pw@b.example/", "w.warc"): "b.example",
        ("//c.example", "w.warc"): "c.example",
        ("https://[2001:db8::1]:80/x", "w.warc"): "[2001:db8::1]",
        ("https://例え.example/x", "w.warc"): "例え.example",
        (None, "s3://bucket/a/b.jsonl"): "bucket",
        (None, "/data/debian/pkg-doc/a/b.html"): "/data/debian/pkg-doc/",
        (None, "/data/debian/b.html"): "/data/debian/",
        (None, "/data/other/x/b.html"): "/data/",
        (None, "folder (1)/b/c.txt"): "folder (1)/b/",
        (None, "single.txt"): "single.txt",
        (None, ""): "(no name)",
        ("not an address", "x/y"): "x/",
    }
    urls, paths = (pa.array([case[side] for case in cases], pa.string()) for side in (0, 1))
    found = places(urls, paths, ["/data/debian", "folder (1)/", "single.txt"]).to_pylist()
    assert dict(zip(cases, found, strict=True)) == cases
    many = [f"/data/debian/{number}" for number in range(200)]
    assert places(urls, paths, many).to_pylist()[6] == "/data/"
