"""Every kind of source: what it reads, how it is cut, and how it refuses what it cannot read."""

import gzip
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.account import Account
from data_prep.document import Document, Page
from data_prep.readers.found import expand_root, find_files
from data_prep.readers.reader import open_reader, open_readers
from gptdist.errors import DataError, DataProblemsError
from tests.unit.data_prep.made_corpus import files_source, make_config, make_texts, write_texts
from tests.unit.data_prep.made_sources import hub, pieces_of, read, source


def texts_of(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


def test_patterns_choose_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", "b/d/e.md", "b/skip/f.txt", "g.py", "__pycache__/h.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    root = str(tmp_path / "in")

    def names(include: list[str], exclude: list[str]) -> list[str]:
        files = find_files([root], include=include, exclude=exclude, where="w")
        return [file.label.removeprefix(root + "/") for file in files]

    assert names(["**/*.txt"], []) == ["a.txt", "b/c.txt", "b/skip/f.txt"]
    assert names(["*.txt"], []) == ["a.txt"]
    assert names(["**/*.txt", "**/*.md"], ["**/skip/**", "a*"]) == ["b/c.txt", "b/d/e.md"]
    assert names(["b/*/?.md"], []) == ["b/d/e.md"]
    with pytest.raises(DataError, match=r"w: empty: no file below .* matches \*\.c without a; change paths or include"):
        names(["*.c"], ["a"])


def test_a_file_may_be_named_itself(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("text")
    documents, _ = read(tmp_path, files_source(tmp_path / "README"))
    assert texts_of(documents) == ["text"]


def test_all_missing_sources_are_named_at_once(tmp_path: Path) -> None:
    none = tmp_path / "none"
    wrong = [source(kind, none) for kind in ("files", "jsonl", "parquet", "warc")] + [hub(none)]
    good = files_source(write_texts(tmp_path / "in", ["a"]))
    with pytest.raises(DataProblemsError) as raised:
        open_readers(make_config(tmp_path / "out", good, *wrong))
    lines = raised.value.problems
    assert len(lines) == 5
    for number, line in enumerate(lines, start=1):
        assert line.startswith(f"sources[{number}] ")
        assert f"path '{none}' does not exist; change" in line


def test_a_task_does_not_look_for_files(tmp_path: Path) -> None:
    """Each of thousands of tasks opens a reader; it has its pieces from the plan."""
    folder = write_texts(tmp_path / "in", ["a", "b"])
    config = make_config(tmp_path / "out", files_source(folder))
    (reader,) = open_readers(config)
    pieces = reader.pieces()
    (folder / "0001.txt").unlink()
    account = Account("w")
    assert texts_of(list(open_reader(config, 0).documents(pieces[:1], account))) == ["a"]
    with pytest.raises(DataError, match=r"0001\.txt: cannot be read \(No such file or directory\); make it readable"):
        list(open_reader(config, 0).documents(pieces, account))


def test_folders_of_the_running_python() -> None:
    paths = sysconfig.get_paths()
    assert expand_root("{stdlib}") == Path(paths["stdlib"])
    assert expand_root("{site-packages}/numpy") == Path(paths["purelib"], "numpy")
    files = find_files(["{stdlib}"], include=["**/*.py"], exclude=[], where="w")
    labels = {file.label for file in files}
    assert "{stdlib}/json/decoder.py" in labels
    assert not any("site-packages" in label for label in labels)


def test_a_byte_order_mark_goes_and_line_ends_stay(tmp_path: Path) -> None:
    documents, _ = read(tmp_path, files_source(write_texts(tmp_path / "in", ["\ufeffa\r\nb\rc\n"])))
    assert texts_of(documents) == ["a\r\nb\rc\n"]


def test_large_files_are_counted(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["small", "x" * 100])
    documents, account = read(tmp_path, files_source(folder, max_file_bytes=50))
    assert texts_of(documents) == ["small"]
    (row,) = account.rows
    assert (row.path, row.outcome) == (f"{folder}/0001.txt", "read.file_too_large")
    assert json.loads(row.numbers or "") == {"file_bytes": 100, "max_file_bytes": 50}


def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["a"])
    write_texts(tmp_path / "secret", ["b"])
    (folder / "way_out").symlink_to(tmp_path / "secret")
    (folder / "dangling.txt").symlink_to(folder / "none")
    os.mkfifo(folder / "pipe.txt")
    documents, _ = read(tmp_path, files_source(folder))
    assert texts_of(documents) == ["a"]


def test_an_odd_file_name_is_recorded_so_that_it_can_be_printed(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["first"])
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("not UTF-8")
    (folder / "\x1b[2Jx.txt").write_text("clears the screen")
    documents, _ = read(tmp_path, files_source(folder))
    assert {document.path for document in documents} == {
        f"{folder}/0000.txt",
        f"{folder}/caf\\xe9.txt",
        f"{folder}/\\x1b[2Jx.txt",
    }


def test_html_files_are_pages(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["<p>one"], suffix=".html")
    documents, _ = read(tmp_path, files_source(folder))
    assert documents == [Document("", f"{folder}/0000.html", page=Page(b"<p>one"))]


def test_the_sample_of_files_is_random_where_max_bytes_cuts(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", make_texts(30))
    sorted_pieces = pieces_of(tmp_path, files_source(folder))
    keyed = pieces_of(tmp_path, files_source(folder, max_bytes=100))
    assert keyed != sorted_pieces
    assert sorted(keyed, key=lambda piece: piece.label) == sorted_pieces
    assert keyed != pieces_of(tmp_path, files_source(folder, max_bytes=100), seed=1)


def test_versions_change_when_a_file_is_written(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["a", "b"])
    (reader,) = open_readers(make_config(tmp_path / "out", files_source(folder)))
    before = reader.versions()
    os.utime(folder / "0001.txt", ns=(1, 1))
    after = reader.versions()
    assert len(before) == 2
    assert before[0] == after[0]
    assert before[1] != after[1]
    (folder / "0001.txt").unlink()
    with pytest.raises(DataError, match=r"0001\.txt: cannot be read"):
        reader.versions()


LINES = [{"text": "one", "url": "https://example.org/1"}, {"text": "zwei \u00fc", "url": 3}, {"text": "three"}]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines_plain_and_compressed(ending: str, tmp_path: Path) -> None:
    lines = [json.dumps(line).encode() for line in LINES]
    content = lines[0] + b"\r\n" + lines[1] + b"\n\n" + lines[2]
    if ending == ".jsonl.gz":
        content = gzip.compress(content[:20]) + gzip.compress(content[20:])
    elif ending == ".jsonl.zst":
        content = zstandard.compress(content[:20]) + zstandard.compress(content[20:])
    (tmp_path / f"a{ending}").write_bytes(content)
    documents, account = read(tmp_path, source("jsonl", tmp_path, url_key="url"))
    assert texts_of(documents) == ["one", "zwei \u00fc", "three"]
    assert [document.record for document in documents] == [1, 2, 4]
    assert [document.offset for document in documents] == [0, len(lines[0]) + 2, len(lines[0]) + len(lines[1]) + 4]
    assert [document.url for document in documents] == ["https://example.org/1", None, None]
    assert documents[0].path == f"{tmp_path}/a{ending}"
    assert account.counts == {"read.blank_line": 1}


@pytest.mark.parametrize("target", [1, 60, 333, 4096])
def test_where_a_plain_file_is_cut_does_not_show(target: int, tmp_path: Path) -> None:
    texts = [*make_texts(60), "x" * 1500, *make_texts(3, seed=1)]
    content = b"\n" + b"\n".join(json.dumps({"text": text}).encode() for text in texts)
    (tmp_path / "a.jsonl").write_bytes(content)
    whole, _ = read(tmp_path, source("jsonl", tmp_path), input_shard_bytes=10**6)
    config = make_config(tmp_path / "out", source("jsonl", tmp_path), input_shard_bytes=target)
    (reader,) = open_readers(config)
    pieces = reader.pieces()
    assert len(pieces) > 1
    assert sum(piece.size for piece in pieces) == len(content)
    assert [piece.begin for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert max(piece.size for piece in pieces) <= target + 1600
    parts = [list(reader.documents([piece], Account("w"))) for piece in pieces]
    assert [document for part in parts for document in part] == whole
    assert texts_of(whole) == texts


def test_pieces_are_small_where_max_bytes_cuts(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 100_000}).encode() + b"\n"
    (tmp_path / "a.jsonl").write_bytes(line * 30)
    assert len(pieces_of(tmp_path, source("jsonl", tmp_path))) == 1
    sizes = [piece.size for piece in pieces_of(tmp_path, source("jsonl", tmp_path, max_bytes=2_000_000))]
    assert sizes == [10 * len(line)] * 3


def write_parquet(path: Path, columns: dict[str, Any], rows_a_group: int = 10) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


TEXTS = make_texts(30)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()])
def test_parquet_of_every_text_type(kind: Any, tmp_path: Path) -> None:
    links = [f"https://example.org/{i}" for i in range(30)]
    write_parquet(tmp_path / "a.parquet", {"content": pa.array(TEXTS).cast(kind), "link": links})
    documents, _ = read(tmp_path, source("parquet", tmp_path, text_key="content", url_key="link"))
    assert texts_of(documents) == TEXTS
    assert (documents[7].record, documents[7].offset, documents[7].url) == (7, None, links[7])


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": TEXTS, "other": [os.urandom(500) for _ in TEXTS]})
    config = make_config(tmp_path / "out", source("parquet", tmp_path), input_shard_bytes=path.stat().st_size // 2)
    (reader,) = open_readers(config)
    pieces = reader.pieces()
    assert [(piece.begin, piece.end, piece.first_record) for piece in pieces] == [(0, 1, 0), (1, 2, 10), (2, 3, 20)]
    parts = [list(reader.documents([piece], Account("w"))) for piece in pieces]
    whole, _ = read(tmp_path, source("parquet", tmp_path))
    assert [document for part in parts for document in part] == whole
    assert [document.record for document in whole] == list(range(30))


def test_a_parquet_file_without_the_column_is_refused_before_reading(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": ["a"]})
    write_parquet(tmp_path / "b.parquet", {"content": ["a"], "n": [1]})
    with pytest.raises(DataError, match=r"b\.parquet: no column 'text' \(columns: content, n\); set text_key"):
        read(tmp_path, source("parquet", tmp_path))
    with pytest.raises(DataError, match=r"no column 'url' \(columns: text\); set url_key"):
        read(tmp_path, source("parquet", tmp_path / "a.parquet", url_key="url"))
    with pytest.raises(DataError, match=r"b\.parquet: column 'n' holds int64, no text; set text_key"):
        read(tmp_path, source("parquet", tmp_path / "b.parquet", text_key="n"))


def test_a_column_may_hold_pages(tmp_path: Path) -> None:
    pages = ["<p>one \u00fc", "<p>two"]
    write_parquet(tmp_path / "a.parquet", {"html": pages, "raw": [page.encode("latin-1") for page in pages]})
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"html": page}) for page in pages))
    for kind in ("parquet", "jsonl"):
        documents, _ = read(tmp_path, source(kind, tmp_path, text_key="html", format="html"))
        assert [document.page for document in documents] == [Page(page.encode(), "utf-8") for page in pages]
        assert texts_of(documents) == ["", ""]
    documents, _ = read(tmp_path, source("parquet", tmp_path, text_key="raw", format="html"))
    assert documents[0].page == Page(b"<p>one \xfc", None)


