"""Pages: their encoding, their text, and the limits that keep one page from stopping a run."""

import json
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.account import Account
from data_prep.document import Document, Page, Place
from data_prep.extract import extract_stage
from data_prep.html.encoding import decode_page
from data_prep.html.guarded import GuardedParser, PageLostError
from data_prep.html.shape import most_seconds, page_shape, visible_bytes
from gptdist.config.prep_extract import ExtractSection


def extract(page: bytes, encoding: str | None = None, **changes: Any) -> tuple[str | None, Account]:
    """Return the text of a page, or None where it was dropped."""
    account = Account("w")
    stage = extract_stage(ExtractSection(**changes), Place(0, 1), account)
    found = list(stage(iter([Document("", "a.html", page=Page(page, encoding))])))
    assert all(document.page is None for document in found)
    return found[0].text if found else None, account


def fate(account: Account) -> tuple[str, dict[str, Any]]:
    (row,) = account.rows
    return row.outcome, json.loads(row.numbers or "{}")


ARTICLE = b"""<!DOCTYPE html><html><head><title>T &amp; U</title><style>p {}</style></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>
<main><article><h1>Heading</h1><p>One <b>wo</b>rd &lt; more
here.</p><p>Second<br>line.</p><script>var x = "<p>no</p>";</script>
<div><ul><li>first item<li>and the second</ul></div>
<pre>a\n   b</pre></article></main>
<footer>Copyright and legal notes</footer></body></html>"""


def test_the_main_content_is_kept_with_its_paragraphs() -> None:
    text, account = extract(ARTICLE)
    assert text is not None
    assert text.split("\n\n")[:3] == ["Heading", "One word < more here.", "Second\nline."]
    assert "and the second" in text
    assert "a\n   b" in text
    assert "About us" not in text
    assert "legal notes" not in text
    assert "no</p>" not in text
    assert not account.rows
    everything, _ = extract(ARTICLE, content="all")
    assert everything is not None
    assert "About us" in everything
    assert "legal notes" in everything


def test_texts_pass_through_untouched() -> None:
    documents = [Document("<p>no page", "a.txt"), Document("", "b.html", page=Page(b"<p>page")), Document("x", "c.txt")]
    account = Account("w")
    found = list(extract_stage(ExtractSection(), Place(0, 1), account)(iter(documents)))
    assert [document.text for document in found] == ["<p>no page", "page", "x"]
    assert found[0] is documents[0]


@pytest.mark.parametrize("content", [b"<script>x</script>", b"<p> </p>", b"<!-- only a comment -->"])
def test_a_page_without_text_is_dropped(content: bytes) -> None:
    text, account = extract(content)
    assert text is None
    assert fate(account) == ("extract.no_text", {"page_bytes": len(content)})


RUSSIAN = "Привет, это обычный русский текст о погоде и природе. Сегодня хорошая погода, и мы идём гулять в парк."
GERMAN = "Schöne Grüße aus Köln, die Straße ist heute naß und überall läuft Wasser über die Brücke."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, a to je dobře, protože řeka teče."
JAPANESE = "これは日本語の普通の文章です。今日は天気がいいので、散歩に行きます。"
CHINESE = "这是一个普通的中文句子。今天天气很好,我们去公园散步。"
TAIWANESE = "這是一個普通的中文句子。今天天氣很好,我們去公園散步。"
KOREAN = "이것은 평범한 한국어 문장입니다. 오늘은 날씨가 좋아서 산책을 갑니다."
ARABIC = "هذه جملة عربية عادية عن الطقس والطبيعة."


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        (RUSSIAN, "utf-8", None),
        (RUSSIAN, "utf-8", "windows-1251"),  # the bytes decide
        (RUSSIAN, "cp1251", None),
        (RUSSIAN, "cp1251", "iso-8859-1"),  # what many servers say of everything
        (RUSSIAN, "koi8-r", "utf-8"),
        (RUSSIAN, "utf-16", None),
        (RUSSIAN, "utf-16-le", None),
        (RUSSIAN, "utf-16-be", "utf-8"),
        (GERMAN, "latin-1", "utf-8"),
        (GERMAN, "cp1252", None),
        (CZECH, "iso8859-2", "iso-8859-2"),
        (CZECH, "cp1250", "windows-1250"),
        (JAPANESE, "shift_jis", None),
        (JAPANESE, "euc-jp", "EUC-JP"),
        (JAPANESE, "iso2022_jp", "iso-2022-jp"),
        (JAPANESE, "iso2022_jp", None),
        (CHINESE, "gb18030", "gb2312"),
        (TAIWANESE, "big5", "Big5"),
        (KOREAN, "cp949", "ks_c_5601-1987"),
        (ARABIC, "cp1256", "windows-1256"),
        (ARABIC, "utf-8", "no-such-encoding"),
        ("Łódź", "cp1250", "windows-1250"),  # too short to tell by itself
        ("Kraków, ąę", "iso8859-2", "ISO-8859-2"),
        ("สวัสดี", "cp874", "windows-874"),
    ],
)
def test_encodings(text: str, encoding: str, declared: str | None) -> None:
    page = f"<html><head><title>x</title></head><body><p>{text}</p></body></html>"
    assert decode_page(page.encode(encoding), declared) == page


