"""Documents that hold text of evaluation sets: found in any script, dropped, reported; evaluation sets that are bad."""

import gzip
import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.account import Account
from data_prep.decontaminate.kernels import window_hashes
from data_prep.decontaminate.ngrams import HashTable, Measure
from data_prep.decontaminate.stage import decontaminate_stage
from data_prep.decontaminate.table import check_decontaminate, evaluation_table
from data_prep.decontaminate.units import letter_table, units_of
from data_prep.document import Document, Place
from gptdist.config.prep_decontaminate import DecontaminateSection
from gptdist.errors import DataError

LETTERS = letter_table()
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
CHINESE = "娜塔莉亚在四月份向她的四十八位朋友出售了发夹，然后在五月份她又卖出了一半的发夹。请问她一共卖出了多少个？"
JAPANESE = (
    "ナタリアさんは四月に四十八人の友だちへ髪留めを売り、五月にはその半分だけ売りました。全部でいくつ売りましたか。"
)
THAI = "นาตาเลียขายกิ๊บให้เพื่อนสี่สิบแปดคนในเดือนเมษายนและขายอีกครึ่งหนึ่งในเดือนพฤษภาคมรวมทั้งหมดกี่ตัว"
ARABIC = (
    "باعت ناتاليا مشابك لثمانية وأربعين من صديقاتها في شهر نيسان ثم باعت نصف هذا العدد في شهر أيار فكم باعت في المجموع"
)
RUSSIAN = (
    "Наталья продала заколки сорока восьми своим подругам в апреле, а в мае она продала вдвое меньше заколок чем тогда"
)
HINDI = "नतालिया ने अप्रैल में अपनी अड़तालीस सहेलियों को क्लिप बेचीं और फिर मई में उसने आधी क्लिप बेचीं कुल कितनी"
SCRIPTS = (QUESTION, CHINESE, JAPANESE, THAI, ARABIC, RUSSIAN, HINDI)


def section(*files: Path, **changes: Any) -> DecontaminateSection:
    return DecontaminateSection(files=files, **changes)


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(path: Path, *texts: str) -> Path:
    return written(path, "".join(json.dumps({"question": text}) + "\n" for text in texts))


def judged(chosen: DecontaminateSection, *texts: str) -> tuple[list[str], Account]:
    account = Account("shard 0")
    documents = [Document(text, "web.warc", record=number) for number, text in enumerate(texts)]
    kept = decontaminate_stage(chosen, Place(0, 1), account)(iter(documents))
    return [document.text for document in kept], account


