"""Every kind of source: what it reads, and how it refuses what it cannot read."""

import gzip
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from data_prep.document import Document
from data_prep.funnel import Funnel
from data_prep.readers.found import expand_root, find_files
from data_prep.readers.reader import open_sources
from gptdist.errors import DataError
from tests.unit.data_prep.made_corpus import files_source, make_config, make_texts, run, write_texts


def read(tmp_path: Path, source: dict[str, Any], **changes: Any) -> tuple[list[Document], Funnel]:
    funnel = Funnel()
    (opened,) = open_sources(make_config(tmp_path / "out", source, **changes))
    return list(funnel.entering(opened.reader.documents(funnel))), funnel


def jsonl(path: Path, **changes: Any) -> dict[str, Any]:
    return {"name": "lines", "kind": "jsonl", "paths": [str(path)], **changes}


def hub(path: Path | str, **changes: Any) -> dict[str, Any]:
    return {"name": "rows", "kind": "huggingface", "dataset": str(path), **changes}


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
    assert [document.text for document in documents] == ["text"]


def test_a_missing_path_is_named_before_anything_is_read(tmp_path: Path) -> None:
    for source in (files_source(tmp_path / "none"), jsonl(tmp_path / "none"), hub(tmp_path / "none")):
        with pytest.raises(DataError, match=rf"sources\[0\] '\w+': path '{tmp_path}/none' does not exist"):
            open_sources(make_config(tmp_path / "out", source))


