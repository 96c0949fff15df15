"""FineWeb's own rules.

Source: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
arXiv 2406.17557, section 3.6; definitions and order as in datatrove 0.10.
"""

from collections.abc import Iterator

from data_prep.quality.lines import measure_web_lines
from data_prep.quality.measured import Measured
from data_prep.quality.verdict import Verdict, above, below
from gptdist.config.prep_rule_sets import FineWebSection


def fineweb(text: Measured, section: FineWebSection) -> Verdict | None:
    """Return the first rule of FineWeb's that the text falls to."""
    return next((verdict for verdict in _rules(text, section) if verdict is not None), None)


def _rules(text: Measured, section: FineWebSection) -> Iterator[Verdict | None]:
    lines, punctuated, short, repeated = measure_web_lines(
        text.codes, text.kinds, text.newlines, section.short_line_characters
    )
    newlines = text.newlines.size
    if not lines:
        yield Verdict("empty", 0, 0)
        return
    yield below("min_punctuated_lines_fraction", punctuated / lines, section.min_punctuated_lines_fraction)
    yield above("max_short_lines_fraction", short / lines, section.max_short_lines_fraction)
    share = repeated / (len(text.text) - newlines)
    yield above("max_duplicate_line_characters_fraction", share, section.max_duplicate_line_characters_fraction)
    most = section.max_newlines_per_word
    if most is not None and newlines > most * lines:  # a line has a word at least: words need not be found to pass
        yield above("max_newlines_per_word", newlines / max(1, text.counts.words), most)