def units(text: str) -> list[int]:
    return units_of(text.encode(), LETTERS).tolist()


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_copy_is_dropped_in_any_script_and_other_text_is_not(tmp_path: Path, text: str) -> None:
    chosen = section(jsonl(tmp_path / "q.jsonl", text))
    others = [other for other in SCRIPTS if other != text]
    around = f"Lorem ipsum 前文，\n\n{text}\n後文 dolor sit amet."
    kept, account = judged(chosen, around, *others, text[: len(text) // 4])
    assert kept == [*others, text[: len(text) // 4]]
    assert [row.outcome for row in account.rows] == ["decontaminate.overlap"]
    assert account.counts == {f"decontaminate.{tmp_path}/q.jsonl": 1}


def test_case_accents_punctuation_and_composition_do_not_hide_a_copy(tmp_path: Path) -> None:
    text = "L'élève s’était assis près de la fenêtre où l'été, déjà, jetait ses dernières lueurs d'or sur les pages."
    chosen = section(jsonl(tmp_path / "q.jsonl", text))
    for changed in (
        text.upper(),
        unicodedata.normalize("NFD", text),
        text.replace("'", "\u2019").replace(" ", "  \u200f\n"),
        text.replace(",", " —").replace("é", "e"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    ):
        assert judged(chosen, changed)[0] == [], changed


def test_units() -> None:
    assert units("Don't STOP!") == units("dont stop") == units("\ufeffdo\u00adnt, stop\u200d")
    assert len(units("中文 text かな한글")) == 2 + 1 + 2 + 1
    assert units("中文") == units("中，文") != units("文中")
    assert units("ab c") != units("a bc")
    assert units("") == units(" \n.,!?😀🎉\u200f") == units("\0\0") == []
    assert len(units("a" * 10**6)) == 1
    assert len(units("12,345 678")) == 3
    assert len(units("𠀀𠀁 𝐀")) == 3
    assert units("한국어 문장") != units("한국인 문장")
    assert units("ﾃｽﾄ") == units("テスト")


@given(st.text(max_size=60))
def test_units_never_read_outside_and_do_not_depend_on_case(text: str) -> None:
    found = units(text)
    assert len(found) <= len(text)
    assert units(f"{text} end")[-1:] == units("end")


def test_an_ngram_has_the_stated_length(tmp_path: Path) -> None:
    words = [f"word{letter}" for letter in "abcdefghijklmnop"]
    chosen = section(jsonl(tmp_path / "q.jsonl", " ".join(words)))
    assert judged(chosen, "x " + " ".join(words[2:15]) + " y")[0] == []
    missed = "x " + " ".join(words[2:14]) + " y"
    assert judged(chosen, missed)[0] == [missed]
    chosen = section(jsonl(tmp_path / "c.jsonl", CHINESE))
    letters = [letter for letter in CHINESE if letter.isalnum()]
    assert judged(chosen, "的" + "".join(letters[3:27]) + "的")[0] == []
    missed = "好" + "".join(letters[3:26]) + "好"
    assert judged(chosen, missed)[0] == [missed]


def test_windows_depend_on_what_follows_alone() -> None:
    mixed = units_of(f"{QUESTION} {CHINESE} {QUESTION}".encode(), LETTERS)
    measure = Measure(13, 24, 8)
    whole = measure.windows(mixed)
    for start in (1, 5, 30, 44, 70):
        assert measure.windows(mixed[start:]).tolist() == whole[start:].tolist()
    naive = [tuple(mixed[i : i + 3].tolist()) for i in range(len(mixed) - 2)]
    hashes = window_hashes(mixed, 1, 1, 3).tolist()
    assert len(set(naive)) == len(set(hashes))
    assert [naive.index(one) for one in naive] == [hashes.index(one) for one in hashes]


def test_the_table_finds_its_keys_and_no_others() -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, 2**64, 50_000, dtype=np.uint64)
    table = HashTable(np.concatenate([keys, keys[:10]]), np.arange(50_010))
    asked = np.concatenate([random.integers(0, 2**64, 1000, dtype=np.uint64), keys[::7]])
    places = table.places(asked)
    assert asked[places[:, 0]].tolist() == table.keys[places[:, 1]].tolist() == keys[::7].tolist()
    assert table.numbers[places[:, 1]].tolist() == list(range(0, 50_000, 7))
    assert len(HashTable(keys[:0], np.arange(0)).places(asked)) == 0


def test_short_samples_count_as_a_whole_or_are_listed(tmp_path: Path) -> None:
    short = "What is the boiling point of liquid nitrogen"
    chosen = section(jsonl(tmp_path / "q.jsonl", short, "Too short to match.", f"{short} at one bar", QUESTION))
    (file,) = check_decontaminate(chosen)
    assert (file.samples, file.whole_texts, file.too_short) == (4, 2, (2,))
    assert file.ngrams == len(QUESTION.split()) - 12
    kept, account = judged(
        chosen, f"Q: {short}?", "Too short to match.", "What is the boiling point of liquid", f"{short} at one bar"
    )
    assert kept == ["Too short to match.", "What is the boiling point of liquid"]
    assert [json.loads(row.numbers or "")["evaluation"] for row in account.rows] == [f"{tmp_path}/q.jsonl:1"] * 2
    assert json.loads(list(account.rows)[1].numbers or "")["others"] == f'["{tmp_path}/q.jsonl:3"]'


def test_a_short_sample_is_compared_to_its_end(tmp_path: Path) -> None:
    beginning = "what is the boiling point of liquid nitrogen"
    chosen = section(jsonl(tmp_path / "q.jsonl", f"{beginning} at one bar", f"{beginning} in kelvin"))
    passed = [f"{beginning} at two bar", f"{beginning} at one", f"{beginning} at"]
    assert judged(chosen, *passed, f"so {beginning} at one bar then", f"{beginning} in kelvin")[0] == passed


def test_thresholds(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", QUESTION)
    hits = len(QUESTION.split()) - 12
    page = " ".join(f"filler{number}" for number in range(200)) + " " + QUESTION
    share = hits / (len(page.split()) - 12)
    for changes, dropped in (
        ({"min_ngrams": hits}, True),
        ({"min_ngrams": hits + 1}, False),
        ({"min_share": share}, True),
        ({"min_share": share + 1e-9}, False),
        ({"min_ngrams": hits + 1, "min_share": share / 2}, False),
    ):
        kept, account = judged(section(file, **changes), page)
        assert kept == ([] if dropped else [page]), changes
        assert account.counts["decontaminate.below_threshold"] == (0 if dropped else 1)
    kept, account = judged(section(file), page)
    assert json.loads(next(iter(account.rows)).numbers or "") == {
        "evaluation": f"{tmp_path}/q.jsonl:1",
        "samples": 1,
        "ngrams": hits,
        "min_ngrams": 1,
        "share": round(share, 4),
        "min_share": 0.0,
    }


def test_every_format_and_its_numbers(tmp_path: Path) -> None:
    record = {"id": "7", "question": QUESTION, "choices": ["yes", CHINESE], "none": None, "n": 3}
    lines = (json.dumps({"id": "6"}) + "\n" + json.dumps(record) + "\n").encode()
    files = {
        written(tmp_path / "a.txt", "\ufefffirst line\n\n" + QUESTION + "\n"): 3,
        written(tmp_path / "b.jsonl", lines): 2,
        written(tmp_path / "b.jsonl.gz", gzip.compress(lines)): 2,
        written(tmp_path / "c.json", json.dumps([{}, record])): 1,
        written(tmp_path / "d.json", json.dumps({"version": 1, "data": [{"deep": [{"er": QUESTION}]}]})): 0,
        written(tmp_path / "e.json", json.dumps({"x": "no", "y": {"q": QUESTION}})): 1,
        written(tmp_path / "f.json", json.dumps(QUESTION)): 0,
        tmp_path / "g.parquet": 1500,
    }
    rows = [{"question": "no", "choices": ["yes"]}] * 1500 + [{"question": QUESTION, "choices": ["a"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "g.parquet")
    for path, number in files.items():
        kept, account = judged(section(path), QUESTION, "something else")
        assert kept == ["something else"]
        assert json.loads(next(iter(account.rows)).numbers or "")["evaluation"] == f"{path}:{number}"
    assert judged(section(tmp_path / "g.parquet", text_keys=("choices",)), QUESTION)[0] == [QUESTION]


def test_only_the_chosen_keys_count(tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", json.dumps({"question": QUESTION, "context": RUSSIAN}) + "\n")
    assert judged(section(file, text_keys=("question",)), QUESTION, RUSSIAN)[0] == [RUSSIAN]
    assert judged(section(file, text_keys=("context", "other")), QUESTION, RUSSIAN)[0] == [QUESTION]
    assert judged(section(file), QUESTION, RUSSIAN)[0] == []


def test_ignored_text_does_not_count(tmp_path: Path) -> None:
    prompt = "Read the following passage with care and then choose the best of the four answers that are given below"
    short = "Choose the one best answer to the question below"
    file = jsonl(tmp_path / "q.jsonl", f"{prompt} {QUESTION}", short)
    ignored = written(tmp_path / "prompt.txt", f"{prompt}\n{short}\n")
    assert judged(section(file), prompt, short, QUESTION)[0] == []
    assert judged(section(file, ignore_files=(ignored,)), prompt, short, QUESTION)[0] == [prompt, short]


def test_the_report_of_what_was_hit(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "one.jsonl", QUESTION, RUSSIAN)
    second = jsonl(tmp_path / "two.jsonl", ARABIC, QUESTION)
    _, account = judged(section(first, second), f"{ARABIC} and {QUESTION}", "clean", QUESTION, RUSSIAN)
    assert account.counts == {f"decontaminate.{first}": 3, f"decontaminate.{second}": 1}


def test_all_bad_evaluation_sets_are_named_at_once(tmp_path: Path) -> None:
    bad = (
        tmp_path / "missing.jsonl",
        written(tmp_path / "empty.txt", ""),
        written(tmp_path / "blank.jsonl", '{"q": " "}\n'),
        written(tmp_path / "broken.jsonl", '{"q": "a"}\n{"q": \n'),
        written(tmp_path / "broken.json", "{"),
        written(tmp_path / "lines.json", '{"a": 1}\n{"a": 2}\n'),
        written(tmp_path / "latin.txt", "caf\xe9".encode("latin-1")),
        written(tmp_path / "cut.txt.gz", gzip.compress(b"a b c" * 1000)[:30]),
        written(tmp_path / "no.jsonl.gz", b"plain"),
        written(tmp_path / "no.parquet", b"PAR1"),
        written(tmp_path / "deep.json", "[" * 100_000 + "]" * 100_000),
    )
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError) as caught:
        check_decontaminate(section(*bad, tmp_path / "folder.txt", ignore_files=(tmp_path / "none.txt",)))
    lines = str(caught.value).split("\n")
    wanted = (
        "missing.jsonl: cannot be read (No such file or directory); restore it, or take it out of decontaminate",
        "empty.txt: no text in it; restore it, change text_keys, or take it out of decontaminate",
        "blank.jsonl: no text in it",
        "broken.jsonl:2: not JSON (",
        "broken.json: not JSON (",
        "lines.json: not JSON (",
        "latin.txt: not UTF-8 at byte 3",
        "cut.txt.gz: cannot be read (Compressed file ended before",
        "no.jsonl.gz: cannot be read (Not a gzipped file",
        "no.parquet: not a Parquet file that can be read (",
        "deep.json: JSON nested too deep to read; flatten it",
        "folder.txt: cannot be read (Is a directory)",
    )
    assert len(lines) == len(wanted) + 1
    for line, text in zip(lines, wanted, strict=False):
        assert line.startswith(f"decontaminate.files: {tmp_path}/{text}"), line
    assert lines[-1].startswith(f"decontaminate.ignore_files: {tmp_path}/none.txt: cannot be read")


def test_missing_keys_are_named(tmp_path: Path) -> None:
    lines = jsonl(tmp_path / "q.jsonl", QUESTION)
    with pytest.raises(DataError, match=r"sample 1 has none of text, body \(keys: question\); change text_keys"):
        check_decontaminate(section(lines, text_keys=("text", "body")))
    pq.write_table(pa.table({"question": [QUESTION]}), tmp_path / "q.parquet")
    with pytest.raises(DataError, match=r"no column 'text' \(columns: question\); change text_keys"):
        check_decontaminate(section(tmp_path / "q.parquet", text_keys=("text",)))


def test_the_table_is_built_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", QUESTION)
    chosen = section(file)
    table = evaluation_table(chosen)
    assert evaluation_table(section(file)) is table
    jsonl(file, QUESTION, RUSSIAN)
    assert evaluation_table(chosen) is not table


@pytest.mark.parametrize(
    "text", ["", " ", "1234567890 " * 3, "a" * 10**6, "😀🎉" * 1000, "\u200f\u202e" * 100, "\0" * 9]
)
def test_odd_documents_pass(tmp_path: Path, text: str) -> None:
    assert judged(section(jsonl(tmp_path / "q.jsonl", QUESTION, "one short text of eight words is here")), text)[0]


def test_a_megabyte_takes_linear_time(tmp_path: Path) -> None:
    repeated = " ".join(["the same"] * 20)
    table = evaluation_table(section(jsonl(tmp_path / "q.jsonl", repeated, "the same the same the same the same")))
    for text in ("the same " * 110_000, "中" * 330_000, "a b " * 250_000):
        table.overlap(text[:100].encode())
        begin = time.process_time()
        table.overlap(text.encode())
        assert time.process_time() - begin < 2.0


def test_config_problems(tmp_path: Path) -> None:
    bad = section(
        Path("a.csv"),
        Path("b.parquet.gz"),
        Path("c.txt"),
        Path("c.txt"),
        ignore_files=(Path("d"),),
        ngram_words=0,
        ngram_characters=256,
        min_sample_words=9,
        min_ngrams=0,
        min_share=1.5,
    ).problems()
    formats = "is none of .txt, .jsonl, .json, .parquet; convert it"
    assert bad == [
        f"decontaminate.files[0]: 'a.csv' {formats}",
        f"decontaminate.files[1]: 'b.parquet.gz' {formats}",
        f"decontaminate.ignore_files[0]: 'd' {formats}",
        "decontaminate.files: 'c.txt' is named twice; remove one",
        "decontaminate.ngram_words: must be 1 … 255, got 0",
        "decontaminate.ngram_characters: must be 1 … 255, got 256",
        "decontaminate.min_sample_words: must be 1 … 0, got 9",
        "decontaminate.min_ngrams: must be at least 1, got 0",
        "decontaminate.min_share: must be 0 … 1, got 1.5",
    ]
    assert DecontaminateSection(files=()).problems() == [
        "decontaminate.files: empty; name at least one file, or remove the section"
    ]
    assert section(Path("a.TXT.gz"), Path("b.JSON")).problems() == []
