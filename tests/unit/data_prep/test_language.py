"""Language identification by the model in the package."""

import json
import socket
import time
from pathlib import Path

import pytest

from data_prep import language
from data_prep.account import Account
from data_prep.document import Document, Place
from data_prep.language import identify, language_stage, sample
from gptdist.config.prep_quality import LanguageSection
from gptdist.errors import DataError
from tests.unit.data_prep.written_pages import PAGES


def run(section: LanguageSection, *texts: str) -> tuple[list[Document], list[tuple[int, str, dict[str, object]]]]:
    account = Account("here")
    stage = language_stage(section, Place(0, 1), account)
    given = [Document(text, "a", record) for record, text in enumerate(texts)]
    kept = list(account.through("language", stage, iter(given)))
    return kept, [(row.record, row.outcome, json.loads(row.numbers or "{}")) for row in account.rows]


@pytest.mark.parametrize("code", PAGES)
def test_languages_of_many_scripts_are_known(code: str) -> None:
    found, confidence = identify(PAGES[code])
    assert found == code
    assert 0.8 < confidence <= 1.0


def test_documents_get_their_language_and_all_pass_without_limits() -> None:
    kept, dropped = run(LanguageSection(), *PAGES.values(), "", "123, 456")
    assert [document.language for document in kept][: len(PAGES)] == list(PAGES)
    assert [document.language for document in kept][len(PAGES) :] == [None, None]
    assert dropped == []


def test_other_languages_are_dropped_with_what_they_are() -> None:
    kept, dropped = run(LanguageSection(keep=("ja", "ar")), PAGES["en"], PAGES["ja"], PAGES["ar"], PAGES["zh"])
    assert [document.language for document in kept] == ["ja", "ar"]
    assert [(record, outcome, numbers["language"]) for record, outcome, numbers in dropped] == [
        (0, "language.not_kept", "en"),
        (3, "language.not_kept", "zh"),
    ]
    assert all(0.0 <= numbers["confidence"] <= 1.0 for _, _, numbers in dropped)


def test_doubtful_languages_are_dropped() -> None:
    kept, dropped = run(LanguageSection(min_confidence=0.6), PAGES["ru"], "qwrt zxp")
    assert [document.language for document in kept] == ["ru"]
    assert [(record, outcome) for record, outcome, _ in dropped] == [(1, "language.low_confidence")]
    assert dropped[0][2]["confidence"] < 0.6
    assert dropped[0][2]["threshold"] == 0.6


def test_the_sample_is_bounded_and_from_all_over_the_text() -> None:
    assert sample("a\n b\t\x0c c ") == "a b c"
    text = " ".join(f"{i:05d}" for i in range(10_000))
    words = sample(text).split()
    assert len(sample(text)) <= 242
    assert words[0] == "00000"
    assert words[-1] == "09999"
    assert any(word.startswith(("009", "010")) for word in words)


@pytest.mark.parametrize("text", ["", " \n", "123", "...", "a b c d", "\ud800"])
def test_nothing_is_known_of_some_texts(text: str) -> None:
    assert identify(text) == (None, 0.0)


def test_an_unknown_language_is_none_that_is_kept() -> None:
    kept, dropped = run(LanguageSection(keep=("en",)), "123")
    assert kept == []
    assert dropped == [(0, "language.not_kept", {"confidence": 0.0, "language": "unknown"})]


def test_a_package_without_the_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    language._model.cache_clear()
    monkeypatch.setattr(language, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"language: the model lid.176.ftz .* cannot be loaded .*; run 'pip install"):
        language_stage(LanguageSection(), Place(0, 1), Account("here"))


def test_a_foreign_menu_does_not_decide() -> None:
    menu = "Home | About us | Contact | Imprint | Search this website | Log in | Sign up for our newsletter\n"
    assert identify(menu + "\n".join([PAGES["ru"]] * 3) + menu)[0] == "ru"


def test_no_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    language._model.cache_clear()
    assert identify(PAGES["hi"])[0] == "hi"


def test_it_takes_about_a_tenth_of_a_millisecond() -> None:
    page = PAGES["en"] * 10
    identify(page)
    before = time.process_time()
    for _ in range(200):
        identify(page)
    assert time.process_time() - before < 0.2  # 1 ms each, ten times what it takes on a quiet machine


def test_problems_of_the_config() -> None:
    assert LanguageSection(keep=("en", "ceb"), min_confidence=1.0).problems() == []
    problems = LanguageSection(keep=("en", "English"), min_confidence=1.5).problems()
    assert problems[0].startswith("language.min_confidence: must be 0 … 1, got 1.5; ")
    assert problems[1].startswith("language.keep: 'English' is no code of ISO 639; ")