def test_folders_of_the_running_python() -> None:
    paths = sysconfig.get_paths()
    assert expand_root("{stdlib}") == Path(paths["stdlib"])
    assert expand_root("{site-packages}/numpy") == Path(paths["purelib"], "numpy")
    files = find_files(["{stdlib}"], include=["**/*.py"], exclude=[], where="w")
    labels = {file.label for file in files}
    assert "{stdlib}/json/decoder.py" in labels
    assert not any("site-packages" in label for label in labels)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", ["good"])
    (source / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{source}/latin.txt: not UTF-8 at byte 3; convert it, exclude it"):
        read(tmp_path, files_source(source))
    documents, funnel = read(tmp_path, files_source(source), on_bad_encoding="skip")
    assert [document.text for document in documents] == ["good"]
    assert (funnel.documents_in, funnel.bytes_in, funnel.dropped) == (2, 8, {"bad_encoding": 1})


def test_a_byte_order_mark_goes_and_line_ends_stay(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", ["\ufeffa\r\nb\rc\n"])
    documents, _ = read(tmp_path, files_source(source))
    assert documents[0].text == "a\r\nb\rc\n"


def test_large_files_are_counted(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", ["small", "x" * 100])
    documents, funnel = read(tmp_path, files_source(source, max_file_bytes=50))
    assert [document.text for document in documents] == ["small"]
    assert funnel.dropped == {"file_too_large": 1}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", ["a", "b"])
    (opened,) = open_sources(make_config(tmp_path / "out", files_source(source)))
    (source / "0001.txt").unlink()
    with pytest.raises(DataError, match=r"0001\.txt: cannot be read \(No such file or directory\)"):
        list(opened.reader.documents(Funnel()))


def test_links_to_nowhere_and_pipes_are_no_files(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", ["a"])
    (source / "dangling.txt").symlink_to(source / "none")
    os.mkfifo(source / "pipe.txt")
    documents, _ = read(tmp_path, files_source(source))
    assert len(documents) == 1


def test_a_file_name_that_is_not_utf8_is_still_recorded(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", make_texts(30))
    (source / os.fsdecode(b"caf\xe9.txt")).write_text("an odd name")
    documents, _ = read(tmp_path, files_source(source))
    assert documents[-1].path == f"{source}/caf\\xe9.txt"
    run(make_config(tmp_path / "out", files_source(source)))


def test_html_is_read_without_tags(tmp_path: Path) -> None:
    page = (
        "<!DOCTYPE html><html><head><title>T &amp; U</title><style>p {}</style></head><body><![weird[x]]>"
        "<p>One <b>wo</b>rd\n more<br>next<script>var x = '<p>no</p>';</script>"
        "<pre>a\n   b</pre><ul><li>1<li>2</ul></div></p><p>unclosed"
    )
    source = write_texts(tmp_path / "in", [page], suffix=".html")
    documents, _ = read(tmp_path, files_source(source))
    assert documents[0].text == "T & U\n\nOne word more\nnext\n\na\n   b\n\n1\n2\n\nunclosed"


LINES = [{"text": "one", "url": "https://example.org/1"}, {"text": "zwei \u00fc", "url": 3}, {"text": "three"}]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines_plain_and_compressed(ending: str, tmp_path: Path) -> None:
    content = ("\n".join(json.dumps(line) for line in LINES) + "\n\n").encode()
    if ending == ".jsonl.gz":
        content = gzip.compress(content)
    elif ending == ".jsonl.zst":
        content = pyarrow.Codec("zstd").compress(content, asbytes=True)
    (tmp_path / f"a{ending}").write_bytes(content)
    documents, _ = read(tmp_path, jsonl(tmp_path, url_key="url"))
    assert [document.text for document in documents] == ["one", "zwei \u00fc", "three"]
    assert [document.record for document in documents] == [1, 2, 3]
    assert [document.url for document in documents] == ["https://example.org/1", None, None]
    assert documents[0].path == f"{tmp_path}/a{ending}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"a\.jsonl:2: not JSON \(.*\); mend or remove the line"),
        (b'{"txt": "a", "b": 1}', r"a\.jsonl:2: no string under 'text' \(keys: b, txt\); set text_key, or mend"),
        (b'{"text": 7}', r"a\.jsonl:2: no string under 'text' \(keys: text\)"),
        (b'["text"]', r"a\.jsonl:2: no string under 'text' \(keys: none, it is a list\)"),
        (b'{"text": "caf\xe9"}', r"a\.jsonl:2: not UTF-8 at byte 13; mend the line, or set on_bad_encoding: skip"),
        (b'{"text": "\\ud800"}', r"a\.jsonl:2: not UTF-8: a lone surrogate; mend the line"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line + b'\n{"text": "more"}')
    with pytest.raises(DataError, match=message):
        read(tmp_path, jsonl(tmp_path))


def test_lines_that_are_not_text_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "caf\xe9"}\n{"text": "\\ud800"}\n')
    documents, funnel = read(tmp_path, jsonl(tmp_path), on_bad_encoding="skip")
    assert [document.text for document in documents] == ["good"]
    assert funnel.dropped == {"bad_encoding": 2}


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_file_cut_short_is_an_error(ending: str, tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"text": text}) for text in make_texts(2000)).encode()
    packed = gzip.compress(content) if ending.endswith("gz") else pyarrow.Codec("zstd").compress(content, asbytes=True)
    (tmp_path / f"a{ending}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"a{ending}.*"):
        read(tmp_path, jsonl(tmp_path))


TEXTS = make_texts(30)


def test_a_saved_dataset_is_streamed_from_disk(tmp_path: Path) -> None:
    import datasets

    made = datasets.Dataset.from_dict({"text": TEXTS, "link": [f"https://example.org/{i}" for i in range(30)]})
    made.save_to_disk(str(tmp_path / "saved"))
    documents, _ = read(tmp_path, hub(tmp_path / "saved", url_key="link"))
    assert [document.text for document in documents] == TEXTS
    assert (documents[7].record, documents[7].url) == (7, "https://example.org/7")
    datasets.DatasetDict({"test": made}).save_to_disk(str(tmp_path / "splits"))
    documents, _ = read(tmp_path, hub(tmp_path / "splits", split="test", max_documents=4))
    assert [document.text for document in documents] == TEXTS[:4]
    with pytest.raises(DataError, match=r"has no split 'train', only test; set split"):
        read(tmp_path, hub(tmp_path / "splits"))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_folder_of_parquet_or_json_is_streamed(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    made = datasets.Dataset.from_dict({"content": TEXTS})
    path = tmp_path / "rows" / f"a.{ending}"
    _ = made.to_parquet(str(path)) if ending == "parquet" else made.to_json(str(path))
    documents, _ = read(tmp_path, hub(tmp_path / "rows", text_key="content"))
    assert [document.text for document in documents] == TEXTS
    with pytest.raises(DataError, match=r"row 0: no string in column 'text' \(columns: content\); set text_key"):
        read(tmp_path, hub(tmp_path / "rows"))


def test_a_dataset_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"holds no saved dataset and no \.parquet, \.json or \.jsonl file"):
        read(tmp_path, hub(tmp_path / "rows"))
    (tmp_path / "rows/a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"cannot be read \(.+\); check its name, subset and split, and the network"):
        read(tmp_path, hub(tmp_path / "rows"))


def test_a_lone_surrogate_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_prep.readers.huggingface import HuggingFaceReader

    rows = [{"text": "good"}, {"text": "\ud800"}]
    monkeypatch.setattr(HuggingFaceReader, "_open", lambda _: rows)
    with pytest.raises(DataError, match=r"row 1: not Unicode text \(a lone surrogate\)"):
        read(tmp_path, hub("name"))
    documents, funnel = read(tmp_path, hub("name"), on_bad_encoding="skip")
    assert [document.text for document in documents] == ["good"]
    assert funnel.dropped == {"bad_encoding": 1}
