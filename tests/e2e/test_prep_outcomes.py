"""What is planted in the web corpus comes out as it should: dropped by the right rule, redacted, or kept."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.card.explain import explain
from gptdist.data.dataset import TokenDataset
from gptdist.data.shards import TokenShard
from gptdist.tokenizer.tokenizer import load_tokenizer
from tests.support.prep_runs import run_prep, web_config, write_config
from tests.support.web_corpus import Corpus, write_web_corpus

NEAR_RECALL = 0.95
ARTICLES_KEPT = 0.97
"""Some articles of the seeded generator repeat themselves enough for a rule."""

REDACTED = ("email", "ip_address", "phone_number", "card_number", "aws_key", "github_token")
LEFT_ALONE = ("private_ip_address", "wrong_card_number")
DROPPED = {
    "exact_duplicate": ("dedup.exact",),
    "leak": ("decontaminate.overlap",),
    "blocked_domain": ("url.domain",),
    "unsuitable": ("word_list.",),
    "empty": ("extract.no_text", "read.empty"),
    "too_short": ("gopher_quality.min_words", "c4."),
    "word_repetition": ("gopher_repetition.", "gopher_quality."),
    "symbol_wall": ("gopher_quality.",),
}
"""Kind -> how the outcomes that fit it begin."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_web_corpus(tmp_path_factory.mktemp("web") / "c", pages=700, seed=6, formats=("warc",))


@pytest.fixture(scope="module")
def prepared(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over all of the corpus, with every stage."""
    folder = tmp_path_factory.mktemp("run")
    config = web_config(
        corpus,
        folder / "out",
        sources=[{"name": "pages", "kind": "warc", "paths": [str(path) for path in corpus.files["warc"]]}],
        dedup={"exact": True, "near": {}},
        packing={"method": "best_fit", "seq_length": 512},
    )
    config["quality"]["word_list"] = {"files": [str(corpus.unsuitable_words)]}
    done = run_prep(write_config(folder / "c.yaml", config), "--workers", "2")
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def outcomes(prepared: Path) -> Mapping[str, str]:
    """URL -> outcome, of every page."""
    tables = [
        pq.read_table(path, columns=["url", "outcome"]) for path in sorted((prepared / "account").glob("*.parquet"))
    ]
    return {row["url"]: row["outcome"] for table in tables for row in table.to_pylist()}


def test_every_page_is_accounted_for(corpus: Corpus, outcomes: Mapping[str, str]) -> None:
    assert {page.url for page in corpus.pages} <= set(outcomes)


@pytest.mark.parametrize("kind", DROPPED)
def test_a_planted_kind_is_dropped_by_a_rule_that_fits(kind: str, corpus: Corpus, outcomes: Mapping[str, str]) -> None:
    found = {url: outcomes[url] for url in corpus.planted(kind)}
    assert found
    wrong = {url: outcome for url, outcome in found.items() if not outcome.startswith(DROPPED[kind])}
    assert not wrong


def test_near_duplicates_are_found(corpus: Corpus, outcomes: Mapping[str, str]) -> None:
    """A copy is found where it or its original went for the other; a page that another rule dropped does not count."""
    pairs = [(url, corpus.originals[url]) for url in corpus.planted("near_duplicate")]
    judged = [pair for pair in pairs if all(outcomes[url].startswith(("kept", "dedup.")) for url in pair)]
    assert len(judged) >= 0.8 * len(pairs)
    found = [pair for pair in judged if any(outcomes[url] != "kept" for url in pair)]
    assert len(found) >= NEAR_RECALL * len(judged)


def test_articles_of_every_language_survive(corpus: Corpus, outcomes: Mapping[str, str]) -> None:
    """Near-duplicates count as survivors: the generator has so few Japanese sentences that its articles share half."""
    kept: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for page in corpus.pages:
        if page.kind == "article":
            (kept if outcomes[page.url] in ("kept", "dedup.near") else lost)[page.language] += 1
    assert len(kept) >= 14
    assert kept.total() >= ARTICLES_KEPT * (kept.total() + lost.total()), lost


def test_personal_data_is_not_in_the_shards(corpus: Corpus, prepared: Path, outcomes: Mapping[str, str]) -> None:
    tokenizer = load_tokenizer(prepared / "tokenizer")
    text = ""
    for split in ("train", "validation"):
        dataset = TokenDataset(prepared / "pages", split)
        text += tokenizer.decode(dataset.read(0, dataset.num_tokens).tolist())
    for kind in REDACTED:
        for url in corpus.planted(kind):
            assert not [planted for planted in corpus.strings[url] if planted in text], url
    left = [url for kind in LEFT_ALONE for url in corpus.planted(kind) if outcomes[url] == "kept"]
    assert left
    assert all(planted in text for url in left for planted in corpus.strings[url])


def test_a_drop_is_explained_by_its_numbers(corpus: Corpus, prepared: Path) -> None:
    found = explain(prepared, corpus.planted("exact_duplicate")[0]).as_text()
    assert corpus.originals[corpus.planted("exact_duplicate")[0]] in found
    found = explain(prepared, corpus.planted("blocked_domain")[0]).as_text()
    assert "url.domain" in found


def test_megatron_reads_what_was_packed(prepared: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    shard = TokenShard(prepared / "pages/train-00000")
    assert shard.num_tokens % 512 == 0
    opened = IndexedDataset(str(prepared / "pages/train-00000"))
    assert len(opened) == shard.num_documents
    assert np.array_equal(np.concatenate([opened[i] for i in range(len(opened))]), shard.read(0, shard.num_tokens))
