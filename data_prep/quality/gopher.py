"""Gopher's rules on the quality and on the repetition of text.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", arXiv 2112.11446,
appendix A.1.1 and table A1; words, shares and order as in datatrove 0.10.
"""

from collections.abc import Iterator

from data_prep.quality.grams import measure_grams
from data_prep.quality.lines import measure_line_shapes, measure_repetition
from data_prep.quality.measured import Measured
from data_prep.quality.verdict import Verdict, above, below
from data_prep.quality.word_counts import count_different, count_symbols
from data_prep.quality.words import Hashes
from gptdist.config.prep_rule_sets import GopherQualitySection, GopherRepetitionSection

_TOP_GRAMS, _REPEATED_GRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def gopher_quality(
    text: Measured, language: str | None, section: GopherQualitySection, stop_words: Hashes
) -> Verdict | None:
    """Return the first rule of Gopher's on quality that the text falls to.

    Args:
        text: what to judge.
        language: its code, where it is known.
        section: the thresholds.
        stop_words: hashes of the section's stop words.
    """
    return next((verdict for verdict in _quality(text, language, section, stop_words) if verdict is not None), None)


def _quality(
    text: Measured, language: str | None, section: GopherQualitySection, stop_words: Hashes
) -> Iterator[Verdict | None]:
    counts = text.counts
    yield below("min_words", counts.no_symbols, section.min_words)
    yield above("max_words", counts.no_symbols, section.max_words)
    spaced = counts.no_symbols - counts.unspaced
    if spaced >= max(1, counts.unspaced):
        yield below("min_mean_word_length", counts.columns / spaced, section.min_mean_word_length)
        yield above("max_mean_word_length", counts.columns / spaced, section.max_mean_word_length)
    words = max(1, counts.words)
    hashes, ellipses = count_symbols(text.codes)
    yield above("max_hashes_per_word", hashes / words, section.max_symbols_per_word)
    yield above("max_ellipses_per_word", ellipses / words, section.max_symbols_per_word)
    lines, bullets, cut_off = measure_line_shapes(text.codes, text.kinds)
    yield above("max_bullet_lines_fraction", bullets / max(1, lines), section.max_bullet_lines_fraction)
    yield above("max_ellipsis_lines_fraction", cut_off / max(1, lines), section.max_ellipsis_lines_fraction)
    alphabetic = counts.alphabetic / words
    yield below("min_alphabetic_words_fraction", alphabetic, section.min_alphabetic_words_fraction)
    is_english = language == "en" if language is not None else 2 * counts.latin > counts.alphabetic
    if is_english:
        yield below("min_stop_words", count_different(text.hashes, stop_words), section.min_stop_words)


def gopher_repetition(text: Measured, section: GopherRepetitionSection) -> Verdict | None:
    """Return the first rule of Gopher's on repetition that the text falls to."""
    if not text.text:
        return Verdict("empty", 0, 0)
    return next((verdict for verdict in _repetition(text, section) if verdict is not None), None)


def _repetition(text: Measured, section: GopherRepetitionSection) -> Iterator[Verdict | None]:
    size = len(text.text)
    paragraphs, repeated, characters, lines, repeated_lines, line_characters = measure_repetition(
        text.codes, text.kinds, text.newlines
    )
    for rule, value in (
        ("max_duplicate_paragraphs_fraction", repeated / paragraphs),
        ("max_duplicate_paragraph_characters_fraction", characters / size),
        ("max_duplicate_lines_fraction", repeated_lines / lines),
        ("max_duplicate_line_characters_fraction", line_characters / size),
    ):
        yield above(rule, value, getattr(section, rule))
    limits = [getattr(section, f"max_duplicate_{n}_gram_fraction") for n in _REPEATED_GRAMS]
    enough = int(min((limit for limit in limits if limit is not None), default=1.0) * size)
    top, duplicate = measure_grams(text.hashes, *text.words, _stretch(text), enough)
    for n, count in zip(_TOP_GRAMS, top.tolist(), strict=True):
        yield above(f"max_top_{n}_gram_fraction", count / size, getattr(section, f"max_top_{n}_gram_fraction"))
    for n, count, limit in zip(_REPEATED_GRAMS, duplicate.tolist(), limits, strict=True):
        yield above(f"max_duplicate_{n}_gram_fraction", count / size, limit)


def _stretch(text: Measured) -> int:
    """Return how many characters of a script without spaces make a word, where most of the text is in one; else 1."""
    counts = text.counts
    if 2 * counts.unspaced <= counts.no_symbols:
        return 1
    return 4 if 2 * counts.south_east_asian > counts.unspaced else 2
