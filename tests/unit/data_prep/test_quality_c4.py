"""C4's rules and FineWeb's, each by numbers worked out by hand."""

import pytest

import data_prep.quality.c4 as c4_module
from data_prep.quality.c4 import Sifted, c4
from data_prep.quality.fineweb import fineweb
from data_prep.quality.measured import Measured
from data_prep.quality.verdict import Verdict
from gptdist.config.prep_rule_sets import C4Section, FineWebSection
from tests.unit.data_prep.written_pages import PAGES

FIVE = "One line is here. A second one is. A third is too. The fourth follows. The fifth ends it."


def sift(text: str, **changes: object) -> Sifted:
    return c4(Measured(text), text, C4Section(**{"min_sentences": None, **changes}))


def web(text: str, **thresholds: float | None) -> Verdict | None:
    off = dict.fromkeys(
        (
            "min_punctuated_lines_fraction",
            "max_short_lines_fraction",
            "max_duplicate_line_characters_fraction",
            "max_newlines_per_word",
        )
    )
    return fineweb(Measured(text), FineWebSection(**({**off, **thresholds} if thresholds else {})))


@pytest.mark.parametrize("language", PAGES)
def test_prose_of_every_script_passes_unchanged(language: str) -> None:
    result = c4(Measured(PAGES[language]), PAGES[language], C4Section())
    assert result == Sifted(PAGES[language])
    assert web(PAGES[language]) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"A {'x' * 1001} is here.", "long_word"),
        ("This line has no end", "no_terminal_punctuation"),
        ("This line trails off...", "no_terminal_punctuation"),
        ("This ends with a note. [1]", "no_terminal_punctuation"),  # as published: the space before it is left
        ("Two words.", "few_words"),
        ("Please enable JavaScript to see this.", "javascript"),
        ("Read our Privacy Policy to know more.", "policy"),
        ("This site uses cookies, like others.", "policy"),
        ("好。", "few_words"),
    ],
)
def test_lines_go_and_are_counted_by_reason(line: str, reason: str) -> None:
    assert sift(f"This line will stay.\n{line}\nThis one as well!") == Sifted(
        "This line will stay.\nThis one as well!", removed={reason: 1}
    )


@pytest.mark.parametrize(
    "line",
    [
        'He said "so it is."',
        "She said ‘so it is’",
        "Is it really so?",
        "今天很好。",
        "「そうですね」",
        "هل هذا صحيح؟",
        "यह सच है।",
        "วันนี้อากาศดีมาก",
        "「" + "漢" * 2000 + "。",
        f"{'x' * 1000} is not too long.",
    ],
)
def test_lines_that_stay(line: str) -> None:
    assert sift(line) == Sifted(line)


def test_citations_are_cut_out_before_the_end_is_looked_at() -> None:
    assert sift("It is known[1] and so on[citation needed].[23]").text == "It is known and so on."
    assert sift("Open [edit] and [12 and [] here [x].").text == "Open  and [12 and  here [x]."
    assert sift("It is known[1] here.", remove_citations=False).text == "It is known[1] here."


def test_lines_are_stripped_and_joined_by_newlines() -> None:
    assert sift("  The first is here.\r\n\t The second is here.\u2028The third is here.\n\n").text == (
        "The first is here.\nThe second is here.\nThe third is here."
    )


def test_documents_go_for_filler_and_code_in_lines_that_are_left() -> None:
    assert sift("All is well here.\nLorem Ipsum dolor sit amet.").verdict == Verdict("lorem_ipsum", 1, 0)
    assert sift("All is well here.\nA set {a} has one.").verdict == Verdict("curly_bracket", 1, 0)
    assert sift("All is well here.\nif (x) {").verdict is None  # that line had gone before
    kept = sift("Lorem ipsum {a} is here.", drop_lorem_ipsum=False, drop_curly_brackets=False)
    assert kept == Sifted("Lorem ipsum {a} is here.")


def test_rules_can_be_turned_off() -> None:
    text = f"no end\nWe use cookies.\nUse JavaScript here.\n{'y' * 2000} a b"
    off = {"require_terminal_punctuation": False, "remove_policy_lines": False, "remove_javascript_lines": False}
    result = sift(text, **off, max_word_characters=None, min_words_per_line=None)
    assert result == Sifted(text)


