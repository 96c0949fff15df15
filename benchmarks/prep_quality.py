"""Quality rules against datatrove's: CPU seconds of each, and on how many documents they decide the same.

Theirs hold English stop words, and words and full stops as English has them, against every language; so the target is
for English pages, and the share of all is told beside it. Their words come from spaCy;
start-up and reading the file are counted on neither side.
"""

import itertools
import json
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, by_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS, Corpus, run_ours, run_script

DOCUMENTS = 2_000
RULE_SETS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
_AGREEMENT, _TARGET = 0.99, 8.0


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return one comparison for Gopher's and C4's rules together, and one for each rule set."""
    text = str(corpus.folder / "text.jsonl")
    missing = why_missing(peers, "datatrove", "spacy")
    ours, theirs = by_turns(
        lambda: run_ours("benchmarks.prep_quality", text, str(DOCUMENTS)).result,
        lambda: {} if missing else run_script(str(peers), PEERS / "quality_datatrove.py", text, str(DOCUMENTS)).result,
        is_backwards=corpus.is_backwards,
    )
    known = f", language of {ours['documents'] / ours['language_seconds']:,.0f} docs/CPU-s"
    parts = {"gopher + C4 rules": RULE_SETS[:3], **{f"{name} alone": (name,) for name in RULE_SETS}}
    lines = []
    for number, (name, rule_sets) in enumerate(parts.items()):
        speeds = [
            side["documents"] / sum(side["seconds"][one] for one in rule_sets)
            for side in (ours, *([] if missing else [theirs]))
        ]
        note = (_agreement(rule_sets, ours, theirs) if theirs else "") + ("" if number else known)
        lines.append(
            Comparison(
                name,
                "datatrove",
                "docs/CPU-second",
                speeds[:1],
                speeds[1:],
                "higher",
                _TARGET,
                note=note,
                missing=missing,
            )
        )
    return lines


def _agreement(rule_sets: tuple[str, ...], ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say on how many documents the worst of the rule sets decides the same on both sides."""
    count = ours["documents"]
    same = {
        one: [
            (a == "kept") == (b == "kept")
            for a, b in zip(ours["decisions"][one], theirs["decisions"][one], strict=True)
        ]
        for one in rule_sets
    }
    everywhere = min(sum(found) / count for found in same.values())
    is_english = [language == "en" for language in ours["languages"]]
    english = min(sum(itertools.compress(found, is_english)) / max(1, sum(is_english)) for found in same.values())
    note = f"same decision on {english:.2%} of English pages (target {_AGREEMENT:.0%}), on {everywhere:.2%} of all"
    if rule_sets == ("c4",):
        pairs = [(a, b) for a, b in zip(ours["c4_texts"], theirs["c4_texts"], strict=False) if a and b]
        note += f", same lines left on {sum(a == b for a, b in pairs) / max(1, len(pairs)):.2%}"
    return note


def main(path: str, count: int) -> None:
    """Judge every document by every rule set, each on the text as it is in the file, and print one line of JSON."""
    from data_prep.language import identify
    from data_prep.quality.c4 import c4
    from data_prep.quality.fineweb import fineweb
    from data_prep.quality.gopher import gopher_quality, gopher_repetition
    from data_prep.quality.measured import Measured
    from data_prep.quality.words import hashes_of
    from gptdist.config.prep_rule_sets import C4Section, FineWebSection, GopherQualitySection, GopherRepetitionSection

    with Path(path).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]
    stop_words = hashes_of(GopherQualitySection().stop_words)
    judges = {
        "gopher_quality": lambda page: gopher_quality(page, None, GopherQualitySection(), stop_words),
        "gopher_repetition": lambda page: gopher_repetition(page, GopherRepetitionSection()),
        "fineweb": lambda page: fineweb(page, FineWebSection()),
    }
    seconds, decisions, c4_texts = dict.fromkeys(RULE_SETS, 0.0), {name: [] for name in RULE_SETS}, []
    language_seconds, languages = 0.0, []
    for number, text in enumerate([texts[0], *texts]):  # the first loads compiled code and tables; it is not counted
        page, begin = Measured(text), time.process_time()
        for name, judge in judges.items():
            verdict, before = judge(page), begin
            begin = time.process_time()
            if number:
                seconds[name] += begin - before
                decisions[name].append(verdict.rule if verdict else "kept")
            if name == "gopher_repetition":  # the two share the words; the others begin anew
                page, begin = Measured(text), time.process_time()
        begin = time.process_time()
        left = c4(Measured(text), text, C4Section())
        middle = time.process_time()
        language, _ = identify(text)
        if number:
            seconds["c4"] += middle - begin
            language_seconds += time.process_time() - middle
            decisions["c4"].append(left.verdict.rule if left.verdict else "kept")
            languages.append(language)
            lines = "\n".join(filter(None, left.text.split("\n")))  # theirs loses where paragraphs end
            c4_texts.append("" if left.verdict else blake2b(lines.encode(), digest_size=8).hexdigest())
    result = {
        "languages": languages,
        "seconds": seconds,
        "decisions": decisions,
        "c4_texts": c4_texts,
        "documents": len(texts),
    }
    print(json.dumps({**result, "language_seconds": language_seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