def test_a_page_may_state_its_encoding_itself() -> None:
    page = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset=euc-kr"></head><p>{KOREAN}'
    assert decode_page(page.encode("cp949"), None) == page
    assert decode_page(page.encode("cp949"), "utf-8") == page
    assert decode_page(page.encode(), None) == page


def test_a_page_that_a_size_limit_cut_inside_a_character() -> None:
    for encoding, text in (("utf-8", RUSSIAN), ("shift_jis", JAPANESE)):
        content = f"<p>{text}".encode(encoding)[:-1]
        assert decode_page(content, encoding) == f"<p>{text[:-1]}"


def test_broken_bytes_do_not_change_the_encoding() -> None:
    content = (f"<p>{JAPANESE * 5}".encode("cp932") + b"\xff\xff") * 2
    assert decode_page(content, None).count(JAPANESE) == 10
    assert decode_page(content, "Shift_JIS").count(JAPANESE) == 10


def test_broken_bytes_in_a_page_are_counted() -> None:
    text, account = extract(b"<p>" + RUSSIAN.encode() * 5 + b"\xff\xfe broken " + RUSSIAN.encode() * 5)
    assert text is not None
    assert text.startswith(RUSSIAN)
    assert "\ufffd" in text
    assert account.counts == {"extract.pages_with_replacement_characters": 1}


def test_nul_characters_and_lone_surrogates_do_not_come_through() -> None:
    text, _ = extract(b"<p>a\0b &#0; &#xD800; &#x110000; c")
    assert text is not None
    assert "\0" not in text
    text.encode()


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), encoding=st.sampled_from([None, "utf-8", "gbk", "utf-16", "x"]))
def test_any_bytes_become_text(content: bytes, encoding: str | None) -> None:
    text, account = extract(b"<p>" + content, encoding)
    assert (text is None) == bool(account.rows)
    assert "\0" not in (text or "").encode().decode()


N = 100_000
SPENT = {
    "too many bytes": (
        b"x" * 1001,
        {"max_page_bytes": 1000},
        "page_too_large",
        {"page_bytes": 1001, "max_page_bytes": 1000},
    ),
    "too many tags": (
        b"<p>x" * N,
        {"max_page_tags": N - 1},
        "page_too_large",
        {"page_tags": N, "max_page_tags": N - 1},
    ),
    "too many attributes": (
        b"<a" + b" b" * N + b">x",
        {"max_page_tags": N},
        "page_too_large",
        {"page_tags": N + 1, "max_page_tags": N},
    ),
    "tags 100,000 deep": (b"<div>" * N + b"x", {}, "page_too_deep", {"nesting_at_least": 5001, "max_nesting": 5000}),
    "closed, and as deep": (
        b"<div>" * N + b"x" + b"</div>" * N,
        {},
        "page_too_deep",
        {"nesting_at_least": 5001, "max_nesting": 5000},
    ),
    "deep between wrong ends": (b"<div></x>" * N, {}, "page_too_deep", {"nesting_at_least": 5001, "max_nesting": 5000}),
    "deep in a picture": (
        b"<svg><title>" + b"<div>" * N,
        {},
        "page_too_deep",
        {"nesting_at_least": 5001, "max_nesting": 5000},
    ),
    "a low limit": (b"<b><i><u>x", {"max_nesting": 2}, "page_too_deep", {"nesting_at_least": 3, "max_nesting": 2}),
}