def test_sentences_of_what_is_left_are_counted() -> None:
    assert c4(Measured(FIVE), FIVE, C4Section()).verdict is None
    four = FIVE.removesuffix(" The fifth ends it.") + "\nAnd this has no end"
    assert c4(Measured(four), four, C4Section()).verdict == Verdict("min_sentences", 4, 5)
    assert c4(Measured(""), "", C4Section()).verdict == Verdict("min_sentences", 0, 5)


@pytest.mark.parametrize("changes", [{}, {"require_terminal_punctuation": False}])
def test_paragraphs_stay_apart(changes: dict[str, bool]) -> None:
    """By one blank line, whatever was between them; what removes repeated paragraphs has to find them."""
    text = (
        "\n\n  \nFirst of all a line.\nThen another one.\n \nGo.\n\r\nThe next one begins.\n\nIt ends here.\n\nGo.\n\n"
    )
    result = sift(text, **changes)
    assert result.text == "First of all a line.\nThen another one.\n\nThe next one begins.\n\nIt ends here."
    assert result.removed == {"few_words": 2}


def test_sentences_far_into_the_text_are_counted() -> None:
    text = "word " * 600 + "ends. " + FIVE
    assert c4(Measured(text), text, C4Section()).verdict is None
    assert c4(Measured(text), text, C4Section(min_sentences=7)).verdict == Verdict("min_sentences", 6, 7)


def test_a_long_text_is_gone_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"The line number {i} is here." if i % 3 else f"No end {i}" for i in range(200)]
    lines[5:180:7] = [f"{line}\n" for line in lines[5:180:7]]
    text = "\n".join(lines)
    whole = c4(Measured(text), text, C4Section())
    monkeypatch.setattr(c4_module, "MOST_CHARACTERS", 100)
    part = Measured(text)
    part.text = text[:100]
    assert c4(part, text, C4Section()) == whole
    assert whole.removed == {"no_terminal_punctuation": 67}
    longer = f"{text}\n{'A line of many words. ' * 20}"
    assert c4(part, longer, C4Section()) == Sifted(whole.text, removed={**whole.removed, "long_line": 1})


def test_text_that_is_not_unicode_passes_through() -> None:
    assert sift("A lone \ud800 surrogate is here.").text == "A lone \ud800 surrogate is here."


def test_fineweb_looks_at_ends_of_lines() -> None:
    text = "An end.\nno end\n\n  \nanother without\r\nthis has one!  "
    assert web(text, min_punctuated_lines_fraction=0.51) == Verdict("min_punctuated_lines_fraction", 0.5, 0.51)
    assert web(text, min_punctuated_lines_fraction=0.5) is None


def test_fineweb_looks_at_short_lines() -> None:
    text = f"{'a' * 30}\n{'b' * 31}\n{'漢' * 15}\n{'字' * 16}"
    assert web(text, max_short_lines_fraction=0.4) == Verdict("max_short_lines_fraction", 0.5, 0.4)
    assert web(text, max_short_lines_fraction=0.5) is None


def test_fineweb_looks_at_duplicate_lines() -> None:
    text = "same line\nother\nsame line"
    rule = "max_duplicate_line_characters_fraction"
    assert web(text, **{rule: 0.01}) == Verdict(rule, 9 / 23, 0.01)
    assert web(text, **{rule: 0.4}) is None


def test_fineweb_looks_at_newlines_for_each_word() -> None:
    text = "one two\n\n\nthree"
    assert web(text, max_newlines_per_word=0.9) == Verdict("max_newlines_per_word", 1.0, 0.9)
    assert web(text, max_newlines_per_word=1.0) is None


def test_fineweb_drops_blank_documents() -> None:
    assert web("") == web(" \n\t\n") == Verdict("empty", 0, 0)


def test_problems_of_the_config() -> None:
    assert C4Section().problems("q") == FineWebSection().problems("q") == []
    assert "q.min_sentences: must not be negative, got -1" in C4Section(min_sentences=-1).problems("q")[0]
    problems = FineWebSection(max_short_lines_fraction=1.5, short_line_characters=-2).problems("q")
    assert [line.partition(":")[0] for line in problems] == ["q.max_short_lines_fraction", "q.short_line_characters"]
