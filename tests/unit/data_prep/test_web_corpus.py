"""The corpus that other tests lean on is what it says it is, by readers that know nothing of it."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from warcio.archiveiterator import ArchiveIterator

from data_prep.language import identify
from gptdist.config.load import load_config
from gptdist.config.prep import PrepConfig
from tests.support import broken_web
from tests.support.broken_web import BOMB_BYTES, NESTING, Broken, write_broken
from tests.support.web_corpus import FILES_PER_FORMAT, FORMATS, LEAST_PAGES, Corpus, write_web_corpus
from tests.support.web_page import FOOTER, LEGACY_ENCODINGS
from tests.support.web_phrases import LANGUAGES, WITHOUT_SPACES
from tests.support.web_plants import BLOCKED_DOMAINS, BOILERPLATE, PLANTS, luhn_digit

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
PAGES = 320


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_web_corpus(tmp_path_factory.mktemp("web") / "corpus", pages=PAGES, seed=7)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Broken]:
    return dict(write_broken(tmp_path_factory.mktemp("web") / "broken"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shingles(text: str, language: str) -> set[tuple[str, ...]]:
    units = list(text) if language in WITHOUT_SPACES else text.split()
    size = 10 if language in WITHOUT_SPACES else 5
    return {tuple(units[begin : begin + size]) for begin in range(len(units) - size + 1)}


def test_pages_and_seed_decide_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        write_web_corpus(tmp_path / name, pages=LEAST_PAGES, seed=seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert contents(first.folder) == contents(again.folder)
    assert (first.pages, first.strings, first.originals) == (again.pages, again.strings, again.originals)
    assert {page.html for page in first.pages} & {page.html for page in other.pages} <= {
        page.html for page in first.pages if page.kind == "empty"
    }


def test_too_few_pages_for_every_kind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"cannot hold every kind; ask for {LEAST_PAGES}"):
        write_web_corpus(tmp_path / "c", pages=LEAST_PAGES - 1, seed=1)


def test_only_the_formats_asked_for(tmp_path: Path) -> None:
    small = write_web_corpus(tmp_path / "c", pages=LEAST_PAGES, seed=1, formats=("jsonl",))
    assert set(small.files) == {"jsonl"}
    assert sorted(path.name for path in small.folder.iterdir()) == [
        *("blocklist.txt", "evaluation.jsonl", "jsonl", "unsuitable.txt")
    ]


def test_every_kind_language_and_encoding_is_there(corpus: Corpus) -> None:
    assert len(corpus.pages) == len({page.url for page in corpus.pages}) == PAGES
    assert {page.kind for page in corpus.pages} == {"article", "leak", "exact_duplicate", "near_duplicate", *PLANTS}
    assert {page.language for page in corpus.pages} == set(LANGUAGES)
    assert {page.encoding for page in corpus.pages} == {"utf-8", *LEGACY_ENCODINGS.values()}
    assert {page.declared for page in corpus.pages} == {"header", "meta", "none"}
    assert {page.transport for page in corpus.pages} == {"plain", "gzip", "chunked", "chunked gzip"}
    assert set(corpus.files) == set(FORMATS)
    assert all(len(paths) == FILES_PER_FORMAT for paths in corpus.files.values())


def test_pages_decode_and_their_article_can_be_found(corpus: Corpus) -> None:
    for page in corpus.pages:
        html = page.html.decode(page.encoding)
        assert (f'charset="{page.encoding}"' in html) == (page.declared == "meta")
        assert bytes_to_str(page.html, detect_encoding(page.html)) == html
        text = extract_plain_text(html, main_content=True, preserve_formatting=True)
        assert text.split() == page.text.split(), page.url
        assert (FOOTER in extract_plain_text(html)) == (page.kind != "empty")


class _Connection:
    """What http.client reads a response from."""

    def __init__(self, response: bytes) -> None:
        self._response = response

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._response)


def test_responses_are_what_a_client_understands(corpus: Corpus) -> None:
    for page in corpus.pages:
        response = HTTPResponse(_Connection(page.response()))  # type: ignore[arg-type] - it needs no more of a socket
        response.begin()
        body = response.read()
        assert response.getheader("Content-Encoding") == ("gzip" if "gzip" in page.transport else None)
        assert (gzip.decompress(body) if "gzip" in page.transport else body) == page.html


def test_articles_are_in_the_language_they_claim(corpus: Corpus) -> None:
    for page in corpus.pages:
        if page.kind in ("article", "exact_duplicate", "near_duplicate"):
            assert identify(page.text)[0] == page.language, page.text[:200]


def warcio_pages(path: Path) -> Iterator[tuple[str, str, bytes]]:
    with path.open("rb") as file:
        for record in ArchiveIterator(file, check_digests="raise"):
            if record.rec_type == "response":
                media_type = record.http_headers.get_header("Content-Type")
                yield record.rec_headers.get_header("WARC-Target-URI"), media_type, record.content_stream().read()


def test_warc_files_read_with_warcio(corpus: Corpus) -> None:
    found = [record for path in corpus.files["warc"] for record in warcio_pages(path)]
    pages = [(url, body) for url, media_type, body in found if media_type.startswith("text/html")]
    assert pages == [(page.url, page.html) for page in corpus.pages]
    assert tuple(url for url, media_type, _ in found if not media_type.startswith("text/html")) == corpus.not_html
    assert len(corpus.not_html) >= 10
    charsets = {url: media_type.partition("charset=")[2] for url, media_type, _ in found}
    assert all(charsets[p.url] == (p.encoding if p.declared == "header" else "") for p in corpus.pages)


def test_warc_files_read_with_fastwarc(corpus: Corpus) -> None:
    types = [
        record.record_type
        for path in corpus.files["warc"]
        for record in FastIterator(str(path), parse_http=False, verify_digests=True)
    ]
    assert types.count(WarcRecordType.response) == PAGES + len(corpus.not_html)
    assert types.count(WarcRecordType.request) == types.count(WarcRecordType.metadata) == PAGES
    assert types.count(WarcRecordType.warcinfo) == FILES_PER_FORMAT


def test_wet_files_hold_what_is_visible(corpus: Corpus) -> None:
    texts = [
        (record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read().decode())
        for path in corpus.files["wet"]
        for record in ArchiveIterator(path.open("rb"))
        if record.rec_type == "conversion"
    ]
    assert texts == [(page.url, page.visible_text) for page in corpus.pages]
    assert all(page.text in page.visible_text for page in corpus.pages)


def test_other_formats_hold_the_same_pages_in_the_same_order(corpus: Corpus) -> None:
    wanted = [(page.url, page.text) for page in corpus.pages]
    lines = [
        json.loads(line) for path in corpus.files["jsonl"] for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert [(line["url"], line["text"]) for line in lines] == wanted
    rows = pa.concat_tables([pq.read_table(path) for path in corpus.files["parquet"]]).to_pylist()
    assert [(row["url"], row["text"]) for row in rows] == wanted
    html = [page.read_bytes() for folder in corpus.files["html"] for page in sorted(folder.iterdir())]
    assert html == [row["html"] for row in rows] == [page.html for page in corpus.pages]


def test_duplicates_come_after_their_original(corpus: Corpus) -> None:
    places = {page.url: place for place, page in enumerate(corpus.pages)}
    assert set(corpus.originals) == {*corpus.planted("exact_duplicate"), *corpus.planted("near_duplicate")}
    assert all(places[original] < places[url] for url, original in corpus.originals.items())
    assert {page.kind for page in corpus.pages[: PAGES // 4]} == {"article"}
    for url in corpus.planted("exact_duplicate"):
        assert corpus.page(url).text == corpus.page(corpus.originals[url]).text
        assert corpus.page(url).html != corpus.page(corpus.originals[url]).html


def test_near_duplicates_differ_in_a_tenth_of_the_words(corpus: Corpus) -> None:
    for url in corpus.planted("near_duplicate"):
        page, original = corpus.page(url), corpus.page(corpus.originals[url])
        unit = list if page.language in WITHOUT_SPACES else str.split
        pairs = [
            pair
            for ours, theirs in zip(page.article.paragraphs, original.article.paragraphs, strict=True)
            for pair in zip(unit(ours), unit(theirs), strict=True)
        ]
        assert sum(ours != theirs for ours, theirs in pairs) == pytest.approx(0.1 * len(pairs), abs=1)


def test_unrelated_articles_have_little_in_common(corpus: Corpus) -> None:
    for language in LANGUAGES:
        texts = [page.text for page in corpus.pages if page.kind == "article" and page.language == language][:12]
        sets = [shingles(text, language) for text in texts]
        likeness = [len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i]]
        assert max(likeness) < 0.25, language  # Thai has the longest stretches between two gaps


def test_planted_strings_are_in_their_pages_and_nowhere_else(corpus: Corpus) -> None:
    strings = {url: strings for url, strings in corpus.strings.items() if corpus.page(url).kind != "unsuitable"}
    for url, planted in strings.items():
        for string in planted:
            copies = [page.url for page in corpus.pages if string in page.text]
            assert url in copies
            assert {corpus.page(copy).kind for copy in copies} == {corpus.page(url).kind}
    cards = [corpus.strings[url][0].replace(" ", "") for url in corpus.planted("card_number")]
    wrong = [corpus.strings[url][0].replace(" ", "") for url in corpus.planted("wrong_card_number")]
    assert cards
    assert all(luhn_digit(card[:-1]) == card[-1] for card in cards)
    assert not any(luhn_digit(card[:-1]) == card[-1] for card in wrong)


def test_the_check_digit_is_that_of_a_known_card() -> None:
    assert luhn_digit("411111111111111") == "1"


def test_lists_name_what_is_planted(corpus: Corpus) -> None:
    domains = corpus.blocklist.read_text().split()
    blocked = [page.url for page in corpus.pages if any(f"{domain}/" in page.url for domain in domains)]
    assert domains == list(BLOCKED_DOMAINS)
    assert tuple(blocked) == corpus.planted("blocked_domain")
    words = corpus.unsuitable_words.read_text().split()
    unsuitable = [page.url for page in corpus.pages if any(word in page.text for word in words)]
    assert tuple(unsuitable) == corpus.planted("unsuitable")
    repeated = [page.url for page in corpus.pages if BOILERPLATE in page.text]
    assert tuple(repeated) == corpus.planted("repeated_paragraph")


def test_leaks_share_a_long_passage_with_the_evaluation_set_and_nothing_else_does(corpus: Corpus) -> None:
    samples = [json.loads(line) for line in corpus.evaluation.read_text().splitlines()]
    texts = [text for sample in samples for text in sample.values()]
    words = {tuple(t.split()[i : i + 8]) for t in texts for i in range(len(t.split()) - 7)}
    runs = {text[i : i + 12] for text in texts if " " not in text for i in range(len(text) - 11)}
    for page in corpus.pages:
        tokens = page.text.split()
        shared = any(tuple(tokens[i : i + 8]) in words for i in range(len(tokens) - 7))
        shared = shared or any(page.text[i : i + 12] in runs for i in range(len(page.text) - 11))
        assert shared == (page.kind == "leak"), page.url
    for url in corpus.planted("leak"):
        (passage,) = corpus.strings[url]
        assert any(passage in text for text in texts)
        assert len(passage.split()) == 16 or len(passage) == 40


def test_broken_files_are_written_on_demand(tmp_path: Path) -> None:
    made = write_web_corpus(tmp_path / "c", pages=LEAST_PAGES, seed=1, formats=("warc",), broken=True)
    assert made.broken
    assert {item.path.parent for item in made.broken.values()} == {tmp_path / "c" / "broken"}
    assert all(item.path.is_file() for item in made.broken.values())


def test_truncated_archives_end_too_early(broken: dict[str, Broken]) -> None:
    with pytest.raises(EOFError):
        gzip.decompress(broken["truncated_gzip"].path.read_bytes())
    for kind in ("truncated_gzip", "truncated_plain"):
        assert (len(broken[kind].good), len(broken[kind].bad)) == (3, 1)


def test_archives_with_one_bad_record_hold_the_others(broken: dict[str, Broken]) -> None:
    whole = ("not_utf8_page", "nul_page", "deep_page", "large_page")
    for kind in whole:
        found = list(warcio_pages(broken[kind].path))
        assert [url for url, _, _ in found] == [*broken[kind].good[:2], *broken[kind].bad, *broken[kind].good[2:]]
    bodies = {kind: list(warcio_pages(broken[kind].path))[2][2] for kind in whole}
    with pytest.raises(UnicodeDecodeError):
        bodies["not_utf8_page"].decode()
    assert b"\0" in bodies["nul_page"]
    assert bodies["deep_page"].count(b"<div>") == NESTING
    assert len(bodies["large_page"]) > broken_web.LARGE_PAGE_BYTES


def test_lengths_lie(broken: dict[str, Broken]) -> None:
    for kind, is_lie in (
        ("length_too_long", lambda told, held: told > held),
        ("length_too_short", lambda told, held: told < held),
    ):
        (member,) = [part for part in _members(broken[kind].path) if b"https://bad.example" in part]
        head, _, block = member.partition(b"\r\n\r\n")
        assert is_lie(int(head.rpartition(b"Content-Length: ")[2]), len(block.removesuffix(b"\r\n\r\n")))


def test_bombs_unpack_to_what_they_say(broken: dict[str, Broken]) -> None:
    assert broken["bomb_line"].path.stat().st_size < 2_000_000
    with gzip.open(broken["bomb_line"].path) as file:
        lines = sum(1 for _ in range(2) if file.readline())
        unpacked = sum(len(part) for part in iter(lambda: file.read(8_000_000), b""))
    assert lines == 2
    assert unpacked > BOMB_BYTES
    page = next(part for part in _members(broken["bomb_page"].path) if b"https://bad.example" in part)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert unpacker.decompress(page.split(b"\r\n\r\n", 2)[2], 100).startswith(b"<html><body><p>   ")


def test_lines_are_bad_in_the_way_they_say(broken: dict[str, Broken]) -> None:
    def third_line(kind: str) -> bytes:
        lines = broken[kind].path.read_bytes().split(b"\n")
        assert [json.loads(lines[i])["url"] for i in (0, 1, 3, 4)] == list(broken[kind].good)
        return lines[2]

    with pytest.raises(UnicodeDecodeError):
        third_line("not_utf8_line").decode()
    with pytest.raises(json.JSONDecodeError):
        json.loads(third_line("not_json"))
    with pytest.raises(RecursionError):
        json.loads(third_line("nested_json"))
    assert "\0" in json.loads(third_line("nul_text"))["text"]
    assert "text" not in json.loads(third_line("no_text"))
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        json.loads(third_line("lone_surrogate"))["text"].encode()
    with gzip.open(broken["long_line"].path) as file:
        longest = max(map(len, file))
    assert longest > broken_web.LONG_LINE_BYTES


def test_tables_are_bad_in_the_way_they_say(broken: dict[str, Broken]) -> None:
    assert "text" not in pq.read_schema(broken["no_column"].path).names
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(broken["truncated_parquet"].path)


@pytest.mark.parametrize("name", ["web", "debian-docs"])
def test_the_configs_have_no_problem(name: str) -> None:
    assert load_config(PrepConfig, CONFIGS / f"{name}.yaml").problems() == []


def _members(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    while data:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        yield unpacker.decompress(data)
        data = unpacker.unused_data