@pytest.mark.parametrize("name", SPENT)
def test_limits_are_seen_before_the_page_is_parsed(name: str) -> None:
    content, changes, rule, numbers = SPENT[name]
    extract(b"<p>x" * 6000)  # compiles
    before = time.process_time()
    text, account = extract(content, **changes)
    assert text is None
    assert fate(account) == (f"extract.{rule}", numbers)
    assert time.process_time() - before < 1.0


def test_a_page_whose_tags_foretell_too_long_is_not_begun() -> None:
    text, account = extract(b"<div>" * 3000 + b"<span>x</span>" * 60_000)
    assert text is None
    rule, numbers = fate(account)
    assert rule == "extract.page_too_slow"
    assert 10.0 < numbers["expected_seconds"] < 30.0
    assert numbers["max_page_seconds"] == 10.0
    everything, _ = extract(b"<div>" * 3000 + b"<span>x</span>" * 60_000, content="all")
    assert everything == "x" * 60_000


MISNESTED = b"<b><div></b>"
"""Nests deeper with each, though every end tag has its start tag; the parser is quadratic in it."""


def test_a_page_that_takes_too_long_all_the_same_is_ended_and_the_next_is_read() -> None:
    account = Account("w")
    pages = [MISNESTED * 8_000, b"<p>after", MISNESTED * 500 + b"<p>short of it"]
    documents = [Document("", f"{i}.html", page=Page(page)) for i, page in enumerate(pages)]
    before = time.process_time()
    stage = extract_stage(ExtractSection(max_page_seconds=0.1), Place(0, 1), account)
    found = list(stage(iter(documents)))
    assert time.process_time() - before < 2.0
    assert [document.path for document in found] == ["1.html", "2.html"]
    assert found[1].text.endswith("short of it")
    assert fate(account) == ("extract.page_too_slow", {"max_page_seconds": 0.1})


def test_the_process_for_risky_pages_ends_with_the_stage() -> None:
    def documents() -> Iterator[Document]:
        for number in range(3):
            yield Document("", f"{number}.html", page=Page(MISNESTED * 1500 + b"<p>text"))

    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    stage = extract_stage(ExtractSection(max_page_seconds=0.5), Place(0, 1), Account("w"))
    stream = stage(documents())
    assert next(stream).text.endswith("text")
    stream.close()  # type: ignore[attr-defined] # a generator
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > children, "no child was used, or none waited for"


def test_a_process_that_dies_says_of_what() -> None:
    parser = GuardedParser(60.0, {"main_content": True}, memory_bytes=300_000_000)
    assert parser.text("<p>alive") == "alive"
    with pytest.raises(PageLostError, match=r"SIGABRT|SIGSEGV") as raised:
        parser.text("<p>x" * 700_000)  # takes 390 MB
    assert not raised.value.is_slow
    assert parser.text("<p>alive again") == "alive again"
    assert parser.close() == 0
    assert parser.close() == 0


def test_a_page_whose_process_died_is_dropped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedParser, "text", lambda self, page: (_ for _ in ()).throw(PageLostError(6)))
    text, account = extract(MISNESTED * 2_000, max_page_seconds=1.0)
    assert text is None
    assert fate(account) == ("extract.page_not_parsed", {"signal": "SIGABRT"})