def test_a_saved_dataset_is_cut_by_rows(tmp_path: Path) -> None:
    import datasets

    made = datasets.Dataset.from_dict({"text": TEXTS, "link": [f"https://example.org/{i}" for i in range(30)]})
    made.save_to_disk(str(tmp_path / "saved"))
    (reader,) = open_readers(
        make_config(tmp_path / "out", hub(tmp_path / "saved", url_key="link"), input_shard_bytes=2000)
    )
    pieces = reader.pieces()
    assert len(pieces) > 2
    parts = [list(reader.documents([piece], Account("w"))) for piece in pieces]
    documents = [document for part in parts for document in part]
    assert texts_of(documents) == TEXTS
    assert [document.record for document in documents] == list(range(30))
    assert documents[7].url == "https://example.org/7"
    assert len(reader.versions()) >= 3
    with pytest.raises(DataError, match=r"no column 'txt' \(columns: text, link\); set text_key"):
        pieces_of(tmp_path, hub(tmp_path / "saved", text_key="txt"))
    with pytest.raises(DataError, match=r"no column 'url' \(columns: text, link\); set url_key"):
        pieces_of(tmp_path, hub(tmp_path / "saved", url_key="url"))


def test_splits_of_a_saved_dataset(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": TEXTS})}).save_to_disk(str(tmp_path / "splits"))
    documents, _ = read(tmp_path, hub(tmp_path / "splits", split="test", max_documents=4))
    assert texts_of(documents) == TEXTS[:4]
    with pytest.raises(DataError, match=r"has no split 'train', only test; set split"):
        read(tmp_path, hub(tmp_path / "splits"))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_folder_of_parquet_or_json_is_streamed(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    made = datasets.Dataset.from_dict({"content": [*TEXTS, None, ""]})
    path = tmp_path / "rows" / f"a.{ending}"
    _ = made.to_parquet(str(path)) if ending == "parquet" else made.to_json(str(path))
    documents, account = read(tmp_path, hub(tmp_path / "rows", text_key="content"))
    assert texts_of(documents) == TEXTS
    assert account.damage == {"no_text": 1}
    assert "row 30: no text in column 'content'; mend the row, or set text_key" in account.damage_examples[0]
    assert [row.outcome for row in account.rows] == ["read.empty"]
    with pytest.raises(DataError, match=r"no column 'text' \(columns: content\); set text_key"):
        read(tmp_path, hub(tmp_path / "rows"))
    documents, account = read(tmp_path, hub(tmp_path / "rows", text_key="content"), max_record_bytes=1)
    assert documents == []
    assert account.damage == {"record_too_large": 30, "no_text": 1}


def test_a_dataset_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"holds no saved dataset and no \.parquet, \.json or \.jsonl file"):
        read(tmp_path, hub(tmp_path / "rows"))
    (tmp_path / "rows/a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"cannot be read \(.+\); check its name, subset and split, and the network"):
        read(tmp_path, hub(tmp_path / "rows"))


def test_source_problems_name_the_key(tmp_path: Path) -> None:
    from gptdist.config.prep import PrepConfig

    tree = make_config(tmp_path / "out", files_source(tmp_path)).tree()
    tree["sources"] = [
        {"name": "a", "kind": "warc", "paths": []},
        {"name": "account", "kind": "parquet", "paths": ["x"], "weight": 0.0, "max_bytes": 0},
        {"name": "b", "kind": "files", "paths": ["x"], "include": [], "max_file_bytes": 0},
        {"name": "c", "kind": "huggingface", "dataset": "x", "max_documents": 0},
    ]
    assert PrepConfig.from_tree(tree).problems() == [
        "sources[0].paths: empty; name at least one file or folder",
        "sources[1].name: 'account' cannot be a folder here; use letters, digits, '.', '_', '-', "
        "not 'tokenizer' or 'account'",
        "sources[1].weight: must be above 0, got 0.0; remove the source instead",
        "sources[1].max_bytes: must be at least 1, got 0",
        "sources[2].include: empty, so no file is taken; remove it for the default, or name patterns",
        "sources[2].max_file_bytes: must be at least 1, got 0",
        "sources[3].max_documents: must be at least 1, got 0",
    ]
