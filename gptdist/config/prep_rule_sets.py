"""The published rule sets on the quality of text; ``{}`` takes their published thresholds, null turns a rule off."""

from gptdist.config.section import Section


class RuleSet(Section):
    """Thresholds that are checked by their names: a fraction is 0 … 1, everything else is not negative."""

    def problems(self, where: str) -> list[str]:
        """Return every value out of range.

        Args:
            where: the section's place in the config, such as ``quality.c4``.
        """
        bad = []
        for key in type(self).model_fields:
            value = getattr(self, key)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if key.endswith("_fraction") and not 0.0 <= value <= 1.0:
                bad.append(f"{where}.{key}: must be 0 … 1, got {value}; set it to null to turn the rule off")
            elif value < 0:
                bad.append(f"{where}.{key}: must not be negative, got {value}; set it to null to turn the rule off")
        return bad


class GopherQualitySection(RuleSet):
    """Gopher's rules on the words of a document.

    A word is a token of letters, digits or a punctuation mark, as spaCy's English tokenizer cuts them. In scripts
    without spaces between words each character counts as one; where most words are such, the mean length is not judged.

    Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
    arXiv 2112.11446, appendix A.1.1; words and order as in datatrove 0.10's ``GopherQualityFilter``.
    """

    min_words: int | None = 50
    """Fewest words that are not punctuation alone. Published: 50."""

    max_words: int | None = 100_000
    """Most words that are not punctuation alone. Published: 100,000."""

    min_mean_word_length: float | None = 3.0
    """Least mean length of these words, in characters; a wide (East Asian) one counts as two. Published: 3."""

    max_mean_word_length: float | None = 10.0
    """Largest mean length of these words. Published: 10."""

    max_symbols_per_word: float | None = 0.1
    """Most hash signs for each word, and likewise most ellipses. Published: 0.1."""

    max_bullet_lines_fraction: float | None = 0.9
    """Largest share of lines that begin with a bullet or hyphen. Published: 0.9."""

    max_ellipsis_lines_fraction: float | None = 0.3
    """Largest share of lines that end with an ellipsis. Published: 0.3."""

    min_alphabetic_words_fraction: float | None = 0.8
    """Least share of words, punctuation marks among them, that have a letter. Published: 0.8."""

    min_stop_words: int | None = 2
    """Fewest different words of ``stop_words``; English documents only, and where the language is not known those in
    Latin script. Published: 2."""

    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """Words of which some stand in every English text. Published: these eight."""

    def problems(self, where: str) -> list[str]:
        """Return every value out of range, and bounds that exclude each other."""
        bad = super().problems(where)
        for low, high in (("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                bad.append(f"{where}.{low}: {least} is above {high} {most}, so nothing passes; lower it")
        different = len(set(self.stop_words))
        if self.min_stop_words is not None and self.min_stop_words > different:
            bad.append(
                f"{where}.min_stop_words: {self.min_stop_words} is more than the {different} of stop_words; lower it"
            )
        if different > 64:
            bad.append(f"{where}.stop_words: at most 64 different words, got {different}; shorten the list")
        bad += [
            f"{where}.stop_words: '{word}' is not one word; remove it" for word in self.stop_words if not word.isalnum()
        ]
        return bad


class GopherRepetitionSection(RuleSet):
    """Gopher's rules on repetition, as shares of a document's characters or of its lines and paragraphs.

    Of an n-gram that is repeated, the first occurrence does not count. In scripts without spaces between words an
    n-gram is taken over characters, two for a word (four in the scripts of South-East Asia).

    Source: Rae et al. 2021, arXiv 2112.11446, table A1; order as in datatrove 0.10's ``GopherRepetitionFilter``.
    """

    max_duplicate_paragraphs_fraction: float | None = 0.3
    """Share of paragraphs that stand earlier in the document. Published: 0.30."""

    max_duplicate_paragraph_characters_fraction: float | None = 0.2
    """Share of characters in such paragraphs. Published: 0.20."""

    max_duplicate_lines_fraction: float | None = 0.3
    """Share of lines that stand earlier in the document. Published: 0.30."""

    max_duplicate_line_characters_fraction: float | None = 0.2
    """Share of characters in such lines. Published: 0.20."""

    max_top_2_gram_fraction: float | None = 0.2
    """Share of characters in the most frequent pair of words. Published: 0.20."""

    max_top_3_gram_fraction: float | None = 0.18
    """Share of characters in the most frequent three words. Published: 0.18."""

    max_top_4_gram_fraction: float | None = 0.16
    """Share of characters in the most frequent four words. Published: 0.16."""

    max_duplicate_5_gram_fraction: float | None = 0.15
    """Share of characters in repeated runs of five words. Published: 0.15."""

    max_duplicate_6_gram_fraction: float | None = 0.14
    """Share of characters in repeated runs of six words. Published: 0.14."""

    max_duplicate_7_gram_fraction: float | None = 0.13
    """Share of characters in repeated runs of seven words. Published: 0.13."""

    max_duplicate_8_gram_fraction: float | None = 0.12
    """Share of characters in repeated runs of eight words. Published: 0.12."""

    max_duplicate_9_gram_fraction: float | None = 0.11
    """Share of characters in repeated runs of nine words. Published: 0.11."""

    max_duplicate_10_gram_fraction: float | None = 0.1
    """Share of characters in repeated runs of ten words. Published: 0.10."""


class C4Section(RuleSet):
    """C4's rules: lines are removed first, then documents are judged by what is left.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    JMLR 21(140), section 2.2, and ``c4_utils.py`` of TensorFlow Datasets; order as in datatrove 0.10's
    ``C4QualityFilter``.
    """

    max_word_characters: int | None = 1_000
    """Lines with a longer word go; runs of a script without spaces are no words here. Published (code): 1,000."""

    remove_citations: bool = True
    """Cut out ``[1]``, ``[edit]`` and ``[citation needed]``. Published (code): true."""

    require_terminal_punctuation: bool = True
    """Lines that do not end as a sentence does go; any script's full stop will do, an ellipsis will not. Lines of Thai
    and Lao, which have no full stop, stay. Published: true; FineWeb turned it off."""

    min_words_per_line: int | None = 3
    """Lines with fewer words go; a character of a script without spaces is a word. Published: 3."""

    drop_lorem_ipsum: bool = True
    """Drop documents with this filler. Published: true."""

    remove_javascript_lines: bool = True
    """Lines with the word JavaScript go. Published: true."""

    drop_curly_brackets: bool = True
    """Drop documents with ``{`` in a line that is left: source code. Published: true."""

    remove_policy_lines: bool = True
    """Lines on cookies, privacy and terms of use go. Published (code): true."""

    min_sentences: int | None = 5
    """Fewest sentences of what is left. Published: 5."""


class FineWebSection(RuleSet):
    """FineWeb's own rules, on lines that are not blank.

    Source: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
    arXiv 2406.17557, section 3.6; definitions as in datatrove 0.10's ``FineWebQualityFilter``.
    """

    min_punctuated_lines_fraction: float | None = 0.12
    """Least share of lines that end with a terminal mark of any script (or in Thai or Lao). Published: 0.12."""

    max_short_lines_fraction: float | None = 0.67
    """Largest share of short lines. Published: 0.67."""

    short_line_characters: int = 30
    """A line of at most so many characters is short; a wide (East Asian) one counts as two. Published: 30."""

    max_duplicate_line_characters_fraction: float | None = 0.01
    """Share of characters in lines that stand earlier in the document. Published: 0.01; text that was deduplicated
    by line first loses less to it."""

    max_newlines_per_word: float | None = 0.3
    """Most line breaks for each word. Published: 0.3."""