@pytest.mark.parametrize(
    ("page", "tags", "attributes", "nesting"),
    [
        (b"", 0, 0, 0),
        (b"text < and > more", 1, 0, 0),
        (b"<b><i>x</i></b><b>", 5, 0, 2),
        (b"<p>a<p>b<ul><li>c<li>d</ul><br><img src=x>", 9 - 1, 1, 1),
        (b"<a href='x>y' b = \"z\" c=d/e>", 1, 3, 1),
        (b"<!-- <b><b><b> --><i>", 5, 0, 1),
        (b"<script>if (a<b) '<b><i>'</script><u>", 6, 0, 1),
        (b"<SCRIPT><b><i></ScRiPt><u><b>", 6, 0, 2),
        (b"<svg><path/><path/></svg>", 4, 0, 1),
        (b"<div/><div/>", 2, 0, 2),
        (b"<div><b></div><i>", 4, 0, 2),
        (b"<b", 1, 0, 1),
        (b"<a b", 1, 1, 1),
        (b"<", 0, 0, 0),
        (b"<!", 1, 0, 0),
    ],
)
def test_the_shape_of_a_page(page: bytes, tags: int, attributes: int, nesting: int) -> None:
    shape = page_shape(page, 5000)
    assert (shape.tags, shape.attributes, shape.nesting) == (tags, attributes, nesting)


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            [b"<b>", b"</b>", b"<div a=1 b>", b"</div>", b"<p>", b"<svg>", b"</svg>", b"<title>", b"<!--", b"-->", b"x"]
        ),
        max_size=60,
    )
)
def test_what_a_page_may_cost_is_never_below_what_it_is_likely_to(pieces: list[bytes]) -> None:
    page = b"".join(pieces)
    shape = page_shape(page, 5000)
    for main_content in (True, False):
        likely = shape.seconds(main_content=main_content)
        most = shape.seconds(main_content=main_content, most=True)
        bound = most_seconds(len(page), page.count(b"<"), main_content=main_content)
        assert likely <= most * (1 + 1e-9) or b"</" in page
        assert max(likely, most) <= bound


@pytest.mark.parametrize(
    ("page", "visible"),
    [
        (b"", 0),
        (b"a b\n<b title='x > y'>cd</b>", 4),
        (b"<script>if (a<b) c()</script>x<style>p {}</style><title>t</title>", 1),
        (b"<!-- a --><!doctype html>b<!", 1),
        (b"1 < 2", 3),
        ("<p>日本".encode(), 6),
        (b"<p", 0),
        (b"</p", 0),
    ],
)
def test_visible_text(page: bytes, visible: int) -> None:
    assert visible_bytes(page) == visible


def test_a_page_whose_main_content_is_missed_is_not_lost() -> None:
    """A list right below the body is a menu by the rules."""
    menu = "<nav><ul>" + "<li><a href=x>An entry of the menu</a></li>" * 10 + "</ul></nav>"
    prose = "<ul>" + "<li>This is what the page is there for, and it should be kept.</li>" * 5 + "</ul>"
    text, account = extract(f"<html><body>{menu}<h1>Title</h1>{prose}<footer>Imprint</footer>".encode())
    assert text is not None
    assert text.count("what the page is there for") == 5
    assert "entry of the menu" not in text
    assert "Imprint" not in text
    assert account.counts == {"extract.main_content_missed": 1}
    text, account = extract(f"<html><body>{menu}<h1>Title</h1><div><div><div>{prose}</div></div></div>".encode())
    assert text is not None
    assert text.count("what the page is there for") == 5
    assert not account.counts


def test_a_page_that_is_all_menu_stays_as_short_as_it_is() -> None:
    menu = "<nav><ul>" + "<li><a href=x>An entry of the menu</a></li>" * 30 + "</ul></nav>"
    text, account = extract(f"<html><body>{menu}<main><h1>Title</h1></main></body></html>".encode())
    assert text == "Title"
    assert not account.counts


def test_config_problems() -> None:
    section = ExtractSection(max_page_bytes=0, max_page_tags=0, max_nesting=0, max_page_seconds=0.0)
    assert section.problems() == [
        "extract.max_page_bytes: must be at least 1, got 0",
        "extract.max_page_tags: must be at least 1, got 0",
        "extract.max_nesting: must be at least 1, got 0",
        "extract.max_page_seconds: must be above 0, got 0.0",
    ]
