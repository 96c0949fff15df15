"""The stages of quality: what they pass on, what they write down, and what they cost."""

import json
import time
from pathlib import Path

import pytest

from data_prep.account import Account
from data_prep.document import Document, Place
from data_prep.quality.stage import SCORED_TOGETHER, check_quality, quality_stage, url_stage
from gptdist.config.prep_quality import ClassifierSection, QualitySection, UrlBlocklistSection, WordListSection
from gptdist.config.prep_rule_sets import C4Section, FineWebSection, GopherQualitySection, GopherRepetitionSection
from gptdist.errors import DataError
from tests.unit.data_prep.written_pages import PAGES

PLACE = Place(0, 1)
EVERY_RULE_SET = QualitySection(
    gopher_quality=GopherQualitySection(),
    gopher_repetition=GopherRepetitionSection(),
    c4=C4Section(),
    fineweb=FineWebSection(),
)


def documents(*texts: str) -> list[Document]:
    return [Document(text, "a.jsonl", record) for record, text in enumerate(texts)]


def run(section: QualitySection, given: list[Document]) -> tuple[list[Document], Account]:
    account = Account("here")
    return list(account.through("quality", quality_stage(section, PLACE, account), iter(given))), account


def outcomes(account: Account) -> list[tuple[int, str, dict[str, float]]]:
    return [(row.record, row.outcome, json.loads(row.numbers or "{}")) for row in account.rows]


def lengths(texts: list[str]) -> list[float]:
    BATCHES.append(len(texts))
    return [float(len(text)) for text in texts]


BATCHES: list[int] = []


@pytest.mark.parametrize("language", PAGES)
def test_prose_of_every_script_survives_every_rule_set(language: str) -> None:
    given = [Document(PAGES[language], "a", language=known) for known in (language, None)]
    kept, account = run(EVERY_RULE_SET, given)
    assert kept == given
    assert not account.rows


def test_without_rule_sets_everything_passes() -> None:
    given = documents("", "x", "{}")
    assert run(QualitySection(), given)[0] == given


def test_each_drop_is_written_down_with_its_rule_set_rule_and_numbers() -> None:
    page = PAGES["en"]
    repeated = page + "\n\n" + page
    listy = "\n".join(f"{word} is a thing" for word in "abcdefghijklmnopqrstuvwxyz")
    no_gopher = EVERY_RULE_SET.model_copy(update={"gopher_quality": None, "gopher_repetition": None})
    kept, account = run(EVERY_RULE_SET, documents(page, "too short", repeated))
    assert [document.record for document in kept] == [0]
    assert outcomes(account) == [
        (1, "gopher_quality.min_words", {"value": 2, "threshold": 50}),
        (
            2,
            "gopher_repetition.max_duplicate_paragraphs_fraction",
            {"value": 0.5, "threshold": 0.3},
        ),
    ]
    dropped = account.passages["quality"].dropped
    assert dropped["gopher_quality.min_words"] == 1
    _, account = run(no_gopher, documents(listy))
    assert outcomes(account) == [(0, "c4.min_sentences", {"value": 0, "threshold": 5})]
    _, account = run(no_gopher.model_copy(update={"c4": None}), documents(listy))
    assert outcomes(account) == [
        (0, "fineweb.min_punctuated_lines_fraction", {"value": 0.0, "threshold": 0.12}),
    ]


def test_lines_that_c4_removes_are_gone_for_what_comes_after(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("accordion\ncookies\n")
    section = QualitySection(c4=C4Section(), word_list=WordListSection(files=(words,)))
    page = PAGES["en"].removesuffix(" Somebody had brought an accordion from the town.")
    noisy = f"Home | About\n{page}\nThis site uses cookies, as you know."
    kept, account = run(section, documents(noisy, PAGES["en"]))
    assert [document.text for document in kept] == [page]
    assert kept[0].record == 0
    assert dict(account.counts) == {
        "c4.lines_removed.no_terminal_punctuation": 1,
        "c4.lines_removed.policy": 1,
    }
    assert outcomes(account) == [(1, "word_list.max_matches", {"value": 1, "threshold": 0})]


def test_fineweb_judges_the_lines_that_c4_left() -> None:
    menu = "".join(f"\nEntry {i} of the menu that has no end" for i in range(60))
    alone = EVERY_RULE_SET.model_copy(update={"gopher_quality": None, "gopher_repetition": None, "c4": None})
    both = alone.model_copy(update={"c4": C4Section()})
    assert outcomes(run(alone, documents(PAGES["en"] + menu))[1])[0][1] == "fineweb.min_punctuated_lines_fraction"
    assert [document.text for document in run(both, documents(PAGES["en"] + menu))[0]] == [PAGES["en"]]


def test_a_classifier_sees_what_is_left_in_batches_and_keeps_the_order() -> None:
    BATCHES.clear()
    section = QualitySection(classifier=ClassifierSection(function=f"{__name__}:lengths", min_score=2.0))
    given = documents(*("x" * (1 + i % 3) for i in range(2 * SCORED_TOGETHER + 5)))
    kept, account = run(section, given)
    assert kept == [document for document in given if len(document.text) >= 2]
    assert BATCHES == [SCORED_TOGETHER, SCORED_TOGETHER, 5]
    assert outcomes(account)[0] == (0, "classifier.min_score", {"value": 1.0, "threshold": 2.0})


def test_addresses_are_dropped_before_their_page_is_looked_into(tmp_path: Path) -> None:
    blocked = tmp_path / "urls"
    blocked.write_text("spam.test\n")
    section = QualitySection(url_blocklist=UrlBlocklistSection(files=(blocked,)))
    given = [
        Document("", "w", 0, url="http://spam.test/x"),
        Document("", "w", 1, url="http://fine.test"),
        Document("", "w", 2),
    ]
    account = Account("here")
    kept = list(account.through("url", url_stage(section, PLACE, account), iter(given)))
    assert kept == given[1:]
    assert outcomes(account) == [(0, "url.domain", {"entry": "spam.test"})]
    assert account.passages["url"].dropped == {"domain": 1}
    assert list(url_stage(QualitySection(), PLACE, account)(iter(given))) == given


@pytest.mark.parametrize(
    "section",
    [
        QualitySection(url_blocklist=UrlBlocklistSection(files=(Path("/missing"),))),
        QualitySection(word_list=WordListSection(files=(Path("/missing"),))),
        QualitySection(classifier=ClassifierSection(function="missing_module:f", min_score=0.0)),
    ],
)
def test_what_is_missing_is_found_before_a_run(section: QualitySection) -> None:
    with pytest.raises(DataError, match="missing"):
        check_quality(section)
    check_quality(EVERY_RULE_SET)


def test_decisions_do_not_depend_on_what_came_before() -> None:
    texts = [*PAGES.values(), "short", "{}", PAGES["en"] * 2]
    once = [document.record for document in run(EVERY_RULE_SET, documents(*texts))[0]]
    alone = [i for i, text in enumerate(texts) if run(EVERY_RULE_SET, documents(text))[0]]
    assert once == alone


def test_all_rule_sets_take_well_under_a_millisecond_a_page() -> None:
    run(EVERY_RULE_SET, documents(PAGES["en"]))
    page = documents(*["\n".join(PAGES["en"].replace("a", letter) for letter in "aeiouy")] * 100)
    before = time.process_time()
    run(EVERY_RULE_SET, page)
    assert time.process_time() - before < 0.2  # 2 ms a page of 5 KB, eight times what it takes on a quiet machine
